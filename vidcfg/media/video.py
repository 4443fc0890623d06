"""The one video type that readers return and metrics take."""

from dataclasses import dataclass

import numpy as np

PIECE = 2
"""Frames that are converted at once: copies of more leave the cache, and cost memory."""


class MediaError(ValueError):
    """A video or picture that cannot be read or encoded; the message names it."""


@dataclass(frozen=True, eq=False)
class Video:
    """Frames of one clip with what is known about where they come from.

    `frames` has shape [T, C, H, W] with 1 or 3 channels: uint8 in 0..255, or float32 in [0, 1].
    `fps` is in frames per second. `lossless` says whether the pixels went through a lossy codec
    (None: not known), `codec` names that codec (None: never encoded), `source` is a file name or
    another name for messages.

    Raises:
        ValueError: at construction, if shape, dtype, range or fps are not as above.
    """

    frames: np.ndarray
    fps: float | int
    lossless: bool | None = None
    codec: str | None = None
    source: str = "memory"

    def __post_init__(self) -> None:
        frames, what = self.frames, self.source
        if not isinstance(frames, np.ndarray) or frames.ndim != 4:
            given = getattr(frames, "shape", type(frames).__name__)
            raise ValueError(f"{what}: frames have to be an array [T, C, H, W], not {given}.")
        if frames.shape[1] not in (1, 3) or 0 in frames.shape:
            raise ValueError(
                f"{what}: frames of shape {frames.shape} are not [T, C, H, W] with 1 or 3 "
                "channels. Frames with channels last go through frames.transpose(0, 3, 1, 2)."
            )
        check_range(frames, what=what)
        if not (np.isfinite(self.fps) and self.fps > 0):
            raise ValueError(f"{what}: fps is {self.fps}, it has to be above 0.")

    def as_uint8(self) -> np.ndarray:
        """Uint8 frames, rounded to the nearest level. Uint8 frames are not copied."""
        return to_uint8(self.frames)


def check_range(frames: np.ndarray, *, what: str) -> None:
    """Raise ValueError unless `frames` is uint8, or float32 that is finite and in [0, 1]."""
    if frames.dtype == np.uint8:
        return
    if frames.dtype != np.float32:
        raise ValueError(f"{what}: frames are {frames.dtype}, allowed are uint8 and float32.")
    low, high = float(frames.min()), float(frames.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ValueError(f"{what}: frames contain NaN or Inf.")
    if low < 0 or high > 1:
        raise ValueError(
            f"{what}: float frames reach from {low:g} to {high:g}, they have to be in [0, 1]. "
            "Divide 0..255 by 255, map -1..1 by (x + 1) / 2, or clip."
        )


def to_uint8(frames: np.ndarray) -> np.ndarray:
    """Uint8 levels of frames in [0, 1], rounded to the nearest; uint8 frames are not copied.

    Beyond the result, which lies in memory as `frames` do, it needs that of a few frames, however
    many there are.
    """
    if frames.dtype == np.uint8:
        return frames
    levels = np.empty_like(frames, dtype=np.uint8)
    for first in range(0, len(frames), PIECE):
        piece = frames[first : first + PIECE] * np.float32(255)
        levels[first : first + PIECE] = np.rint(piece, out=piece)
    return levels


def rgb_levels(frames_THWC: np.ndarray) -> np.ndarray:
    """Uint8 levels of RGB frames [T, H, W, 3] that are uint8 or float in [0, 1].

    Raises:
        ValueError: another shape or range.
    """
    shape = getattr(frames_THWC, "shape", ())
    if len(shape) != 4 or shape[-1] != 3 or 0 in shape:
        raise ValueError(f"frames have to be an array [T, H, W, 3], not {tuple(shape)}.")
    if frames_THWC.dtype != np.uint8:
        frames_THWC = np.asarray(frames_THWC, dtype=np.float32)
    check_range(frames_THWC, what="frames")
    return to_uint8(frames_THWC)
