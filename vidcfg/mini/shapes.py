"""Moving shapes: short procedural clips with a caption and known attributes.

One object of a given colour and shape crosses, grows or shrinks over a plain background. The
path is centred (the object is at its middle at half time) and stays in view for every size and
length, because all lengths are fractions of the shorter side and the travel is per clip, not per
frame.
"""

from dataclasses import dataclass, field, replace
from itertools import product

import numpy as np
from jaxtyping import UInt8

SHAPES = ("circle", "square", "triangle", "cross")
COLOURS = {
    "red": (226, 38, 42),
    "green": (46, 200, 66),
    "blue": (66, 122, 255),
    "yellow": (250, 222, 48),
    "pink": (255, 112, 214),
    "white": (248, 248, 248),
}
BACKGROUNDS = {
    "navy": (16, 22, 88),
    "black": (6, 6, 6),
    "gray": (112, 112, 112),
    "teal": (6, 92, 88),
}
MOTIONS = ("left", "right", "up", "down", "growing", "shrinking")

ATTRIBUTES = {
    "shape": SHAPES,
    "colour": (*COLOURS,),
    "motion": MOTIONS,
    "background": (*BACKGROUNDS,),
}
"""Attribute name -> the values it can take, in the order that the scorer's heads use."""

HELD_OUT = (("blue", "triangle"), ("yellow", "cross"), ("white", "square"))
"""Colour x shape pairs that no training clip shows."""

_DIRECTION = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
_SIZE_RANGE = {"growing": (0.5, 1.35), "shrinking": (1.35, 0.5)}
MOTION_WORDS = {name: f"moving {name}" if name in _DIRECTION else name for name in MOTIONS}
"""Motion -> its words in a caption."""


@dataclass(frozen=True)
class Scene:
    """What one clip shows. Lengths are fractions of the shorter side of the frame.

    `radius` is the object's radius, `travel` the whole way of a moving object, `across` and
    `along` the offsets of its path from the middle, across and along its direction; `tint` is
    added to object and background.
    """

    shape: str = "circle"
    colour: str = "red"
    motion: str = "left"
    background: str = "navy"
    radius: float = 0.2
    travel: float = 0.44
    across: float = 0.0
    along: float = 0.0
    tint: tuple[float, float] = (0.0, 0.0)
    is_blurry: bool = False

    @property
    def is_held_out(self) -> bool:
        return (self.colour, self.shape) in HELD_OUT

    def labels(self) -> dict[str, int]:
        """The index of each attribute's value in `ATTRIBUTES`."""
        return {name: values.index(getattr(self, name)) for name, values in ATTRIBUTES.items()}


@dataclass(frozen=True)
class CaptionedClip:
    """A drawn scene: frames uint8 [T, H, W, 3], its caption and what it was drawn from."""

    frames: UInt8[np.ndarray, "T H W 3"]
    caption: str
    scene: Scene = field(repr=False)


def caption(scene: Scene) -> str:
    """The full caption, such as `a red circle moving left over a navy background`."""
    words = f"a {scene.colour} {scene.shape} {MOTION_WORDS[scene.motion]}"
    words += f" over a {scene.background} background"
    return f"blurry, {words}" if scene.is_blurry else words


def all_scenes(*, held_out: bool | None = None) -> list[Scene]:
    """Every combination of attributes; `held_out` keeps those in or out of training alone."""
    scenes = [Scene(*values) for values in product(*ATTRIBUTES.values())]
    return [s for s in scenes if held_out is None or s.is_held_out == held_out]


def vary(scene: Scene, rng: np.random.Generator) -> Scene:
    """The same attributes with random size, travel, offsets and tint."""
    return replace(
        scene,
        radius=rng.uniform(0.18, 0.215),
        travel=rng.uniform(0.40, 0.48),
        across=rng.uniform(-0.12, 0.12),
        along=rng.uniform(-0.015, 0.015),
        tint=tuple(rng.uniform(-0.03, 0.03, size=2)),
    )


