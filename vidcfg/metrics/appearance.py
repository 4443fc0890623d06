"""What guidance does to a picture: saturation, clipping, contrast, sharpness, brightness."""

from collections.abc import Sequence
from functools import reduce
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float

from vidcfg.metrics.flicker import LIGHT, trend
from vidcfg.metrics.frames import white
from vidcfg.metrics.metric import averaged, mean_metric, metric


@mean_metric("saturation", "appearance", "0..1", "none", "hsv-saturation")
def saturation(frame_CHW: np.ndarray) -> float:
    """Mean HSV saturation, (max - min) / max over the channels; 0 for black and for gray."""
    high, low = reduce(cv2.max, frame_CHW), reduce(cv2.min, frame_CHW)
    # What is black has no spread either: anything above 0 may stand for its 0.
    least = 1 if white(frame_CHW) == 255 else float(np.finfo(np.float32).tiny)
    ratio = cv2.divide(cv2.subtract(high, low), cv2.max(high, least), dtype=cv2.CV_32F)
    return cv2.mean(ratio)[0]


@mean_metric("clipped_share", "appearance", "0..1", "lower", "within=0.5/255")
def clipped_share(frame_CHW: np.ndarray) -> float:
    """Share of values at either end of the range, within half an 8-bit level."""
    low, high = np.nextafter(np.float32((0.5 / 255, 1 - 0.5 / 255)), np.float32((1, 0)))
    if white(frame_CHW) == 255:
        low, high = 1, 254
    inner = cv2.inRange(frame_CHW.reshape(-1, frame_CHW.shape[-1]), float(low), float(high))
    return 1 - cv2.countNonZero(inner) / inner.size


@metric("contrast", "appearance", "intensity", "none", "luma=bt709;sd", [LIGHT])
def of_contrast(clip: Any) -> dict:
    """Standard deviation of BT.709 luma over the frame."""
    return averaged(light.contrast for light in clip[LIGHT])


@metric("sharpness", "appearance", "intensity", "none", "luma=bt709;gradient=forward", [LIGHT])
def of_sharpness(clip: Any) -> dict:
    """Mean length of the luma's gradient: falls with blur, rises with noise and with texture."""
    return averaged(light.sharpness for light in clip[LIGHT])


@metric(
    *("sharpness_pulse", "appearance", "log", "lower"),
    *("luma=bt709;gradient=forward;second-difference-of-log", [LIGHT]),
)
def of_pulses(clip: Any) -> dict:
    return averaged(sharpness_pulse([light.sharpness for light in clip[LIGHT]]))


def sharpness_pulse(sharpness_T: Sequence[float] | np.ndarray) -> Float[np.ndarray, "inner"]:
    """|log s_t - (log s_{t-1} + log s_{t+1}) / 2| of each inner frame.

    Sees frames that are softer or sharper than their neighbours; sharpness that changes steadily
    gives 0. Half an 8-bit level is added to each, so that flat frames do not count.
    """
    logs = np.log(np.asarray(sharpness_T, dtype=np.float64) + 0.5 / 255)
    return np.abs(logs[1:-1] - (logs[:-2] + logs[2:]) / 2)


@metric("contrast_drift", "appearance", "log", "none", "luma=bt709;sd;slope*(T-1)", [LIGHT])
def of_contrasts(clip: Any) -> dict:
    contrasts = [light.contrast for light in clip[LIGHT]]
    return {"value": contrast_drift(contrasts), "n": len(contrasts)}


def contrast_drift(contrast_T: Sequence[float] | np.ndarray) -> float:
    """Change of log contrast from the first to the last frame, along the least-squares line.

    0: contrast stays; log 2 = 0.69: it doubles over the clip. Contrasts below a hundredth of an
    8-bit level count as that. One frame gives 0.
    """
    logs = np.log(np.maximum(np.asarray(contrast_T, dtype=np.float64), 0.01 / 255))
    line = trend(logs)
    return float(line[-1] - line[0])


@metric(
    *("brightness_drift", "appearance", "signed intensity", "none"),
    *("luma=bt709;slope*(T-1)", [LIGHT]),
)
def of_brightness(clip: Any) -> dict:
    """Change of mean luma from the first to the last frame, along the least-squares line."""
    line = trend(np.array([light.mean for light in clip[LIGHT]]))
    return {"value": float(line[-1] - line[0]), "n": len(line)}
