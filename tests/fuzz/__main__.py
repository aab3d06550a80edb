"""Fuzzing: whatever a file holds, its reader reads it or raises a documented error.

    python -m tests.fuzz [--examples 1000] [--seed 0] [--reader WORD ...] [--method METHOD ...]

Each reader gets this many examples of each method: random ones, and guided ones if atheris is
installed (see ``run_reader``). Slow readers get fewer. Failures (another exception, a crash, a
hang, too much memory) are printed with the options that repeat them; their files are kept, and the
exit code is 1.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from tests.fuzz.readers import Reader, readers

ROOT = Path(__file__).parents[2]
METHODS = ("random", "guided")


@dataclass(frozen=True)
class Result:
    """Number of examples by outcome, and the end of the error output of a failure."""

    outcomes: Mapping[str, int]
    error: str | None


def fuzz(name: str, method: str, examples: int, seed: int, kept: Path) -> Result:
    """Fuzz a reader in a subprocess, and keep the file that it fails on."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "tests.fuzz.run_reader",
                name,
                method,
                str(examples),
                str(seed),
                folder,
            ],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
        path = Path(folder) / "outcomes.json"
        outcomes = json.loads(path.read_text()) if path.exists() else {}
        if done.returncode == 0:
            return Result(outcomes, None)
        last = Path(folder) / "file"
        if last.exists():
            kept.mkdir(parents=True, exist_ok=True)
            (kept / f"{name}-{method}-{seed}").write_bytes(last.read_bytes())
        return Result(outcomes, f"exit code {done.returncode}\n{done.stderr[-6000:]}")


def main() -> int:
    """Fuzz the readers, and print the outcomes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--examples", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--reader", nargs="+", default=[], metavar="WORD")
    parser.add_argument("--method", nargs="+", default=METHODS, choices=METHODS)
    parser.add_argument("--kept", type=Path, default=Path("failures"), help="folder of failures")
    options = parser.parse_args()
    chosen_readers = {
        name: reader
        for name, reader in readers().items()
        if not options.reader or any(word in name for word in options.reader)
    }
    if not chosen_readers:
        parser.error(f"no reader has a name with {' or '.join(options.reader)}")
    methods = [method for method in METHODS if method in options.method]
    if "guided" in methods and find_spec("atheris") is None:
        methods.remove("guided")
        print("guided examples NOT RUN: atheris is not installed", file=sys.stderr)

    def run(job: tuple[str, Reader, str]) -> tuple[str, str, Result]:
        name, reader, method = job
        examples = max(1, options.examples // reader.cost)
        result = fuzz(name, method, examples, options.seed, options.kept)
        status = "" if result.error is None else ": FAILED"
        print(f"{name}, {method}{status}", file=sys.stderr)
        return name, method, result

    jobs = [(name, reader, method) for name, reader in chosen_readers.items() for method in methods]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = list(pool.map(run, jobs))
    print("\n| reader | examples | read | refused | failed |\n|---|---|---|---|---|")
    total: Counter[str] = Counter()
    for name in chosen_readers:
        reader_outcomes: Counter[str] = Counter()
        for reader_name, method, result in results:
            if reader_name == name:
                reader_outcomes.update(result.outcomes)
                if result.error is not None:
                    reader_outcomes["failed"] += 1
                    print(
                        f"{result.error}\nfailed: --reader {name} --method {method} --seed "
                        f"{options.seed} --examples {options.examples}; see {options.kept}",
                        file=sys.stderr,
                    )
        total += reader_outcomes
        cells = (
            reader_outcomes.total(),
            *(reader_outcomes[key] for key in ("read", "refused", "failed")),
        )
        print(f"| {name} | {' | '.join(f'{cell:,}' for cell in cells)} |")
    print(f"\n{total.total():,} examples, {total['failed']} runs failed")
    return 1 if total["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
