"""Optical flow without weights, and what is visible in both frames of a pair.

Flow fields are float32 [H, W, 2], last axis (x, y), in pixels: what is at p in the first frame is
at p + flow(p) in the second.
"""

import threading
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, UInt8

from vidcfg.metrics.frames import change, luma, to_levels, to_unit

MIN_SIZE = 12
"""Frames with a shorter side below this have no DIS flow."""

MIN_COVERAGE = 0.5
"""A pair that shares less of its pixels than this is not measured."""

FLOW_PROTOCOL = "flow=dis-medium@128..720;mask=forward-backward+edges+border;coverage>=0.5"

_ENLARGE_BELOW = 128
_REDUCE_ABOVE = 720
_THREAD = threading.local()


def dis_flow(
    first_HW: UInt8[np.ndarray, "H W"], second_HW: UInt8[np.ndarray, "H W"]
) -> Float[np.ndarray, "H W 2"]:
    """Dense inverse search flow (OpenCV, preset medium) from the first frame to the second.

    Raises:
        ValueError: if the shorter side is below 12 pixels.

    Source: Kroeger et al. 2016, arXiv:1603.03590.
    """
    import cv2

    height, width = first_HW.shape
    if min(height, width) < MIN_SIZE:
        text = f"frames are {height} x {width}, optical flow needs {MIN_SIZE} pixels or more."
        raise ValueError(text)
    # One object a thread: it keeps buffers and may not be shared.
    if not hasattr(_THREAD, "dis"):
        _THREAD.dis = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    return _THREAD.dis.calc(first_HW, second_HW, None)


def sample(
    image_HWC: Float[np.ndarray, "H W C"], flow_HW2: Float[np.ndarray, "H W 2"]
) -> tuple[Float[np.ndarray, "H W C"], Bool[np.ndarray, "H W"]]:
    """Bilinear samples of the image at p + flow(p), and where that lies inside the image.

    A whole-number flow gives the image's own values bit for bit. Outside, the border is repeated
    and the mask is False.
    """
    height, width, channels = image_HWC.shape
    x = np.arange(width, dtype=np.float32) + flow_HW2[..., 0]
    y = np.arange(height, dtype=np.float32)[:, None] + flow_HW2[..., 1]
    inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    x, y = np.clip(x, 0, width - 1), np.clip(y, 0, height - 1)
    across, down = (x - np.floor(x))[..., None], (y - np.floor(y))[..., None]
    left, top = x.astype(np.int32), y.astype(np.int32)
    right, bottom = np.minimum(left + 1, width - 1), np.minimum(top + 1, height - 1)
    flat = image_HWC.reshape(-1, channels)
    upper = flat[top * width + left] * (1 - across) + flat[top * width + right] * across
    lower = flat[bottom * width + left] * (1 - across) + flat[bottom * width + right] * across
    return upper * (1 - down) + lower * down, inside


def visible(
    forward_HW2: Float[np.ndarray, "H W 2"], backward_HW2: Float[np.ndarray, "H W 2"]
) -> Bool[np.ndarray, "H W"]:
    """Pixels of the first frame that the second frame shows too.

    With B' = backward flow at p + F(p), a pixel is left out if it moves outside the frame, if
        |F + B'|^2 > 0.01 (|F|^2 + |B'|^2) + 0.5            (the two flows disagree: occluded)
    or |grad F_x|^2 + |grad F_y|^2 > 0.01 |F|^2 + 0.002      (edge of a moving thing)
    with forward differences for the gradients.

    Source: Ruder et al. 2016, arXiv:1604.08610; Lai et al. 2018, arXiv:1808.00449.
    """
    returned, inside = sample(backward_HW2, forward_HW2)
    squared = _squared(forward_HW2)
    mismatch = _squared(forward_HW2 + returned)
    occluded = mismatch > 0.01 * (squared + _squared(returned)) + 0.5
    gradient = np.zeros_like(squared)
    gradient[:, :-1] += _squared(np.diff(forward_HW2, axis=1))
    gradient[:-1, :] += _squared(np.diff(forward_HW2, axis=0))
    return inside & ~occluded & ~(gradient > 0.01 * squared + 0.002)


