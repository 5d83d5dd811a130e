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
    """One attribute of something, and how it is called.

    Attributes:
        where: file and line.
        receiver: whose attribute it is, as the source writes it.
        attribute: its name.
        num_args: positional arguments of the call; None: it is not called.
        keywords: names of the call's other arguments.
        is_set: whether it is assigned to.
        with_rtx: True: only where `is_rtx` was found true, False: only where it was found false, None: either way.
        may_be_missing: whether the source says what to do without it.
    """

    where: str
    receiver: str
    attribute: str
    num_args: int | None
    keywords: tuple[str, ...]
    is_set: bool
    with_rtx: bool | None = None
    may_be_missing: bool = False

    def runs_with(self, *, is_rtx: bool) -> bool:
        """Whether the source gets here with this library."""
        return self.with_rtx is None or self.with_rtx is is_rtx


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
    guards = rtx_guards(tree)
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
            receiver, may_be_missing = ast.unparse(node.args[0]), len(node.args) == 3
            uses.append(Use(where, receiver, node.args[1].value, None, (), False, guards.get(node), may_be_missing))
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            num_args, keywords = called.get(node, (None, ()))
            if has_star(node, tree):
                num_args = None
            is_set = isinstance(node.ctx, ast.Store)
            where = f"{path.name}:{node.lineno}"
            uses.append(Use(where, ast.unparse(node.value), node.attr, num_args, keywords, is_set, guards.get(node)))
    return uses


def rtx_guards(tree: ast.AST) -> dict[ast.AST, bool]:
    """What `is_rtx` was found to be wherever an `if` has asked: in its branches, and behind one that leaves."""
    found: dict[ast.AST, bool] = {}
    # Outer blocks come first, so that an inner `if` has the last word.
    for parent in ast.walk(tree):
        for _, block in ast.iter_fields(parent):
            for i, statement in enumerate(block if isinstance(block, list) else ()):
                asked = _asked_rtx(statement.test) if isinstance(statement, ast.If) else None
                if asked is None:
                    continue
                leaves = isinstance(statement.body[-1], ast.Return | ast.Raise | ast.Continue)
                behind = block[i + 1 :] if leaves else []
                found |= {node: asked for branch in statement.body for node in ast.walk(branch)}
                found |= {node: not asked for branch in [*statement.orelse, *behind] for node in ast.walk(branch)}
    return found


def _asked_rtx(test: ast.expr) -> bool | None:
    """What `is_rtx` is where this condition holds; None: it asks something else."""
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        asked = _asked_rtx(test.operand)
        return None if asked is None else not asked
    return True if isinstance(test, ast.Attribute) and test.attr == "is_rtx" else None


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
