"""Seeded trials of faults: what is promised holds, whatever goes wrong, or a trial says how not.

    python -m tests.faults [--trials 300] [--seed 0] [--fault WORD ...]

Trials are shared out over the faults. The table says what came out of them; a promise that was
broken is told with what repeats it, and the exit code is then 1.
"""

import argparse
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path

HERE = Path(__file__).parent
SLOW = ("images_on_ray", "newly_started")
"""Modules whose faults run only where they are asked for by name: a trial takes 5 to 20 s."""

Trial = Callable[[int, Path], str]


def faults() -> dict[str, tuple[str, Trial]]:
    """By name, each fault's module and trial, which takes a seed and an empty folder."""
    sys.path.insert(0, str(HERE))
    found: dict[str, tuple[str, Trial]] = {}
    for path in sorted(HERE.glob("*.py")):
        if path.stem.startswith(("_", "test_")):
            continue
        of_module: Mapping[str, Trial] = getattr(import_module(path.stem), "FAULTS", {})
        found |= {name: (path.stem, trial) for name, trial in of_module.items()}
    return found


def main() -> int:
    """Run trials and print what came out."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--trials", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fault", nargs="+", default=[], metavar="WORD")
    options = parser.parse_args()
    chosen = {
        name: trial
        for name, (module, trial) in faults().items()
        if (not options.fault and module not in SLOW)
        or any(word in name or word == module for word in options.fault)
    }
    if not chosen:
        parser.error(f"no fault has a name with {' or '.join(options.fault)}")
    outcomes: dict[str, Counter[str]] = {name: Counter() for name in chosen}
    broken = 0
    start = time.monotonic()
    names = list(chosen)
    for number in range(max(options.trials, len(names))):
        name, seed = names[number % len(names)], options.seed + number // len(names)
        kept = Path(tempfile.mkdtemp(prefix="fault-"))
        try:
            outcome = chosen[name](seed, kept)
        except Exception:  # noqa: BLE001 - whatever a trial raises is what it found
            broken += 1
            outcome = "BROKEN"
            traceback.print_exc()
            print(f"broken: --fault {name!r} --seed {seed} --trials 1; see {kept}", file=sys.stderr)
        else:
            shutil.rmtree(kept, ignore_errors=True)
        outcomes[name][outcome] += 1
        print(
            f"\r{number + 1} trials, {broken} broken, {time.monotonic() - start:.0f} s",
            *("" if sys.stderr.isatty() else "\n",),
            end="",
            file=sys.stderr,
        )
    print("\n| fault | trials | outcome |\n|---|---|---|")
    for name, counts in outcomes.items():
        said = ", ".join(f"{number} {outcome}" for outcome, number in counts.most_common())
        print(f"| {name} | {counts.total()} | {said} |")
    print(f"\n{sum(c.total() for c in outcomes.values())} trials, {broken} promises broken")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
