"""How much moves, how evenly, and where a clip freezes or jumps."""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from jaxtyping import Bool, Float

from vidcfg.metrics.flicker import CHANGE, STILL
from vidcfg.metrics.flow import (
    FLOW_PROTOCOL,
    MASK_PROTOCOL,
    MIN_COVERAGE,
    MIN_SIZE,
    Pair,
    View,
    linear,
    places,
    resized,
)
from vidcfg.metrics.frames import mean_size
from vidcfg.metrics.metric import Quantity, averaged, mean_metric, metric, skipped
from vidcfg.metrics.shots import CUT_PROTOCOL


def motion_of(flow_HW2: Float[np.ndarray, "H W 2"], *, fps: int | float) -> float:
    """Mean of the largest 5 % flow magnitudes, as pixels per 1/8 s on a 256-pixel shorter side.

    Camera and object motion are not told apart.
    """
    magnitude = np.hypot(flow_HW2[..., 0], flow_HW2[..., 1]).ravel()
    top = max(1, round(0.05 * magnitude.size))
    largest = np.partition(magnitude, magnitude.size - top)[magnitude.size - top :]
    scale = 256 / min(flow_HW2.shape[:2]) * fps / 8
    return float(np.mean(largest, dtype=np.float64)) * scale


STRIP = 64
"""Rows that are interpolated at a time."""

MOTION = Quantity(lambda pair: motion_of(pair.step, fps=8), lag=1, least=MIN_SIZE)
SEEN = Quantity(lambda frame: None)
IS_TRUSTED = Quantity(lambda pair: pair.coverage >= MIN_COVERAGE, lag=1, least=MIN_SIZE)


@metric(
    *("dynamic_degree", "motion", "px", "none"),
    *(f"{FLOW_PROTOCOL};at=search;top=5%;side=256;fps=8", [MOTION]),
    marks_still=True,
)
def dynamic_degree(clip: Any) -> dict:
    """Mean motion of neighbours, proportional to the frame rate."""
    return averaged([m * (clip.fps / 8) for m in clip[MOTION]], reason=clip.too_small(MOTION))


@mean_metric(
    *("motion_smoothness", "motion", "0..1", "higher", f"{FLOW_PROTOCOL};interpolate=odd"),
    lag=2,
    step=2,
    least=MIN_SIZE,
    marks_still=True,
)
def smoothness(triple: Pair) -> float:
    """1 - mean |x - x'| of a frame and its interpolation from the frames before and after it.

    x' is the mean of both neighbours, each moved by half the flow between them. The error is small
    for motion at an even pace, large for judder, a repeated or a missing frame, and flicker; taken
    of frames 1, 3, 5, ... VBench's idea with flow in place of its net, so another number.
    """
    (first, last), (middle, _) = triple.views, triple.halves[1].views
    half, error = resized(triple.there / 2, *triple.first.shape[-2:]), 0.0
    # Strips of rows stay in the cache.
    for top in range(0, len(half), STRIP):
        rows = slice(top, top + STRIP)
        before = linear(first.rgb, *places(-half[rows], top=top))
        behind = linear(last.rgb, *places(half[rows], top=top))
        error += mean_size((before + behind) / 2, middle.rgb[rows]) * before.size
    return 1 - error / middle.rgb.size


@metric(
    "freeze_share", "motion", "0..1", "lower", "below=0.1*local-median", [CHANGE], marks_still=True
)
def freeze_share(clip: Any) -> dict:
    return averaged(frozen([absolute for absolute, _ in clip[CHANGE]]))


@metric(
    *("jump_share", "motion", "0..1", "lower"),
    f"{FLOW_PROTOCOL};{MASK_PROTOCOL};above=1.6*flow|3*change|flow-lost",
    [CHANGE, MOTION, IS_TRUSTED],
    marks_still=True,
)
def jump_share(clip: Any) -> dict:
    change = [absolute for absolute, _ in clip[CHANGE]]
    trusted = [m if ok else None for m, ok in zip(clip[MOTION], clip[IS_TRUSTED])]
    return averaged(jumps(change, trusted or [None] * len(change)))


