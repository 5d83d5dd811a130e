"""Windows over a frame, and the way back: an object that a seam cuts is one box, two neighbours stay two."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.boxes import DetectionLimits
from engines.detections import Detections
from engines.spec import CanvasShape
from engines.tiles import Window, crop, merge_tiles, tile_windows

LIMITS = DetectionLimits()
REPEATABLE = settings(derandomize=True, database=None, deadline=None)
# Two windows side by side, and the same turned: the strip that both see is 100 to 140.
WIDE_HW, WIDE = (120, 240), (Window(0, 0, 120, 140), Window(0, 100, 120, 140))
# Of an object cut to less a detector sees nothing: an exact one, and one whose errors would be most of a sliver.
FEWEST_PX, FEWEST_ERRING_PX = 4, 16

sides = st.integers(1, 500)
frames_and_tiles = st.tuples(sides, sides, st.integers(1, 90), st.integers(1, 90)).flatmap(
    lambda s: st.tuples(st.just(s[:2]), st.just(CanvasShape(*s[2:])), st.integers(0, min(s[2:]) - 1))
)


def answer(*rows):
    """Detections from rows (x_min, y_min, x_max, y_max, score, class)."""
    table = np.array(rows, np.float32).reshape(-1, 6)
    return Detections(table[:, :4], table[:, 4], table[:, 5].astype(np.int64))


def as_rows(found):
    """Detections as a list of (x_min, y_min, x_max, y_max, score, class)."""
    return np.column_stack([found.boxes_xyxy, found.scores, found.class_ids]).tolist()


def turned(found):
    """The same boxes with x and y swapped."""
    return Detections(found.boxes_xyxy[:, [1, 0, 3, 2]], found.scores, found.class_ids)


def turned_window(window):
    """The same window with x and y swapped."""
    return Window(window.x_min, window.y_min, window.width, window.height)


def seen(rows, window, error_px=None):
    """What a detector sees of these objects in a window: cut at its edges, in its own px, each side off by an error."""
    y, x, height, width = window
    visible = []
    for x0, y0, x1, y1, score, class_id in rows:
        whole = np.array([x0 - x, y0 - y, x1 - x, y1 - y])
        box = whole.clip(0, [width, height, width, height])
        smallest = np.minimum(FEWEST_ERRING_PX if error_px else FEWEST_PX, whole[2:] - whole[:2])
        if (box[2:] - box[:2] >= smallest).all():
            errors = [error_px() if error_px else 0 for _ in range(4)]
            box = (box + errors).clip(0, [width, height, width, height])
            visible.append([*box, score, class_id])
    return answer(*visible)


def merged(rows, windows, size_hw, error_px=None):
    """The objects after being seen window by window."""
    return merge_tiles([seen(rows, window, error_px) for window in windows], windows, size_hw, LIMITS)


def iou(one_xyxy, other_xyxy):
    """Intersection over union, in plain words."""
    width = min(one_xyxy[2], other_xyxy[2]) - max(one_xyxy[0], other_xyxy[0])
    height = min(one_xyxy[3], other_xyxy[3]) - max(one_xyxy[1], other_xyxy[1])
    intersection = max(0, width) * max(0, height)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one_xyxy, other_xyxy)]
    return intersection / (sum(areas) - intersection)


@st.composite
def scenes(draw, cell_px, smallest_px, largest_px, num_classes):
    """A frame, windows over it, and objects of distinct scores, one a cell at most, in quarters of px; best first."""
    tile = CanvasShape(draw(st.integers(130, 400)), draw(st.integers(130, 400)))
    windows_overlap = draw(st.integers(64, 80))
    rows, columns = draw(st.integers(1, max(1, 1200 // cell_px))), draw(st.integers(1, max(1, 1200 // cell_px)))
    size_hw = (rows * cell_px, columns * cell_px)
    size = st.integers(smallest_px * 4, largest_px * 4)
    cells = draw(st.lists(st.integers(0, rows * columns - 1), max_size=40, unique=True))
    objects = []
    for rank, cell in enumerate(cells):
        width, height = draw(size) / 4, draw(size) / 4
        x = cell % columns * cell_px + draw(st.integers(0, int((cell_px - width) * 4))) / 4
        y = cell // columns * cell_px + draw(st.integers(0, int((cell_px - height) * 4))) / 4
        objects.append([x, y, x + width, y + height, 1 - (rank + 1) / 64, draw(st.integers(0, num_classes - 1))])
    return size_hw, tile_windows(size_hw, tile, windows_overlap), objects


@pytest.mark.parametrize(
    ("size_hw", "tile_hw", "overlap_px", "y_mins", "x_mins"),
    [
        pytest.param((100, 100), (100, 100), 0, [0], [0], id="the-tile-itself"),
        pytest.param((100, 200), (100, 100), 0, [0], [0, 100], id="no-overlap-asked-none-taken"),
        pytest.param((100, 201), (100, 100), 0, [0], [0, 50, 101], id="one-px-more-one-window-more"),
        pytest.param((100, 190), (100, 100), 10, [0], [0, 90], id="the-overlap-exactly"),
        pytest.param((100, 191), (100, 100), 10, [0], [0, 45, 91], id="a-px-too-little-overlap"),
        pytest.param((60, 150), (100, 100), 20, [0], [0, 50], id="lower-than-the-tile"),
        pytest.param((2160, 3840), (1088, 1920), 64, [0, 536, 1072], [0, 960, 1920], id="uhd-by-full-hd"),
        pytest.param((2160, 3840), (1152, 1984), 128, [0, 1008], [0, 1856], id="uhd-by-a-little-more"),
    ],
)
@pytest.mark.parametrize("transposed", [False, True], ids=["as-it-is", "transposed"])
def test_windows_are_where_they_should_be(size_hw, tile_hw, overlap_px, y_mins, x_mins, transposed):
    """Fewest windows, evenly spread, row by row, and the same for the frame on its side."""
    turn = slice(None, None, -1 if transposed else 1)
    height, width = (min(pair) for pair in list(zip(size_hw, tile_hw, strict=True))[turn])
    expected = [Window(y, x, height, width) for y in (y_mins, x_mins)[turn][0] for x in (y_mins, x_mins)[turn][1]]
    assert tile_windows(size_hw[turn], CanvasShape(*tile_hw[turn]), overlap_px) == tuple(expected)


@REPEATABLE
@given(case=frames_and_tiles)
def test_windows_cover_the_frame_with_enough_overlap_and_none_to_spare(case):
    """Per axis: from edge to edge, steps of at most tile - overlap, even to a px, and no fewer would do."""
    size_hw, tile, overlap_px = case
    windows = tile_windows(size_hw, tile, overlap_px)
    axes = (sorted({w.y_min for w in windows}), sorted({w.x_min for w in windows}))
    assert [(w.y_min, w.x_min) for w in windows] == [(y, x) for y in axes[0] for x in axes[1]]
    for axis, starts in enumerate(axes):
        side, length = size_hw[axis], min(size_hw[axis], tile[axis])
        assert {w[2 + axis] for w in windows} == {length}
        assert (starts[0], starts[-1] + length) == (0, side)
        steps = np.diff(starts)
        assert (steps <= tile[axis] - overlap_px).all()
        assert len(steps) == 0 or np.ptp(steps) <= 1
        fewer = len(starts) - 1
        assert fewer == 0 or tile[axis] + (fewer - 1) * (tile[axis] - overlap_px) < side


@pytest.mark.parametrize(
    ("size_hw", "tile_hw", "overlap_px", "message"),
    [
        pytest.param((0, 10), (8, 8), 0, r"frame: got 0x10 px, allowed are sides of 1", id="no-frame"),
        pytest.param((10, 10), (8, -1), 0, r"tile: got 8x-1 px, allowed are sides of 1", id="no-tile"),
        pytest.param((10, 10), (8, 9), 8, r"min_overlap_px: got 8, allowed is 0 to 7 .* larger tile", id="too-much"),
        pytest.param((10, 10), (8, 9), -1, r"min_overlap_px: got -1, allowed is 0 to 7", id="negative"),
    ],
)
def test_impossible_windows_are_refused_with_the_cure(size_hw, tile_hw, overlap_px, message):
    """What was got, what is allowed, what to do."""
    with pytest.raises(ValueError, match=message):
        tile_windows(size_hw, CanvasShape(*tile_hw), overlap_px)


def test_a_crop_is_the_windows_pixels_without_a_copy():
    """Rows and columns are not swapped, and the frame's memory is shown."""
    image_hwc = np.arange(6 * 9 * 3, dtype=np.uint8).reshape(6, 9, 3)
    view_hwc = crop(image_hwc, Window(1, 2, 3, 5))
    np.testing.assert_array_equal(view_hwc, image_hwc[1:4, 2:7])
    assert np.shares_memory(view_hwc, image_hwc)


