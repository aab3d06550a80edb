"""Fuzzing: whatever a file holds, its reader reads it or refuses it in a way that is documented.

    python -m tests.fuzz [--examples 1000] [--seed 0] [--reader WORD ...] [--method METHOD ...]

Each reader gets so many examples of each method: drawn ones, and guided ones where atheris is
installed (see hunt). Readers that are slow get fewer. What no reader may do (another exception than
the documented, a crash, a hang, more memory) is told with what repeats it, and the exit code is
then 1; the file is kept.
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
METHODS = ("drawn", "guided")


@dataclass(frozen=True)
class Found:
    """What came of one hunt: how often what, and the end of what it said where it went wrong."""

    outcomes: Mapping[str, int]
    said: str | None


def hunt(name: str, method: str, examples: int, seed: int, kept: Path) -> Found:
    """Hunt in a process of its own, and keep the file that it trips over."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "tests.fuzz.hunt",
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
        told = Path(folder) / "outcomes.json"
        outcomes = json.loads(told.read_text()) if told.exists() else {}
        if done.returncode == 0:
            return Found(outcomes, None)
        last = Path(folder) / "file"
        if last.exists():
            kept.mkdir(parents=True, exist_ok=True)
            (kept / f"{name}-{method}-{seed}").write_bytes(last.read_bytes())
        return Found(outcomes, f"exit code {done.returncode}\n{done.stderr[-6000:]}")


def main() -> int:
    """Hunt, and print what came out."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--examples", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--reader", nargs="+", default=[], metavar="WORD")
    parser.add_argument("--method", nargs="+", default=METHODS, choices=METHODS)
    parser.add_argument("--kept", type=Path, default=Path("found"), help="folder of what is found")
    options = parser.parse_args()
    chosen = {
        name: reader
        for name, reader in readers().items()
        if not options.reader or any(word in name for word in options.reader)
    }
    if not chosen:
        parser.error(f"no reader has a name with {' or '.join(options.reader)}")
    methods = [method for method in METHODS if method in options.method]
    if "guided" in methods and find_spec("atheris") is None:
        methods.remove("guided")
        print("guided examples NOT TRIED: atheris is not installed", file=sys.stderr)

    def of(job: tuple[str, Reader, str]) -> tuple[str, str, Found]:
        name, reader, method = job
        examples = max(1, options.examples // reader.cost)
        found = hunt(name, method, examples, options.seed, options.kept)
        said = "" if found.said is None else ": TRIPPED"
        print(f"{name}, {method}{said}", file=sys.stderr)
        return name, method, found

    jobs = [(name, reader, method) for name, reader in chosen.items() for method in methods]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = list(pool.map(of, jobs))
    print("\n| reader | examples | read | refused | tripped |\n|---|---|---|---|---|")
    total: Counter[str] = Counter()
    for name in chosen:
        of_reader: Counter[str] = Counter()
        for one, method, found in results:
            if one == name:
                of_reader.update(found.outcomes)
                if found.said is not None:
                    of_reader["tripped"] += 1
                    print(
                        f"{found.said}\ntripped: --reader {name} --method {method} --seed "
                        f"{options.seed} --examples {options.examples}; see {options.kept}",
                        file=sys.stderr,
                    )
        total += of_reader
        cells = (of_reader.total(), *(of_reader[key] for key in ("read", "refused", "tripped")))
        print(f"| {name} | {' | '.join(f'{cell:,}' for cell in cells)} |")
    print(f"\n{total.total():,} examples, {total['tripped']} hunts tripped")
    return 1 if total["tripped"] else 0


if __name__ == "__main__":
    sys.exit(main())
