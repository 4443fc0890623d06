"""What every metric does to a frame first: one range, one luma, one difference.

Frames of 8 bits stay levels as far as they can: sums of levels are exact, and quicker than floats.
"""

from typing import NamedTuple

import cv2
import numpy as np

from vidcfg.media.video import check_range

LUMA = (0.2126, 0.7152, 0.0722)
"""BT.709 weights of red, green and blue."""


def to_unit(frames: np.ndarray) -> np.ndarray:
    """Float32 in [0, 1]: uint8 is divided by 255, float32 stays as it is.

    Raises:
        ValueError: for another type, NaN, or float values outside [0, 1].
    """
    if frames.dtype == np.uint8:
        return frames.astype(np.float32) / np.float32(255)
    check_range(frames, what="frames to measure")
    return frames


def white(values: np.ndarray) -> int:
    """The value of white: 255 in levels, 1 in floats."""
    return 255 if values.dtype.kind in "iu" else 1


def luma(frame_CHW: np.ndarray) -> np.ndarray:
    """BT.709 luma in [0, 1] of a frame with 1 or 3 channels: float32 [H, W]."""
    if len(frame_CHW) == 1:
        return to_unit(frame_CHW)[0]
    red, green, blue = frame_CHW
    of_red, of_green, of_blue = (weight / white(frame_CHW) for weight in LUMA)
    both = cv2.addWeighted(red, of_red, green, of_green, 0, dtype=cv2.CV_32F)
    # Weights that sum to one in exact arithmetic can pass it by rounding.
    return cv2.min(cv2.scaleAdd(blue.astype(np.float32), of_blue, both), 1)


class Light(NamedTuple):
    """Of a frame's BT.709 luma: mean, standard deviation, and the mean length of its gradient.

    The gradient is of forward differences, in intensity per pixel; 0 below 2 x 2 pixels.
    """

    mean: float
    contrast: float
    sharpness: float


def light(frame_CHW: np.ndarray) -> Light:
    brightness, sharpness = luma(frame_CHW), 0.0
    mean, deviation = cv2.meanStdDev(brightness)
    if min(brightness.shape) > 1:
        corner = brightness[:-1, :-1]
        down = cv2.subtract(brightness[1:, :-1], corner)
        across = cv2.subtract(brightness[:-1, 1:], corner)
        # cv2.magnitude rounds by where in memory it finds its arrays.
        squared = np.add(np.square(down, out=down), np.square(across, out=across), out=down)
        sharpness = cv2.mean(np.sqrt(squared, out=squared))[0]
    return Light(float(mean[0, 0]), float(deviation[0, 0]), sharpness)


def mean_size(first: np.ndarray, second: np.ndarray) -> float:
    """Mean |x - y| in [0, 1], of two frames or two differences; of levels it is exact."""
    return cv2.norm(_plane(first), _plane(second), cv2.NORM_L1) / (white(first) * first.size)


def mean_square(first: np.ndarray, second: np.ndarray) -> float:
    """Mean (x - y)^2, likewise."""
    squared = cv2.norm(_plane(first), _plane(second), cv2.NORM_L2SQR)
    return squared / (white(first) ** 2 * first.size)


def _plane(values: np.ndarray) -> np.ndarray:
    # OpenCV takes a last axis of up to 512 for channels, and is slow on many of them.
    return values.reshape(-1, values.shape[-1])
