"""A call of a pipeline under `vidcfg.guide` beside the same call with the pipeline's own guidance.

The Wan pipeline of diffusers with random weights: texts are given, frames are not decoded. A step
is two passes of the model on both sides. What ours costs beside them, from the plan to the trace,
counts in full. `batched` takes both in one call of the model, which the pipeline does not. Tiny
models (24 tokens) are all calls and launches; on a GPU in bfloat16 also the sizes of Wan 2.1 1.3B
at 480p with all of its layers, for 9 and for 21 latent frames.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from harness import Row

import vidcfg

SCALE = 5.0


@dataclass(frozen=True)
class Size:
    """Of a model, and of the video that is made: frames, height and width in pixels."""

    heads: int
    layers: int
    text: tuple[int, int]
    video: tuple[int, int, int]
    steps: int
    rounds: int


SIZES = {
    "tiny": Size(heads=2, layers=2, text=(7, 32), video=(9, 32, 64), steps=8, rounds=10),
    "320 tokens": Size(4, 2, (64, 256), (17, 128, 128), steps=2, rounds=5),
    "small": Size(heads=4, layers=12, text=(64, 256), video=(17, 128, 128), steps=8, rounds=3),
    "Wan 1.3B, 33 frames": Size(12, 30, (512, 4096), (33, 480, 832), steps=4, rounds=2),
    "Wan 1.3B, 81 frames": Size(12, 30, (512, 4096), (81, 480, 832), steps=2, rounds=2),
}


def rows(device: str) -> Iterator[Row]:
    """Plain guidance, in one call of the model too, and rescale of every size that fits the
    device."""
    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    for name in SIZES if device == "cuda" else ("tiny", "320 tokens"):
        size = SIZES[name]
        pipe = wan(size, device, dtype)
        settings = {"cfg": {}, "cfg, batched": {"passes": "batched"}, "rescale": {"rescale": 0.7}}
        for rule in settings if size.layers < 30 else list(settings)[:2]:
            title = f"{name}, {size.steps} steps, {rule}"
            yield row(title, pipe, size, settings[rule], device)
        del pipe


def wan(size: Size, device: str, dtype: torch.dtype) -> Any:
    """A Wan pipeline with random weights, and a codec of almost no size."""
    from diffusers import (
        AutoencoderKLWan,
        FlowMatchEulerDiscreteScheduler,
        WanPipeline,
        WanTransformer3DModel,
    )

    torch.manual_seed(0)
    with torch.device(device):
        transformer = WanTransformer3DModel(
            num_attention_heads=size.heads,
            attention_head_dim=128,
            text_dim=size.text[1],
            ffn_dim=size.heads * 128 * 6,
            num_layers=size.layers,
        )
        vae = AutoencoderKLWan(base_dim=3, z_dim=16, num_res_blocks=1)
    pipe = WanPipeline(
        tokenizer=None,
        text_encoder=None,
        transformer=transformer.to(dtype).eval(),
        transformer_2=None,
        vae=vae,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
    ).to(device)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def row(name: str, pipe: Any, size: Size, setting: dict[str, Any], device: str) -> Row:
    frames, height, width = size.video
    texts = torch.randn(2, 1, *size.text, generator=torch.Generator().manual_seed(1))
    positive, negative = texts.to(device, pipe.transformer.dtype)
    call = {
        "num_frames": frames,
        "height": height,
        "width": width,
        "num_inference_steps": size.steps,
        "output_type": "latent",
        "prompt_embeds": positive,
    }

    def generator() -> torch.Generator:
        return torch.Generator().manual_seed(0)

    def peer() -> torch.Tensor:
        own = {"negative_prompt_embeds": negative, "guidance_scale": SCALE}
        return pipe(**call, **own, generator=generator()).frames

    def guided(**setting: Any) -> torch.Tensor:
        guidance = vidcfg.Guidance(scale=SCALE, **setting)
        with vidcfg.guide(pipe, guidance, negative_prompt_embeds=negative):
            return pipe(**call, guidance_scale=1.0, generator=generator()).frames

    def check() -> str:
        stock, plain = peer(), guided()
        assert torch.equal(plain, stock), "plain guidance is not the pipeline's own"
        if "passes" in setting:
            # Another shape of matrix products, another order of sums.
            error = float((guided(**setting) - stock).abs().max() / stock.abs().max())
            assert error < (1e-4 if device == "cpu" else 0.1), error
            return f"within {error:.1e}"
        return "equal bits" if not setting else "another rule"

    ours: Callable[[], torch.Tensor] = lambda: guided(**setting)  # noqa: E731
    return Row(name, peer, ours, check, rounds=size.rounds, device=device)
