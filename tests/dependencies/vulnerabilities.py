"""Whether vulnerabilities of what constraints.txt pins have been published.

    python tests/dependencies/vulnerabilities.py constraints.txt

pip-audit asks PyPI. The exit code is 0 where none is known, 1 where one is or pip-audit itself is
broken, and 3 where PyPI could not be asked; a line then says NOT AUDITED, and why. A mirror of PyPI
can have every release and no word of vulnerabilities, which looks as if there were none: so a
release that is known to have some is asked about first.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

KNOWN = "jinja2==2.4.1"
"""A release whose vulnerabilities, CVE-2016-10745 among them, were published years ago."""

FAILED, NOT_AUDITED = 1, 3

Answer = dict[str, Any]
"""The `name` of a pin with its `version` and `vulns`, or with a `skip_reason` in their place."""


class NoAnswerError(Exception):
    """The service was asked and did not answer; the text says how."""


def main() -> int:
    """Ask, and print what is known."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("constraints", type=Path)
    constraints = parser.parse_args().constraints
    # Without the service first: what goes wrong here is no fault of the network.
    dry = pip_audit(constraints, "--dry-run")
    if dry.returncode:
        print(f"pip-audit does not work on {constraints}:\n{dry.stderr}", file=sys.stderr)
        return FAILED
    try:
        with tempfile.TemporaryDirectory() as folder:
            known = Path(folder) / "known.txt"
            known.write_text(KNOWN, encoding="utf-8")
            if not any(answer.get("vulns") for answer in answers(known)):
                raise NoAnswerError(f"PyPI, or its mirror, has no word of what is known of {KNOWN}")
        pins = answers(constraints)
    except NoAnswerError as error:
        return not_audited(str(error))
    found = [(pin, vulnerability) for pin in pins for vulnerability in pin.get("vulns", ())]
    for pin, vulnerability in found:
        names = ", ".join([vulnerability["id"], *vulnerability["aliases"]])
        mended = ", ".join(vulnerability["fix_versions"]) or "no release yet"
        print(f"{pin['name']} {pin['version']}: {names}; mended in {mended}", file=sys.stderr)
    if found:
        return FAILED
    unknown = [pin["name"] for pin in pins if "skip_reason" in pin]
    if unknown:
        some = f"{len(unknown)} of {len(pins)} pins"
        return not_audited(f"PyPI, or its mirror, does not know {some}: {', '.join(unknown)}")
    print(f"{len(pins)} pins, no known vulnerability")
    return 0


def not_audited(reason: str) -> int:
    """Say so, with what to do, and return the exit code."""
    print(f"NOT AUDITED: {reason}; run make audit where pypi.org answers", file=sys.stderr)
    return NOT_AUDITED


def answers(requirements: Path) -> list[Answer]:
    """What is known of each pin in a file.

    Raises:
        NoAnswerError: If the service cannot be reached, or fails.
    """
    run = pip_audit(requirements, "--format", "json", "--aliases", "on", "--desc", "off")
    # The exit code is 1 both where vulnerabilities are found and where the service fails.
    try:
        found: list[Answer] = json.loads(run.stdout)["dependencies"]
    except json.JSONDecodeError:
        lines = run.stderr.strip().splitlines() or [f"pip-audit ended with {run.returncode}"]
        raise NoAnswerError(lines[-1]) from None
    return found


def pip_audit(requirements: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run pip-audit on a file of pins, each taken as it is: nothing is resolved or downloaded."""
    command = [sys.executable, "-m", "pip_audit", "--requirement", str(requirements), "--no-deps"]
    command += ["--disable-pip", "--progress-spinner", "off", *options]
    return subprocess.run(command, capture_output=True, text=True, check=False)


if __name__ == "__main__":
    sys.exit(main())
