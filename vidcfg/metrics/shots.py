"""Where a clip is cut: the first frames of its shots, found without weights as frames stream by.

Frames are compared as thumbnails of their texture, moved onto each other, so that neither light
nor motion makes them unlike. A cut is called only where three things meet: half of the picture
changes, no frame after resembles one before, and both sides are far more alike in themselves. What
falls short of it stays in its shot and is scored: a cut that is missed reads as a fault, but a
fault that is taken for a cut would be hidden.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice, pairwise

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from vidcfg.media.video import check_range
from vidcfg.metrics.flow import textured

SIDE, REACH = 48, 14
"""Thumbnails have so many pixels a side, and are moved by up to so many onto each other."""

AHEAD, BEHIND, MEMORY = 3, 3, 12
"""How many frames after the first of a shot are looked at, and how many before it: for how alike
neighbours are, and for what must not come back."""

UNLIKE = 0.5
"""Frames of two shots are less alike than this."""

APART = 2.0
"""They are so many times as far from alike as neighbours on either side are."""

CUT_PROTOCOL = "texture48;3-ahead;12-behind"

_FLAT = 3.0
_CHANGED, _SHARE = 8.0, 0.5


@dataclass(frozen=True, eq=False)
class Thumbnail:
    """Area means of a frame, in levels of 255."""

    levels: Float[np.ndarray, "48 48 C"]

    @cached_property
    def texture(self) -> UInt8[np.ndarray, "48 48 C"]:
        """Each channel over its local contrast, so that light does not count."""
        return np.stack([textured(plane) for plane in self.levels.transpose(2, 0, 1)], axis=-1)

    def likeness(self, other: "Thumbnail") -> float:
        """The largest correlation of texture under shifts of up to 29 % of the picture.

        1 where either picture is flat: nothing tells them apart.
        """
        if min(self.texture.std(), other.texture.std()) < _FLAT:
            return 1.0
        inner = slice(REACH, SIDE - REACH)
        sides = (self.texture, other.texture), (other.texture, self.texture)
        found = [
            cv2.matchTemplate(whole, part[inner, inner], cv2.TM_CCOEFF_NORMED).max()
            for whole, part in sides
        ]
        return float(max(found))

    def changes_into(self, other: "Thumbnail") -> bool:
        """Half of the picture or more changes by 8 levels."""
        difference = np.abs(self.levels - other.levels).max(axis=-1)
        return float(np.mean(difference > _CHANGED)) >= _SHARE


def thumbnail(frame_CHW: np.ndarray) -> Thumbnail:
    """Of a frame, uint8 or float32 in [0, 1]."""
    check_range(frame_CHW, what="frames to measure")
    planes = [plane.astype(np.float32) for plane in frame_CHW]
    # First across alone: a whole factor, which common widths are, is quick.
    for size in ((SIDE, frame_CHW.shape[1]), (SIDE, SIDE)):
        planes = [cv2.resize(plane, size, interpolation=cv2.INTER_AREA) for plane in planes]
    levels = np.stack(planes, axis=-1)
    return Thumbnail(np.rint(levels) if frame_CHW.dtype == np.uint8 else 255 * levels)


def with_cuts(frames: Iterable[np.ndarray]) -> Iterator[tuple[np.ndarray, bool]]:
    """Each frame [C, H, W], and whether it is the first of another shot than the frame before.

    Three frames are read ahead. A shot has two frames or more: a cut after the first frame or
    before the last one cannot be told from a fault.

    Raises:
        ValueError: as `check_range`.
    """
    source = iter(frames)
    ahead = deque((frame, thumbnail(frame)) for frame in islice(source, AHEAD + 1))
    behind: deque[Thumbnail] = deque(maxlen=MEMORY)
    age = 0
    while ahead:
        after = [look for _, look in ahead]
        starts = min(age, len(after)) >= 2 and is_cut([*behind], after, age=age)
        frame, look = ahead.popleft()
        behind.append(look)
        age = 1 if starts else age + 1
        yield frame, starts
        ahead.extend((frame, thumbnail(frame)) for frame in islice(source, 1))


def is_cut(before: Sequence[Thumbnail], after: Sequence[Thumbnail], *, age: int) -> bool:
    """Whether a shot ends with the last frame of `before`, which is its frame number `age`."""
    last, first = before[-1], after[0]
    if not last.changes_into(first) or last.likeness(first) >= UNLIKE:
        return False
    shots = before[-min(age, BEHIND) :], after
    pace = min(one.likeness(other) for shot in shots for one, other in pairwise(shot))
    limit = min(UNLIKE, 1 - APART * (1 - pace))
    return all(one.likeness(other) < limit for one in before for other in after)
