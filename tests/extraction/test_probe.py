"""Executions are compared by their time and by the cosines of their embeddings."""

import numpy as np
import pytest

from featurecache.execution import EXACT, Execution, Probe, format_probe
from featurecache.extraction import probe as module
from featurecache.extraction.probe import (
    MIN_COSINE,
    fastest_execution,
    is_worthwhile,
    measure,
    min_cosine,
)
from tests.extraction.executed import Executed

FP32 = Execution("openvino", "fp32")
BF16 = Execution("torch", "bf16")
INT8 = Execution("openvino", "int8")
PIXELS = np.random.default_rng(3).integers(1, 256, (5, 3, 1, 1)).astype(np.float32)


class Clock:
    """A clock that advances by what embedding a batch takes."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now

    def encoder(self, *, seconds: float, **options: object) -> Executed:
        encoder = Executed(**options)
        embed = encoder.embed_pixels

        def embed_pixels(pixels):
            self.now += seconds
            return embed(pixels)

        encoder.embed_pixels = embed_pixels
        return encoder


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def probe_of(**rates_and_cosines: tuple[float | None, float | None]) -> Probe:
    measurements = [
        {
            "backend": name.partition("_")[0],
            "precision": name.partition("_")[2],
            "images_per_second": rate,
            "min_cosine": cosine,
        }
        for name, (rate, cosine) in rates_and_cosines.items()
    ]
    return Probe(images=32, measurements=measurements)


@pytest.mark.parametrize(
    ("measured", "chosen"),
    [
        ({"torch_fp32": (20, 1), "torch_bf16": (10, 0.9999)}, EXACT),
        ({"torch_fp32": (20, 1), "torch_bf16": (40, 0.9999)}, BF16),
        ({"torch_fp32": (20, 1), "torch_bf16": (2000, 0.998)}, EXACT),
        ({"torch_fp32": (20, 1), "torch_bf16": (20.5, 0.9999)}, EXACT),
        ({"torch_fp32": (20, 1), "torch_bf16": (40, 0.9999), "openvino_fp32": (39, 1)}, FP32),
        ({"torch_fp32": (20, 1), "openvino_fp32": (None, None), "torch_bf16": (40, 1)}, BF16),
    ],
)
def test_fastest_exact_enough_execution_is_chosen(measured, chosen):
    assert fastest_execution(probe_of(**measured), [EXACT, FP32, BF16]) == chosen


def test_only_candidates_are_chosen_and_the_first_if_none_is_exact_enough():
    probe = probe_of(torch_fp32=(90, 1), torch_bf16=(None, 0.5), openvino_int8=(None, 0.7))
    assert fastest_execution(probe, [BF16, INT8]) == BF16


@pytest.mark.parametrize("flags", [{}, {"avx512_bf16": True, "amx_bf16": True}])
def test_slow_execution_is_not_chosen_whatever_the_processor_lists(monkeypatch, clock, flags):
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: flags, raising=False)
    encoders = [
        clock.encoder(precision="fp32", seconds=0.4),
        clock.encoder(precision="bf16", seconds=0.5),
        clock.encoder(backend="openvino", precision="fp32", seconds=0.1),
    ]
    probe = measure(encoders, PIXELS, batch_size=2)
    executions = [one.execution for one in encoders]
    assert fastest_execution(probe, executions) == FP32
    assert fastest_execution(probe, executions[:2]) == EXACT
    rates = [one["images_per_second"] for one in probe["measurements"]]
    assert rates == pytest.approx([2 / 0.4, 2 / 0.5, 2 / 0.1])
    assert probe["images"] == 5


def test_fast_execution_of_cosine_0_998_is_not_chosen(clock):
    slow = clock.encoder(seconds=1.0)
    fast = clock.encoder(precision="bf16", angle=np.arccos(0.998), seconds=0.001)
    probe = measure([slow, fast], PIXELS, batch_size=8)
    exact, other = probe["measurements"]
    assert other["min_cosine"] == pytest.approx(0.998, abs=1e-6)
    assert other["images_per_second"] is None
    assert exact["min_cosine"] == pytest.approx(1)
    assert fastest_execution(probe, [EXACT, BF16]) == EXACT


def test_rounds_are_interleaved_and_the_hopeless_are_not_timed_again(clock):
    order = []

    class Recorded(Executed):
        def embed_pixels(self, pixels):
            order.append(self.precision)
            clock.now += 1.0 if self.precision == "fp16" else 0.6
            return super().embed_pixels(pixels)

    precisions = ["fp32", "bf16", "fp16"]
    measure([Recorded(precision=one) for one in precisions], PIXELS, batch_size=8)
    # The exact embeddings, how long a batch takes, the cosines, and three rounds.
    assert order == ["fp32", "fp32", "bf16", "fp16", *precisions, *precisions[:2] * 2]


def test_round_of_a_fast_encoder_lasts_long_enough(clock, monkeypatch):
    monkeypatch.setattr("featurecache.extraction.probe.MIN_SECONDS", 0.5)
    encoder = clock.encoder(seconds=1 / 32)
    measure([encoder], PIXELS, batch_size=8)
    assert len(encoder.batches) == 2 + 3 * 16  # of 1/32 s each, 0.5 s in a round


@pytest.mark.parametrize("kind", [RuntimeError, TypeError])
def test_execution_that_fails_is_reported_and_not_chosen(clock, caplog, kind):
    class Broken(Executed):
        def embed_pixels(self, pixels):
            raise kind("no such instruction")

    probe = measure([clock.encoder(seconds=1.0), Broken(precision="bf16")], PIXELS, batch_size=8)
    assert "stub cannot run as torch bf16: no such instruction" in caplog.text
    assert fastest_execution(probe, [EXACT, BF16]) == EXACT
    assert "torch bf16 failed" in format_probe(probe)


def test_cosines_are_those_of_the_images_even_in_small_batches(clock):
    encoders = [
        clock.encoder(seconds=1.0),
        clock.encoder(precision="bf16", angle=0.02, seconds=1.0),
    ]
    (_, other) = measure(encoders, PIXELS, batch_size=2)["measurements"]
    assert other["min_cosine"] == pytest.approx(np.cos(0.02), abs=1e-6)
    assert [len(batch) for batch in encoders[1].batches[:3]] == [2, 2, 1]
    assert np.cos(0.02) > MIN_COSINE


def test_probe_of_few_images_is_not_worthwhile(monkeypatch):
    monkeypatch.setattr("torch.get_num_threads", lambda: 2)
    # 4 rounds of 5 executions in 2 threads: 1,280 images, which save 1,280 at most out of 2,560.
    arguments = {"n_executions": 5, "batch_size": 32, "device": "cpu"}
    assert not is_worthwhile(2560, **arguments)
    assert is_worthwhile(2561, **arguments)
    assert is_worthwhile(1281, **arguments | {"device": "mps"})


def test_probe_in_words():
    probe = probe_of(torch_fp32=(26.34, 1), torch_bf16=(16.2, 0.99991), openvino_int8=(None, 0.9))
    assert format_probe(probe) == (
        "measured on 32 images: torch fp32 26.3 images/s, torch bf16 16.2 images/s (cosine "
        "0.99991), openvino int8 not timed (cosine 0.90000)"
    )


def test_min_cosine_is_of_worst_row_and_zero_for_rows_of_zeros_or_nan():
    one = np.float32([[1, 0], [0, 2], [3, 4]])
    other = np.float32([[2, 0], [0.1, 2], [4, 3]])
    assert min_cosine(one, other) == pytest.approx(24 / 25)
    assert min_cosine(one, np.zeros((3, 2), np.float32)) == 0
    assert min_cosine(one, np.full((3, 2), np.nan, np.float32)) == 0
