"""What the log tells of one slow frame, in sentences. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from serve_app.report import words
from serve_app.report.frame_line import STAGES
from serve_app.report.frames_ahead import INFER, QUEUE, TRANSFER, WINDOW, FramesAhead
from serve_app.report.slow_frames import SlowFrame
from serve_app.verdicts import VerdictKind

STAGE_WORDS = {
    "queue": "waiting for its batch",
    "transfer": "the call to the replica and fetching its pixels",
    "preprocess": "placing its batch on the canvas",
    "infer": "the network",
    "postprocess": "turning the output into boxes",
}


def story(slow: SlowFrame) -> tuple[str, ...]:
    """Sentences: where its time went, what it was served as, what was ahead of it."""
    return tuple(_sentences(slow))


def _sentences(slow: SlowFrame) -> Iterator[str]:
    frame = slow.frame
    stage, took_s = max(zip(STAGES, frame.stages_s, strict=True), key=lambda part: part[1])
    if frame.total_s > 0 and took_s > 0:
        part = took_s / frame.total_s
        yield f"{words.seconds(took_s)} of it ({words.share(min(1.0, part))}) was {STAGE_WORDS[stage]}."
    yield _served(slow)
    if frame.verdict is not None and (frame.verdict is not VerdictKind.ADMIT or "in time" not in frame.verdict_reason):
        yield f"Its verdict was {frame.verdict.value}: “{words.sentence(frame.verdict_reason)}”."
    if slow.ahead is not None:
        yield _ahead(slow.ahead, frame.stages_s[QUEUE])
    elif frame.at_s is None:
        yield "The log has no times of arrival, so it does not tell what was ahead."
    if frame.stages_s[TRANSFER] > max(frame.stages_s[INFER], 0.1):
        yield "Its transfer took longer than the network: its pixels came from far, or a machine on the way was busy."


def _served(slow: SlowFrame) -> str:
    frame = slow.frame
    company = "alone" if frame.batch_size <= 1 else f"in a batch of {frame.batch_size}"
    how = f"as {frame.num_tiles} tiles, the last one {company}," if frame.num_tiles else company
    rung = "" if frame.rung == 0 else f", rung {frame.rung} of the ladder"
    where = f" on replica {words.name(frame.replica)}" if frame.replica else ""
    model = f" by {words.name(frame.model)}" if frame.model else ""
    return f"It ran {how} on canvas {words.size(frame.canvas)}{model}{rung}{where}."


def _ahead(ahead: FramesAhead, waited_s: float) -> str:
    if not ahead.num_frames:
        return "The log shows no frame of its pool and router that was served while it waited."
    classes = ", ".join(f"{number} {name}" for name, number in sorted(ahead.by_class.items()))
    batches = f"{ahead.num_batches} batch{'' if ahead.num_batches == 1 else 'es'}"
    text = f"While it waited its pool answered {words.frames(ahead.num_frames)} of its router in {batches} ({classes})"
    if ahead.num_later:
        text += f"; {ahead.num_later} of them had come after it"
    if ahead.longest is not None and ahead.longest.stages_s[INFER] > 0.2 * waited_s:
        longest = ahead.longest
        size = f"a batch of {longest.batch_size}" if longest.batch_size > 1 else "one frame"
        text += (
            f". The longest was {size} on {words.size(longest.canvas)}, {words.seconds(longest.stages_s[INFER])} "
            f"of the network, with a frame of {words.name(longest.camera)}"
        )
    if not ahead.reaches_back:
        text += f". There may have been more: the report looks back {WINDOW} records"
    return text + "."
