"""Moving shapes: short procedural clips with a caption and known attributes.

One object of a given colour and shape crosses, grows or shrinks over a plain background. The
path is centred (the object is at its middle at half time) and stays in view for every size and
length, because all lengths are fractions of the shorter side and the travel is per clip, not per
frame.
"""

from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Float, UInt8

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
    "colour": tuple(COLOURS),
    "motion": MOTIONS,
    "background": tuple(BACKGROUNDS),
}
"""Attribute name -> the values it can take, in the order that the scorer's heads use."""

HELD_OUT = (("blue", "triangle"), ("yellow", "cross"), ("white", "square"))
"""Colour x shape pairs that no training clip shows."""

_DIRECTION = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
_SIZE_RANGE = {"growing": (0.5, 1.35), "shrinking": (1.35, 0.5)}
_MOTION_WORDS = {name: f"moving {name}" for name in _DIRECTION} | {
    "growing": "growing",
    "shrinking": "shrinking",
}


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
class Clip:
    """A drawn scene: frames uint8 [T, H, W, 3], its caption and what it was drawn from."""

    frames: UInt8[np.ndarray, "T H W 3"]
    caption: str
    scene: Scene = field(repr=False)


def caption(scene: Scene) -> str:
    """The full caption, such as `a red circle moving left over a navy background`."""
    words = f"a {scene.colour} {scene.shape} {_MOTION_WORDS[scene.motion]}"
    words += f" over a {scene.background} background"
    return f"blurry, {words}" if scene.is_blurry else words


def partial_caption(scene: Scene, rng: np.random.Generator) -> str:
    """A caption that leaves out a random choice of attributes (at least one stays)."""
    keep = rng.random(4) < 0.5
    keep[rng.integers(4)] = True
    colour, shape, motion, background = keep
    words = [scene.colour] if colour else []
    words += [scene.shape] if shape else ["shape"] if colour else []
    words = ["a", *words] if words else []
    words += [_MOTION_WORDS[scene.motion]] if motion else []
    if background:
        words += ["over"] if words else []
        words += ["a", scene.background, "background"]
    text = " ".join(words)
    return f"blurry, {text}" if scene.is_blurry else text


def all_scenes(*, held_out: bool | None = None) -> list[Scene]:
    """Every combination of attributes, in a fixed order; `held_out` keeps only those in or out
    of training.
    """
    scenes = [
        Scene(shape=shape, colour=colour, motion=motion, background=background)
        for shape in SHAPES
        for colour in COLOURS
        for motion in MOTIONS
        for background in BACKGROUNDS
    ]
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
    """A random scene: False never a held-out pair, True always one, None any. `blurry` is a
    probability.
    """
    while True:
        scene = Scene(
            **{name: values[rng.integers(len(values))] for name, values in ATTRIBUTES.items()}
        )
        if held_out is None or scene.is_held_out == held_out:
            break
    return replace(vary(scene, rng), is_blurry=bool(rng.random() < blurry))


def sample_clip(
    seed: int | tuple[int, ...],
    *,
    num_frames: int = 17,
    height: int = 32,
    width: int = 32,
    held_out: bool | None = False,
    blurry: float = 0.0,
    partial: float = 0.0,
) -> Clip:
    """The clip of a seed: the same seed and sizes give the same frames and caption, whatever
    else is drawn.

    `blurry` and `partial` are the probabilities of a blurred clip (its caption opens with
    `blurry`) and of a caption that leaves attributes out; 0 is off.
    """
    rng = np.random.default_rng(seed)
    scene = sample_scene(rng, held_out=held_out, blurry=blurry)
    text = partial_caption(scene, rng) if rng.random() < partial else caption(scene)
    return Clip(draw(scene, num_frames=num_frames, height=height, width=width), text, scene)


def draw(
    scene: Scene, *, num_frames: int = 17, height: int = 32, width: int = 32
) -> UInt8[np.ndarray, "T H W 3"]:
    """Draw a scene with edges antialiased over one pixel."""
    side = min(height, width)
    progress = np.linspace(-0.5, 0.5, num_frames) if num_frames > 1 else np.zeros(1)
    small, large = _SIZE_RANGE.get(scene.motion, (1.0, 1.0))
    radius = scene.radius * (small + (large - small) * (progress + 0.5))
    step_x, step_y = _DIRECTION.get(scene.motion, (0, 0))
    along = progress * scene.travel + scene.along
    if (step_x, step_y) == (0, 0):
        centre_x, centre_y = (
            np.full_like(progress, scene.across),
            np.full_like(progress, scene.along),
        )
    else:
        centre_x = step_x * along + abs(step_y) * scene.across
        centre_y = step_y * along + abs(step_x) * scene.across
    radius, centre_x, centre_y = (
        (side * v).astype(np.float32)[:, None, None] for v in (radius, centre_x, centre_y)
    )
    x = np.arange(width, dtype=np.float32) + np.float32(0.5 - width / 2) - centre_x
    y = np.arange(height, dtype=np.float32)[:, None] + np.float32(0.5 - height / 2) - centre_y
    distance = _DISTANCE[scene.shape](x, y, radius)
    cover = np.clip(0.5 - distance, 0.0, 1.0)[..., None]
    front = np.float32(COLOURS[scene.colour]) / 255 + np.float32(scene.tint[0])
    back = np.float32(BACKGROUNDS[scene.background]) / 255 + np.float32(scene.tint[1])
    frames = back + cover * (front - back)
    if scene.is_blurry:
        frames = blur(frames, sigma=side / 16)
    return (np.clip(frames, 0.0, 1.0) * 255).round().astype(np.uint8)


def blur(frames: Float[np.ndarray, "T H W C"], *, sigma: float) -> Float[np.ndarray, "T H W C"]:
    """Gaussian blur of every frame by `sigma` pixels, edges repeated."""
    from scipy.ndimage import gaussian_filter1d

    frames = gaussian_filter1d(frames, sigma, axis=1, mode="nearest")
    return gaussian_filter1d(frames, sigma, axis=2, mode="nearest")


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
