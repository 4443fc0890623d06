"""Moving shapes: short procedural clips with a caption and known attributes.

One object of a given colour and shape crosses, grows or shrinks over a background with a texture,
under a light, with or without a small dot in a corner. At half time its colour and its motion may
change. Some clips are blurred, shaken or flicker. The path is centred (the object is at its middle
at half time) and stays in view for every size and length, because all lengths are fractions of
the shorter side and the travel is per clip, not per frame.
"""

import re
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
TEXTURES = ("plain", "striped", "checkered", "grainy")
LIGHTS = {"steady": (1.0, 1.0), "rising": (0.55, 1.1), "fading": (1.1, 0.55)}
"""Light -> its gain on the first and on the last frame."""
DOTS = ("no", "red", "yellow", "white")

ATTRIBUTES = {
    "shape": SHAPES,
    "colour": (*COLOURS,),
    "motion": MOTIONS,
    "background": (*BACKGROUNDS,),
    "texture": TEXTURES,
    "light": (*LIGHTS,),
    "dot": DOTS,
}
"""Attribute name -> the values it can take, in the order that the scorer's heads use."""

FAULTS = ("blurry", "shaky", "flickering")
"""What a clip can suffer from, in the words that open its caption."""

HELD_OUT = (("blue", "triangle"), ("yellow", "cross"), ("white", "square"))
"""Colour x shape pairs that no training clip shows, at no time."""

FRAMES_PER_READING = 4
"""Attributes are read on every so many frames, as often as the codec has latent frames."""

_DIRECTION = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
_SIZES = {"growing": (0.55, 1.4), "shrinking": (1.4, 0.55)}
"""Size on the first and on the last frame; it is 1 at half time."""
MOTION_WORDS = {name: f"moving {name}" if name in _DIRECTION else name for name in MOTIONS}
"""Motion -> its words in a caption."""

_STRIPE, _GRAIN = 0.25, 0.125
"""Period of stripes and checks, and size of a grain, in shorter sides."""
_TEXTURE_DEPTH = 0.17
_BLEND = (-0.03, 0.16)
"""Progress (0 is half time) between which one colour gives way to the next."""
_DOT_PLACE, _DOT_RADIUS = 0.36, 0.08


@dataclass(frozen=True)
class Scene:
    """What one clip shows. Lengths are fractions of the shorter side of the frame.

    `then_colour` and `then_motion` hold after half time; None is no change. `radius` is the
    object's radius, `travel` the whole way of a moving object, `across` and `along` the offsets of
    its path from the middle, across and along its direction; `tint` is added to object and
    background. `corner` is the dot's, in signs of x and y. `noise` seeds grain, flicker and shake.
    """

    shape: str = "circle"
    colour: str = "red"
    motion: str = "left"
    background: str = "navy"
    texture: str = "plain"
    light: str = "steady"
    dot: str = "no"
    then_colour: str | None = None
    then_motion: str | None = None
    radius: float = 0.2
    travel: float = 0.44
    across: float = 0.0
    along: float = 0.0
    tint: tuple[float, float] = (0.0, 0.0)
    corner: tuple[int, int] = (1, 1)
    noise: int = 0
    faults: tuple[str, ...] = ()

    @property
    def is_held_out(self) -> bool:
        return any((colour, self.shape) in HELD_OUT for colour in (self.colour, self.then_colour))

    def value(self, attribute: str, *, late: bool = False) -> str:
        """The attribute's value before half time, or after it (`late`)."""
        then = getattr(self, f"then_{attribute}", None)
        return then if late and then else getattr(self, attribute)

    def labels(self, num_frames: int = 17) -> dict[str, list[int]]:
        """Per attribute, the index in `ATTRIBUTES` of its value at each reading."""
        late = late_readings(num_frames)
        return {
            name: [values.index(self.value(name, late=is_late)) for is_late in late]
            for name, values in ATTRIBUTES.items()
        }


@dataclass(frozen=True)
class CaptionedClip:
    """A drawn scene: frames uint8 [T, H, W, 3], its caption and what it was drawn from."""

    frames: UInt8[np.ndarray, "T H W 3"]
    caption: str
    scene: Scene = field(repr=False)


def late_readings(num_frames: int) -> list[bool]:
    """For each reading of a clip, on frames 0, 4, 8, ..., whether it is after half time."""
    last = max(1, num_frames - 1)
    return [2 * frame > last for frame in range(0, num_frames, FRAMES_PER_READING)]


# Captions


