"""Boxes from several windows of one frame as arrays: which of them overlap, and the unions of those that were joined.

What belongs together is decided in `tiles.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

# A box that ends this near an inner edge of its window counts as cut there. Of 550 boxes of parts that an edge did cut,
# 99 % ended within 2.1 px of it (bundled:inspection-full); anything from 3 to 8 px merges 4K scenes equally well.
CUT_EDGE_PX = 4.0

Floats = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Pieces:
    """Boxes of which some show only a part of an object.

    Attributes:
        boxes_xyxy: float32, shape `(N, 4)`, each row `(x_min, y_min, x_max, y_max)` in px of the frame.
        scores, class_ids: shape `(N,)`, as in `Detections`.
        cut_sides: shape `(N, 4)`, in the order of a box's numbers: whether the object may go on beyond that side.
        window_ids: shape `(N,)`, the window that saw the box; -1 for one that was joined from several.
    """

    boxes_xyxy: Floats
    scores: Floats
    class_ids: Ids
    cut_sides: Flags
    window_ids: Ids

    def __len__(self) -> int:
        return len(self.scores)

    def take(self, chosen: Ids) -> Pieces:
        """These boxes, in this order; copies."""
        return Pieces(
            self.boxes_xyxy[chosen],
            self.scores[chosen],
            self.class_ids[chosen],
            self.cut_sides[chosen],
            self.window_ids[chosen],
        )

    def areas_px(self) -> Floats:
        """Area of each box, shape `(N,)`."""
        return shared_px(self.boxes_xyxy, self.boxes_xyxy)

    def rival_pairs(self) -> tuple[Ids, Ids, Floats]:
        """All pairs of one class that overlap and were not seen by the same window, each once in either order.

        A sweep along x: O(N log N + p), where p pairs overlap horizontally.

        Returns:
            one, other: indices, shape `(P,)`.
            shared: the area of each intersection in square px, more than 0.
        """
        order = np.argsort(self.boxes_xyxy[:, 0], kind="stable")
        x_mins, x_maxs = self.boxes_xyxy[order, 0], self.boxes_xyxy[order, 2]
        # A box makes a pair with each of the next `counts` boxes in this order: those that begin before it ends.
        counts = (np.searchsorted(x_mins, x_maxs) - np.arange(1, len(self) + 1)).clip(0)
        ranks = np.repeat(np.arange(len(self)), counts)
        steps = np.arange(1, len(ranks) + 1) - np.repeat(counts.cumsum() - counts, counts)
        one, other = order[ranks], order[ranks + steps]
        same_window = (self.window_ids[one] == self.window_ids[other]) & (self.window_ids[one] >= 0)
        chosen = (self.class_ids[one] == self.class_ids[other]) & ~same_window
        one, other = one[chosen], other[chosen]
        shared = shared_px(self.boxes_xyxy[one], self.boxes_xyxy[other])
        return one[shared > 0], other[shared > 0], shared[shared > 0]

    def joined(self, one: Ids, other: Ids) -> Pieces:
        """The pieces with these pairs joined, transitively: union box, best score.

        A side of a union is cut only if it is for every member that ends there; one that saw the end settles it.
        """
        _, first, group_ids, sizes = np.unique(
            _components(len(self), one, other), return_index=True, return_inverse=True, return_counts=True
        )
        outward = np.array([-1, -1, 1, 1], np.float32)  # so that at each side the larger number lies further out
        reach = self.boxes_xyxy[first] * outward
        np.maximum.at(reach, group_ids, self.boxes_xyxy * outward)
        at_side = self.boxes_xyxy * outward >= reach[group_ids] - CUT_EDGE_PX
        ends = np.zeros(reach.shape, np.bool_)
        np.logical_or.at(ends, group_ids, at_side & ~self.cut_sides)
        scores = self.scores[first]
        np.maximum.at(scores, group_ids, self.scores)
        window_ids = np.where(sizes == 1, self.window_ids[first], -1)
        return Pieces(reach * outward, scores, self.class_ids[first], ~ends, window_ids)


def shared_px(boxes_xyxy: Floats, others_xyxy: Floats) -> Floats:
    """Area of the intersection of each row's two boxes, in square px."""
    sides = np.minimum(boxes_xyxy[:, 2:], others_xyxy[:, 2:]) - np.maximum(boxes_xyxy[:, :2], others_xyxy[:, :2])
    return np.asarray(sides.clip(0).prod(1), np.float32)


def _components(num_nodes: int, one: Ids, other: Ids) -> Ids:
    """The smallest index of each node's connected component; rounds at most as many as its longest path has edges."""
    labels = np.arange(num_nodes)
    while (labels[one] != labels[other]).any():
        lower = np.minimum(labels[one], labels[other])
        np.minimum.at(labels, one, lower)
        np.minimum.at(labels, other, lower)
    return labels
