"""What a run gives: sample sheets while it trains, and, in stage `export`, the averaged weights as
a pipeline folder in half precision.
"""

from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor
from train_mini.config import DataConfig, TrainConfig
from train_mini.data import loose_caption
from train_mini.transformer import Denoiser

from vidcfg.mini.codec import CausalVAE
from vidcfg.mini.pipeline import MiniVideoPipeline
from vidcfg.mini.scheduler import FlowMatchEuler
from vidcfg.mini.scorer import Scorer
from vidcfg.mini.shapes import FAULTS, sample_scene
from vidcfg.mini.text import TextEncoder, build_tokenizer, tokenize

PROMPTS = (
    "a red circle moving left over a navy background",
    "a green square moving down over a striped gray background in fading light",
    "a white cross turning red growing over a checkered teal background with a white dot",
    "a yellow triangle moving up then right over a plain black background in rising light",
    "a pink circle shrinking over a grainy gray background in steady light with a yellow dot",
    "a blue triangle moving right over a plain teal background in steady light with no dot",
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
        scheduler=FlowMatchEuler(shift=config.transformer.sampling_shift),
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


def export(config: TrainConfig, log) -> None:
    """Write `output`: the pipeline, `transformer_weak` and, where there is one, the scorer."""
    tokenizer = build_tokenizer()
    vae = CausalVAE.from_pretrained(config.run_dir / "vae")
    folder = config.run_dir / "transformer"
    state = torch.load(folder / "checkpoint.pt", weights_only=True, map_location="cpu")
    final = _denoiser(config, vae, tokenizer.get_vocab_size(), state["average"])
    MiniVideoPipeline(
        transformer=final.transformer.half(),
        vae=vae,
        text_encoder=final.text_encoder.half(),
        tokenizer=tokenizer,
        scheduler=FlowMatchEuler(shift=config.transformer.sampling_shift),
    ).save_pretrained(config.output)
    if (folder / "weak.pt").is_file():
        weak = torch.load(folder / "weak.pt", weights_only=True, map_location="cpu")
        weak = _denoiser(config, vae, tokenizer.get_vocab_size(), weak)
        final = _denoiser(config, vae, tokenizer.get_vocab_size(), state["average"])
        adopt_text(weak, final.text_encoder, tokenizer)
        weak.transformer.half().save_pretrained(config.output / "transformer_weak")
    if (config.run_dir / "scorer" / "config.json").is_file():
        Scorer.from_pretrained(config.run_dir / "scorer").half().save_pretrained(
            config.output / "scorer"
        )
    size = sum(f.stat().st_size for f in Path(config.output).rglob("*") if f.is_file())
    log.note(f"export: {config.output}", step=state["step"], megabytes=size / 1e6)


@torch.no_grad()
def adopt_text(model: Denoiser, text_encoder: TextEncoder, tokenizer) -> None:
    """Rewrite the transformer's text inputs so that it understands the states of another text
    encoder.

    Least squares over the states of 3,000 captions gives the linear map from the other encoder's
    states to its own; the map is multiplied into every layer that reads text. Its offset is
    dropped: the layers have no bias.
    """
    rng = np.random.default_rng(0)
    data = DataConfig(partial=0.5)
    scenes = (sample_scene(rng, faults=dict.fromkeys(FAULTS, 0.1)) for _ in range(3000))
    captions = ["", *(loose_caption(scene, data, rng) for scene in scenes)]
    ids, mask = tokenize(tokenizer, captions)
    source, target = (
        text_encoder(ids, mask)[mask].double(),
        model.text_encoder(ids, mask)[mask].double(),
    )
    ridge = 1e-6 * len(source) * torch.eye(source.shape[1], dtype=torch.float64)
    linear = torch.linalg.solve(source.T @ source + ridge, source.T @ target).T.float()
    layers: list[Tensor] = [model.transformer.pool_embed.weight]
    for block in model.transformer.transformer_blocks:
        layers += [block.attn2.to_k.weight, block.attn2.to_v.weight]
    for weight in layers:
        weight.copy_(weight @ linear)


def _denoiser(config: TrainConfig, vae: CausalVAE, vocab_size: int, weights: dict) -> Denoiser:
    model = Denoiser(
        config.transformer, channels=vae.config.latent_channels, vocab_size=vocab_size
    )
    model.load_state_dict(weights)
    model.transformer.set_attention_backend("sdpa")
    model.transformer.config["attention_backend"] = "sdpa"
    return model.eval()
