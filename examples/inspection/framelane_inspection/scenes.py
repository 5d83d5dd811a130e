"""Seeded scenes of an inspection line: metal parts on a belt, with holes, scratches and stains.

A scene shows the same world at every resolution: one pixel is always the same fraction of a millimetre, so a larger
frame sees more belt, not larger parts. That is what cameras of one line do, and it is why scaling a large frame down
loses the small defects. Owns drawing and ground truth; knows nothing of models or of serving.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

CLASS_NAMES = ("part", "hole", "scratch", "stain")
PART, HOLE, SCRATCH, STAIN = range(4)
# Longest side of a small defect's box, in px: below 6 px noise and defect look alike, above 16 px no scaling hides it.
SMALL_DEFECTS_PX = (6.0, 16.0)
# Antialiasing and the camera's blur draw this much beyond a shape's own edge, which the box then includes.
HALO_PX = 1.0
# Metal that must remain between a defect and the edge of its part, or another defect.
EDGE_PX = 4.0
# Half side of a part in px. The largest part still fits twice into the smallest camera's frame.
MIN_PART_RADIUS_PX, MAX_PART_RADIUS_PX = 26, 74
# One part on average for this many px of belt: about as dense as parts that do not overlap can lie.
BELT_PX_PER_PART = 26_000
# An object cut by the frame's edge is labelled when this fraction of its box is still inside.
MIN_VISIBLE_FRACTION = 0.4

Float = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Scene:
    """One picture and what is in it.

    Attributes:
        image_hwc: uint8, shape `(height, width, 3)`, BGR.
        boxes_xyxy: float32, shape `(N, 4)`, each row `(x_min, y_min, x_max, y_max)` in px, clipped to the frame.
        class_ids: int64, shape `(N,)`, indices into `CLASS_NAMES`.
    """

    image_hwc: npt.NDArray[np.uint8]
    boxes_xyxy: Float
    class_ids: npt.NDArray[np.int64]


def draw_scene(size_hw: tuple[int, int], seed: int, defects_px: tuple[float, float] = SMALL_DEFECTS_PX) -> Scene:
    """Draw the scene of this seed; the same arguments give the same bytes.

    Args:
        size_hw: (height, width) in px.
        seed: any integer from 0.
        defects_px: smallest and largest longest side of a hole, scratch or stain.
    """
    rng = np.random.default_rng(seed)
    canvas = _belt(size_hw, rng)
    objects: list[tuple[int, Float]] = []
    for centre_xy, radius_px in _part_places(size_hw, rng):
        objects += _draw_part(canvas, centre_xy, radius_px, defects_px, rng)
    image_hwc = _camera(canvas, rng)
    return _with_boxes(image_hwc, objects)


def _belt(size_hw: tuple[int, int], rng: np.random.Generator) -> Float:
    """Dark rubber with ribs across, a mottled surface and a few dust specks; float32 `(H, W, 3)` in 0..255."""
    width = size_hw[1]
    base = np.array([rng.uniform(48, 72), rng.uniform(50, 72), rng.uniform(46, 68)], np.float32)
    columns = np.arange(width, dtype=np.float32)
    ribs = rng.uniform(2, 7) * np.sin(columns * (2 * np.pi / rng.uniform(14, 40)) + rng.uniform(0, 6))
    mottle = _smooth_noise(size_hw, 5, rng) * 5 + _smooth_noise(size_hw, 40, rng) * 8
    luminance = (mottle + ribs[None, :]).astype(np.float32)
    return np.asarray(base + luminance[:, :, None], np.float32)


def _smooth_noise(size_hw: tuple[int, int], grain_px: int, rng: np.random.Generator) -> Float:
    """Noise of about unit deviation whose features are `grain_px` wide."""
    height, width = size_hw
    coarse = rng.standard_normal((height // grain_px + 3, width // grain_px + 3)).astype(np.float32)
    grown = cv2.resize(coarse, None, fx=grain_px, fy=grain_px, interpolation=cv2.INTER_CUBIC)
    return np.asarray(grown[:height, :width], np.float32)


def _part_places(size_hw: tuple[int, int], rng: np.random.Generator) -> list[tuple[tuple[float, float], float]]:
    """Centres and radii in px of parts that do not touch, some of them cut by the frame's edge."""
    height, width = size_hw
    wanted = max(1, round(height * width / BELT_PX_PER_PART))
    places: list[tuple[tuple[float, float], float]] = []
    for _ in range(wanted * 6):
        radius_px = rng.uniform(MIN_PART_RADIUS_PX, MAX_PART_RADIUS_PX)
        x, y = rng.uniform(0, width), rng.uniform(0, height)
        gaps = [np.hypot(x - cx, y - cy) - (r + radius_px) * 1.15 for (cx, cy), r in places]
        if all(gap > 0 for gap in gaps):
            places.append(((x, y), radius_px))
        if len(places) == wanted:
            break
    return places