# Boxes are written (x_min, y_min, x_max, y_max, score, class), in px of their window; the second window begins at 100.
MERGES = [
    pytest.param([], [], [], id="nothing"),
    pytest.param([[10, 20, 30, 50, 0.5, 1]], [], [[10, 20, 30, 50, 0.5, 1]], id="first-window-only"),
    pytest.param([], [[60, 20, 80, 50, 0.5, 1]], [[160, 20, 180, 50, 0.5, 1]], id="second-window-only"),
    pytest.param(
        [[110, 20, 130, 50, 0.5, 1]],
        [[10, 21, 30, 51, 0.75, 1]],
        [[110, 21, 130, 51, 0.75, 1]],
        id="seen-whole-twice-the-better-one-stays",
    ),
    pytest.param(
        [[110, 20, 130, 50, 0.5, 1]],
        [[10, 20, 30, 50, 0.75, 2]],
        [[110, 20, 130, 50, 0.75, 2], [110, 20, 130, 50, 0.5, 1]],
        id="two-classes-stay-two",
    ),
    pytest.param(
        [[70, 20, 139, 50, 0.75, 1]],
        [[1, 21, 60, 50, 0.5, 1]],
        [[70, 20, 160, 50, 0.75, 1]],
        id="cut-twice-is-joined-with-the-best-score",
    ),
    pytest.param(
        [[70, 20, 140, 50, 0.75, 1]],
        [[0, 20, 60, 50, 0.5, 2]],
        [[70, 20, 140, 50, 0.75, 1], [100, 20, 160, 50, 0.5, 2]],
        id="cut-twice-but-of-two-classes",
    ),
    pytest.param(
        [[120, 20, 140, 50, 0.75, 1]],
        [[20, 20, 60, 50, 0.5, 1]],
        [[120, 20, 160, 50, 0.5, 1]],
        id="the-whole-box-wins-over-a-better-part",
    ),
    pytest.param(
        [[60, 20, 110, 50, 0.75, 1]],
        [[0, 21, 11, 50, 0.5, 1]],
        [[60, 20, 110, 50, 0.75, 1]],
        id="a-part-that-sticks-out-by-a-px",
    ),
    pytest.param(
        [[70, 20, 118, 50, 0.875, 1], [120, 20, 140, 50, 0.5, 1]],
        [[0, 20, 18, 50, 0.625, 1], [20, 20, 70, 50, 0.75, 1]],
        [[70, 20, 118, 50, 0.875, 1], [120, 20, 170, 50, 0.75, 1]],
        id="neighbours-left-and-right-of-each-other-stay-two",
    ),
    pytest.param(
        [[70, 10, 140, 50, 0.875, 1], [70, 52, 140, 90, 0.75, 1]],
        [[0, 10, 60, 50, 0.625, 1], [0, 52, 50, 90, 0.5, 1]],
        [[70, 10, 160, 50, 0.875, 1], [70, 52, 150, 90, 0.75, 1]],
        id="neighbours-above-each-other-stay-two",
    ),
    pytest.param(
        [[70, 10, 140, 50, 0.875, 1], [60, 22, 140, 62, 0.75, 1]],
        [[0, 10, 60, 50, 0.625, 1], [0, 22, 50, 62, 0.5, 1]],
        [[70, 10, 160, 50, 0.875, 1], [60, 22, 150, 62, 0.75, 1]],
        id="overlapping-neighbours-each-find-their-own-half",
    ),
    pytest.param(
        [[70, 10, 140, 50, 0.75, 1]],
        [[0, 40, 60, 80, 0.5, 1]],
        [[70, 10, 140, 50, 0.75, 1], [100, 40, 160, 80, 0.5, 1]],
        id="halves-that-disagree-in-the-strip-stay-two",
    ),
    pytest.param(
        [[40, 20, 136, 50, 0.75, 1]],
        [[20, 24, 34, 46, 0.5, 1]],
        [[40, 20, 136, 50, 0.75, 1], [120, 24, 134, 46, 0.5, 1]],
        id="a-small-whole-box-inside-a-large-one-stays",
    ),
    pytest.param(
        [[100, 20, 118, 50, 0.75, 1], [116, 22, 140, 48, 0.5, 1]],
        [[60, 20, 100, 50, 0.625, 1], [58, 20, 98, 50, 0.375, 1]],
        [
            [100, 20, 118, 50, 0.75, 1],
            [160, 20, 200, 50, 0.625, 1],
            [116, 22, 140, 48, 0.5, 1],
            [158, 20, 198, 50, 0.375, 1],
        ],
        id="boxes-of-one-window-are-not-judged-again",
    ),
    pytest.param(
        [[0, 0, 20, 20, 0.25, 1], [0, 100, 20, 120, 0.5, 1]],
        [[120, 0, 140, 20, 0.75, 1]],
        [[220, 0, 240, 20, 0.75, 1], [0, 100, 20, 120, 0.5, 1], [0, 0, 20, 20, 0.25, 1]],
        id="the-frames-own-edges-cut-nothing-and-the-best-comes-first",
    ),
]


