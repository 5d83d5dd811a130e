"""`framelane key`: a new API key for HTTP callers."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer

from serve_app.cli.console import errors
from serve_app.http.key_rules import KeyRule, hash_of, new_key
from serve_app.key_file import add_key

FileOption = Annotated[Path, typer.Option("--file", "-f", help="The file of keys, which the plan names in http.keys.")]


def key(
    name: Annotated[str, typer.Argument(help="Who gets it, as logs and errors will say.")],
    file: FileOption = Path("keys.yaml"),
    critical: Annotated[bool, typer.Option("--critical", help="It may send critical frames.")] = False,
    frames_per_s: Annotated[float | None, typer.Option(min=0.001, help="How many in the long run; else any.")] = None,
    burst: Annotated[int | None, typer.Option(min=1, help="How many at once; else those of one second.")] = None,
    camera: Annotated[list[str] | None, typer.Option(help="Pattern of cameras that it may name; else all.")] = None,
) -> None:
    """Make an API key and write its hash into a file; the key itself is printed once, and kept nowhere."""
    made = new_key()
    at_once = burst or max(1, math.ceil(frames_per_s or 1))
    add_key(file, KeyRule(name, hash_of(made), critical, frames_per_s, at_once, tuple(camera or ["*"])))
    errors.print(f"written to {file}; this is the only time that the key is shown", highlight=False)
    typer.echo(made)