def _draw_part(
    canvas: Float,
    centre_xy: tuple[float, float],
    radius_px: float,
    defects_px: tuple[float, float],
    rng: np.random.Generator,
) -> list[tuple[int, Float]]:
    """Draw one part with its shadow, holes and defects; return (class, exact box `(4,)`) of all that was drawn."""
    reach = int(radius_px * 1.5) + 8
    x0, y0 = int(centre_xy[0]) - reach, int(centre_xy[1]) - reach
    side = 2 * reach
    middle = np.array([centre_xy[0] - x0, centre_xy[1] - y0])
    outline = _outline(middle, radius_px, rng)
    shape = _polygon_mask(outline, side)
    patch = _metal(side, rng)
    drawn = [(PART, _mask_box(shape > 0.5))]
    room = cv2.distanceTransform((shape > 0.99).astype(np.uint8), cv2.DIST_L2, 3)
    for _ in range(rng.poisson(1.6)):
        longest_px = float(np.exp(rng.uniform(*np.log(defects_px))))
        spots_yx = np.argwhere(room > longest_px / 2 + EDGE_PX)
        if not len(spots_yx):
            continue
        y, x = spots_yx[rng.integers(len(spots_yx))]
        class_id = int(rng.choice([HOLE, SCRATCH, STAIN]))
        mask = {HOLE: _draw_hole, SCRATCH: _draw_scratch, STAIN: _draw_stain}[class_id](patch, (x, y), longest_px, rng)
        drawn.append((class_id, _mask_box(mask)))
        # The next defect keeps its distance, so that every box is exact.
        taken = np.hypot(np.arange(side)[None, :] - x, np.arange(side)[:, None] - y) - longest_px / 2
        room = np.minimum(room, taken)
    shadow = cv2.GaussianBlur(np.roll(shape, (4, 5), (0, 1)), (0, 0), 4) * 0.55
    _blend(canvas, (x0, y0), np.zeros_like(patch), shadow)
    _blend(canvas, (x0, y0), patch, shape)
    offset = np.array([x0, y0, x0, y0], np.float32)
    return [(class_id, box + offset) for class_id, box in drawn]


def _outline(middle_xy: npt.NDArray[np.float64], radius_px: float, rng: np.random.Generator) -> Float:
    """A disc, a hexagon or a plate with chamfered corners, turned by any angle; vertices `(V, 2)` in px."""
    kind = rng.integers(3)
    turn = rng.uniform(0, 2 * np.pi)
    if kind == 2:
        aspect, cut = rng.uniform(0.55, 1.0), rng.uniform(0.1, 0.3)
        a, b = 1.0, aspect
        corners = [(a, b - cut), (a - cut, b), (-a + cut, b), (-a, b - cut)]
        points = np.array(corners + [(-x, -y) for x, y in corners])
    else:
        angles = np.linspace(0, 2 * np.pi, 72 if kind == 0 else 6, endpoint=False)
        points = np.stack([np.cos(angles), np.sin(angles)], 1)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    return np.asarray(points @ rotation.T * radius_px + middle_xy, np.float32)


