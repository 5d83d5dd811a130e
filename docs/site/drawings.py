"""The drawings of `docs/concepts.md`. `make reference` writes them; sizes of frames and canvases are to scale."""

from __future__ import annotations

from collections.abc import Callable

from svg import BLUE, FAINT, GREEN, GREY, INK, ORANGE, PALE, Drawing

from engines.letterbox import placement
from engines.spec import CanvasShape
from serve_app.memory_level import MemoryMarks

ROUTER_STEPS = "2  gives a verdict\n3  puts it into a lane\n4  forms a batch\n7  answers, writes the record"


def path_of_a_frame() -> str:
    """Who does what with a frame, and which way its pixels go."""
    d = Drawing(900, 310, "The path of a frame: client, router, replica, and the object store that holds the pixels")
    for x, name, where, steps in (
        (20, "client", "your process", "1  checks the array,\n     stores the pixels"),
        (300, "router", "a Serve deployment", ROUTER_STEPS),
        (620, "replica", "a GPU, or CPU cores", "5  fetches, places on the canvas\n6  runs the engine, finds boxes"),
    ):  # fmt: skip
        width = 180 if x == 20 else 220 if x == 300 else 260
        d.box(x, 20, width, 132, BLUE)
        d.text(x + 14, 44, name, size=16, bold=True, at="start")
        d.text(x + width - 12, 44, where, size=11.5, colour=FAINT, at="end")
        d.text(x + 14, 70, steps, at="start")
    d.arrow((200, 72), (296, 72))
    d.text(248, 64, "metadata + ref", size=11)
    d.arrow((520, 72), (616, 72))
    d.text(568, 64, "batch + refs", size=11)
    d.arrow((620, 120), (524, 120))
    d.text(572, 137, "boxes", size=11)
    d.arrow((300, 120), (204, 120))
    d.text(252, 137, "result", size=11)
    d.box(20, 228, 860, 62, GREEN)
    d.text(36, 254, "object store", size=16, bold=True, at="start")
    d.text(
        36, 274, "shared memory of each machine; Ray moves pixels between machines where it must", at="start", size=12
    )
    d.arrow((110, 152), (110, 224), colour=GREEN)
    d.text(120, 192, "pixels in, once", size=11.5, at="start", colour=GREEN)
    d.arrow((750, 228), (750, 156), colour=GREEN)
    d.text(740, 192, "pixels out, without a copy on the same machine", size=11.5, at="end", colour=GREEN)
    d.text(410, 172, "pixels never pass the router", size=11.5, colour=FAINT)
    return d.svg()


def lanes_and_credits() -> str:
    """Three classes of lanes, one batch at a time, two places at each replica."""
    d = Drawing(
        960, 396, "Lanes and credits: three classes of lanes on the left, replicas with a running and a staged batch"
    )
    d.text(20, 28, "one lane for each canvas and class; the next frame is at the right", at="start", colour=FAINT)
    lanes = (
        ("critical", "by deadline", ORANGE, ("0.24", "0.18", "0.05")),
        ("normal", "by latest start", BLUE, ("0.92", "0.81", "0.60", "0.41", "0.33", "0.12")),
        ("deferred", "large ones: when nobody else waits, or they must begin", GREY, ("9.0", "4.2")),
    )
    for row, (name, order, colour, frames) in enumerate(lanes):
        y = 48 + row * 108
        d.text(20, y + 16, name, size=15, bold=True, at="start")
        d.text(20 + 9 * len(name) + 8, y + 16, order, size=12, colour=FAINT, at="start")
        d.box(20, y + 28, 410, 52)
        size = 70 if name == "deferred" else 46
        for place, left in enumerate(reversed(frames)):
            x = 424 - (place + 1) * (size + 6)
            d.box(x, y + 34, size, 40, colour)
            d.text(x + size / 2, y + 58, f"{left} s", size=12)
    d.text(20, 386, "0.12 s: what is left until the frame must begin or be done", at="start", size=12, colour=FAINT)
    d.text(
        500,
        168,
        "the router takes\nthe most urgent lane;\nframes of the same\ncanvas join, while\nall are in time",
        size=12,
    )
    d.arrow((434, 236), (568, 236))
    for row, name in enumerate(("replica 1", "replica 2")):
        y = 48 + row * 158
        d.box(576, y, 364, 138, GREEN)
        d.text(590, y + 22, name, size=14, bold=True, at="start")
        for x, label, holds, colour in (
            (590, "runs", "4 normal", BLUE),
            (706, "staged", "2 normal" if row == 0 else "free credit", BLUE if row == 0 else GREY),
            (822, "third", "critical" if row == 0 else "critical only", ORANGE),
        ):
            is_free = "free" in holds or "only" in holds
            d.box(x, y + 36, 104, 54, colour, dashed=is_free)
            d.text(x + 52, y + 58, label, size=12, bold=True)
            d.text(x + 52, y + 76, holds, size=11.5, colour=FAINT if is_free else INK)
        if row == 0:
            d.arrow((874, y + 92), (874, y + 106), (758, y + 106), (758, y + 94), colour=ORANGE)
            d.text(
                590,
                y + 126,
                "a staged critical batch overtakes a staged normal one",
                size=11.5,
                at="start",
                colour=ORANGE,
            )
        else:
            d.text(
                590, y + 112, "a credit is the right to have one noncritical batch", size=11.5, at="start", colour=FAINT
            )
            d.text(590, y + 127, "here: one runs, one is fetched meanwhile", size=11.5, at="start", colour=FAINT)
    d.text(758, 372, "a critical frame waits for one running chunk at most", size=12.5, bold=True)
    return d.svg()


