"""Sample sheets: what the averaged weights draw for a fixed list of prompts, one row a prompt."""

from pathlib import Path

import cv2
import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from vidcfg.mini.codec import CausalVAE
from vidcfg.mini.pipeline import MiniVideoPipeline
from vidcfg.train.config import TrainConfig
from vidcfg.train.transformer import Denoiser

PROMPTS = (
    "a red circle moving left over a navy background",
    "a green square moving down over a gray background",
    "a white cross growing over a teal background",
    "a yellow triangle moving up over a black background",
    "a pink circle shrinking over a gray background",
    "a blue triangle moving right over a teal background",
)
"""Five training pairs and, last, one that is held out."""


def write_sheet(
    path: Path, model: Denoiser, vae: CausalVAE, tokenizer, config: TrainConfig
) -> None:
    """Twelve steps at scale 3, every second frame, enlarged four times, as PNG."""
    pipe = MiniVideoPipeline(
        transformer=model.transformer,
        vae=vae.to(config.device),
        text_encoder=model.text_encoder,
        tokenizer=tokenizer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=config.transformer.sampling_shift),
    )
    pipe.set_progress_bar_config(disable=True)
    device = torch.device(config.device)
    with torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bfloat16"):
        video = pipe(
            list(PROMPTS),
            num_frames=config.data.num_frames,
            height=config.data.height,
            width=config.data.width,
            num_inference_steps=12,
            guidance_scale=3.0,
            generator=[torch.Generator().manual_seed(i) for i in range(len(PROMPTS))],
        ).frames
    sheet = np.concatenate([np.concatenate(list(clip[::2]), axis=1) for clip in video], axis=0)
    sheet = (sheet * 255).round().astype(np.uint8).repeat(4, axis=0).repeat(4, axis=1)
    path.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(path), cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR)):
        raise OSError(f"{path}: the sample sheet cannot be written")
