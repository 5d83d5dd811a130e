"""A list of cameras in YAML: read, checked, and turned into `CameraSpec`s. No value of a `source` is ever repeated.

defaults: {max_fps: 10}
cameras:
  gate: rtsp://user:password@10.0.0.7/stream1
  belt: {source: belt.mp4, realtime: true, priority: critical, slo_s: 0.5}
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BeforeValidator, Field, ValidationError

from serve_app.config import PlanLoader
from serve_app.frames import Priority
from serve_app.plan import Keep
from serve_app.plan_schema import PositiveInt, Seconds, Section
from serve_app.streams.camera_spec import DEFAULT_STALL_S, MAX_NAME_LETTERS, CameraListError, CameraSpec
from serve_app.streams.source_address import SourceKind, kind_of, webcam_index, without_secret

# No camera of today sends more.
MAX_FPS = 1000.0
# An hour: who waits longer for a frame wants no stream.
MAX_STALL_S = 3600.0


def _no_switch(value: object) -> object:
    """YAML reads `yes` and `on` as true, which pydantic would take for 1."""
    return str(value) if isinstance(value, bool) else value


Rate = Annotated[float, Field(gt=0, le=MAX_FPS, allow_inf_nan=False), BeforeValidator(_no_switch)]
StallSeconds = Annotated[float, Field(gt=0, le=MAX_STALL_S, allow_inf_nan=False), BeforeValidator(_no_switch)]


class CommonSection(Section):
    """Below `defaults`: what cameras have that do not say otherwise."""

    priority: Priority = Priority.NORMAL
    """Of its frames."""
    slo_s: Seconds | None = None
    """Until a frame must be done. Without it: the plan's."""
    fps: Rate | None = None
    """A file is played at so many frames a second. Without it: as fast as it is answered."""
    realtime: bool = False
    """A file is played at its own rate."""
    max_fps: Rate | None = None
    """No more frames a second are taken. Without it: all."""
    loop: bool = False
    """A file is played again and again."""
    keep: Keep | None = None
    """`latest`: a newer frame replaces one that waits here."""
    limit: PositiveInt | None = None
    """At most so many frames. Without it: all."""
    stall_s: StallSeconds = DEFAULT_STALL_S
    """A camera is connected anew after so long without a frame."""
    reconnect: bool = True
    """Whether a camera that went away is looked for again."""
    hwaccel: str | None = None
    """The decoder's hardware, by PyAV's name. Without it: none."""
    record: bool = True
    """Whether `--record` records it."""


class StreamCameraSection(CommonSection):
    """One of `cameras`, by name."""

    source: Annotated[str, Field(min_length=1)]
    """A file, a folder, an address, or the number of a webcam."""


class CameraListFile(Section):
    """The list as people write it; see docs/streams.md."""

    defaults: CommonSection = CommonSection()
    """What cameras have that do not say otherwise."""
    cameras: Annotated[dict[str, StreamCameraSection], Field(min_length=1)]
    """The cameras, by name: a source alone, or a section."""


def load_cameras(path: Path) -> list[CameraSpec]:
    """Read a list of cameras; paths in it are relative to its folder.

    Raises:
        CameraListError: missing, not YAML, an unknown key (the nearest right one is named), a wrong value.
    """
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), PlanLoader)  # noqa: S506 (it is a SafeLoader)
    except OSError as err:
        raise CameraListError(
            f"cameras {path}: {(err.strerror or str(err)).lower()}; give the path of a camera list in YAML"
        ) from err
    except yaml.MarkedYAMLError as err:
        # Its own text quotes the line, in which a password may stand.
        where = f" in line {err.problem_mark.line + 1}" if err.problem_mark is not None else ""
        raise CameraListError(f"cameras {path}: is no YAML{where} ({err.problem or 'cannot be parsed'})") from None
    except (yaml.YAMLError, ValueError):
        raise CameraListError(f"cameras {path}: is no YAML in UTF-8; see docs/streams.md") from None
    return cameras_from(content, path.parent, f"cameras {path}")


def cameras_from(content: Any, folder: Path, where: str = "cameras") -> list[CameraSpec]:
    """Cameras from the content of a list; `folder` is what paths are relative to. Raises `CameraListError`."""
    if not isinstance(content, dict):
        raise CameraListError(
            f"{where}: got {type(content).__name__}, allowed is a mapping with cameras, defaults; see docs/streams.md"
        )
    try:
        file = CameraListFile.model_validate(_with_defaults(content))
    except ValidationError as err:
        raise CameraListError(f"{where}: {_explain(err)}") from None
    specs = []
    for name, section in file.cameras.items():
        if not name.strip() or len(name) > MAX_NAME_LETTERS or not name.isprintable():
            raise CameraListError(
                f"{where}: cameras: got the name {name[:40]!r}, allowed are 1 to {MAX_NAME_LETTERS} printable letters"
            )
        values = section.model_dump() | {
            "source": _placed(section.source, folder), "priority": section.priority.value, "name": name,
        }  # fmt: skip
        try:
            specs.append(CameraSpec(**values))
        except CameraListError as err:
            raise CameraListError(f"{where}: {err}") from None
    return specs


def _with_defaults(content: dict[Any, Any]) -> dict[Any, Any]:
    """The content with the short form written out, and every camera's missing keys taken from the defaults."""
    cameras, defaults = content.get("cameras"), content.get("defaults")
    if not isinstance(cameras, dict):
        return content
    shared = defaults if isinstance(defaults, dict) else {}
    full = {}
    for name, camera in cameras.items():
        section = {"source": camera} if isinstance(camera, str | int) else camera
        if isinstance(section, dict):
            # A webcam's number is a source as well.
            source = section.get("source")
            is_number = isinstance(source, int) and not isinstance(source, bool)
            own = section | ({"source": str(source)} if is_number else {})
            known = {key: value for key, value in shared.items() if key in CommonSection.model_fields}
            section = (_without_rates(known) if "fps" in own or "realtime" in own else known) | own
        full[str(name)] = section
    return content | {"cameras": full}


def _without_rates(defaults: dict[str, Any]) -> dict[str, Any]:
    """A camera that says how it is played takes neither way from the defaults."""
    return {key: value for key, value in defaults.items() if key not in ("fps", "realtime")}


def _placed(source: str, folder: Path) -> str:
    if kind_of(source) is SourceKind.NETWORK or webcam_index(source) is not None:
        return source
    return str(folder / Path(source).expanduser())


def _explain(err: ValidationError) -> str:
    """All problems in one message, each with its place, what was got and what is allowed."""
    problems = []
    for problem in err.errors():
        place = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            *parents, key = (str(part) for part in problem["loc"])
            known = list(_model_at(parents).model_fields)
            near = difflib.get_close_matches(key, known, 1, 0.5)
            cure = f"did you mean {near[0]!r}?" if near else f"allowed are {', '.join(known)}"
            problems.append(f"{place}: unknown key; {cure}")
        elif problem["type"] == "missing":
            problems.append(f"{place}: is missing")
        else:
            # Of a source, and of a camera as a whole, the value may hold a password.
            is_secret = place.endswith("source") or not isinstance(problem["input"], str | int | float)
            got = type(problem["input"]).__name__ if is_secret else without_secret(f"{problem['input']!r:.80}")
            problems.append(f"{place}: got {got}, {problem['msg'][0].lower()}{problem['msg'][1:]}")
    return "; ".join(problems)


def _model_at(parents: list[str]) -> type[Section]:
    if not parents:
        return CameraListFile
    return CommonSection if parents[0] == "defaults" else StreamCameraSection
