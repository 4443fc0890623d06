"""Sizes that nets want, from frames of any size."""

import numpy as np

from vidcfg.metrics.frames import to_unit


def area_to_side(frames: np.ndarray, side: int) -> np.ndarray:
    """Frames [T, C, H, W] with the shorter side reduced to `side` by area averaging.

    Smaller frames stay as they are. Float32 in [0, 1].
    """
    import cv2

    frames = to_unit(frames)
    height, width = frames.shape[-2:]
    shorter = min(height, width)
    if shorter <= side:
        return frames
    size = (round(width * side / shorter), round(height * side / shorter))
    channels_last = frames.transpose(0, 2, 3, 1)
    small = [cv2.resize(f, size, interpolation=cv2.INTER_AREA) for f in channels_last]
    return np.clip(np.stack(small).transpose(0, 3, 1, 2), 0, 1)


def stretch_legacy(frames: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bilinear resize as in TensorFlow 1: output pixel i samples at i * scale, no antialiasing.

    The ratio of the sides is not kept. This is what the published FVD of google-research does.
    """
    frames = to_unit(frames)
    rows, columns = (
        np.arange(new, dtype=np.float64) * (old / new)
        for new, old in zip((height, width), frames.shape[-2:])
    )
    return _sampled(frames, rows, columns)


def stretch_centred(frames: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bilinear resize with pixel centres aligned, no antialiasing: torch's `align_corners=False`.

    The ratio of the sides is not kept.
    """
    frames = to_unit(frames)
    rows, columns = (
        np.maximum((np.arange(new, dtype=np.float64) + 0.5) * (old / new) - 0.5, 0)
        for new, old in zip((height, width), frames.shape[-2:])
    )
    return _sampled(frames, rows, columns)


def _sampled(frames: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Bilinear samples on a grid of positions; the last row and column are repeated."""
    frames = _along(frames, rows, axis=2)
    return _along(frames, columns, axis=3)


def _along(frames: np.ndarray, position: np.ndarray, *, axis: int) -> np.ndarray:
    last = frames.shape[axis] - 1
    lower = np.minimum(np.floor(position).astype(int), last)
    part = (position - lower).astype(np.float32)
    part = part[:, None] if axis == 2 else part
    low = frames.take(lower, axis=axis)
    high = frames.take(np.minimum(lower + 1, last), axis=axis)
    return low + (high - low) * np.clip(part, 0, 1)
