"""Bias and coverage of calibration metrics, and what Platt scaling gains, in simulation.

    python benchmarks/calibration_coverage.py [--repetitions 1000] [--seed 0]

Patients have one to four images, whose log odds and labels are correlated, and one in about seven
has a positive image. The rows are expected numbers of patients with a positive image; samples with
fewer than 5 are left out, as they are in a run. Truth is that of a very large sample. Prints two
Markdown tables in about five minutes on one core.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from featurecache.metrics import calibration
from featurecache.metrics.label_support import patient_support
from featurecache.metrics.platt_scaling import fit_platt, fit_platt_where_it_helps, log_odds
from featurecache.metrics.ranking import Floats

POSITIVE_PATIENTS = (6, 10, 20, 40, 100)
SCENARIOS = {
    "right": (1.0, 0.0),
    "overconfident": (2.0, 3.3),
    "underconfident": (0.5, -1.65),
    "too high": (1.0, 1.0),
}
"""Factor of the right log odds, and what is added to them."""

_BASE = -3.3
_POSITIVE_PER_PATIENT = 0.1475
"""Fraction of patients with a positive image."""


@dataclass(frozen=True)
class Sample:
    """Images of one label: (N, 1) labels, (N, 1) probabilities and (N,) patients."""

    truth: NDArray[np.int8]
    probability: Floats
    patient: NDArray[np.intp]

    def score(self, name: str, quantiles: Floats) -> Floats:
        """Return the value and the bounds of a metric."""
        function = getattr(calibration, name)
        estimate: Floats = function(self.truth, self.probability, self.patient, quantiles)[:, 0]
        return estimate


def draw(rng: np.random.Generator, patients: int, scenario: str) -> Sample:
    """Return a sample in which half of the labels of a patient are decided together."""
    factor, shift = SCENARIOS[scenario]
    patient = np.repeat(np.arange(patients), rng.integers(1, 5, patients))
    n = len(patient)
    odds = _BASE + 1.5 * (
        np.sqrt(0.7) * rng.normal(size=patients)[patient] + np.sqrt(0.3) * rng.normal(size=n)
    )
    uniform = np.where(rng.random(n) < 0.5, rng.random(patients)[patient], rng.random(n))
    truth = (uniform < expit(odds)).astype(np.int8)
    return Sample(truth[:, np.newaxis], expit(factor * odds + shift)[:, np.newaxis], patient)


def plain_error(sample: Sample, weights: Floats) -> Floats:
    """Return the binned error with absolute gaps (Guo et al. 2017), by bootstrap sample (B, N)."""
    bins = calibration.bin_of(sample.probability[:, 0])
    one_hot = np.eye(calibration.BINS)[bins]
    gaps = weights @ (one_hot * (sample.probability - sample.truth))
    errors: Floats = np.abs(gaps).sum(axis=1) / weights.sum(axis=1)
    return errors


def undebiased_error(sample: Sample) -> float:
    """Return the root mean squared gap with the part that chance explains."""
    bins = calibration.bin_of(sample.probability[:, 0])
    gaps = np.bincount(bins, (sample.probability - sample.truth)[:, 0], calibration.BINS)
    n = np.bincount(bins, minlength=calibration.BINS)
    return float(np.sqrt((gaps[n > 0] ** 2 / n[n > 0]).sum() / n.sum()))


def plain_interval(sample: Sample, rng: np.random.Generator) -> tuple[float, float, float]:
    """Return the plain error and its percentile interval over 200 bootstrap samples."""
    n = int(sample.patient.max()) + 1
    counts = rng.multinomial(n, np.full(n, 1 / n), size=200).astype(np.float64)
    low, high = np.quantile(plain_error(sample, counts[:, sample.patient]), (0.025, 0.975))
    value = plain_error(sample, np.ones((1, len(sample.truth))))[0]
    return float(value), float(low), float(high)


METRICS = ("calibration_errors", "calibration_slopes", "calibration_intercepts", "brier_scores")


@cache
def truth_of(scenario: str) -> dict[str, float]:
    """Return the metrics of a very large sample."""
    large = draw(np.random.default_rng(0), 400_000, scenario)
    true = {name: float(large.score(name, np.zeros(1))[0]) for name in METRICS}
    true["plain"] = float(plain_error(large, np.ones((1, len(large.truth))))[0])
    return true | ({"calibration_errors": 0.0, "plain": 0.0} if scenario == "right" else {})


def coverage_row(scenario: str, positive: int, repetitions: int, seed: int) -> Sequence[str]:
    """Return bias and coverage for one number of expected positive patients."""
    rng = np.random.default_rng([seed, positive, list(SCENARIOS).index(scenario)])
    true = truth_of(scenario)
    estimates, undebiased, plain_excludes = [], [], []
    covered: dict[str, list[bool]] = {name: [] for name in true}
    for repetition in range(repetitions):
        sample = draw(rng, round(positive / _POSITIVE_PER_PATIENT), scenario)
        support = patient_support(sample.truth, sample.patient)
        if not support.enough[0]:
            continue
        quantiles = calibration.t_quantiles(support)
        for name in METRICS:
            value, low, high = sample.score(name, quantiles)
            covered[name].append(bool(low <= true[name] <= high))
            if name == "calibration_errors":
                estimates.append(value)
                undebiased.append(undebiased_error(sample))
        if repetition % 4:
            continue  # the plain interval takes as long as all others together
        value, low, high = plain_interval(sample, rng)
        covered["plain"].append(low <= true["plain"] <= high)
        plain_excludes.append(not low <= value <= high)
    return [
        scenario,
        str(positive),
        f"{true['calibration_errors']:.3f}",
        f"{np.mean(estimates):.3f}",
        f"{np.mean(undebiased):.3f}",
        *(f"{np.mean(covered[name]):.3f}" for name in METRICS),
        f"{np.mean(covered['plain']):.3f}",
        f"{np.mean(plain_excludes):.2f}",
    ]


def macro_row(scenario: str, repetitions: int, seed: int) -> Sequence[str]:
    """Return bias and coverage of the averages over ten labels of 6 to 40 positive patients."""
    rng = np.random.default_rng([seed, 99, list(SCENARIOS).index(scenario)])
    true = [truth_of(scenario)[name] for name in ("calibration_errors", "brier_scores")]
    known = np.repeat([40, 70, 120, 250], [3, 3, 2, 2])  # patients whose label is known
    values, covered = [], []
    for _ in range(repetitions):
        samples = [draw(rng, 250, scenario) for _ in known]
        n = min(len(sample.truth) for sample in samples)
        patient = samples[0].patient[:n]
        truth = np.concatenate([sample.truth[:n] for sample in samples], axis=1)
        truth[patient[:, np.newaxis] >= known] = -1
        probability = np.concatenate([sample.probability[:n] for sample in samples], axis=1)
        support = patient_support(truth, patient)
        columns = np.flatnonzero(support.enough)
        quantiles = calibration.t_quantiles(support)[columns]
        estimates = [
            function(truth[:, columns], probability[:, columns], patient, quantiles)[:, -1]
            for function in (calibration.calibration_errors, calibration.brier_scores)
        ]
        values.append(estimates[0][0])
        covered.append(
            [low <= t <= high for t, (_, low, high) in zip(true, estimates, strict=True)]
        )
    error, brier = (f"{coverage:.3f}" for coverage in np.mean(covered, axis=0))
    cells = [f"{true[0]:.3f}", f"{np.mean(values):.3f}", "", error, "", "", brier, "", ""]
    return [scenario, "mean of 10 labels", *cells]


def platt_row(scenario: str, positive: int, repetitions: int, seed: int) -> Sequence[str]:
    """Return what Platt scaling does to the log loss of a large sample, by rule."""
    rng = np.random.default_rng([seed, positive, 7])
    test = draw(np.random.default_rng(seed), 5_000, scenario)
    odds = log_odds(test.probability)

    def loss(logits: Floats) -> float:
        return float((np.logaddexp(0, logits) - test.truth * logits).mean())

    always: list[float] = []
    ruled: list[float] = []
    used = []
    for _ in range(repetitions):
        sample = draw(rng, round(positive / _POSITIVE_PER_PATIENT), scenario)
        logits = log_odds(sample.probability)
        arguments = (sample.truth, logits, sample.patient)
        for platt, losses in (
            (fit_platt(sample.truth, logits), always),
            (fit_platt_where_it_helps(*arguments, learned=np.ones(1, dtype=np.bool_)), ruled),
        ):
            corrected = odds if np.isnan(platt.slope[0]) else platt.slope * odds + platt.intercept
            losses.append(loss(corrected) - loss(odds))
        used.append(not np.isnan(platt.slope[0]))
    return [
        scenario,
        str(positive),
        f"{loss(odds):.4f}",
        *(f"{np.mean(v):+.4f} ({np.mean(np.array(v) > 1e-9):.2f})" for v in (always, ruled)),
        f"{np.mean(used):.2f}",
    ]


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a Markdown table."""
    for row in (columns, ["---"] * len(columns), *rows):
        print(f"| {' | '.join(row)} |", flush=True)
    print()


def main() -> None:
    """Simulate and print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    repetitions, seed = arguments.repetitions, arguments.seed
    rows = [
        coverage_row(scenario, positive, repetitions, seed)
        for scenario in SCENARIOS
        for positive in POSITIVE_PATIENTS
    ]
    rows += [macro_row(scenario, repetitions // 4, seed) for scenario in SCENARIOS]
    print_table(
        [
            *("probabilities", "positive patients", "true error", "estimate", "not debiased"),
            *("coverage: error", "slope", "intercept", "Brier score"),
            *("plain: coverage", "excludes itself"),
        ],
        rows,
    )
    print_table(
        [
            *("probabilities", "positive validation patients", "log loss"),
            *("change, always (worse in)", "change, by the rule (worse in)", "corrected in"),
        ],
        [
            platt_row(scenario, positive, repetitions // 4, seed)
            for scenario in SCENARIOS
            for positive in (2, *POSITIVE_PATIENTS)
        ],
    )


if __name__ == "__main__":
    main()
