"""Writes the pages and drawings that are made from the code: `make reference`. A test compares."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import command_reference
import metric_reference
import plan_reference
from drawings import DRAWINGS


def _drawn(name: str, _: str) -> str:
    return DRAWINGS[name]()


DOCS = Path(__file__).parents[1]


def _camera_list(_: str) -> str:
    model = import_module("serve_app.streams.camera_list").CameraListFile
    return plan_reference.page(model, plan_reference.CAMERAS_HEAD)


# A page or a drawing, and what it should be, given what it is.
PAGES: dict[str, Callable[[str], str]] = {
    "configuration.md": lambda _: plan_reference.page(),
    "command-line.md": lambda _: command_reference.page(),
    **({"camera-list.md": _camera_list} if find_spec("serve_app.streams") else {}),
    "tuning.md": metric_reference.page,
    **{name: partial(_drawn, name) for name in DRAWINGS},
}


def wanted(name: str, folder: Path = DOCS) -> str:
    """What a page or a drawing should be."""
    path = folder / name
    return PAGES[name](path.read_text(encoding="utf-8") if path.exists() else "")


if __name__ == "__main__":
    for page in PAGES:
        text = wanted(page)
        (DOCS / page).write_text(text, encoding="utf-8")
        sys.stdout.write(f"{DOCS / page}\n")
