"""`docs/command-line.md`, made from the typer application."""

from __future__ import annotations

import typing
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any

import typer.main

from serve_app.cli import app

TYPES = {int: "whole number", float: "number", Path: "path", str: "text"}
HEAD = """# The commands

Every command of `framelane`, with its arguments and options. `framelane COMMAND --help` shows the same.

A command ends with status 0 when it did what was asked, with 1 when it could not and said why, with 2 when its
arguments were wrong. `framelane plan --check` also ends with 2 when traffic has drifted from the plan. Ctrl-C ends
with 130.

*Made from `serve_app/cli`: change the commands, then run `make reference`.*
"""
TABLE_HEAD = ["| argument or option | value | default | meaning |", "|---|---|---|---|"]


def page() -> str:
    """The whole page."""
    return "\n".join([HEAD, *_lines(typer.main.get_command(app), "framelane")]).rstrip() + "\n"


def _lines(command: Any, path: str) -> Iterator[str]:
    below: dict[str, Any] = getattr(command, "commands", {})
    if path != "framelane":
        yield from (f"## {path}", "", *_help(command.help or ""), "")
    rows = [_row(parameter) for parameter in command.params if parameter.name != "help"]
    if rows and not below:
        arguments = " ".join(_name(p) for p in command.params if p.param_type_name == "argument")
        yield from ("```text", f"{path} [OPTIONS] {arguments}".rstrip(), "```", "", *TABLE_HEAD, *rows, "")
    elif below:
        yield from ("| command | what it does |", "|---|---|")
        for name, inner in below.items():
            yield f"| [`{path} {name}`](#{path.replace(' ', '-')}-{name}) | {_first(inner.help or '')} |"
        yield ""
    for name, inner in below.items():
        yield from _lines(inner, f"{path} {name}")


def _row(parameter: Any) -> str:
    names = ", ".join(f"`{name}`" for name in (*parameter.opts, *parameter.secondary_opts))
    if parameter.param_type_name == "argument":
        names = f"`{_name(parameter)}`"
    return f"| {names} | {_type(parameter)} | {_default(parameter)} | {_cell(parameter.help or '')} |"


def _type(parameter: Any) -> str:
    if getattr(parameter, "is_flag", False):
        return "switch"
    annotation = parameter.type_descriptor.annotation
    while typing.get_args(annotation):
        annotation = typing.get_args(annotation)[0]
    words = TYPES.get(annotation, "text")
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        words = ", ".join(f"`{one.value}`" for one in annotation)
    bounds = [
        text.format(value)
        for text, value in (("at least {}", parameter.min), ("at most {}", parameter.max))
        if value is not None
    ]
    again = ["may be repeated"] if parameter.multiple or parameter.nargs == -1 else []
    return ", ".join([words, *bounds, *again])


def _default(parameter: Any) -> str:
    if parameter.required:
        return "required"
    default = parameter.default
    if default is None or getattr(parameter, "is_flag", False) or default == () or callable(default):
        return "–"
    return f"`{getattr(default, 'value', default)}`"


def _name(parameter: Any) -> str:
    return str(parameter.metavar or parameter.name.upper())


def _first(text: str) -> str:
    return _cell(text.strip().split("\n\n")[0])


def _help(text: str) -> list[str]:
    """Its paragraphs, each on one line, with empty lines between."""
    return "\n\n".join(" ".join(part.split()) for part in text.strip().split("\n\n")).splitlines()


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