@pytest.mark.parametrize("transposed", [False, True], ids=["side-by-side", "above-each-other"])
@pytest.mark.parametrize(("first", "second", "expected"), MERGES)
def test_two_windows_merge_to_exactly(first, second, expected, transposed):
    """By hand, with the seam upright and lying; dtypes and the caller's arrays stay what they were."""
    found, windows, size_hw = [answer(*first), answer(*second)], WIDE, WIDE_HW
    if transposed:
        found, windows, size_hw = [turned(f) for f in found], [turned_window(w) for w in WIDE], WIDE_HW[::-1]
    before = [as_rows(f) for f in found]
    one = merge_tiles(found, windows, size_hw, LIMITS)
    assert as_rows(turned(one) if transposed else one) == expected
    assert (one.boxes_xyxy.dtype, one.scores.dtype, one.class_ids.dtype) == (np.float32, np.float32, np.int64)
    assert one.boxes_xyxy.shape == (len(expected), 4)
    assert [as_rows(f) for f in found] == before


def test_a_crowd_at_the_seam_does_not_run_together():
    """Of two that overlap, one ends in the strip and one begins there: neither part is taken for the other's half."""
    left, right = [60, 20, 132, 80, 0.75, 0], [108, 20, 190, 80, 0.5, 0]
    assert as_rows(merged([left, right], WIDE, WIDE_HW)) == [left, right]


