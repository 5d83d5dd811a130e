"""The file of API keys: reading it, and adding a key. It holds hashes, never keys, and no message quotes its values."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from engines.atomic_file import write_atomically
from serve_app.errors import InvalidPlanError
from serve_app.http.key_rules import KeyRule
from serve_app.plan_schema import Name

MAX_HZ = 1e6


class _Key(BaseModel):
    """One of `keys`."""

    model_config = ConfigDict(extra="forbid")

    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    critical: bool = False
    frames_per_s: Annotated[float, Field(gt=0, le=MAX_HZ, allow_inf_nan=False)] | None = None
    burst: Annotated[int, Field(ge=1, le=10**6)] | None = None
    cameras: Annotated[list[Annotated[str, Field(min_length=1, max_length=200)]], Field(min_length=1)] = ["*"]


class _KeyFile(BaseModel):
    """The whole file."""

    model_config = ConfigDict(extra="forbid")

    keys: dict[Name, _Key]


def load_keys(path: Path) -> tuple[KeyRule, ...]:
    """The keys of a file.

    Raises:
        InvalidPlanError: missing, not YAML, an unknown key, a wrong value, one hash under two names.
    """
    try:
        return _keys(path.read_text(encoding="utf-8"), path)
    except OSError as err:
        raise InvalidPlanError(
            f"keys {path}: {(err.strerror or str(err)).lower()}; make a key with: framelane key NAME --file {path}"
        ) from err
    except ValueError as err:  # not UTF-8
        raise InvalidPlanError(f"keys {path}: is no text") from err


def add_key(path: Path, rule: KeyRule) -> None:
    """Write a key into a file, which is made if it is not there; all that stands in it stays.

    Raises:
        InvalidPlanError: the name is taken, or the file is none of keys.
    """
    text = path.read_text(encoding="utf-8") if path.exists() else "keys:\n"
    known = load_keys(path) if path.exists() else ()
    if any(rule.name == other.name for other in known):
        raise InvalidPlanError(f"keys {path}: got {rule.name!r}, which is there; name another, or take it out first")
    fields: dict[str, Any] = {"sha256": rule.sha256, "critical": rule.may_be_critical}
    if rule.frames_hz is not None:
        fields |= {"frames_per_s": rule.frames_hz, "burst": rule.burst}
    if rule.cameras != ("*",):
        fields["cameras"] = list(rule.cameras)
    lines = yaml.safe_dump({rule.name: fields}, sort_keys=False).splitlines()
    text = text.rstrip("\n") + "\n" + "".join(f"  {line}\n" for line in lines)
    if len(_keys(text, path)) != len(known) + 1:
        raise InvalidPlanError(f"keys {path}: its last section is not `keys`; put the key there by hand")
    write_atomically(path, [text.encode()])
    path.chmod(0o600)


def _keys(text: str, path: Path) -> tuple[KeyRule, ...]:
    try:
        file = _KeyFile.model_validate(yaml.safe_load(text))
    except yaml.YAMLError as err:
        where = getattr(err, "problem_mark", None)
        raise InvalidPlanError(f"keys {path}: is no YAML{f' (line {where.line + 1})' if where else ''}") from err
    except ValidationError as err:
        raise InvalidPlanError(f"keys {path}: {_explain(err)}") from None  # its text has the values
    rules = tuple(
        KeyRule(
            name,
            key.sha256,
            key.critical,
            key.frames_per_s,
            key.burst or max(1, math.ceil(key.frames_per_s or 1)),
            tuple(key.cameras),
        )
        for name, key in file.keys.items()
    )
    twice = [rule.name for rule in rules if sum(rule.sha256 == other.sha256 for other in rules) > 1]
    if twice:
        raise InvalidPlanError(f"keys {path}: {' and '.join(twice)} have the same sha256, allowed is one name a key")
    return rules


def _explain(err: ValidationError) -> str:
    """Each problem with its place and what is allowed; not what was got, which may be a key."""
    told = [".".join(str(part) for part in problem["loc"]) + f": {problem['msg']}" for problem in err.errors()]
    return "; ".join(told)[:1000]