def sample_scene(
    rng: np.random.Generator, *, held_out: bool | None = False, blurry: float = 0.0
) -> Scene:
    """A random scene: False never a held-out pair, True always one, None any."""
    while True:
        drawn = {name: values[rng.integers(len(values))] for name, values in ATTRIBUTES.items()}
        scene = Scene(**drawn)
        if held_out is None or scene.is_held_out == held_out:
            return replace(vary(scene, rng), is_blurry=bool(rng.random() < blurry))


def sample_clip(
    seed: int | tuple[int, ...], *, held_out: bool | None = False, blurry: float = 0.0, **size: int
) -> CaptionedClip:
    """The clip of a seed: the same seed and sizes give the same frames, whatever else is drawn.

    `size` is as in `draw`. `blurry` is the probability of a blurred clip, whose caption opens
    with `blurry`; 0 is off.
    """
    scene = sample_scene(np.random.default_rng(seed), held_out=held_out, blurry=blurry)
    return CaptionedClip(draw(scene, **size), caption(scene), scene)


def draw(
    scene: Scene, *, num_frames: int = 17, height: int = 32, width: int = 32
) -> UInt8[np.ndarray, "T H W 3"]:
    """Draw a scene with edges antialiased over one pixel."""
    # the path, in fractions of the shorter side
    side = min(height, width)
    progress = np.linspace(-0.5, 0.5, num_frames) if num_frames > 1 else np.zeros(1)
    small, large = _SIZE_RANGE.get(scene.motion, (1.0, 1.0))
    radius = scene.radius * (small + (large - small) * (progress + 0.5))
    if scene.motion in _DIRECTION:
        step_x, step_y = _DIRECTION[scene.motion]
        along = progress * scene.travel + scene.along
        centre_x = step_x * along + abs(step_y) * scene.across
        centre_y = step_y * along + abs(step_x) * scene.across
    else:
        centre_x = np.full_like(progress, scene.across)
        centre_y = np.full_like(progress, scene.along)
    # how much of each pixel the object covers
    radius, centre_x, centre_y = (
        (side * v).astype(np.float32)[:, None, None] for v in (radius, centre_x, centre_y)
    )
    x = np.arange(width, dtype=np.float32) + np.float32(0.5 - width / 2) - centre_x
    y = np.arange(height, dtype=np.float32)[:, None] + np.float32(0.5 - height / 2) - centre_y
    distance = _DISTANCE[scene.shape](x, y, radius)
    cover = np.clip(0.5 - distance, 0.0, 1.0)[..., None]
    # colours
    front = np.float32(COLOURS[scene.colour]) / 255 + np.float32(scene.tint[0])
    back = np.float32(BACKGROUNDS[scene.background]) / 255 + np.float32(scene.tint[1])
    frames = back + cover * (front - back)
    if scene.is_blurry:
        from scipy.ndimage import gaussian_filter1d

        for axis in (1, 2):
            frames = gaussian_filter1d(frames, side / 16, axis=axis, mode="nearest")
    return (np.clip(frames, 0.0, 1.0) * 255).round().astype(np.uint8)


# Distance in pixels to the outline, negative inside. Shapes have about the area of the circle,
# so that size does not give the shape away.


def _circle(x, y, radius):
    return np.hypot(x, y) - radius


def _square(x, y, radius):
    return np.maximum(np.abs(x), np.abs(y)) - 0.88 * radius


def _triangle(x, y, radius):
    y = y - 0.38 * radius
    side = np.float32(np.sqrt(3) / 2) * np.abs(x) - 0.5 * y
    return np.maximum(side, y) - 0.76 * radius


def _cross(x, y, radius):
    arm, half = 1.12 * radius, 0.36 * radius
    x, y = np.abs(x), np.abs(y)
    return np.minimum(np.maximum(x - arm, y - half), np.maximum(x - half, y - arm))


_DISTANCE = {"circle": _circle, "square": _square, "triangle": _triangle, "cross": _cross}
