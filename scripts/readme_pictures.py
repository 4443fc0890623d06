"""Render the two pictures at the top of the README on the embedded model.

    python scripts/readme_pictures.py

`frame_modes.png`: one prompt and seed under several frame weights. `before_after.webp`: moving,
three prompts without guidance, at a high scale, and with two remedies. Noise and prompt are the
same along a row, so every difference is the guidance's.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw

import vidcfg
from vidcfg.media.drawing import PAPER, draw_text
from vidcfg.media.sheet import comparison_sheet, spread_over_pixels
from vidcfg.pipelines.families import family_of
from vidcfg.pipelines.load import MiniModel, load_pipeline

TURNING = "a red circle turning yellow moving left then up over a checkered navy background"
SCALE = 14.0
MODES = {
    "off": {"scale": 1.0},
    "uniform": {"scale": SCALE},
    "keyframes": {
        "scale": SCALE,
        "frames": {"kind": "keyframes", "at": ["first", "last"], "floor": 0.0, "reach": 6},
    },
    "decay": {"scale": SCALE, "frames": {"kind": "decay", "end": 0.0}},
}

COSINE = {"kind": "cosine", "start": 20.0, "end": 2.0}
REMEDIES = {
    "off": {"scale": 1.0},
    "scale 20": {"scale": 20.0},
    "cosine 20 to 2": {"scale": COSINE},
    "cosine, apg": {"scale": COSINE, "method": {"kind": "apg", "norm": 0.3}},
}
MOVING = (
    (f"{TURNING} in rising light", 0),
    ("a pink circle shrinking over a grainy gray background in steady light", 0),
    ("a green square moving down over a striped gray background in fading light", 1),
)
NUM_STEPS, SIDE, GAP, HEAD, FPS = 20, 144, 8, 26, 8


def render(pipe, prompt: str, *, seed: int, guidance: Mapping[str, Any]):
    """uint8 frames [T, H, W, 3] and the strength that was applied to every pixel frame."""
    generator = torch.Generator().manual_seed(seed)
    with vidcfg.guide(pipe, vidcfg.Guidance(**guidance)) as trace:
        video = pipe(prompt, generator=generator, num_inference_steps=NUM_STEPS).frames[0]
    frames_THWC = (video * 255).round().astype(np.uint8)
    pixels_of = family_of(pipe).frame_map(pipe).pixels_of(len(frames_THWC))
    applied_KF = trace.surfaces[0].strength_KF[:1]
    strengths = spread_over_pixels(applied_KF, pixels_of, num_frames=len(frames_THWC))
    return frames_THWC, strengths[0]


def frame_modes(pipe, *, seed: int = 3) -> Image.Image:
    """A row for each of `MODES`, with the strength under every frame."""
    prompt = f"{TURNING} in rising light"
    rows = [(label, *render(pipe, prompt, seed=seed, guidance=g)) for label, g in MODES.items()]
    subtitle = f"scale {SCALE:g}, seed {seed}, {NUM_STEPS} steps"
    return comparison_sheet(rows, title=prompt, subtitle=subtitle)


def before_after(pipe) -> list[Image.Image]:
    """Frames of the moving picture: a column for each of `REMEDIES`, a row for each prompt."""
    clips = [
        [render(pipe, prompt, seed=seed, guidance=g)[0] for g in REMEDIES.values()]
        for prompt, seed in MOVING
    ]
    pitch = SIDE + GAP
    size = (pitch * len(REMEDIES) - GAP, HEAD + pitch * len(MOVING) - GAP)
    pictures = []
    for frame in range(len(clips[0][0])):
        picture = Image.new("RGB", size, PAPER)
        draw = ImageDraw.Draw(picture)
        for column, label in enumerate(REMEDIES):
            draw_text(draw, (column * pitch, 4), label, bold=True)
            for row, of_prompt in enumerate(clips):
                still = Image.fromarray(of_prompt[column][frame])
                still = still.resize((SIDE, SIDE), Image.Resampling.NEAREST)
                picture.paste(still, (column * pitch, HEAD + row * pitch))
        pictures.append(picture)
    return pictures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--out", type=Path, default=Path("docs/pictures"))
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    pipe = load_pipeline(MiniModel())
    frame_modes(pipe).save(out / "frame_modes.png")
    first, *rest = before_after(pipe)
    how = {"duration": 1000 // FPS, "loop": 0, "quality": 80, "method": 6, "minimize_size": True}
    first.save(out / "before_after.webp", save_all=True, append_images=rest, **how)
    print(f"wrote {out}: frame_modes.png, before_after.webp")


if __name__ == "__main__":
    main()