@metric("cuts", "motion", "count", "none", CUT_PROTOCOL, [SEEN], of_shots="sum")
def cuts(clip: Any) -> dict:
    """How often another shot begins."""
    return {"value": float(clip.start > 0), "n": len(clip[SEEN])}


def frozen(change_pairs: Sequence[float] | np.ndarray) -> Bool[np.ndarray, "pairs"]:
    """Pairs whose frames are the same in a clip that otherwise changes.

    A pair is frozen if its mean change is below a tenth of the median of all changes above
    0.0001. In a still clip every pair is.
    """
    change = np.asarray(change_pairs, dtype=np.float64)
    moving = change[change > STILL]
    limit = max(STILL, 0.1 * float(np.median(moving))) if len(moving) else np.inf
    return change < limit


def jumps(
    change_pairs: Sequence[float] | np.ndarray, motion_pairs: Sequence[float | None] | np.ndarray
) -> Bool[np.ndarray, "pairs"]:
    """Pairs across which something is missing: a dropped frame, a pop.

    Against the upper quartile of up to three pairs on each side, a pair jumps if its motion is
    more than 1.6 times as large (a dropped frame doubles it) or its change more than 3 times as
    large and above 0.02. Where the flow cannot be trusted, motion is None; a pair without it among
    neighbours that all have it jumps as well.
    """
    change = np.asarray(change_pairs, dtype=np.float64)
    motion = np.array([np.nan if m is None else m for m in motion_pairs], dtype=np.float64)
    found = np.zeros(len(change), dtype=bool)
    for t in range(len(change)):
        near = [i for i in range(max(0, t - 3), min(len(change), t + 4)) if i != t]
        usual_change = float(np.quantile(change[near], 0.75)) if near else np.inf
        known = motion[near][~np.isnan(motion[near])]
        usual_motion = float(np.quantile(known, 0.75)) if len(known) >= 2 else np.inf
        popped = change[t] > max(3 * usual_change, 0.02)
        moved = motion[t] > 1.6 * max(usual_motion, 0.5)
        lost = np.isnan(motion[t]) and len(known) == len(near) >= 2
        found[t] = popped or moved or lost
    return found


STOOD = 10
"""Pairs for which a part has to stand still before it can be told that it should not."""

SOON = 4
"""What is beside it has to move within so many of them: what comes later may be something else."""

LEVEL = 1.1
"""What changes by so many levels of 255 stands still: rounding, and noise of a frozen latent."""

REACHES = (1, 2)
"""Steps over one pixel, and over two, as the border may lie inside of one."""


