"""What `setup.py` may compile: only what stays the same thing when it is."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from test_serve_imports import PURE

ROOT = Path(__file__).parents[3]
CHOICES = {
    node.targets[0].id: ast.literal_eval(node.value)
    for node in ast.parse((ROOT / "setup.py").read_text()).body
    if isinstance(node, ast.Assign)
}


def test_only_pure_modules_are_compiled():
    """Those that know no clock, no Ray and no file."""
    assert {name.replace("/", ".") for name in CHOICES["COMPILED"]} <= set(PURE)


@pytest.mark.parametrize("name", CHOICES["COMPILED"])
def test_no_compiled_module_holds_a_dataclass(name):
    """A frozen one that is compiled cannot be pickled or copied any more; a module of its own keeps it as it is."""
    tree = ast.parse((ROOT / "serve_app" / f"{name}.py").read_text())
    decorators = [
        decorator.func.id if isinstance(decorator, ast.Call) else getattr(decorator, "id", "")
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
        for decorator in node.decorator_list
    ]

    assert "dataclass" not in decorators


def test_the_compiler_is_the_type_checker_that_checks():
    """One version for both: `constraints.txt` and what the build asks for."""
    (pinned,) = (line for line in (ROOT / "constraints.txt").read_text().split() if line.startswith("mypy=="))

    assert CHOICES["MYPYC"] == pinned.replace("mypy", "mypy[mypyc]")