@pytest.mark.parametrize("y_min", [0, 80], ids=["cut-below", "cut-above"])
def test_a_cut_at_an_edge_that_both_windows_share_joins_nothing(y_min):
    """Neither sees beyond it; two that agree in the strip but end in it, each in its window, are two."""
    windows = tuple(Window(y_min, x_min, 120, 140) for x_min in (0, 100))
    found = [answer([40, 0, 135, 120, 0.75, 0]), answer([5, 0, 100, 120, 0.5, 0])]
    one = merge_tiles(found, windows, (200, 240), LIMITS)
    assert as_rows(one) == [[40, y_min, 135, y_min + 120, 0.75, 0], [105, y_min, 200, y_min + 120, 0.5, 0]]


def test_one_window_answers_its_boxes_moved():
    """Even overlapping ones of a head without NMS, and even where the frame is larger than the window."""
    found = answer([0, 0, 20, 30, 0.75, 0], [1, 0, 20, 30, 0.5, 0])
    one = merge_tiles([found], [Window(7, 5, 30, 20)], (40, 30), LIMITS)
    assert as_rows(one) == [[5, 7, 25, 37, 0.75, 0], [6, 7, 25, 37, 0.5, 0]]


def test_the_best_boxes_stay_within_the_limit():
    """`max_boxes` holds for the frame, after parts and doubles have gone."""
    rows = [[110, 10 * i, 118, 10 * i + 8, (10 - i) / 16, 0] for i in range(10)]
    halves = [seen(rows, window) for window in WIDE]
    one = merge_tiles(halves, WIDE, WIDE_HW, DetectionLimits(max_boxes=3))
    assert as_rows(one) == rows[:3]


