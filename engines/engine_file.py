"""One built engine in one file: a line with a checksum, a line of facts, then the engine itself.

A single file cannot be torn apart, and its checksum covers the facts too: whatever is read is what was written.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engines.atomic_file import write_atomically
from engines.engine_spec import BuiltEngine, ComputeCapability, EngineFacts, Precision, ShapeProfile
from engines.errors import EngineFileError
from engines.spec import CanvasShape, WarmShape

# The first line: this, the SHA-256 of all that follows it in hexadecimal, and a line feed.
FORMAT_VERSION = 1
MAGIC = b"framelane engine %d " % FORMAT_VERSION
_FIRST_LINE_BYTES = len(MAGIC) + 64 + 1
# Facts are a few hundred bytes; whoever claims more is no file of ours.
_MAX_FACTS_BYTES = 64 * 1024

# What an engine was built from and for, as plain values that JSON can hold.
EngineKey = Mapping[str, str | int | None]


def save_engine(path: Path, built: BuiltEngine, key: EngineKey) -> None:
    """Write an engine whole or not at all.

    Raises:
        OSError: for want of room or of rights; nothing is left behind.
    """
    header = {"key": dict(key), "num_plan_bytes": len(built.plan_bytes), "facts": _facts_to_json(built.facts)}
    body = json.dumps(header, sort_keys=True).encode() + b"\n"
    digest = hashlib.sha256(body)
    digest.update(built.plan_bytes)
    write_atomically(path, [MAGIC + digest.hexdigest().encode() + b"\n", body, built.plan_bytes])


def load_engine(path: Path, key: EngineKey | None = None) -> BuiltEngine:
    """Read an engine and make sure that it is the one that is wanted.

    Args:
        path: a file of `save_engine`.
        key: what it must have been saved with; None: whatever it is.

    Raises:
        FileNotFoundError: there is none.
        EngineFileError: it is no engine file, damaged, cut short, or of another key; says which.
        OSError: it cannot be read.
    """
    content = path.read_bytes()
    if not content.startswith(MAGIC):
        raise EngineFileError(f"engine file {path}: got a file that is none of ours, or of another format version")
    digest, body = content[len(MAGIC) : _FIRST_LINE_BYTES - 1], memoryview(content)[_FIRST_LINE_BYTES:]
    facts_bytes, line_feed, _ = bytes(body[:_MAX_FACTS_BYTES]).partition(b"\n")
    is_sound = bool(line_feed) and hashlib.sha256(body).hexdigest().encode() == digest
    if not is_sound:
        raise EngineFileError(f"engine file {path}: {_what_is_wrong(facts_bytes, len(body))}")
    try:
        header = json.loads(facts_bytes)
        facts = _facts_from_json(header["facts"])
        saved_key = dict(header["key"])
    except (ValueError, KeyError, TypeError) as err:
        raise EngineFileError(f"engine file {path}: got facts that this version cannot read ({err!r})") from err
    if key is not None and saved_key != dict(key):
        names = sorted(name for name in {*saved_key, *key} if saved_key.get(name) != key.get(name))
        differences = ", ".join(f"{name} {saved_key.get(name)!r} instead of {key.get(name)!r}" for name in names)
        raise EngineFileError(f"engine file {path}: got an engine of {differences}")
    return BuiltEngine(bytes(body[len(facts_bytes) + 1 :]), facts)


def engines_in(folder: Path) -> list[BuiltEngine]:
    """Every sound engine in a folder and the folders in it, by path; what is none is passed over.

    Raises:
        EngineFileError: there is no such folder.
    """
    if not folder.is_dir():
        raise EngineFileError(f"engines {folder}: is no folder; give a folder of built engines (framelane build PLAN)")
    found = []
    for path in sorted(folder.rglob("*.engine")):
        try:
            found.append(load_engine(path))
        except (EngineFileError, OSError):
            continue
    return found


def _what_is_wrong(facts_bytes: bytes, body_bytes: int) -> str:
    """Whether a file whose checksum fails was cut short or changed."""
    try:
        wanted_bytes = int(json.loads(facts_bytes)["num_plan_bytes"])
    except (ValueError, KeyError, TypeError):
        return "got a damaged file (its facts cannot be read)"
    got_bytes = body_bytes - len(facts_bytes) - 1
    if got_bytes < wanted_bytes:
        return f"got a file that is cut short, {got_bytes} of {wanted_bytes} bytes of the engine"
    return "got a damaged file (its checksum does not fit)"


def _facts_to_json(facts: EngineFacts) -> dict[str, Any]:
    profile = facts.profile
    return {
        "library": facts.library,
        "library_version": facts.library_version,
        "compute_capability": [facts.compute_capability.major, facts.compute_capability.minor],
        "precision": facts.precision.value,
        "profile": [[s.batch, *s.canvas] for s in (profile.min_shape, profile.opt_shape, profile.max_shape)],
        "onnx_sha256": facts.onnx_sha256,
        "activation_bytes": facts.activation_bytes,
        "weights_bytes": facts.weights_bytes,
        "build_s": facts.build_s,
    }


def _facts_from_json(values: Mapping[str, Any]) -> EngineFacts:
    shapes = [WarmShape(CanvasShape(height, width), batch) for batch, height, width in values["profile"]]
    return EngineFacts(
        library=values["library"],
        library_version=values["library_version"],
        compute_capability=ComputeCapability(*values["compute_capability"]),
        precision=Precision(values["precision"]),
        profile=ShapeProfile(*shapes),
        onnx_sha256=values["onnx_sha256"],
        activation_bytes=values["activation_bytes"],
        weights_bytes=values["weights_bytes"],
        build_s=values["build_s"],
    )
