"""Whether two engines find the same: their boxes on the same frames, paired, and how far the pairs are apart.

Boxes are best compared before NMS (`CANDIDATES`): of two boxes that score nearly the same it keeps one, and the
smallest difference makes that the other one.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from engines.base import Engine
from engines.boxes import MAX_CANDIDATES, DetectionLimits
from engines.detections import Detections
from engines.detector import detect_placed, place_batch
from engines.errors import ModelFileError, PrecisionError
from engines.letterbox import Image
from engines.onnx_run import OnnxEngine
from engines.prepared_graph import PreparedGraph
from engines.spec import ModelInfo, WarmShape, fitting_canvas

# NMS that keeps everything.
CANDIDATES = DetectionLimits(max_iou=1.0, max_boxes=MAX_CANDIDATES)
# Boxes of a class that share less than this show two objects: they are no pair, however close their scores.
MIN_PAIR_IOU = 0.5
# FP16 against FP32 on ONNX Runtime, 51,000 candidates of three YOLOv8 on over 120 frames of 320×320 to 1080×1920 px:
# the lowest IoU was 0.9929 (of a box 4.6 px wide), the largest difference between scores 0.009. Twice as much is
# allowed. After NMS, on the same frames, IoU fell to 0.72 and scores differed by 0.17, where it chose another box.
DEFAULT_MIN_IOU = 0.98
DEFAULT_MAX_SCORE_DIFFERENCE = 0.02


# A frame with so many boxes or more may have more than its answer: end-to-end heads give their best 300, as exported by
# ultralytics.
FULL_ANSWER_BOXES = 300


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How far two engines may be apart and still find the same.

    Attributes:
        min_iou: least overlap of a pair.
        max_score_difference: most difference between the scores of a pair. A box whose score is no further above the
            least one that the frame's answer goes down to may be missing on the other side.
    """

    min_iou: float = DEFAULT_MIN_IOU
    max_score_difference: float = DEFAULT_MAX_SCORE_DIFFERENCE

    def __post_init__(self) -> None:
        for name in ("min_iou", "max_score_difference"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise ValueError(f"{name}: got {value}, allowed is 0 to 1")


@dataclass(frozen=True, slots=True)
class Box:
    """One detection: its frame by number from 0, its corners `(x_min, y_min, x_max, y_max)` in px of that frame."""

    frame: int
    class_id: int
    score: float
    corners_xyxy: tuple[float, ...]

    def __str__(self) -> str:
        corners = ", ".join(f"{value:.1f}" for value in self.corners_xyxy)
        return f"box ({corners}) px of class {self.class_id}, score {self.score:.3f}"


@dataclass(frozen=True, slots=True)
class Pair:
    """Two boxes that show the same object."""

    found: Box
    wanted: Box
    iou: float

    @property
    def score_difference(self) -> float:
        """Between the two scores, never negative."""
        return abs(self.found.score - self.wanted.score)

    @property
    def corner_difference_px(self) -> float:
        """The largest difference between coordinates of the two boxes."""
        corners = zip(self.found.corners_xyxy, self.wanted.corners_xyxy, strict=True)
        return max(abs(mine - theirs) for mine, theirs in corners)


@dataclass(frozen=True, slots=True)
class Excess:
    """A box that is further off than tolerated: what was got, and what is allowed."""

    box: Box
    got: str
    allowed: str

    def __str__(self) -> str:
        return f"{self.box}: got {self.got}, allowed is {self.allowed}"


@dataclass(frozen=True, slots=True)
class Parity:
    """What a comparison of two engines gave.

    Attributes:
        num_frames: how many frames were compared.
        cut_scores: for each frame, the score down to which both sides answer.
        pairs: boxes that both found.
        only_found, only_wanted: boxes without a counterpart on the other side.
    """

    num_frames: int
    cut_scores: tuple[float, ...]
    pairs: tuple[Pair, ...]
    only_found: tuple[Box, ...]
    only_wanted: tuple[Box, ...]

    @property
    def num_matched(self) -> int:
        """Boxes that both found; 0 means that nothing was shown."""
        return len(self.pairs)

    @property
    def lowest_iou(self) -> float:
        """Of any pair; 1 where there is none."""
        return min((pair.iou for pair in self.pairs), default=1.0)

    @property
    def mean_iou(self) -> float:
        """Over all pairs; 1 where there is none."""
        return sum(pair.iou for pair in self.pairs) / len(self.pairs) if self.pairs else 1.0

    @property
    def largest_score_difference(self) -> float:
        """Of any pair; 0 where there is none."""
        return max((pair.score_difference for pair in self.pairs), default=0.0)

    @property
    def largest_corner_difference_px(self) -> float:
        """Of any pair; 0 where there is none."""
        return max((pair.corner_difference_px for pair in self.pairs), default=0.0)

    def of_frame(self, frame: int) -> Parity:
        """The part that speaks of one frame."""
        return Parity(
            1,
            self.cut_scores,
            tuple(pair for pair in self.pairs if pair.found.frame == frame),
            tuple(box for box in self.only_found if box.frame == frame),
            tuple(box for box in self.only_wanted if box.frame == frame),
        )

    def excesses(self, tolerance: Tolerance) -> list[Excess]:
        """All that is beyond the tolerance: missing boxes first, then places, then scores."""
        most = tolerance.max_score_difference
        lone = [(box, "no such box on the other side") for box in self.only_wanted]
        lone += [(box, "this box, which the other side has not") for box in self.only_found]
        missing = [
            Excess(box, got, f"that up to a score of {self.cut_scores[box.frame] + most:.3f}")
            for box, got in lone
            if not box.score <= self.cut_scores[box.frame] + most
        ]
        moved = [
            Excess(pair.wanted, f"an IoU of {pair.iou:.4f}", f"{tolerance.min_iou:.4f} or more")
            for pair in self.pairs
            if not pair.iou >= tolerance.min_iou  # so that what is no number is beyond every tolerance
        ]
        rated = [
            Excess(pair.wanted, f"a score that differs by {pair.score_difference:.4f}", f"{most:.4f} or less")
            for pair in self.pairs
            if not pair.score_difference <= most
        ]
        return missing + moved + rated


def compare(
    found: Sequence[Detections], wanted: Sequence[Detections], *, min_score: float = CANDIDATES.min_score
) -> Parity:
    """Pair the boxes of two engines, one for one within each frame and class, the closest in place and score first.

    (By place alone, two boxes of one object that lie on each other but score differently would be paired crosswise.)

    Args:
        found: of each frame, from the engine in question.
        wanted: of the same frames, from the engine that is trusted.
        min_score: the least score that both engines answer.
    """
    pairs: list[Pair] = []
    only_found: list[Box] = []
    only_wanted: list[Box] = []
    for frame, (mine, theirs) in enumerate(zip(found, wanted, strict=True)):
        my_boxes, their_boxes = _boxes(frame, mine), _boxes(frame, theirs)
        matched = _match(mine, theirs)
        pairs += [Pair(my_boxes[i], their_boxes[j], iou) for i, j, iou in matched]
        my_rest = set(range(len(my_boxes))) - {i for i, _, _ in matched}
        their_rest = set(range(len(their_boxes))) - {j for _, j, _ in matched}
        only_found += [my_boxes[i] for i in sorted(my_rest)]
        only_wanted += [their_boxes[j] for j in sorted(their_rest)]
    cut_scores = tuple(
        max(_cut_score(answer, min_score) for answer in answers) for answers in zip(found, wanted, strict=True)
    )
    return Parity(len(found), cut_scores, tuple(pairs), tuple(only_found), tuple(only_wanted))


def check_precision(
    full: PreparedGraph, reduced: PreparedGraph, frames_hwc: Sequence[Image], tolerance: Tolerance | None = None
) -> Parity:
    """Make sure that a graph in fewer bits finds what the full one finds, on ONNX Runtime's CPU.

    Args:
        full: the graph in FP32.
        reduced: the same network in fewer bits.
        frames_hwc: real frames, uint8 `(height, width, 3)` BGR each; they should show what the model detects: where
            neither graph finds anything, nothing is shown and `num_matched` is 0.
        tolerance: how far they may be apart.

    Raises:
        PrecisionError: they are further apart on some frame.
    """
    allowed = tolerance or Tolerance()
    wanted = detect_all(engine_of(full), frames_hwc)
    try:
        found = detect_all(engine_of(reduced), frames_hwc)
    except ModelFileError as err:
        raise PrecisionError(f"precision: the reduced graph cannot be used: {err}; set precision: fp32") from err
    parity = compare(found, wanted)
    excesses = parity.excesses(allowed)
    if excesses:
        first = excesses[0]
        more = f" (and {len(excesses) - 1} more)" if len(excesses) > 1 else ""
        raise PrecisionError(f"precision: frame {first.box.frame}, {first}{more}; set precision: fp32")
    return parity


def engine_of(graph: PreparedGraph, limits: DetectionLimits = CANDIDATES) -> OnnxEngine:
    """An engine on ONNX Runtime for a graph in memory."""
    with tempfile.TemporaryDirectory(prefix="framelane-") as folder:
        path = Path(folder) / "graph.onnx"
        path.write_bytes(graph.onnx_bytes)
        return OnnxEngine(path, limits=limits)


def native_shape(image_hwc: Image, model: ModelInfo) -> WarmShape:
    """The shape to compare a frame at: its own size, alone, unless the model knows but one."""
    canvas = model.fixed_canvas or fitting_canvas((image_hwc.shape[0], image_hwc.shape[1]), model.stride_px)
    return WarmShape(canvas, model.fixed_batch or 1)


def detect_all(engine: Engine, frames_hwc: Sequence[Image]) -> list[Detections]:
    """Warm an engine, let it detect on each frame at its native shape, and close it; boxes in px of the frame."""
    shapes = [native_shape(image_hwc, engine.model) for image_hwc in frames_hwc]
    try:
        engine.warm(sorted(set(shapes)))
        return [
            detect_placed(engine, place_batch([image_hwc, *[None] * (batch - 1)], canvas)).detections[0]
            for image_hwc, (canvas, batch) in zip(frames_hwc, shapes, strict=True)
        ]
    finally:
        engine.close()


def _cut_score(answer: Detections, min_score: float) -> float:
    """Down to which score an answer goes: a full one ends at its lowest."""
    return max(min_score, float(answer.scores.min())) if len(answer) >= FULL_ANSWER_BOXES else min_score


def _boxes(frame: int, detections: Detections) -> list[Box]:
    rows = zip(detections.class_ids.tolist(), detections.scores.tolist(), detections.boxes_xyxy.tolist(), strict=True)
    return [Box(frame, class_id, score, tuple(corners)) for class_id, score, corners in rows]


def _match(found: Detections, wanted: Detections) -> list[tuple[int, int, float]]:
    """Pairs as (index found, index wanted, IoU), the closest first."""
    overlaps = _iou(found.boxes_xyxy.astype(np.float64), wanted.boxes_xyxy.astype(np.float64))
    same_class = found.class_ids[:, None] == wanted.class_ids[None]
    distances = 1 - overlaps + np.abs(found.scores[:, None] - wanted.scores[None])
    mine, theirs = np.nonzero(same_class & (overlaps >= MIN_PAIR_IOU))
    matched: list[tuple[int, int, float]] = []
    taken_mine: set[int] = set()
    taken_theirs: set[int] = set()
    for k in np.argsort(distances[mine, theirs], kind="stable"):
        i, j = int(mine[k]), int(theirs[k])
        if i not in taken_mine and j not in taken_theirs:
            taken_mine.add(i)
            taken_theirs.add(j)
            matched.append((i, j, float(overlaps[i, j])))
    return matched


def _iou(boxes_a_xyxy: npt.NDArray[np.float64], boxes_b_xyxy: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Intersection over union of every pair of boxes, shape `(A, B)`; 0 for boxes without area."""
    corners_min = np.maximum(boxes_a_xyxy[:, None, :2], boxes_b_xyxy[None, :, :2])
    corners_max = np.minimum(boxes_a_xyxy[:, None, 2:], boxes_b_xyxy[None, :, 2:])
    shared = (corners_max - corners_min).clip(0).prod(2)
    areas_a, areas_b = ((boxes[:, 2:] - boxes[:, :2]).prod(1) for boxes in (boxes_a_xyxy, boxes_b_xyxy))
    united = areas_a[:, None] + areas_b[None] - shared
    return np.asarray(np.divide(shared, united, out=np.zeros_like(shared), where=united > 0), np.float64)