@pytest.mark.parametrize(
    ("second", "max_iou", "num_kept"),
    [
        pytest.param([16, 20, 36, 50, 0.75, 0], 0.7, 2, id="a-third"),
        pytest.param([16, 20, 36, 50, 0.75, 0], 0.25, 1, id="a-third-above-a-strict-limit"),
        pytest.param([10, 20, 30, 50, 0.75, 0], 0.7, 1, id="two-thirds"),
        pytest.param([10, 20, 30, 50, 0.75, 0], 1.0, 1, id="two-thirds-without-a-limit"),
    ],
)
def test_doubles_of_two_windows_are_judged_more_strictly_than_boxes_of_one(second, max_iou, num_kept):
    """Both speak of the same pixels, so IoU 0.5 makes them one object, or less if the limit is lower."""
    found = [answer([106, 20, 126, 50, 0.5, 0]), answer(second)]
    assert len(merge_tiles(found, WIDE, WIDE_HW, DetectionLimits(max_iou=max_iou))) == num_kept


@pytest.mark.parametrize(("max_iou", "num_kept"), [(0.7, 2), (0.5, 1)], ids=["within-the-limit", "beyond-it"])
def test_a_joined_box_is_judged_by_the_limit(max_iou, num_kept):
    """A joined box and a whole one of IoU 6/11: its windows may have seen both side by side."""
    found = [answer([90, 20, 140, 50, 0.75, 0], [105, 20, 135, 50, 0.5, 0]), answer([0, 20, 45, 50, 0.625, 0])]
    assert len(merge_tiles(found, WIDE, WIDE_HW, DetectionLimits(max_iou=max_iou))) == num_kept


def test_a_double_that_was_dropped_silences_nobody():
    """Greedy NMS: the middle one yields to the best, so the third, which overlaps only the middle one, stays."""
    windows = (Window(0, 0, 100, 100), Window(0, 20, 100, 100), Window(0, 40, 100, 100))
    boxes = [[47, 20, 79, 50, 1, 0], [55, 20, 87, 50, 0.75, 0], [63, 20, 95, 50, 0.5, 0]]
    one = merge_tiles(
        [seen([row], window) for row, window in zip(boxes, windows, strict=True)], windows, (100, 140), LIMITS
    )
    assert as_rows(one) == [boxes[0], boxes[2]]


@pytest.mark.parametrize(
    "missed",
    [pytest.param(None, id="all-see-it")] + [pytest.param(i, id=f"window-{i}-missed-it") for i in range(4)],
)
def test_an_object_over_four_windows_is_one_box(missed):
    """Joined over the corner where all four meet, also if one of them missed it."""
    windows = tile_windows((300, 400), CanvasShape(170, 220), 40)
    assert len(windows) == 4
    rows = [[60, 50, 340, 260, 0.75, 3]]
    found = [Detections.none() if i == missed else seen(rows, window) for i, window in enumerate(windows)]
    assert as_rows(merge_tiles(found, windows, (300, 400), LIMITS)) == rows


