"""Drawn clips of known motion without a fault: [17, 96, 96, 3], float32 levels of 0..255.

Scenes are sampled from pictures of random texture, with or without hard-edged shapes, by a camera
of three samples a pixel in each direction.
"""

import zlib

import cv2
import numpy as np

SIZE, FRAMES, PICTURE = 96, 17, 256
TIME = np.arange(FRAMES)


def texture(rng, *, slope=1.0, contrast=45.0, mean=120.0):
    """A picture whose spectrum falls with the frequency to the power of `slope`."""
    grid = np.fft.fftfreq(PICTURE)
    radius = np.hypot(grid[:, None], grid[None])
    radius[0, 0] = 1 / PICTURE
    common, planes = rng.standard_normal((PICTURE, PICTURE)), []
    for _ in range(3):
        noise = 0.75 * common + 0.5 * rng.standard_normal((PICTURE, PICTURE))
        plane = np.fft.ifft2(np.fft.fft2(noise) / radius**slope).real
        planes.append(mean + contrast * (plane - plane.mean()) / plane.std())
    return np.clip(np.stack(planes, -1), 4, 251).astype(np.float32)


def photograph(rng):
    """Texture with fourteen hard-edged shapes."""
    picture = texture(rng, slope=1.4, contrast=35)
    for _ in range(14):
        colour, centre = rng.uniform(20, 235, 3).tolist(), tuple(rng.uniform(0, PICTURE, 2))
        shape = (centre, tuple(2 * rng.uniform(6, 30, 2)), rng.uniform(0, 180))
        if rng.random() < 0.5:
            cv2.ellipse(picture, shape, colour, -1, cv2.LINE_AA)
        else:
            corners = cv2.boxPoints(shape).astype(np.int32)
            cv2.fillPoly(picture, [corners], colour, cv2.LINE_AA)
    return np.clip(picture + 0.15 * (texture(rng, slope=0.3, contrast=20) - 120), 4, 251)


def seen(picture, x=128.0, y=128.0, *, zoom=1.0, turn=0.0):
    """What the camera sees of the picture around (x, y)."""
    cos, sin, half = np.cos(turn) / zoom, np.sin(turn) / zoom, (SIZE - 1) / 2
    camera = np.array(
        [
            [cos, -sin, x - cos * half + sin * half],
            [sin, cos, y - sin * half - cos * half],
            [0, 0, 1],
        ]
    )
    subpixels = np.array([[1 / 3, 0, -1 / 3], [0, 1 / 3, -1 / 3], [0, 0, 1]])
    fine = cv2.warpAffine(
        picture,
        (camera @ subpixels)[:2],
        (3 * SIZE, 3 * SIZE),
        flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REFLECT,
    )
    return cv2.resize(fine, (SIZE, SIZE), interpolation=cv2.INTER_AREA)


def disc(frame, x, y, radius, inside):
    """The frame with a disc of a colour, or of another picture that moves with it."""
    down, across = np.mgrid[: 4 * SIZE, : 4 * SIZE]
    distance = ((across + 0.5) / 4 - 0.5 - x) ** 2 + ((down + 0.5) / 4 - 0.5 - y) ** 2
    mask = cv2.resize(
        (distance < radius**2).astype(np.float32), (SIZE, SIZE), interpolation=cv2.INTER_AREA
    )[..., None]
    if np.ndim(inside) == 3:
        half = (SIZE - 1) / 2
        inside = seen(inside, 128 + half - x, 128 + half - y)
    return frame * (1 - mask) + mask * np.asarray(inside, np.float32)


def panning(picture, way, speed):
    return [seen(picture, *(128 + way * speed * (t - 8))) for t in TIME]


def parallax(rng, way):
    far, near, radius = photograph(rng), texture(rng, mean=90), rng.uniform(14, 22)
    x, y = rng.uniform(25, 70, 2)
    at = [1.2 * way * (t - 8) for t in TIME]
    frames = [seen(far, 128 + 0.6 * (t - 8)) for t in TIME]
    return [disc(f, x + a[0], y + a[1], radius, near) for f, a in zip(frames, at)]


def crossing(rng):
    back, one, other = seen(texture(rng)), texture(rng, mean=170), texture(rng, mean=60)
    return [disc(disc(back, 15 + 4 * t, 45, 13, one), 80 - 4 * t, 52, 13, other) for t in TIME]


def bouncing(rng):
    back = np.full((SIZE, SIZE, 3), rng.uniform(40, 200), np.float32)
    colour = rng.uniform(20, 235, 3)
    return [disc(back, 20 + 3 * t, 48 + 10 * np.sin(t / 3), 12, colour) for t in TIME]


def bending(rng):
    picture, phase = photograph(rng), rng.uniform(0, 6, 2)
    y, x = np.mgrid[:SIZE, :SIZE].astype(np.float32)
    frames = []
    for t in TIME:
        across = x + 80 + 3 * np.sin(2 * np.pi * y / 70 + phase[0] + 0.25 * t)
        down = y + 80 + 3 * np.sin(2 * np.pi * x / 80 + phase[1] + 0.2 * t)
        maps = across.astype(np.float32), down.astype(np.float32)
        frames.append(cv2.remap(picture, *maps, cv2.INTER_CUBIC))
    return frames


