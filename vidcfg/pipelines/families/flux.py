"""Flux.1: one image as packed tokens; true guidance beside the embedded scale."""

import numpy as np

from vidcfg.pipelines.family import POOLED_TEXTS, Blocks, Family, ImagePrompt, one_to_one


def _grid(module, arguments, layer: int) -> tuple[int, int, int]:
    """Rows and columns of the image tokens, from the positions that the pipeline passes."""
    ids = arguments["img_ids"].reshape(-1, arguments["img_ids"].shape[-1])
    return 1, int(ids[:, 1].max()) + 1, int(ids[:, 2].max()) + 1


_NEGATIVE = ("negative_ip_adapter_image", "negative_ip_adapter_image_embeds")


def _black_image(pipe, call, images: list, num_samples: int) -> list:
    """The pipeline's own unconditional image: the negative one of the call, else a black one."""
    image, embeds = (call.get(name) for name in _NEGATIVE)
    if image is None and embeds is None:
        count = pipe.transformer.encoder_hid_proj.num_ip_adapters
        image = [np.zeros((16, 16, 3), dtype=np.uint8)] * count
    return pipe.prepare_ip_adapter_image_embeds(image, embeds, pipe._execution_device, num_samples)


FAMILY = Family(
    name="flux",
    pipelines=("FluxPipeline",),
    layout="tokens",
    frame_rule="one image",
    tested="exact",
    checkpoints={"black-forest-labs/FLUX.1-dev": ("FluxPipeline", {})},
    frame_map=one_to_one,
    latent_frames=lambda arguments: 1,
    texts=POOLED_TEXTS,
    encoded=("prompt_embeds", "pooled_prompt_embeds", None),
    own_guidance={"true_cfg_scale": 1.0},
    per_sample=("timestep", "guidance"),
    image_prompt=ImagePrompt(
        "joint_attention_kwargs.ip_adapter_image_embeds", _black_image, negative=_NEGATIVE
    ),
    model_timesteps=lambda timesteps, scheduler: timesteps / 1000,
    embedded=("guidance", 1.0),
    blocks=Blocks(
        ("transformer_blocks", "single_transformer_blocks"),
        attention="attn",
        joint="before",
        returns=("encoder_hidden_states", "hidden_states"),
        grid=_grid,
    ),
    is_image=True,
    size_multiple=16,
    default_scale=3.5,
    usual_range=(1.5, 5.0),
)