def caption(scene: Scene, without: frozenset[str] | set[str] = frozenset()) -> str:
    """The scene in words, all of them or `without` some parts of it.

    `a red circle turning blue moving left then up over a striped navy background in fading light
    with a white dot`. Parts are the attributes, `then_colour` and the words of `FAULTS`; a motion
    and the next are one part.
    """

    said = {part: "" if part in without else getattr(scene, part) or "" for part in PARTS}
    words = [f"{fault}," for fault in scene.faults if fault not in without]
    if said["colour"] or said["shape"] or said["then_colour"]:
        words += ["a", said["colour"], said["shape"] or "shape"]
        words += ["turning", said["then_colour"]] if said["then_colour"] else []
    if said["motion"]:
        words += [MOTION_WORDS[scene.motion]]
        words += ["then", scene.then_motion] if scene.then_motion else []
    if said["texture"] or said["background"]:
        words += ["over", "a", said["texture"], said["background"], "background"]
    if said["light"]:
        words += ["in", said["light"], "light"]
    if said["dot"]:
        words += ["with", "" if said["dot"] == "no" else "a", said["dot"], "dot"]
    return " ".join(filter(None, words))


PARTS = (*ATTRIBUTES, "then_colour")
"""The parts of a caption that may be left out."""


def asked(prompt: str) -> dict[str, tuple[str | None, str | None]]:
    """What a prompt says of each attribute that it names: before half time, and after it.

    None where it says nothing of that half. An attribute that is named twice is left out.
    """
    words = re.findall(r"[a-z]+", prompt.lower())
    found: dict[str, list[str]] = {name: [] for name in (*PARTS, "then_motion")}
    for before, word, after in zip(["", *words], words, [*words[1:], ""], strict=False):
        if after == "dot":
            names = ("dot",)
        elif before in ("turning", "then"):
            names = ("then_colour",) if before == "turning" else ("then_motion",)
        else:
            names = ATTRIBUTES.keys() - {"dot"}
        for name in names:
            if word in ATTRIBUTES[name.removeprefix("then_")]:
                found[name].append(word)
    said = {name: values[0] for name, values in found.items() if len(values) == 1}
    told = {n: (said.get(n), said.get(f"then_{n}", said.get(n))) for n in ATTRIBUTES}
    return {name: halves for name, halves in told.items() if any(halves)}


# Scenes


def vary(scene: Scene, rng: np.random.Generator) -> Scene:
    """The same attributes with random size, travel, offsets, tint, corner and grain."""
    return replace(
        scene,
        radius=rng.uniform(0.18, 0.215),
        travel=rng.uniform(0.40, 0.48),
        across=rng.uniform(-0.12, 0.12),
        along=rng.uniform(-0.015, 0.015),
        tint=tuple(rng.uniform(-0.03, 0.03, size=2)),
        corner=tuple(int(sign) for sign in rng.choice((-1, 1), size=2)),
        noise=int(rng.integers(2**31)),
    )


def sample_scene(
    rng: np.random.Generator,
    *,
    held_out: bool | None = False,
    turns: float = 0.3,
    faults: dict[str, float] | None = None,
) -> Scene:
    """A random scene: `held_out` False never shows a held-out pair, True always one, None any.

    `turns` is the probability that the colour changes at half time, and that the motion does;
    `faults` the probability of each of `FAULTS`. 0 is off for all.
    """
    while True:
        drawn = {name: values[rng.integers(len(values))] for name, values in ATTRIBUTES.items()}
        for name in ("colour", "motion"):
            others = [value for value in ATTRIBUTES[name] if value != drawn[name]]
            other = others[rng.integers(len(others))]
            drawn[f"then_{name}"] = other if rng.random() < turns else None
        suffered = tuple(fault for fault, p in (faults or {}).items() if rng.random() < p)
        scene = Scene(**drawn, faults=suffered)
        if held_out is None or scene.is_held_out == held_out:
            return vary(scene, rng)


def sample_clip(
    seed: int | tuple[int, ...],
    *,
    held_out: bool | None = False,
    faults: dict[str, float] | None = None,
    **size: int,
) -> CaptionedClip:
    """The clip of a seed: the same seed and sizes give the same frames, whatever else is drawn.

    `held_out` and `faults` are as in `sample_scene`, `size` as in `draw`.
    """
    scene = sample_scene(np.random.default_rng(seed), held_out=held_out, faults=faults)
    return CaptionedClip(draw(scene, **size), caption(scene), scene)


# Drawing


