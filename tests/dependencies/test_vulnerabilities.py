"""What the audit makes of each answer that pip-audit can give, and that no silence is a pass."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from tests.dependencies import vulnerabilities

PIP_AUDIT = """
import json, sys
from pathlib import Path

requirements = Path(sys.argv[sys.argv.index("--requirement") + 1]).read_text().split()
services = json.loads(Path(__file__).with_name("service.json").read_text())
if any("==" not in pin for pin in requirements):
    sys.exit("ERROR: not pinned to an exact version")
if "--dry-run" in sys.argv:
    sys.exit()
found = []
for name, version in (pin.split("==") for pin in requirements):
    said = services.get(f"{name}=={version}", services["all others"])
    if said == "down":
        sys.exit("Traceback\\nrequests.exceptions.ConnectionError: no route to pypi.org")
    if said == "unknown":
        found.append({"name": name, "skip_reason": "Dependency not found on PyPI"})
    else:
        found.append({"name": name, "version": version, "vulns": said})
print("No known vulnerabilities found", file=sys.stderr)
print(json.dumps({"dependencies": found, "fixes": []}))
sys.exit(any(pin.get("vulns") for pin in found))
"""
"""Stands for pip-audit, with its exit codes: 0 for what it skips, 1 for a failure or a finding."""

MENDED = {"id": "PYSEC-1", "aliases": ["CVE-1"], "fix_versions": ["9", "10"]}
OPEN = {"id": "GHSA-2", "aliases": [], "fix_versions": []}
KNOWS = {vulnerabilities.KNOWN: [MENDED], "all others": []}

Audit = Callable[[str, Mapping[str, object]], subprocess.CompletedProcess[str]]


@pytest.fixture
def audit(tmp_path: Path) -> Audit:
    """Audits pins with a service that reports what it is given."""
    (tmp_path / "pip_audit.py").write_text(PIP_AUDIT, encoding="utf-8")
    constraints = tmp_path / "constraints.txt"

    def run(pins: str, service: Mapping[str, object]) -> subprocess.CompletedProcess[str]:
        constraints.write_text(pins, encoding="utf-8")
        (tmp_path / "service.json").write_text(json.dumps(service), encoding="utf-8")
        return subprocess.run(
            [sys.executable, vulnerabilities.__file__, str(constraints)],
            env=os.environ | {"PYTHONPATH": str(tmp_path)},
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def test_pins_without_a_known_vulnerability_pass(audit: Audit) -> None:
    done = audit("one==1\ntwo==2\n", KNOWS)
    assert (done.returncode, done.stdout) == (0, "2 pins, no known vulnerability\n")
    assert done.stderr == ""


def test_a_known_vulnerability_fails_and_is_told(audit: Audit) -> None:
    service = KNOWS | {"two==2": [MENDED, OPEN], "three==3": "unknown"}
    done = audit("one==1\ntwo==2\nthree==3\n", service)
    assert done.returncode == 1
    assert done.stderr == (
        "two 2: PYSEC-1, CVE-1; mended in 9, 10\ntwo 2: GHSA-2; mended in no release yet\n"
    )


@pytest.mark.parametrize(
    ("service", "reason"),
    [
        # All of PyPI, but no vulnerabilities.
        ({"all others": []}, "PyPI, or its mirror, has no word of what is known of jinja2==2.4.1"),
        # Releases, but not a word about them: pip-audit skips them all and says that all is well.
        ({"all others": "unknown"}, "PyPI, or its mirror, has no word of what is known of jinja2"),
        ({"all others": "down"}, "requests.exceptions.ConnectionError: no route to pypi.org"),
        (KNOWS | {"two==2": "down"}, "requests.exceptions.ConnectionError: no route to pypi.org"),
        (KNOWS | {"two==2": "unknown"}, "PyPI, or its mirror, does not know 1 of 2 pins: two"),
    ],
)
def test_what_was_not_asked_is_no_pass(
    audit: Audit, service: Mapping[str, object], reason: str
) -> None:
    done = audit("one==1\ntwo==2\n", service)
    assert done.returncode == 3
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"NOT AUDITED: {reason}")
    assert line.endswith("; run make audit where pypi.org answers")


def test_pins_that_cannot_be_read_fail(audit: Audit) -> None:
    done = audit("one>=1\n", {"all others": "down"})
    assert done.returncode == 1
    assert "not pinned to an exact version" in done.stderr


def test_a_broken_pip_audit_fails(audit: Audit, tmp_path: Path) -> None:
    (tmp_path / "pip_audit.py").write_text("raise ImportError('half installed')", encoding="utf-8")
    done = audit("one==1\n", KNOWS)
    assert done.returncode == 1
    assert "half installed" in done.stderr
