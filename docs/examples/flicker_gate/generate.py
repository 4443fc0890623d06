"""Stands for your model: put its call here. It returns frames [T, H, W, 3], uint8."""

import zlib

import numpy as np

PROMPTS = [
    f"a {colour} disc moving {way}"
    for colour in ("red", "green", "blue", "yellow")
    for way in ("left", "right", "down")
]
COLOURS = {"red": (220, 50, 40), "green": (50, 180, 70), "blue": (60, 90, 220)}
WAYS = {"left": (-2, 0), "right": (2, 0), "down": (0, 1)}


def render(prompt: str, *, num_frames: int = 17) -> np.ndarray:
    """A textured background and a disc that moves evenly; a prompt is always the same clip."""
    _, colour, _, _, way = prompt.split()
    rng = np.random.default_rng(zlib.crc32(prompt.encode()))
    y, x = np.mgrid[:48, :64]
    texture = sum(
        np.sin(fx * x + fy * y + phase)
        for fx, fy, phase in zip(*rng.uniform(0.1, 0.7, (2, 6)), rng.uniform(0, 6, 6))
    )
    background = 110 + 12 * texture[..., None] * np.array([0.8, 1.0, 1.2])
    dx, dy = WAYS[way]
    frames = []
    for t in range(num_frames):
        distance = np.hypot(x - 32 - dx * (t - 8), y - 24 - dy * (t - 8))
        inside = np.clip(11 - distance, 0, 1)[..., None]
        disc = np.array(COLOURS.get(colour, (230, 210, 60))) + 10 * texture[..., None]
        frames.append(inside * disc + (1 - inside) * background)
    return np.clip(np.stack(frames), 0, 255).round().astype(np.uint8)