def draw(
    scene: Scene, *, num_frames: int = 17, height: int = 32, width: int = 32
) -> UInt8[np.ndarray, "T H W 3"]:
    """Draw a scene with edges antialiased over one pixel."""
    # pixel centres from the middle, in shorter sides, with the shake
    side = min(height, width)
    progress = np.linspace(-0.5, 0.5, num_frames) if num_frames > 1 else np.zeros(1)
    rng = np.random.default_rng(scene.noise)
    jolts = rng.normal(0.0, 0.03, size=(2, num_frames)) * ("shaky" in scene.faults)
    x, y = (
        ((np.arange(n) + 0.5 - n / 2) / side + jolt[:, None]).astype(np.float32)
        for n, jolt in ((width, jolts[0]), (height, jolts[1]))
    )
    x, y = x[:, None, :], y[:, :, None]
    # background, object, dot
    back = np.float32(BACKGROUNDS[scene.background]) / 255 + np.float32(scene.tint[1])
    frames = back + _texture(scene, x, y, rng)[..., None]
    radius, centre_x, centre_y = _path(scene, progress)
    distance = _DISTANCE[scene.shape](x - centre_x, y - centre_y, radius)
    front = _front(scene, progress)
    frames = frames + _cover(distance, side) * (front - frames)
    if scene.dot != "no":
        place = np.float32(_DOT_PLACE)
        distance = _circle(x - scene.corner[0] * place, y - scene.corner[1] * place, _DOT_RADIUS)
        dot = np.float32(COLOURS[scene.dot]) / 255
        frames = frames + _cover(distance, side) * (dot - frames)
    # light and blur
    gain = np.interp(progress, (-0.5, 0.5), LIGHTS[scene.light])
    gain = gain * (1 + rng.normal(0.0, 0.12, size=num_frames) * ("flickering" in scene.faults))
    frames = frames * gain.astype(np.float32)[:, None, None, None]
    if "blurry" in scene.faults:
        from scipy.ndimage import gaussian_filter1d

        for axis in (1, 2):
            frames = gaussian_filter1d(frames, side / 16, axis=axis, mode="nearest")
    return (np.clip(frames, 0.0, 1.0) * 255).round().astype(np.uint8)


def _path(scene: Scene, progress: Float[np.ndarray, " T"]) -> tuple[np.ndarray, ...]:
    """Radius and centre of the object on each frame, [T, 1, 1] each."""
    radius = np.full_like(progress, scene.radius)
    centre = np.zeros((2, len(progress)))
    for late in (False, True):
        part = (progress > 0) == late
        motion, ends = scene.value("motion", late=late), progress[part]
        if motion in _SIZES:
            size = _SIZES[motion]
            radius[part] *= 1 + (size[1] - 1) * 2 * ends if late else 1 + (1 - size[0]) * 2 * ends
        else:
            direction = np.array(_DIRECTION[motion])[:, None]
            centre[:, part] = direction * (ends * scene.travel)
    # the offset lies across the first motion, so that the path does not jump at half time
    is_upright = _DIRECTION.get(scene.motion, (1, 0))[0] == 0
    offsets = (scene.across, scene.along) if is_upright else (scene.along, scene.across)
    centre += np.array(offsets)[:, None]
    return tuple(v.astype(np.float32)[:, None, None] for v in (radius, *centre))


def _front(scene: Scene, progress: Float[np.ndarray, " T"]) -> Float[np.ndarray, "T 1 1 3"]:
    """The object's colour on each frame."""
    before, after = (
        np.float32(COLOURS[scene.value("colour", late=late)]) / 255 for late in (False, True)
    )
    mix = np.clip((progress - _BLEND[0]) / (_BLEND[1] - _BLEND[0]), 0.0, 1.0)
    mixed = before + mix.astype(np.float32)[:, None] * (after - before)
    return (mixed + np.float32(scene.tint[0]))[:, None, None, :]


def _texture(scene: Scene, x, y, rng: np.random.Generator) -> np.ndarray:
    """What the texture adds to the background, [T, H, W]."""
    phase = scene.noise % 2
    if scene.texture == "striped":
        pattern = (np.floor(2 * y / _STRIPE) + phase) % 2 + 0 * x
    elif scene.texture == "checkered":
        pattern = (np.floor(2 * x / _STRIPE) + np.floor(2 * y / _STRIPE) + phase) % 2
    elif scene.texture == "grainy":
        from scipy.ndimage import map_coordinates

        grains = rng.random((16, 16)).astype(np.float32)
        rows, columns = np.broadcast_arrays(y / _GRAIN + 7.5, x / _GRAIN + 7.5)
        pattern = map_coordinates(grains, [rows, columns], order=1, mode="grid-wrap")
    else:
        pattern = np.zeros(1) * (x + y)
    return np.float32(_TEXTURE_DEPTH) * pattern.astype(np.float32)


def _cover(distance: np.ndarray, side: int) -> np.ndarray:
    """How much of each pixel lies inside an outline, from its distance in shorter sides."""
    return np.clip(0.5 - side * distance, 0.0, 1.0)[..., None]


# Distance to the outline, negative inside. Shapes have about the area of the circle,
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