def canvases_and_buckets() -> str:
    """Frames on their canvases, to scale, beside the same frames on one square."""
    d = Drawing(900, 396, "Canvases and buckets: frames on the canvases that fit them, and on one square of 640")
    scale = 0.14
    d.box(14, 14, 250, 252, BLUE)
    d.text(28, 38, "bucket small: one engine", size=14, bold=True, at="start")
    d.box(278, 14, 608, 252, GREEN)
    d.text(292, 38, "bucket large: one engine", size=14, bold=True, at="start")
    placed = (
        (30, (240, 320), CanvasShape(256, 320)),
        (152, (480, 640), CanvasShape(480, 640)),
        (300, (720, 1280), CanvasShape(736, 1280)),
        (560, (1080, 1920), CanvasShape(1088, 1920)),
    )
    for x, frame_hw, canvas in placed:
        _placed(d, (x, 60), frame_hw, canvas, scale)
    words = "all on one square of 640: every frame is scaled and padded to the same 409,600 px"
    d.text(20, 304, words, at="start", bold=True, size=14)
    for x, (_, frame_hw, _) in zip((30, 230, 440, 660), placed, strict=True):
        _placed(d, (x, 318), frame_hw, CanvasShape(640, 640), 0.1, below=False)
    return d.svg()


def _placed(
    d: Drawing,
    corner: tuple[float, float],
    frame_hw: tuple[int, int],
    canvas: CanvasShape,
    scale: float,
    *,
    below: bool = True,
) -> None:
    """A canvas in grey with the frame as it lies on it, and what is computed for nothing."""
    x, y = corner
    where = placement(frame_hw, canvas)
    height, width = where.placed_hw
    d.block(x, y, canvas.width * scale, canvas.height * scale, "#cbd5e1")
    d.block(x + where.left_px * scale, y + where.top_px * scale, width * scale, height * scale, PALE[ORANGE])
    padding = 1 - height * width / (canvas.height * canvas.width)
    factor = height / frame_hw[0]
    words = f"frame {frame_hw[1]}×{frame_hw[0]}\n"
    words += f"canvas {canvas.width}×{canvas.height}\n" if below else f"at {100 * factor:.0f} % of its size\n"
    words += f"{100 * padding + 1e-9:.1f} % padding"
    if below:
        d.text(x, y + canvas.height * scale + 18, words, at="start", size=11.5)
    else:
        d.text(x + canvas.width * scale + 10, y + 20, words, at="start", size=11.5)


def ladder_and_levels() -> str:
    """What the rungs are, what moves noncritical frames along them, and the four levels of memory."""
    d = Drawing(900, 408, "The ladder's rungs, and the four levels of memory")
    d.text(20, 30, "the ladder, dearest first", size=15, bold=True, at="start")
    rungs = (
        ("rung 0", "the camera's own model at its own size"),
        ("rung 1", "model full, no canvas above 736×1280"),
        ("rung 2", "model light"),
    )
    for step, (name, what) in enumerate(rungs):
        x, y = 20 + step * 70, 48 + step * 52
        d.box(x, y, 360, 40, (GREEN, BLUE, ORANGE)[step])
        d.text(x + 14, y + 25, name, bold=True, at="start")
        d.text(x + 76, y + 25, what, at="start")
    d.text(566, 62, "down", bold=True, at="start", size=14)
    d.text(
        566,
        82,
        "a normal frame would wait for more than\n35 % of its deadline: one rung, at most every 0.2 s",
        at="start",
        size=12,
    )
    d.text(566, 132, "up", bold=True, at="start", size=14)
    d.text(566, 152, "it would wait for less than 10 %, for 2 s: one rung", at="start", size=12)
    d.arrow((548, 52), (548, 106))
    d.arrow((548, 166), (548, 124))
    words = "a critical frame takes a lower rung only for itself,\nwhen it would be late otherwise"
    d.text(566, 184, words, at="start", size=12, colour=FAINT)
    marks = MemoryMarks()
    d.text(
        20,
        244,
        "the levels of memory, by the used share of the emptiest device of a pool",
        size=15,
        bold=True,
        at="start",
    )
    left, right = 20.0, 880.0
    # From 70 % on: what lies below is one level.
    edges = [0.7, marks.high, marks.critical, marks.shed, 1.0]
    spots = [left + (right - left) * (edge - edges[0]) / (1 - edges[0]) for edge in edges]
    levels = (
        ("normal", "as ever", GREEN),
        ("high", "normal frames at\nleast one rung down", BLUE),
        ("critical", "last rung; deferred\nframes wait", ORANGE),
        ("shed", "normal frames\nrejected", ORANGE),
    )
    for (name, what, colour), start, end in zip(levels, spots, spots[1:], strict=False):
        d.box(start, 262, end - start, 74, colour)
        d.text((start + end) / 2, 284, name, bold=True)
        d.text((start + end) / 2, 304, what, size=11 if end - start < 160 else 12)
    for edge, spot in zip(edges[1:4], spots[1:4], strict=True):
        d.text(spot, 354, f"{100 * edge:.0f} %", size=12, bold=True)
    d.text(20, 386, "a level holds at once when its mark is reached; it falls one step after "
           f"{marks.calm_s:g} s of less than the mark less 2 %", at="start", size=12, colour=FAINT)  # fmt: skip
    return d.svg()


DRAWINGS: dict[str, Callable[[], str]] = {
    "images/path-of-a-frame.svg": path_of_a_frame,
    "images/lanes-and-credits.svg": lanes_and_credits,
    "images/canvases-and-buckets.svg": canvases_and_buckets,
    "images/ladder-and-levels.svg": ladder_and_levels,
}
