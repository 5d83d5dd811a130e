"""From nothing to a report with the wheel alone, as somebody meets it who has no checkout; run by `make test-wheel`."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from newcomer import ROOT, files_under, names_in

pytestmark = [pytest.mark.wheel, pytest.mark.timeout(900)]

# Where each package of the wheel stands in the tree.
PACKAGES = {
    "engines": ROOT / "engines",
    "framelane": ROOT / "framelane",
    "framelane_inspection": ROOT / "examples" / "inspection" / "framelane_inspection",
    "serve_app": ROOT / "serve_app",
}
# What may lie in a home afterwards: where services note themselves, and Ray's own token, which lets only this user in.
AT_HOME = re.compile(r"\.local/state/framelane/.*|\.ray/auth_token")
PREDICT = """
import cv2, framelane
result, = framelane.predict("out/demo/gate.png")
assert len(result) > 0 and set(result.class_names) <= set(result.names.values())
cv2.imwrite("boxes.png", result.plot())
"""

# In one process: what all commands import takes a second.
HELPS = """
import sys
from typer.testing import CliRunner
from serve_app.cli import app
for command in sys.argv[1:]:
    print(CliRunner().invoke(app, [command, "--help"], prog_name="framelane", catch_exceptions=False).stdout)
"""


def test_the_wheel_holds_every_file_of_its_packages_and_nothing_else(wheel):
    """Assets, plans, models and type marks travel, tests and benches do not: an undeclared file would be missed."""
    expected = {f"{name}/{path}" for name, folder in PACKAGES.items() for path in files_under(folder)}
    assert names_in(wheel) == expected
    for needed in (
        "serve_app/py.typed",
        "serve_app/plans/demo.yaml",
        "framelane_inspection/models/inspection-full.onnx",
    ):
        assert needed in expected


def test_what_was_installed_fits_together(newcomer):
    """`pip check`, with one OpenCV only; and the command is of the version that the project says."""
    newcomer("python", "-m", "pip", "check")
    installed = json.loads(newcomer("python", "-m", "pip", "list", "--format", "json").stdout)
    assert [entry["name"] for entry in installed if "opencv" in entry["name"]] == ["opencv-python-headless"]
    (version,) = re.findall(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert newcomer("framelane", "--version").stdout.split() == ["framelane", version]


def test_every_command_explains_itself(newcomer):
    """Each that `--help` names has a help of its own; none needs an extra for that."""
    listed = newcomer("framelane", "--help").stdout
    commands = re.findall(r"^│ ([a-z]+) ", listed, re.MULTILINE)
    assert {"demo", "detect", "report", "stream", "up", "status", "down", "plan"} <= set(commands)
    helps = newcomer("python", "-c", HELPS, *commands).stdout
    assert re.findall(r"Usage: framelane ([a-z]+) ", helps) == commands


def test_a_newcomer_gets_from_the_demo_to_a_report(newcomer):
    """Demo, detect on one of its pictures, Python, report; all files in the folder where it was typed."""
    before, home_before = files_under(newcomer.venv), files_under(newcomer.home)
    demo = newcomer("framelane", "demo", "--seconds", "5")
    assert "pictures: out/demo/*.png" in demo.stdout
    pictures = {f"out/demo/{name}.png" for name in ("belt-1", "belt-2", "belt-3", "fleet", "gate", "overview")}
    expected = pictures | {"out/demo/frames.jsonl"}
    assert files_under(newcomer.cwd) == expected

    found = newcomer("framelane", "detect", "out/demo/gate.png", "--json", "--save", "found").stdout
    assert json.loads(found)["class_names"]
    newcomer("python", "-c", PREDICT)
    expected |= {"found/gate.png", "boxes.png"}

    newcomer("framelane", "report", "out/demo/frames.jsonl")
    page = (newcomer.cwd / "report.html").read_text()
    assert all(camera in page for camera in ("gate", "belt-1", "belt-2", "belt-3", "overview"))
    expected |= {"report.html"}

    assert files_under(newcomer.cwd) == expected
    assert [name for name in files_under(newcomer.home) - home_before if not AT_HOME.fullmatch(name)] == []
    assert {name.partition("/")[0] for name in files_under(newcomer.temporary)} <= {"ray"}  # its logs
    assert files_under(newcomer.venv) == before


def test_a_folder_elsewhere_was_used(newcomer):
    """Else the tests above looked at the checkout."""
    where = newcomer("python", "-c", "import serve_app; print(serve_app.__file__)").stdout.strip()
    assert Path(where).is_relative_to(newcomer.venv)
    assert not newcomer.cwd.is_relative_to(ROOT)