def lit(rng):
    picture = photograph(rng)
    light = [0.75 + 0.25 * np.cos(2 * np.pi * (np.arange(SIZE) / 120 + t / 34)) for t in TIME]
    return [seen(picture, 128 + 0.4 * t) * light[t][None, :, None] for t in TIME]


def rippling(rng):
    y, x = np.mgrid[:SIZE, :SIZE]
    waves = [rng.uniform((-0.5, -0.5, 0.4, 0), (0.5, 0.5, 1.2, 6)) for _ in range(12)]
    heights = [sum(np.sin(a * x + b * y + c * t + p) for a, b, c, p in waves) for t in TIME]
    return [np.stack([70 + 9 * h, 95 + 10 * h, 130 + 11 * h], -1) for h in heights]


def shaking(rng):
    picture, at = photograph(rng), rng.normal(128, 0.8, (FRAMES, 2))
    return [seen(picture, *xy) for xy in at]


def faded(rng, gain):
    frame = seen(photograph(rng))
    return [frame * gain[t] for t in TIME]


def dissolving(rng):
    one, other = seen(photograph(rng)), seen(photograph(rng))
    return [one * (1 - t / 16) + other * t / 16 for t in TIME]


def exposed(rng, way):
    return [f * (0.7 + 0.6 * t / 16) for t, f in zip(TIME, panning(photograph(rng), way, 0.5))]


def moving_object(rng):
    back, inside = seen(photograph(rng)), texture(rng, mean=170)
    return [disc(back, 30 + 2.1 * t, 40 + 0.8 * t, 15, inside) for t in TIME]


def accelerated(rng, way):
    picture = photograph(rng)
    return [seen(picture, *(128 + 0.06 * way * t * t)) for t in TIME]


def on_twos(frames):
    """Every frame at an even place shown twice, as in drawn animation."""
    return [frames[t - t % 2] for t in TIME]


def grainy(rng, way):
    frames = panning(photograph(rng), way, 0.9)
    return [frame + rng.normal(0, 5, (SIZE, SIZE, 1)) for frame in frames]


def zooming(picture, rate, *, turn=0.0):
    return [seen(picture, zoom=rate ** (t - 8), turn=turn * (t - 8)) for t in TIME]


CLEAN = {
    "whole-pixel pan": lambda rng, way: panning(texture(rng), np.array([2.0, 1.0]), 1.0),
    "slow pan": lambda rng, way: panning(texture(rng), way, 0.37),
    "pan": lambda rng, way: panning(texture(rng), way, 1.3),
    "fast pan": lambda rng, way: panning(texture(rng), way, 3.4),
    "pan of fine texture": lambda rng, way: panning(texture(rng, slope=0.5), way, 1.15),
    "pan in the dark": lambda rng, way: panning(texture(rng, mean=35, contrast=14), way, 1.2),
    "photograph, pan": lambda rng, way: panning(photograph(rng), way, 1.6),
    "photograph, slow pan": lambda rng, way: panning(photograph(rng), way, 0.45),
    "photograph, zoom": lambda rng, way: zooming(photograph(rng), 1.02),
    "zoom": lambda rng, way: zooming(texture(rng), 1.015),
    "rotation": lambda rng, way: zooming(texture(rng), 1.0, turn=0.015),
    "photograph, zoom and rotation": lambda rng, way: zooming(photograph(rng), 1.005, turn=0.02),
    "camera shake": lambda rng, way: shaking(rng),
    "motion on twos": lambda rng, way: on_twos(panning(texture(rng), way, 1.1)),
    "accelerated pan": accelerated,
    "parallax": parallax,
    "moving object": lambda rng, way: moving_object(rng),
    "flat object": lambda rng, way: bouncing(rng),
    "two objects that cross": lambda rng, way: crossing(rng),
    "standstill": lambda rng, way: faded(rng, np.ones(FRAMES)),
    "exposure sweep": exposed,
    "fade": lambda rng, way: faded(rng, 1 - TIME / 18),
    "dissolve": lambda rng, way: dissolving(rng),
    "bending": lambda rng, way: bending(rng),
    "moving light": lambda rng, way: lit(rng),
}
"""Name -> a function of a random generator and a direction, unit length."""

FLICKERS = {
    "film grain": grainy,
    "strobe": lambda rng, way: [
        f * (1 + 0.25 * (t % 4 == 0)) for t, f in zip(TIME, panning(photograph(rng), way, 0.7))
    ],
    "water": lambda rng, way: rippling(rng),
}
"""Scenes that flicker by themselves: left out where clips of different scenes are compared."""


def draw(name: str, seed: int) -> np.ndarray:
    """A scene; the same name and seed give the same clip."""
    rng = np.random.default_rng([zlib.crc32(name.encode()), seed])
    angle = rng.uniform(0, 2 * np.pi)
    way = np.array([np.cos(angle), np.sin(angle)])
    frames = (CLEAN | FLICKERS)[name](rng, way)
    return np.clip(np.stack(frames), 0, 255).astype(np.float32)
