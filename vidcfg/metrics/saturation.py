"""Burning: how saturated the pixels of a frame are, and how many lie at the end of the range."""

import numpy as np

from vidcfg.metrics.frames import to_unit


def saturation(frame_CHW: np.ndarray) -> float:
    """Mean HSV saturation, (max - min) / max over the channels; 0 for black and for gray."""
    frame = to_unit(frame_CHW)
    high, low = frame.max(axis=0), frame.min(axis=0)
    ratio = np.divide(high - low, high, out=np.zeros_like(high), where=high > 0)
    return float(np.mean(ratio, dtype=np.float64))


def clipped_share(frame_CHW: np.ndarray) -> float:
    """Share of values at either end of the range, within half an 8-bit level."""
    frame = to_unit(frame_CHW)
    margin = np.float32(0.5 / 255)
    return float(np.mean((frame <= margin) | (frame >= 1 - margin)))
