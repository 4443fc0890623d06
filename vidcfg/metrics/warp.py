"""Flicker and judder with motion taken out: what a frame lacks of the way between its neighbours.

For every inner frame t, both neighbours are moved onto it along optical flow, giving A and B, and

    r = x_t - (A + B) / 2

is a second difference along the path of motion: steady change (a fade, a zoom, an exposure that
changes) cancels, and alternation doubles. r is averaged with its sign over blocks of 8 x 8 pixels,
where errors of resampling cancel too; a block counts by the length of that mean over luma and both
colour differences. Nothing is left out but paths that leave the picture, so that what flow cannot
explain is charged.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from jaxtyping import Bool, Float

from vidcfg.metrics.flicker import trend
from vidcfg.metrics.flow import FLOW_PROTOCOL, MIN_SIZE, YCC, Pair, follow, resized
from vidcfg.metrics.metric import Quantity, averaged, declare, metric, skipped

BLOCK = 8
"""Side of a block in pixels, of frames that are reduced to a shorter side of 480 at most."""

SLOWEST = 0.25
"""Pixels that move less than this a frame hold no echo that could be told."""

DRIFT_FRAMES = 8
"""Over so many frames texture is followed."""

CALM = 25
"""The percentile of blocks, by what pixels vary, that tells noise from wrong flow."""

DARK = 16 / 255
"""Light explains little of how the colour of a block darker than this changes."""

PATH_PROTOCOL = FLOW_PROTOCOL + ";second-difference;signed-blocks=8;ycc=bt601"


@dataclass(frozen=True, eq=False)
class PathResidual:
    """What a frame lacks of its neighbours, by block [rows, columns], NaN where nothing is known.

    `flicker` follows the flow to each neighbour, `colour` is that of the colour differences alone;
    `judder` follows a path of constant velocity through the frame, and adds what is irregular in
    the motion; `noise` is what pixels of a calm block have around the block's mean (`noise_of`).
    All in intensity. `covered` is the share of pixels whose path to both neighbours stays inside;
    `scale` is down and across, in pixels of the video for each pixel of a block. `steps` are
    `moved_and_turned`, `echoes` are `echo_of` the frame before and the one after.
    """

    flicker: Float[np.ndarray, "rows columns"]
    judder: Float[np.ndarray, "rows columns"]
    colour: Float[np.ndarray, "rows columns"]
    noise: float | None
    frame: int
    covered: float
    scale: tuple[float, float]
    steps: tuple[float, float]
    echoes: list[tuple[float, float]]


def path_residual(triple: Pair) -> PathResidual:
    """The residual of the middle one of three frames."""
    before, after = triple.halves
    (first, middle), last = before.views, after.views[1]
    height, width = middle.ycc.shape[:2]
    backward, forward = resized(before.back, height, width), after.step
    even = (forward - backward) / 2

    from_first, from_last = follow(first.ycc, backward), after.moved
    rest, is_inside = _lacking(middle.ycc, from_first, from_last)
    irregular, is_known = _lacking(middle.ycc, follow(first.ycc, -even), follow(last.ycc, even))
    lacks = block_means(rest, is_inside)
    flicker, colour = _lengths(lacks), _lengths(lacks[..., 1:])
    judder = _lengths(block_means(irregular, is_known))
    noise = noise_of(rest[..., 0], is_inside)
    scale = middle.frame.shape[-2] / height, middle.frame.shape[-1] / width
    luma = np.ascontiguousarray(middle.ycc[..., 0])
    steps = moved_and_turned(luma, even)
    is_moving = is_inside & (np.linalg.norm(even, axis=-1) > SLOWEST)
    sides = (first, from_first[0]), (last, from_last[0])
    echoes = [echo_of(luma, n.ycc[..., 0], m[..., 0], is_moving) for n, m in sides]
    facts = triple.start + 1, float(is_inside.mean()), scale, steps, echoes
    return PathResidual(flicker, judder, colour, noise, *facts)


def _lacking(
    here_HW3: np.ndarray, *neighbours: tuple[np.ndarray, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """A frame less the mean of two that follow it, in levels; where both are seen."""
    (first, is_first), (second, is_second) = neighbours
    return here_HW3 - (first + second) / 2, is_first & is_second


def _lengths(levels: Float[np.ndarray, "rows columns C"]) -> Float[np.ndarray, "rows columns"]:
    """In intensity."""
    return np.linalg.norm(levels, axis=-1) / 255


def noise_of(rest_HW: np.ndarray, is_known: np.ndarray) -> float | None:
    """Standard deviation of noise that is new in every frame, in intensity; None if none is known.

    From what pixels of a block lack around its mean, in the calm quarter of the blocks, where
    flow is right: x - (a + b) / 2 has 1.5 times the variance of each.
    """
    moments = block_means(np.stack([rest_HW, rest_HW**2], axis=-1), is_known)
    spread = moments[..., 1] - moments[..., 0] ** 2
    known = spread[np.isfinite(spread)]
    if not known.size:
        return None
    return float(np.sqrt(max(np.percentile(known, CALM), 0.0) / 1.5)) / 255


def moved_and_turned(luma_HW: np.ndarray, step_HW2: np.ndarray) -> tuple[float, float]:
    """Sums of (x(p + d) - x(p))^2 over moving pixels: d their step, and d turned by 90 degrees.

    A frame that holds an echo of its neighbour is like itself along the motion, and not across it.
    """
    turned = np.stack([-step_HW2[..., 1], step_HW2[..., 0]], axis=-1)
    is_moving = np.linalg.norm(step_HW2, axis=-1) > SLOWEST
    sums = [0.0, 0.0]
    for sign in (1, -1):
        moved = [follow(luma_HW, sign * step) for step in (step_HW2, turned)]
        is_known = is_moving & moved[0][1] & moved[1][1]
        for i, (there, _) in enumerate(moved):
            sums[i] += cv2.norm(there, luma_HW, cv2.NORM_L2SQR, mask=is_known.view(np.uint8))
    return sums[0], sums[1]


def echo_of(
    here_HW: np.ndarray, there_HW: np.ndarray, moved_HW: np.ndarray, is_moving_HW: np.ndarray
) -> tuple[float, float]:
    """Sums of (x - m)(n - m) and (n - m)^2 over moving pixels of a frame x, with n the neighbour
    and m the neighbour moved onto it: their ratio is the share of n that stands in x unmoved.
    """
    here, there, moved = (luma[is_moving_HW] for luma in (here_HW, there_HW, moved_HW))
    left = there - moved
    return float((here - moved) @ left), float(left @ left)


def block_means(
    values_HWC: Float[np.ndarray, "H W C"], is_known: Bool[np.ndarray, "H W"]
) -> Float[np.ndarray, "rows columns C"]:
    """Means over the known pixels of whole blocks, NaN where fewer than half of them are known."""
    rows, columns = (size // BLOCK for size in is_known.shape)
    known = is_known[: rows * BLOCK, : columns * BLOCK].astype(np.float32)
    values = values_HWC[: rows * BLOCK, : columns * BLOCK] * known[..., None]
    means, shares = (
        cv2.resize(each, (columns, rows), interpolation=cv2.INTER_AREA) for each in (values, known)
    )
    shares = shares[..., None]
    return np.where(shares >= 0.5, means / np.maximum(shares, 0.5), np.nan)


class PathResiduals:
    """Of a clip: `traces` of its inner frames by name, with the means of what is by block; flicker
    by block, and where it is `worst`.
    """

    def __init__(self) -> None:
        self.traces: dict[str, list] = defaultdict(list)
        self.worst: dict[str, Any] = {}
        self._sum, self._count = 0.0, 0

    def append(self, new: PathResidual) -> None:
        for name, value in vars(new).items():
            self.traces[name].append(_mean(value) if isinstance(value, np.ndarray) else value)
        known = np.isfinite(new.flicker)
        values = np.where(known, new.flicker, 0.0)
        self._sum, self._count = self._sum + values, self._count + known
        worst = float(values.max(initial=0.0))
        if not self.worst or worst > self.worst["value"]:
            row, column = np.unravel_index(int(values.argmax()), values.shape)
            corners = (row, column, row + 1, column + 1)
            box = [round(corner * BLOCK * s) for corner, s in zip(corners, 2 * new.scale)]
            self.worst = {"frame": new.frame, "block": box, "value": worst}

    def by_block(self) -> Float[np.ndarray, "blocks"]:
        """The mean flicker over time of each block that is known at some time."""
        known = self._count > 0
        return self._sum[known] / self._count[known]


class TextureDrift(list):
    """How much texture is lost over 8 frames, fed with pairs of neighbours: 1 - correlation.

    The way of the pixels of every eighth frame is chained from flow to flow; where it leads,
    texture (`flow.textured`) is compared. Values of 0 (the same) to 2.
    """

    def __init__(self) -> None:
        super().__init__()
        self._first: Pair | None = None

    def append(self, pair: Pair) -> None:
        step = pair.there
        if self._first is None or pair.start != self._next:
            self._first, self._way = pair, step
            self._is_inside = np.ones(step.shape[:2], dtype=bool)
        else:
            there, is_inside = follow(step, self._way)
            self._way, self._is_inside = self._way + there, self._is_inside & is_inside
        self._next = pair.start + 1
        if self._next - self._first.start == DRIFT_FRAMES:
            super().append(self._lost(pair))
            self._first = None

    def _lost(self, pair: Pair) -> float:
        first, last = (
            view.search.astype(np.float32) for view in (self._first.views[0], pair.views[1])
        )
        moved, is_inside = follow(last, self._way)
        is_known = is_inside & self._is_inside
        a, b = first[is_known] - 128, moved[is_known] - 128
        together, alone = float(a @ b), float(a @ a) * float(b @ b)
        return 1 - together / np.sqrt(alone) if alone > 0 else 0.0


def _mean(blocks: np.ndarray) -> float | None:
    known = blocks[np.isfinite(blocks)]
    return float(np.mean(known, dtype=np.float64)) if known.size else None


PATH = Quantity(path_residual, lag=2, least=MIN_SIZE, into=PathResiduals)


def along_path(name: str, trace: str, reduce: Callable, protocol: str = "", **how: Any) -> None:
    """Register `reduce` (known values, paths) of a trace of inner frames.

    Its records have the coverage and the worst block. `how` as in `Metric`.
    """

    def outcome(clip: Any) -> dict[str, Any]:
        paths = clip[PATH]
        known = [value for value in paths.traces[trace] if value is not None]
        made = averaged(known, reason=clip.too_small(PATH))
        if not known:
            return made
        extra = {"coverage": float(np.mean(paths.traces["covered"])), "worst": paths.worst}
        value = float(reduce(known, paths))
        return made | {"value": value, "trace": tuple(paths.traces[trace]), "extra": extra}

    facts = (name, "warp", "intensity", "lower", PATH_PROTOCOL + protocol, [PATH])
    declare(*facts, outcome=outcome, marks_still=True, **how)


def mean(values: Sequence[float], paths: PathResiduals) -> float:
    return np.mean(values)


def peak(values: Sequence[float], paths: PathResiduals) -> float:
    """How far the worst frame stands above the median frame."""
    return np.max(values) - np.median(values)


def worst_blocks(values: Sequence[float], paths: PathResiduals) -> float:
    return np.percentile(paths.by_block(), 95)


along_path("mc_flicker", "flicker", mean)
along_path("mc_flicker_p95", "flicker", worst_blocks)
along_path("mc_flicker_peak", "flicker", peak, of_shots="max")
along_path("mc_flicker_colour", "colour", mean)
along_path("mc_noise", "noise", mean, f";within-blocks;luma;p{CALM}")


@metric("mc_coverage", "warp", "0..1", "higher", PATH_PROTOCOL, [PATH])
def of_coverage(clip: Any) -> dict:
    return averaged(clip[PATH].traces["covered"], reason=clip.too_small(PATH))


along_path("judder", "judder", mean, group="motion")
along_path("judder_peak", "judder", peak, of_shots="max", group="motion")


def _unmoved(clip: Any) -> dict[str, Any]:
    """What there is of an echo where nothing moves."""
    reason = "nothing moves by a quarter of a pixel a frame"
    if not clip[PATH].traces["steps"]:
        reason = clip.too_small(PATH) or "the clip has too few frames"
    return skipped(reason)


@metric(
    *("ghosting", "warp", "log", "lower"),
    *(PATH_PROTOCOL + f";moving>={SLOWEST}", [PATH]),
    group="look",
)
def of_echoes(clip: Any) -> dict:
    """Log of the change over a step across the motion to that along it: 0 without an echo."""
    steps = clip[PATH].traces["steps"]
    moved, turned = (sum(sums) for sums in zip((0.0, 0.0), *steps))
    if not (moved > 0 and turned > 0):
        return _unmoved(clip)
    return {"value": float(np.log(turned / moved)), "n": len(steps)}


@metric(
    *("echo_share", "warp", "share", "lower"),
    *(PATH_PROTOCOL + f";moving>={SLOWEST};before-after", [PATH]),
    group="look",
)
def of_shares(clip: Any) -> dict:
    """Share of the frame before that stands in a frame unmoved, less that of the frame after.

    The second is what wrong flow and noise look like, which know no direction of time. 0 without
    an echo; blind where all moves alike, for there an echo is a blur that moves along.
    """
    echoes = clip[PATH].traces["echoes"]
    before, after = np.sum([np.zeros((2, 2)), *echoes], axis=0)
    if not (before[1] > 0 and after[1] > 0):
        return _unmoved(clip)
    value = float(before[0] / before[1] - after[0] / after[1])
    return {"value": value, "n": len(echoes)}


DRIFT = Quantity(lambda pair: pair, lag=1, least=MIN_SIZE, into=TextureDrift)


@metric(
    *("content_drift", "warp", "0..2", "lower"),
    *(f"{FLOW_PROTOCOL};chained={DRIFT_FRAMES};1-correlation", [DRIFT]),
    group="look",
)
def of_texture(clip: Any) -> dict:
    # One value for eight frames is no trace.
    return averaged(clip[DRIFT], reason=clip.too_small(DRIFT)) | {"trace": None}


def colour_step(pair: Pair) -> Float[np.ndarray, "3"]:
    """How colours change from a frame to the next along the motion, by more than light: RGB.

        mean over blocks of d - (d·m / (m·m + DARK²)) m

    with m a block's mean colour over both frames and d its change. So neither what comes into the
    picture counts, nor light that changes, here or all over.
    """
    here, (moved, is_inside) = pair.views[0].ycc, pair.moved
    to_rgb = np.linalg.inv(YCC).T
    before, after = (block_means(ycc, is_inside).reshape(-1, 3) @ to_rgb for ycc in (here, moved))
    change, colour = after - before, (after + before) / 2
    light = (change * colour).sum(axis=1) / ((colour**2).sum(axis=1) + DARK**2)
    own = change - light[:, None] * colour
    known = own[np.isfinite(own).all(axis=1)]
    return known.mean(axis=0) if len(known) else np.zeros(3)


COLOUR = Quantity(colour_step, lag=1, least=MIN_SIZE)


@metric(
    *("colour_drift", "warp", "intensity", "lower"),
    *(f"{FLOW_PROTOCOL};blocks={BLOCK};light-off;sum;slope*(T-1);norm", [COLOUR]),
    group="look",
)
def of_colours(clip: Any) -> dict:
    """Length of the way of colours through the clip along its least-squares line.

    Colours that alternate cancel.
    """
    if not clip[COLOUR]:
        return averaged([], reason=clip.too_small(COLOUR))
    way = np.cumsum([np.zeros(3), *clip[COLOUR]], axis=0)
    lines = np.stack([trend(channel) for channel in way.T])
    drift = float(np.linalg.norm(lines[:, -1] - lines[:, 0]))
    return {"value": drift, "n": len(way), "trace": tuple(np.linalg.norm(way, axis=1).tolist())}
