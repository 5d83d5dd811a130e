"""Runs test files in one subprocess that has the stand-in of the driver loaded, and reads its report."""

from __future__ import annotations

import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import driver_stand_in
import pytest

TIMEOUT_S = 120


class NestedOutcomes:
    """How each test of the subprocess ended."""

    def __init__(self, report: Path, output: str) -> None:
        self._output = output
        self._passed: dict[str, int] = {}
        self._failures: dict[str, list[str]] = {}
        for case in ET.parse(report).getroot().iter("testcase"):  # noqa: S314 - pytest's own report
            file = case.get("classname", "").rpartition(".")[2]
            problems = [child.text or "" for child in case if child.tag in {"failure", "error", "skipped"}]
            if problems:
                self._failures.setdefault(file, []).append(f"{case.get('name')}\n" + "\n".join(problems))
            else:
                self._passed[file] = self._passed.get(file, 0) + 1

    def assert_all_passed(self, file: str, *, at_least: int) -> None:
        """Fail with the reports of the tests of one file that did not pass, or if there are too few."""
        failures = self._failures.get(file, [])
        if failures:
            pytest.fail(f"{len(failures)} of {file} did not pass\n\n" + "\n\n".join(failures), pytrace=False)
        num_passed = self._passed.get(file, 0)
        if num_passed < at_least:
            pytest.fail(f"{num_passed} of {file} passed, at least {at_least} are there\n{self._output}", pytrace=False)


def run_nested(folder: Path, scratch: Path) -> NestedOutcomes:
    """Run the test files of a folder on the stand-in; skips where there is no C compiler."""
    if driver_stand_in.compiler() is None:
        pytest.skip("the stand-in of the driver needs gcc")
    report = scratch / "report.xml"
    files = sorted(str(path) for path in folder.glob("*_*.py") if path.name != "simulated_engines.py")
    environment = os.environ | {"FRAMELANE_STAND_IN": str(driver_stand_in.build(scratch))}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}", *files]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, timeout=TIMEOUT_S, cwd=folder.parents[2]
    )
    output = done.stdout[-4000:] + done.stderr[-4000:]
    if not report.is_file():
        pytest.fail(f"the tests on the stand-in did not run\n{output}", pytrace=False)
    return NestedOutcomes(report, output)