class HeldParts(list):
    """The share of the picture that is held in each pair of neighbours, fed with pairs.

    A part is held if it stands still while what is beside it moves, across a seam that was none
    when it came to stand: a picture goes on without a step where a part of it begins to freeze,
    and does not at the border of a bar, an overlay, a thing that the camera follows or one that
    moves before a still background. Told on luma at a shorter side of 96 pixels or less.
    """

    def append(self, pair: Pair) -> None:
        if not self:
            self._begin(_reduced(pair.views[0]))
        super().append(0.0)
        if pair.change[0] <= STILL:
            return
        luma = _reduced(pair.views[1])
        # For how long each pixel has stood; single ones go by those around them.
        stands = (np.abs(luma - self._stood) <= LEVEL).astype(np.uint8)
        is_still = cv2.medianBlur(stands, 5).astype(bool)
        self._stood[~is_still] = luma[~is_still]
        self._age = np.where(is_still, self._age + 1, 0)
        self._held &= is_still
        self._moving.append(len(self) - 1)
        self[-1] = float(self._held.mean())

        # The step to each neighbour when it came to stand, and whether that one went on.
        for turn, (before, goes_on) in enumerate(self._seams):
            stays, neighbour = _sides(is_still, turn)
            for reach in REACHES:
                before[reach][~stays] = _steps(luma, turn, reach)[0][~stays]
            goes_on &= stays
            goes_on |= stays & ~neighbour & (_sides(self._age, turn)[0] <= SOON)

        # Parts of a 36th of the picture or more, and the pairs for which they have been held.
        fresh = np.zeros_like(is_still)
        whole = (self._age >= STOOD).astype(np.uint8)
        count, parts, facts, _ = cv2.connectedComponentsWithStats(whole, connectivity=4)
        for part in np.flatnonzero(facts[1:, cv2.CC_STAT_AREA] >= luma.size / 36) + 1:
            here = parts == part
            if any(self._is_torn(here, luma, reach) for reach in REACHES):
                fresh |= here & ~self._held
        self._held |= fresh
        for back in range(int(self._age[fresh].max(initial=0))):
            self[self._moving[-1 - back]] += float((self._age[fresh] > back).sum() / luma.size)

    def _begin(self, luma_HW: np.ndarray) -> None:
        self._stood, self._moving = luma_HW.copy(), []
        self._age = np.zeros(luma_HW.shape, dtype=int)
        self._held = np.zeros(luma_HW.shape, dtype=bool)
        sides = [
            {reach: _steps(luma_HW, turn, reach)[0] for reach in REACHES} for turn in range(4)
        ]
        self._seams = [(steps, np.zeros(steps[1].shape, dtype=bool)) for steps in sides]

    def _is_torn(self, part_HW: np.ndarray, luma_HW: np.ndarray, reach: int) -> bool:
        """Whether a seam has come up around a part: of four times the squared step across its
        border before, and inside it, which were alike.

        Known where the neighbour went on soon, which has to be most of the border.
        """
        found, border = [], 0
        for turn, (before, goes_on) in enumerate(self._seams):
            here, neighbour = _sides(part_HW, turn)
            age, other = _sides(self._age, turn)
            edge = here & ~neighbour & (other < age)
            known = edge & goes_on
            border += int(edge.sum())
            levels = _sides(luma_HW, turn)[0]
            found.append(
                [x[known] for x in (before[reach], *_steps(luma_HW, turn, reach), levels)]
            )
        before, across, inside, levels = (np.concatenate(each) for each in zip(*found))
        if len(levels) < max(min(luma_HW.shape) / 4, border / 2):
            return False
        # What is flat, such as a bar, goes on in anything dark.
        low, high = np.percentile(levels, (25, 75))
        usual = max(before.mean(), inside.mean())
        is_new = before.mean() <= 2 * inside.mean() and across.mean() >= max(4 * usual, 4)
        return bool(high - low >= 8 and is_new)


def _reduced(view: View) -> np.ndarray:
    """Luma of a frame in levels, its shorter side 96 pixels at most."""
    luma = np.ascontiguousarray(view.ycc[..., 0])
    height, width = luma.shape
    factor = min(1.0, 96 / min(height, width))
    size = round(width * factor), round(height * factor)
    return luma if factor == 1 else cv2.resize(luma, size, interpolation=cv2.INTER_AREA)


def _sides(values_HW: np.ndarray, turn: int) -> tuple[np.ndarray, np.ndarray]:
    """Pixels with two more on each side, and their neighbours in one of four directions."""
    turned = np.rot90(values_HW, turn)
    return turned[:, 2:-2], turned[:, 3:-1]


def _steps(luma_HW: np.ndarray, turn: int, reach: int) -> tuple[np.ndarray, np.ndarray]:
    """Squared steps over so many pixels to that side and to the other."""
    turned = np.rot90(luma_HW, turn)
    end = turned.shape[1] - 2
    here, there, behind = (turned[:, 2 + to : max(end + to, 0)] for to in (0, reach, -reach))
    return (here - there) ** 2, (here - behind) ** 2


HELD = Quantity(lambda pair: pair, lag=1, least=MIN_SIZE, into=HeldParts)


@metric(
    *("held_share", "motion", "0..1", "lower"),
    *(f"luma@96;still={LEVEL};after={STOOD};moves-within={SOON};seam=4x", [HELD]),
    marks_still=True,
)
def held_share(clip: Any) -> dict:
    """Share of the picture, over all pairs, that stands still where it should move."""
    if 0 < len(clip[HELD]) < STOOD:
        return skipped(f"a held part is told from {STOOD + 1} frames on")
    return averaged(clip[HELD], reason=clip.too_small(HELD))
