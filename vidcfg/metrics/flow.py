"""Optical flow without weights, and what is visible in both frames of a pair.

Flow fields are float32 [H, W, 2], last axis (x, y), in pixels: what is at p in the first frame is
at p + flow(p) in the second.
"""

import threading
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

from vidcfg.metrics.frames import mean_size, mean_square, to_unit

Image = Float[np.ndarray, "H W *C"]
Plane, Levels = Float[np.ndarray, "H W"], UInt8[np.ndarray, "H W"]
Flow, Mask = Float[np.ndarray, "H W 2"], Bool[np.ndarray, "H W"]

MIN_SIZE = 12
"""Frames with a shorter side below this have no DIS flow."""

MIN_COVERAGE = 0.5
"""Pairs that share less of their pixels are not trusted where pixels may be left out."""

FLOW_PROTOCOL = "flow=dis-medium0-stride4-descents6@96..480;on=local-contrast5"
MASK_PROTOCOL = "mask=forward-backward+edges+border;coverage>=0.5"

YCC = 255 * np.float32(
    [[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]]
)
"""RGB in [0, 1] to luma and two colour differences in levels of 255 (BT.601)."""

_ENLARGE_BELOW = 96
_REDUCE_ABOVE = 480
_SPREAD = 5.0
_NOISE = 2.0
_THREAD = threading.local()


def textured(luma_HW: Plane) -> Levels:
    """Luma of 0..255 over its local contrast, as levels around 128.

    The mean of a Gaussian of 5 pixels is taken off and the rest divided by the spread around it
    (plus two levels, so that flat areas stay flat): what gets brighter, darker or stronger keeps
    its place, and flow does not take flicker for motion.
    """
    rest = luma_HW - cv2.GaussianBlur(luma_HW, (0, 0), _SPREAD)
    spread = np.sqrt(cv2.GaussianBlur(rest * rest, (0, 0), _SPREAD)) + _NOISE
    return np.clip(128 + 48 * rest / spread, 0, 255).astype(np.uint8)


def dis_flow(first_HW: Levels, second_HW: Levels) -> Flow:
    """Dense inverse search flow (OpenCV), first to second.

    Preset medium to the finest scale, with patches every 4 pixels in place of 3 and 6 descents in
    place of 25: nearer to textures that move, in 7 tenths of the time.

    Raises:
        ValueError: if the shorter side is below 12 pixels.

    Source: Kroeger et al. 2016, arXiv:1603.03590.
    """
    height, width = first_HW.shape
    if min(height, width) < MIN_SIZE:
        text = f"frames are {height} x {width}, optical flow needs {MIN_SIZE} pixels or more."
        raise ValueError(text)
    # One object a thread: it keeps buffers and may not be shared.
    if not hasattr(_THREAD, "dis"):
        _THREAD.dis = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        _THREAD.dis.setFinestScale(0)
        _THREAD.dis.setPatchStride(4)
        _THREAD.dis.setGradientDescentIterations(6)
    return _THREAD.dis.calc(first_HW, second_HW, None)


def places(flow_HW2: Flow, *, top: int = 0) -> tuple[Plane, Plane]:
    """x and y of p + flow(p) of the rows from `top` on."""
    height, width = flow_HW2.shape[:2]
    x = np.arange(width, dtype=np.float32) + flow_HW2[..., 0]
    y = np.arange(top, top + height, dtype=np.float32)
    return x, y[:, None] + flow_HW2[..., 1]


def follow(image_HWx: Image, flow_HW2: Flow) -> tuple[Image, Mask]:
    """Cubic samples of the image at p + flow(p), and where that lies inside the image."""
    height, width = flow_HW2.shape[:2]
    middle_x, middle_y = (width - 1) / 2, (height - 1) / 2
    x, y = places(flow_HW2)
    is_inside = (abs(x - middle_x) <= width / 2) & (abs(y - middle_y) <= height / 2)
    return cv2.remap(image_HWx, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE), is_inside


