"""Seeded fault injection: check the promises of docs/engineering/faults.md under many faults.

    python -m tests.faults [--trials 300] [--seed 0] [--fault WORD ...]

The trials are distributed over the faults. Prints a table of outcomes. A broken promise is printed
with the options that reproduce it, and the exit code is 1.
"""

import argparse
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path

HERE = Path(__file__).parent
SLOW = ("images_on_ray", "newly_started")
"""Modules whose faults run only if they are named: a trial takes 5 to 20 s."""

Trial = Callable[[int, Path], str]


def faults() -> dict[str, tuple[str, Trial]]:
    """Return the module and the trial of each fault, by name.

    A trial takes a seed and an empty folder, and returns its outcome in a few words.
    """
    sys.path.insert(0, str(HERE.parents[1]))
    trials: dict[str, tuple[str, Trial]] = {}
    for path in sorted(HERE.glob("*.py")):
        if path.stem.startswith(("_", "test_")):
            continue
        module_faults: Mapping[str, Trial] = getattr(
            import_module(f"tests.faults.{path.stem}"), "FAULTS", {}
        )
        trials |= {name: (path.stem, trial) for name, trial in module_faults.items()}
    return trials


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the trials and print their outcomes; return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--trials", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fault", nargs="+", default=[], metavar="WORD")
    options = parser.parse_args(arguments)
    trials = {
        name: trial
        for name, (module, trial) in faults().items()
        if (not options.fault and module not in SLOW)
        or any(word in name or word == module for word in options.fault)
    }
    if not trials:
        parser.error(f"no fault has a name with {' or '.join(options.fault)}")
    outcomes: dict[str, Counter[str]] = {name: Counter() for name in trials}
    broken = 0
    start = time.monotonic()
    names = list(trials)
    for number in range(max(options.trials, len(names))):
        name, seed = names[number % len(names)], options.seed + number // len(names)
        folder = Path(tempfile.mkdtemp(prefix="fault-"))
        try:
            outcome = trials[name](seed, folder)
        except Exception:  # noqa: BLE001 - any exception of a trial is a broken promise
            broken += 1
            outcome = "BROKEN"
            traceback.print_exc()
            print(
                f"broken: --fault {name!r} --seed {seed} --trials 1; see {folder}", file=sys.stderr
            )
        else:
            shutil.rmtree(folder, ignore_errors=True)
        outcomes[name][outcome] += 1
        print(
            f"\r{number + 1} trials, {broken} broken, {time.monotonic() - start:.0f} s",
            *("" if sys.stderr.isatty() else "\n",),
            end="",
            file=sys.stderr,
        )
    print("\n| fault | trials | outcome |\n|---|---|---|")
    for name, counts in outcomes.items():
        cell = ", ".join(f"{count} {outcome}" for outcome, count in counts.most_common())
        print(f"| {name} | {counts.total()} | {cell} |")
    print(f"\n{sum(c.total() for c in outcomes.values())} trials, {broken} promises broken")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
