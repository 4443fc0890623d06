"""What guidance does to a picture: saturation, clipping, contrast, sharpness, brightness."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from vidcfg.metrics.flicker import LUMA, trend
from vidcfg.metrics.frames import luma
from vidcfg.metrics.metric import Quantity, averaged, mean_metric, metric
from vidcfg.metrics.saturation import clipped_share, saturation

mean_metric("saturation", "appearance", "0..1", "none", "hsv-saturation")(saturation)
mean_metric("clipped_share", "appearance", "0..1", "lower", "within=0.5/255")(clipped_share)


@mean_metric("contrast", "appearance", "intensity", "none", "luma=bt709;sd")
def contrast(frame_CHW: np.ndarray) -> float:
    """Standard deviation of BT.709 luma over the frame."""
    return float(np.std(luma(frame_CHW), dtype=np.float64))


@mean_metric("sharpness", "appearance", "intensity", "none", "luma=bt709;gradient=forward")
def sharpness(frame_CHW: np.ndarray) -> float:
    """Mean length of the luma's gradient, forward differences, in intensity per pixel.

    Falls with blur, rises with noise and with texture. Below 2 x 2 pixels it is 0.
    """
    brightness = luma(frame_CHW)
    down = np.diff(brightness, axis=0)[:, :-1]
    across = np.diff(brightness, axis=1)[:-1, :]
    return float(np.mean(np.hypot(down, across), dtype=np.float64)) if down.size else 0.0


CONTRAST, SHARPNESS = Quantity(contrast), Quantity(sharpness)


@metric(
    *("sharpness_pulse", "appearance", "log", "lower"),
    *("luma=bt709;gradient=forward;second-difference-of-log", [SHARPNESS]),
)
def of_sharpness(clip: Any) -> dict:
    return averaged(sharpness_pulse(clip[SHARPNESS]))


def sharpness_pulse(sharpness_T: Sequence[float] | np.ndarray) -> Float[np.ndarray, "inner"]:
    """|log s_t - (log s_{t-1} + log s_{t+1}) / 2| of each inner frame.

    Sees frames that are softer or sharper than their neighbours; sharpness that changes steadily
    gives 0. Half an 8-bit level is added to each, so that flat frames do not count.
    """
    logs = np.log(np.asarray(sharpness_T, dtype=np.float64) + 0.5 / 255)
    return np.abs(logs[1:-1] - (logs[:-2] + logs[2:]) / 2)


@metric("contrast_drift", "appearance", "log", "none", "luma=bt709;sd;slope*(T-1)", [CONTRAST])
def of_contrasts(clip: Any) -> dict:
    return {"value": contrast_drift(clip[CONTRAST]), "n": len(clip[CONTRAST])}


def contrast_drift(contrast_T: Sequence[float] | np.ndarray) -> float:
    """Change of log contrast from the first to the last frame, along the least-squares line.

    0: contrast stays; log 2 = 0.69: it doubles over the clip. Contrasts below a hundredth of an
    8-bit level count as that. One frame gives 0.
    """
    logs = np.log(np.maximum(np.asarray(contrast_T, dtype=np.float64), 0.01 / 255))
    line = trend(logs)
    return float(line[-1] - line[0])


@metric("brightness_drift", "appearance", "intensity", "none", "luma=bt709;slope*(T-1)", [LUMA])
def of_brightness(clip: Any) -> dict:
    """Change of mean luma from the first to the last frame, along the least-squares line."""
    line = trend(np.array(clip[LUMA]))
    return {"value": float(line[-1] - line[0]), "n": len(line)}