def _squared(flow_HW2: np.ndarray) -> np.ndarray:
    return flow_HW2[..., 0] ** 2 + flow_HW2[..., 1] ** 2


@dataclass(frozen=True, eq=False)
class Pair:
    """Two frames [C, H, W] of a clip, `lag` apart; what is asked for is computed once.

    `start` counts the frames before the first, `middle` is the frame between them at a lag of 2.

    Flow and mask are found at a shorter side of 128 to 720 pixels: smaller frames are enlarged by
    a whole factor (DIS matches patches of 8 pixels, which there are whole objects), larger ones
    reduced by one, and the results brought back to the frame's own size and pixels.
    """

    first: np.ndarray
    second: np.ndarray
    middle: np.ndarray | None = None
    lag: int = 1
    start: int = 0

    @cached_property
    def change(self) -> tuple[float, float]:
        """Mean absolute and mean squared difference."""
        return change(self.first, self.second)

    @cached_property
    def forward(self) -> np.ndarray:
        """Flow from the first to the second frame, in pixels of the frames themselves."""
        flow, (height, width) = self._search[0], self.first.shape[-2:]
        if flow.shape[:2] == (height, width):
            return flow
        scale = np.float32([width / flow.shape[1], height / flow.shape[0]])
        return self._own_size(flow) * scale

    @cached_property
    def is_visible(self) -> np.ndarray:
        """Where the first frame's pixels are seen in the second one: bool [H, W]."""
        mask = visible(*self._search)
        if mask.shape == self.first.shape[-2:]:
            return mask
        return self._own_size(mask.astype(np.float32)) >= 0.5

    @cached_property
    def coverage(self) -> float:
        """Share of pixels that both frames show."""
        return float(self.is_visible.mean())

    @cached_property
    def warped(self) -> np.ndarray:
        """The second frame, float32 [C, H, W] in [0, 1], moved onto the first."""
        return warp(self.second, self.forward)

    @cached_property
    def _search(self) -> tuple[np.ndarray, np.ndarray]:
        """Flow there and back, at the size of the search."""
        import cv2

        first, second = (to_levels(luma(frame)) for frame in (self.first, self.second))
        size, way = search_size(*first.shape), cv2.INTER_AREA
        if size[0] > first.shape[0]:
            way = cv2.INTER_CUBIC
        if size != first.shape and min(first.shape) >= MIN_SIZE:
            first, second = (
                cv2.resize(frame, size[::-1], interpolation=way) for frame in (first, second)
            )
        return dis_flow(first, second), dis_flow(second, first)

    def _own_size(self, found: np.ndarray) -> np.ndarray:
        import cv2

        height, width = self.first.shape[-2:]
        way = cv2.INTER_AREA if found.shape[0] > height else cv2.INTER_LINEAR
        return cv2.resize(found, (width, height), interpolation=way)


def search_size(height: int, width: int) -> tuple[int, int]:
    """The size at which flow is searched: enlarged below 128, reduced above 720."""
    shorter = min(height, width)
    if shorter < _ENLARGE_BELOW:
        factor = -(-_ENLARGE_BELOW // shorter)
        return height * factor, width * factor
    factor = -(-shorter // _REDUCE_ABOVE)
    return round(height / factor), round(width / factor)


def warp(frame_CHW: np.ndarray, flow_HW2: np.ndarray) -> np.ndarray:
    """The frame, float32 [C, H, W] in [0, 1], sampled at p + flow(p)."""
    channels_last = np.ascontiguousarray(to_unit(frame_CHW).transpose(1, 2, 0))
    return sample(channels_last, flow_HW2)[0].transpose(2, 0, 1)
