"""What every metric does to a frame first: one range, one luma, one difference."""

import numpy as np

LUMA = (0.2126, 0.7152, 0.0722)
"""BT.709 weights of red, green and blue."""


def to_unit(frames: np.ndarray) -> np.ndarray:
    """Float32 in [0, 1]: uint8 is divided by 255, float32 stays as it is.

    Raises:
        ValueError: for another type, NaN, or float values outside [0, 1].
    """
    if frames.dtype == np.uint8:
        return frames.astype(np.float32) / np.float32(255)
    check_unit(frames)
    return frames


def check_unit(frames: np.ndarray) -> None:
    """Raise ValueError unless `frames` is uint8, or float32 in [0, 1]."""
    if frames.dtype == np.uint8:
        return
    if frames.dtype != np.float32:
        raise ValueError(f"frames are {frames.dtype}; metrics take uint8 or float32 in [0, 1].")
    low, high = float(frames.min()), float(frames.max())
    if not (low >= 0 and high <= 1):
        raise ValueError(
            f"float frames reach from {low:g} to {high:g}; metrics take [0, 1]. "
            "Divide 0..255 by 255, map -1..1 by (x + 1) / 2, or clip."
        )


def to_levels(frames: np.ndarray) -> np.ndarray:
    """Uint8 levels of frames in [0, 1], rounded to the nearest."""
    if frames.dtype == np.uint8:
        return frames
    return np.rint(to_unit(frames) * np.float32(255)).astype(np.uint8)


def luma(frame: np.ndarray) -> np.ndarray:
    """BT.709 luma in [0, 1] of frames [..., C, H, W] with 1 or 3 channels: float32 [..., H, W]."""
    frame = to_unit(frame)
    if frame.shape[-3] == 1:
        return frame[..., 0, :, :]
    red, green, blue = (frame[..., c, :, :] * np.float32(w) for c, w in enumerate(LUMA))
    # Weights that sum to one in exact arithmetic can pass it by rounding.
    return np.minimum(red + green + blue, np.float32(1))


def change(first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    """Mean absolute and mean squared difference of two frames of one shape, in [0, 1]."""
    difference = to_unit(second) - to_unit(first)
    squared = float(np.mean(difference * difference, dtype=np.float64))
    return float(np.mean(np.abs(difference), dtype=np.float64)), squared