def linear(image: np.ndarray, x_HW: np.ndarray, y_HW: np.ndarray) -> np.ndarray:
    """Bilinear samples of a float image at these places, the border repeated outside.

    Whole-number places give the image's own values bit for bit, but in images of two channels,
    where OpenCV rounds places to 1/32 pixel.
    """
    return cv2.remap(image, x_HW, y_HW, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def visible(forward_HW2: Flow, backward_HW2: Flow) -> Mask:
    """Pixels of the first frame that the second frame shows too.

    With B' = backward flow at p + F(p), a pixel is left out if it moves outside the frame, if
        |F + B'|^2 > 0.01 (|F|^2 + |B'|^2) + 0.5            (the two flows disagree: occluded)
    or |grad F_x|^2 + |grad F_y|^2 > 0.01 |F|^2 + 0.002      (edge of a moving thing)
    with forward differences for the gradients.

    Source: Ruder et al. 2016, arXiv:1604.08610; Lai et al. 2018, arXiv:1808.00449.
    """
    height, width = forward_HW2.shape[:2]
    x, y = places(forward_HW2)
    inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    # A third channel, for the sake of exact places.
    returned = linear(np.dstack([backward_HW2, backward_HW2[..., 0]]), x, y)[..., :2]
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
class View:
    """A frame [C, H, W], also at the size of the search; what is asked for is computed once.

    Frames with a shorter side above 480 are reduced by a whole factor, those below 96 enlarged by
    one for the search alone (DIS matches patches of 8 pixels, which there are whole objects).
    """

    frame: np.ndarray

    @cached_property
    def rgb(self) -> Float[np.ndarray, "H W 3"]:
        """The frame in [0, 1], channels last; gray as three equal ones."""
        planes = np.broadcast_to(self.frame, (3, *self.frame.shape[1:]))
        return to_unit(cv2.merge(list(planes)))

    @cached_property
    def ycc(self) -> Float[np.ndarray, "h w 3"]:
        """Luma and the two colour differences in levels of 255 (BT.601), reduced if large."""
        image, (height, width) = self.rgb, search_size(*self.frame.shape[-2:])
        if height < image.shape[0]:
            image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        return cv2.transform(image, YCC)

    @cached_property
    def search(self) -> UInt8[np.ndarray, "h w"]:
        """What flow is searched in."""
        luma, (height, width) = self.ycc[..., 0], search_size(*self.frame.shape[-2:])
        if height > luma.shape[0] and min(luma.shape) >= MIN_SIZE:
            luma = cv2.resize(luma, (width, height), interpolation=cv2.INTER_CUBIC)
        return textured(luma)


@dataclass(frozen=True, eq=False)
class Pair:
    """Two frames [C, H, W] of a clip, `lag` apart; what is asked for is computed once.

    `start` counts the frames before the first; `halves` are, at a lag of 2, the pairs of both
    frames with the one between them.
    """

    views: tuple[View, View]
    lag: int = 1
    start: int = 0
    halves: tuple["Pair", "Pair"] | None = None

    @property
    def first(self) -> np.ndarray:
        return self.views[0].frame

    @property
    def second(self) -> np.ndarray:
        return self.views[1].frame

    @cached_property
    def difference(self) -> np.ndarray:
        """Second - first: int16 levels if both are uint8, else in [0, 1]."""
        if self.first.dtype == self.second.dtype == np.uint8:
            return np.subtract(self.second, self.first, dtype=np.int16)
        return to_unit(self.second) - to_unit(self.first)

    @cached_property
    def change(self) -> tuple[float, float]:
        """Mean absolute and mean squared difference, in [0, 1]."""
        return mean_size(self.first, self.second), mean_square(self.first, self.second)

    @cached_property
    def there(self) -> np.ndarray:
        """Flow from the first to the second frame at the size of the search, in its pixels."""
        return dis_flow(self.views[0].search, self.views[1].search)

    @cached_property
    def back(self) -> np.ndarray:
        """Flow from the second to the first frame, likewise."""
        return dis_flow(self.views[1].search, self.views[0].search)

    @cached_property
    def step(self) -> np.ndarray:
        """Flow from the first to the second frame, in pixels of `View.ycc`."""
        return resized(self.there, *self.views[0].ycc.shape[:2])

    @cached_property
    def moved(self) -> tuple[np.ndarray, np.ndarray]:
        """`View.ycc` of the second frame moved onto the first, and where it is known."""
        return follow(self.views[1].ycc, self.step)

    @cached_property
    def forward(self) -> np.ndarray:
        """Flow from the first to the second frame, in pixels of the frames themselves."""
        return resized(self.there, *self.first.shape[-2:])

    @cached_property
    def is_visible(self) -> np.ndarray:
        """Where the first frame's pixels are seen in the second one: bool [H, W]."""
        mask = visible(self.there, self.back)
        size = self.first.shape[-2:]
        return mask if mask.shape == size else _scaled(mask.astype(np.float32), *size) >= 0.5

    @cached_property
    def coverage(self) -> float:
        """Share of pixels that both frames show."""
        return float(self.is_visible.mean())

    @cached_property
    def warped(self) -> np.ndarray:
        """The second frame, float32 [H, W, 3] in [0, 1], moved onto the first."""
        return linear(self.views[1].rgb, *places(self.forward))


def search_size(height: int, width: int) -> tuple[int, int]:
    """The size at which flow is searched: enlarged below 96, reduced above 480."""
    shorter = min(height, width)
    if shorter < _ENLARGE_BELOW:
        factor = -(-_ENLARGE_BELOW // shorter)
        return height * factor, width * factor
    factor = -(-shorter // _REDUCE_ABOVE)
    return round(height / factor), round(width / factor)


def resized(flow_HW2: np.ndarray, height: int, width: int) -> Float[np.ndarray, "height width 2"]:
    """The flow of frames of that size, in their pixels."""
    if flow_HW2.shape[:2] == (height, width):
        return flow_HW2
    scale = np.float32([width / flow_HW2.shape[1], height / flow_HW2.shape[0]])
    return _scaled(flow_HW2 * scale, height, width)


def _scaled(found: np.ndarray, height: int, width: int) -> np.ndarray:
    way = cv2.INTER_AREA if found.shape[0] > height else cv2.INTER_LINEAR
    return cv2.resize(found, (width, height), interpolation=way)