def _polygon_mask(outline_xy: Float, side: int) -> Float:
    """Coverage of a polygon in 0..1, antialiased, shape `(side, side)`."""
    mask = np.zeros((side, side), np.uint8)
    cv2.fillPoly(mask, [np.round(outline_xy * 16).astype(np.int32)], 255, cv2.LINE_AA, shift=4)
    return np.asarray(mask / 255, np.float32)


def _metal(side: int, rng: np.random.Generator) -> Float:
    """Brushed metal with a gradient of light over it; float32 `(side, side, 3)`."""
    tint = rng.uniform(118, 182) + rng.uniform(-7, 7, 3)
    brushed = cv2.GaussianBlur(rng.standard_normal((side, side)).astype(np.float32), (0, 0), 6.0, sigmaY=0.6)
    turn = cv2.getRotationMatrix2D((side / 2, side / 2), float(rng.uniform(0, 180)), 1.5)
    grain = cv2.warpAffine(brushed, turn, (side, side), borderMode=cv2.BORDER_REFLECT)
    slope = rng.uniform(-24, 24, 2)
    ramp = np.linspace(-0.5, 0.5, side)
    light = slope[0] * ramp[:, None] + slope[1] * ramp[None, :]
    return np.asarray(tint + (grain * 26 + light)[:, :, None], np.float32)


def _draw_hole(
    patch: Float, at_xy: tuple[int, int], longest_px: float, rng: np.random.Generator
) -> npt.NDArray[np.bool_]:
    """A drilled hole: dark inside, a bright rim on the lit side. Returns its mask."""
    diameter = longest_px - HALO_PX
    centre = (np.array(at_xy) + rng.uniform(0, 1, 2)) * 16
    mask = np.zeros(patch.shape[:2], np.uint8)
    cv2.circle(mask, tuple(np.round(centre).astype(int).tolist()), round(diameter * 8), 255, -1, cv2.LINE_AA, shift=4)
    coverage = mask.astype(np.float32) / 255
    rim = np.clip(np.roll(coverage, (1, 1), (0, 1)) - coverage, 0, 1)
    patch += rim[:, :, None] * 45
    depth = rng.uniform(18, 42)
    patch[:] = patch * (1 - coverage[:, :, None]) + depth * coverage[:, :, None]
    return mask > 127


def _draw_scratch(
    patch: Float, at_xy: tuple[int, int], longest_px: float, rng: np.random.Generator
) -> npt.NDArray[np.bool_]:
    """A short, slightly bent scratch of one to two px, brighter or darker than the metal. Returns its mask."""
    width_px = int(rng.integers(1, 3))
    angle = rng.uniform(0, np.pi)
    along = np.array([np.cos(angle), np.sin(angle)])
    # The longer side of the box is the drawn size, whatever the angle.
    length = (longest_px - width_px - HALO_PX) / max(abs(along))
    across = np.array([-along[1], along[0]]) * length * rng.uniform(-0.12, 0.12)
    centre = np.array(at_xy, np.float64) + rng.uniform(0, 1, 2)
    points = np.array([centre - along * length / 2, centre + across, centre + along * length / 2])
    mask = np.zeros(patch.shape[:2], np.uint8)
    vertices = np.round(points * 16).astype(np.int32)
    cv2.polylines(mask, [vertices], False, 255, width_px, cv2.LINE_AA, shift=4)
    strength = rng.choice([-1, 1]) * rng.uniform(45, 85)
    patch += (mask.astype(np.float32) / 255 * strength)[:, :, None]
    return mask > 127


