"""Reads from source code what it uses of TensorRT's bindings, and from the bindings' docstrings what they accept."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any, NamedTuple

# How the source calls the bindings' module.
MODULES = ("trt", "module", "library.module", "self._library.module")
# Functions that are handed a bound method and its arguments: the position of the method among theirs.
HANDS_ON = {"ask": 1, "tell": 1, "submit": 0}


class Use(NamedTuple):
    """One attribute of something, and how it is called: `num_args` is None where it is not."""

    where: str
    receiver: str
    attribute: str
    num_args: int | None
    keywords: tuple[str, ...]
    is_set: bool


class Signature(NamedTuple):
    """Parameters of one overload, `self` left out."""

    names: tuple[str, ...]
    num_required: int

    def accepts(self, use: Use) -> bool:
        """Whether a call of so many arguments and such keywords fits."""
        if use.num_args is None:
            return True
        num_given = use.num_args + len(use.keywords)
        return set(use.keywords) <= set(self.names[use.num_args :]) and self.num_required <= num_given <= len(
            self.names
        )


def uses_of(path: Path) -> list[Use]:
    """Every attribute access of a file, calls with their arguments."""
    tree = ast.parse(path.read_text())
    called: dict[ast.AST, tuple[int, tuple[str, ...]]] = {}
    uses = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        keywords = tuple(keyword.arg for keyword in node.keywords if keyword.arg)
        called[node.func] = (len(node.args), keywords)
        if isinstance(node.func, ast.Attribute) and node.func.attr in HANDS_ON:
            first = HANDS_ON[node.func.attr]
            if len(node.args) > first:
                called[node.args[first]] = (len(node.args) - first - 1, ())
        if isinstance(node.func, ast.Name) and node.func.id == "getattr" and isinstance(node.args[1], ast.Constant):
            where = f"{path.name}:{node.lineno}"
            uses.append(Use(where, ast.unparse(node.args[0]), node.args[1].value, None, (), is_set=False))
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            num_args, keywords = called.get(node, (None, ()))
            if has_star(node, tree):
                num_args = None
            is_set = isinstance(node.ctx, ast.Store)
            where = f"{path.name}:{node.lineno}"
            uses.append(Use(where, ast.unparse(node.value), node.attr, num_args, keywords, is_set))
    return uses


def has_star(function: ast.AST, tree: ast.AST) -> bool:
    """Whether a function is called with `*arguments`, whose number the source does not tell."""
    return any(
        isinstance(node, ast.Call) and node.func is function and any(isinstance(arg, ast.Starred) for arg in node.args)
        for node in ast.walk(tree)
    )


def module_path(use: Use) -> list[str] | None:
    """`trt.A.B` as `[A, B]`; None for what is no name of the module."""
    for module in MODULES:
        if use.receiver == module:
            return [use.attribute]
        if use.receiver.startswith(f"{module}.") and re.fullmatch(r"[\w.]+", use.receiver):
            return [*use.receiver.removeprefix(f"{module}.").split("."), use.attribute]
    return None


def signatures_of(owner: Any, name: str) -> list[Signature]:
    """The overloads that pybind writes into a docstring; empty for what is no function."""
    doc = getattr(getattr(owner, name), "__doc__", None) or ""
    found = re.findall(rf"^(?:\d+\. )?{name}\((self: .*)\) -> ", doc, re.MULTILINE)
    return [_signature(parameters) for parameters in found]


def _signature(parameters: str) -> Signature:
    """From `self: A, b: c, d: e = f`; commas inside brackets are the types' own."""
    parts, depth, start = [], 0, 0
    for i, letter in enumerate(parameters):
        depth += letter in "[(<"
        depth -= letter in "])>"
        if letter == "," and depth == 0:
            parts.append(parameters[start:i])
            start = i + 1
    parts.append(parameters[start:])
    names = [part.split(":")[0].strip() for part in parts]
    num_required = sum("=" not in part for part in parts)
    return Signature(tuple(names[1:]), num_required - 1)
