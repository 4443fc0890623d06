"""Render one prompt and seed under several frame modes and put them on one sheet.

    python scripts/frame_modes.py --out docs/pictures/frame_modes.png

The picture at the top of the README. Same noise, same prompt, same scale: only the frame weights
differ, so every difference is theirs.
"""

import argparse
from pathlib import Path

import numpy as np
import torch

import vidcfg
from vidcfg.media.sheet import comparison_sheet, spread_over_pixels
from vidcfg.pipelines.families import family_of
from vidcfg.pipelines.load import MiniModel, load_pipeline

MODES = {
    "off": "uniform",
    "uniform": "uniform",
    "keyframes": {"kind": "keyframes", "at": ["first", "last"], "floor": 0.0, "reach": 6},
    "decay": {"kind": "decay", "end": 0.0},
}
PROMPT = "a red circle turning yellow moving left then up over a checkered navy background"


def render(pipe, prompt: str, *, seed: int, scale: float, frames, num_steps: int):
    """uint8 frames [T, H, W, 3] and the strength that was applied to every pixel frame."""
    generator = torch.Generator().manual_seed(seed)
    with vidcfg.guide(pipe, vidcfg.Guidance(scale=scale, frames=frames)) as trace:
        video = pipe(prompt, generator=generator, num_inference_steps=num_steps).frames[0]
    frames_THWC = (video * 255).round().astype(np.uint8)
    pixels_of = family_of(pipe).frame_map(pipe).pixels_of(len(frames_THWC))
    applied_KF = trace.surfaces[0].strength_KF[:1]
    strengths = spread_over_pixels(applied_KF, pixels_of, num_frames=len(frames_THWC))
    return frames_THWC, strengths[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("docs/pictures/frame_modes.png"))
    parser.add_argument("--prompt", default=f"{PROMPT} in rising light")
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--scale", type=float, default=14.0)
    parser.add_argument("--num-steps", type=int, default=20)
    given = parser.parse_args()
    pipe = load_pipeline(MiniModel())
    rows = [
        (
            label,
            *render(
                pipe,
                given.prompt,
                seed=given.seed,
                scale=1.0 if label == "off" else given.scale,
                frames=frames,
                num_steps=given.num_steps,
            ),
        )
        for label, frames in MODES.items()
    ]
    subtitle = f"scale {given.scale:g}, seed {given.seed}, {given.num_steps} steps"
    sheet = comparison_sheet(rows, title=given.prompt, subtitle=subtitle)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(given.out)
    print(f"wrote {given.out}")


if __name__ == "__main__":
    main()