def _draw_stain(
    patch: Float, at_xy: tuple[int, int], longest_px: float, rng: np.random.Generator
) -> npt.NDArray[np.bool_]:
    """A blot of oil or rust with a ragged edge, through which the metal still shows. Returns its mask."""
    diameter = longest_px - HALO_PX
    angles = np.linspace(0, 2 * np.pi, 14, endpoint=False)
    ragged = diameter / 2 * rng.uniform(0.72, 1.0, 14)
    squeeze = np.array([1.0, rng.uniform(0.6, 1.0)])[rng.permutation(2)]
    centre = np.array(at_xy, np.float64) + rng.uniform(0, 1, 2)
    points = centre + np.stack([np.cos(angles), np.sin(angles)], 1) * ragged[:, None] * squeeze
    mask = np.zeros(patch.shape[:2], np.uint8)
    cv2.fillPoly(mask, [np.round(points * 16).astype(np.int32)], 255, cv2.LINE_AA, shift=4)
    coverage = mask.astype(np.float32)[:, :, None] / 255 * rng.uniform(0.5, 0.8)
    colour = np.array([(38, 62, 96), (30, 44, 52), (44, 84, 70)], np.float32)[rng.integers(3)]
    patch[:] = patch * (1 - coverage) + colour * coverage
    return mask > 127


def _blend(canvas: Float, at_xy: tuple[int, int], patch: Float, coverage: Float) -> None:
    """Lay `patch` over `canvas` in place with its top left corner at `at_xy`, clipped to the canvas."""
    x0, y0 = at_xy
    side = coverage.shape[0]
    left, top = max(x0, 0), max(y0, 0)
    right, bottom = min(x0 + side, canvas.shape[1]), min(y0 + side, canvas.shape[0])
    if left >= right or top >= bottom:
        return
    inside = np.s_[top - y0 : bottom - y0, left - x0 : right - x0]
    target = canvas[top:bottom, left:right]
    weight = coverage[inside][:, :, None]
    target *= 1 - weight
    target += patch[inside] * weight


def _camera(canvas: Float, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """What the camera makes of it: uneven light, slight blur, sensor noise."""
    height, width = canvas.shape[:2]
    rows, columns = np.linspace(-0.5, 0.5, height), np.linspace(-0.5, 0.5, width)
    slope = rng.uniform(-0.3, 0.3, 2)
    light = rng.uniform(0.85, 1.12) + slope[0] * rows[:, None] + slope[1] * columns[None, :]
    light = light - 0.25 * (rows[:, None] ** 2 + columns[None, :] ** 2)
    lit = canvas * light.astype(np.float32)[:, :, None]
    blurred = cv2.GaussianBlur(lit, (0, 0), float(rng.uniform(0.3, 0.75)))
    noise = rng.standard_normal(canvas.shape, np.float32) * rng.uniform(1.5, 4.5)
    return np.asarray(np.clip(blurred + noise, 0, 255), np.uint8)


def _mask_box(mask: npt.NDArray[np.bool_]) -> Float:
    """The box `(x_min, y_min, x_max, y_max)` around the true pixels, as float32 `(4,)`."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], np.float32)


def _with_boxes(image_hwc: npt.NDArray[np.uint8], objects: list[tuple[int, Float]]) -> Scene:
    """Clip the boxes to the frame and keep those that are visible enough to be asked for."""
    height, width = image_hwc.shape[:2]
    boxes = np.array([box for _, box in objects], np.float32).reshape(-1, 4)
    class_ids = np.array([class_id for class_id, _ in objects], np.int64)
    clipped = boxes.copy()
    clipped[:, 0::2] = clipped[:, 0::2].clip(0, width)
    clipped[:, 1::2] = clipped[:, 1::2].clip(0, height)
    visible = _areas(clipped) >= MIN_VISIBLE_FRACTION * _areas(boxes)
    return Scene(image_hwc, clipped[visible], class_ids[visible])


def _areas(boxes_xyxy: Float) -> Float:
    return np.asarray((boxes_xyxy[:, 2] - boxes_xyxy[:, 0]) * (boxes_xyxy[:, 3] - boxes_xyxy[:, 1]), np.float32)