@pytest.mark.parametrize("transposed", [False, True], ids=["in-a-row", "in-a-column"])
def test_an_object_over_three_windows_in_a_row_is_one_box(transposed):
    """Joined by way of the middle window, which sees neither end."""
    rows, size_hw, tile = [[50, 40, 550, 80, 0.75, 0]], (120, 600), CanvasShape(120, 230)
    if transposed:
        rows, size_hw, tile = [[40, 50, 80, 550, 0.75, 0]], size_hw[::-1], CanvasShape(*tile[::-1])
    windows = tile_windows(size_hw, tile, 40)
    assert len(windows) == 3
    assert as_rows(merged(rows, windows, size_hw)) == rows


def test_halves_whose_middle_was_missed_stay_two():
    """Nothing is invented across a gap that no window saw the object in."""
    windows = tile_windows((120, 600), CanvasShape(120, 230), 40)
    ends = [seen([[50, 40, 550, 80, 0.75, 0]], window) for window in windows]
    one = merge_tiles([ends[0], Detections.none(), ends[2]], windows, (120, 600), LIMITS)
    assert as_rows(one) == [[50, 40, 230, 80, 0.75, 0], [370, 40, 550, 80, 0.75, 0]]


def test_an_answer_too_few_is_refused():
    """Each window has its answer, an empty one at least."""
    with pytest.raises(ValueError, match="got 1 answers, allowed are 2"):
        merge_tiles([Detections.none()], WIDE, WIDE_HW, LIMITS)


def test_no_window_and_no_answer_is_no_box():
    """The empty case keeps its shapes."""
    assert merge_tiles([], [], (10, 10), LIMITS).boxes_xyxy.shape == (0, 4)


@REPEATABLE
@given(scene=scenes(cell_px=72, smallest_px=2, largest_px=64, num_classes=2))
def test_objects_no_larger_than_the_overlap_come_back_exactly(scene):
    """Each is whole in some window; its parts and doubles go, whatever seams run through it."""
    size_hw, windows, objects = scene
    assert as_rows(merged(objects, windows, size_hw)) == objects


@REPEATABLE
@given(scene=scenes(cell_px=400, smallest_px=5, largest_px=400, num_classes=1))
def test_objects_of_any_size_come_back_exactly(scene):
    """Over any number of windows; neighbours that touch stay apart."""
    size_hw, windows, objects = scene
    assert as_rows(merged(objects, windows, size_hw)) == objects


@REPEATABLE
@given(
    scene=scenes(cell_px=400, smallest_px=80, largest_px=390, num_classes=1), random=st.randoms(use_true_random=False)
)
def test_large_objects_come_back_as_one_box_from_a_detector_that_errs(scene, random):
    """Every side of every part may be off by 1.5 px: still one box each, IoU 0.9 or more."""
    size_hw, windows, objects = scene
    found = merged(objects, windows, size_hw, lambda: random.uniform(-1.5, 1.5))
    assert found.scores.tolist() == [row[4] for row in objects]
    assert all(iou(box, row) >= 0.9 for box, row in zip(found.boxes_xyxy, objects, strict=True))


@REPEATABLE
@given(
    sizes=st.lists(st.integers(0, 12), min_size=4, max_size=4),
    numbers=st.randoms(use_true_random=False),
)
def test_any_answers_give_sound_boxes(sizes, numbers):
    """Whatever the windows answer: finite boxes inside the frame, best first, none twice, none better than it was."""
    windows = tile_windows((200, 300), CanvasShape(120, 180), 30)

    def row():
        x, y = numbers.randint(0, 179), numbers.randint(0, 119)
        x1, y1 = min(180, x + numbers.randint(0, 180)), min(120, y + numbers.randint(0, 120))
        return [x, y, x1, y1, numbers.randint(1, 16) / 16, numbers.randint(0, 1)]

    found = [answer(*[row() for _ in range(size)]) for size in sizes]
    one = merge_tiles(found, windows, (200, 300), LIMITS)
    assert np.isfinite(one.boxes_xyxy).all()
    assert (one.boxes_xyxy >= 0).all()
    assert (one.boxes_xyxy <= [300, 200, 300, 200]).all()
    assert (np.diff(one.scores) <= 0).all()
    assert len(one) <= sum(sizes)
    asked = {(s, c) for each in found for *_, s, c in as_rows(each)}
    assert {(s, c) for *_, s, c in as_rows(one)} <= asked
