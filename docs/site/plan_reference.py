"""`docs/configuration.md` and `docs/camera-list.md`, made from the models of the files that people write."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from serve_app.plan_schema import PlanFile, Section

HEAD = """# The plan's keys

Every key of a plan file, with its type, its default and its bounds. How they work together tells [the plan](plan.md).
A key that is not listed here is an error, which names the nearest right one.

Sizes are written `[height, width]`, in px. Paths are relative to the plan's folder.

*Made from `serve_app/plan_schema.py`: change that file, then run `make reference`.*
"""
CAMERAS_HEAD = """# The camera list's keys

Every key of a list of cameras (`framelane stream --cameras`), with its type, its default and its bounds. What they do
together tells [Streams](streams.md). A key that is not listed here is an error, which names the nearest right one.

*Made from `serve_app/streams/camera_list.py`: change that file, then run `make reference`.*
"""
TABLE_HEAD = ["| key | value | default | unit | meaning |", "|---|---|---|---|---|"]
SHARE = "share, 0 to 1"
UNITS = {
    "_s": "seconds",
    "_px": "px",
    "_bytes": "bytes",
    "_mib": "MiB",
    "_hz": "a second",
    "fps": "frames a second",
    "_fraction": SHARE,
}
# Keys whose name alone does not say their unit.
UNITS_OF = {
    "slo_s.critical": "seconds", "slo_s.normal": "seconds",
    "memory.high": SHARE, "memory.critical": SHARE, "memory.shed": SHARE, "autoscaling.utilisation": SHARE,
    "detection.min_score": "score, 0 to 1", "detection.max_iou": "IoU, 0 to 1",
    "buckets.canvases": "px", "ladder.max_canvas": "px", "pools.cpus": "cores", "pools.gpus": "GPUs",
    "spool.jpeg_quality": "percent",
}  # fmt: skip
BOUNDS = {
    "minimum": "at least {}", "exclusiveMinimum": "above {}", "maximum": "at most {}", "exclusiveMaximum": "below {}",
    "maxLength": "at most {} characters",
}  # fmt: skip
TYPES = {"integer": "whole number", "number": "number", "string": "text", "boolean": "`true` or `false`"}

Schema = Mapping[str, Any]


def page(model: type[Section] = PlanFile, head: str = HEAD) -> str:
    """The whole page of one file's model."""
    schema = model.model_json_schema()
    top: list[str] = []
    sections: list[str] = []
    for key, value in schema["properties"].items():
        kind, below = _section(value, schema)
        if below is None:
            top.append(_row(key, key, value, is_required=key in schema.get("required", ()), schema=schema))
            continue
        required = ", required" if key in schema.get("required", ()) else ""
        top.append(f"| [`{key}`](#{key}) | {kind}{required} | | | {_text(value)} |")
        sections += _section_lines(key, kind, value, below, schema)
    return "\n".join([head, *TABLE_HEAD, *top, *sections]) + "\n"


def _section(value: Schema, schema: Schema) -> tuple[str, Schema | None]:
    """How a section is written, and what one of it holds; None for a plain value."""
    if "$ref" in value:
        found = _resolved(value, schema)
        return "section", found if "properties" in found else None
    for inner, kind in ((_named(value), "sections by name"), (value.get("items"), "list of sections")):
        if isinstance(inner, Mapping) and "properties" in _resolved(inner, schema):
            return kind, _resolved(inner, schema)
    return "", None


def _named(value: Schema) -> object:
    """What stands below each name of a mapping."""
    return next(iter(value.get("patternProperties", {}).values()), value.get("additionalProperties"))


def _section_lines(key: str, kind: str, value: Schema, below: Schema, schema: Schema) -> Iterator[str]:
    yield from ("", f"## {key}", "", f"{_text(value)} Written as {_article(kind)}.", "", *TABLE_HEAD)
    nested = []
    for name, inner in below["properties"].items():
        inner_kind, deeper = _section(inner, schema)
        if deeper is None:
            is_required = name in below.get("required", ())
            yield _row(name, f"{key}.{name}", inner, is_required=is_required, schema=schema)
        else:
            yield f"| [`{name}`](#{key}{name}) | {inner_kind} | | | {_text(inner)} |"
            nested.append((f"{key}.{name}", inner_kind, inner, deeper))
    for path, inner_kind, inner, deeper in nested:
        yield from _section_lines(path, inner_kind, inner, deeper, schema)


def _row(name: str, path: str, value: Schema, *, is_required: bool, schema: Schema) -> str:
    default = "required" if is_required else _default(value.get("default"))
    return f"| `{name}` | {_type(value, schema)} | {default} | {_unit(path)} | {_text(value)} |"


def _type(value: Schema, schema: Schema) -> str:
    """The type of a value with its bounds, in words."""
    value = _resolved(value, schema)
    if "anyOf" in value:
        return " or ".join(_type(one, schema) for one in value["anyOf"] if one.get("type") != "null")
    if "enum" in value or "const" in value:
        return ", ".join(f"`{word}`" for word in value.get("enum", [value.get("const")]))
    if "prefixItems" in value:
        return f"pairs ({_type(value['prefixItems'][0], schema)})"
    bounds = [words.format(_number(value[name])) for name, words in BOUNDS.items() if name in value]
    return ", ".join([_kind(value, schema), *bounds])


def _kind(value: Schema, schema: Schema) -> str:
    """The type alone."""
    kind = str(value.get("type", "anything"))
    if kind == "array":
        return f"list of {_type(value['items'], schema)}" if isinstance(value.get("items"), Mapping) else "list"
    if kind == "object":
        inner = _named(value)
        return f"{_type(inner, schema)} by name" if isinstance(inner, Mapping) else "mapping"
    return "name" if "pattern" in value else TYPES.get(kind, kind)


def _unit(path: str) -> str:
    if path in UNITS_OF:
        return UNITS_OF[path]
    return next((unit for ending, unit in UNITS.items() if path.endswith(ending)), "")


def _default(value: object) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{_number(value)}`"


def _number(value: object) -> str:
    """Without a fraction that says nothing, and so that it can be pasted into a plan."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _text(value: Schema) -> str:
    return " ".join(str(value.get("description", "")).split()).replace("|", "\\|")


def _article(kind: str) -> str:
    return kind if kind.startswith("sections") else f"a {kind}"


def _resolved(value: Schema, schema: Schema) -> Schema:
    """What a reference stands for; its own description goes first."""
    if "$ref" not in value:
        return value
    return {**schema["$defs"][value["$ref"].rpartition("/")[2]], **{k: v for k, v in value.items() if k != "$ref"}}
