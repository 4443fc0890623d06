"""Flux.1: one image as packed tokens; true guidance beside the embedded scale."""

from vidcfg.guidance.frame_map import OneToOneMap
from vidcfg.pipelines.family import Blocks, Family


def _grid(module, arguments, layer: int) -> tuple[int, int, int]:
    """Rows and columns of the image tokens, from the positions that the pipeline passes."""
    ids = arguments["img_ids"].reshape(-1, arguments["img_ids"].shape[-1])
    return 1, int(ids[:, 1].max()) + 1, int(ids[:, 2].max()) + 1


FAMILY = Family(
    name="flux",
    pipelines=("FluxPipeline",),
    layout="tokens",
    frame_rule="one image",
    tested="exact",
    frame_map=lambda pipe: OneToOneMap(),
    latent_frames=lambda arguments: 1,
    texts={
        "encoder_hidden_states": "prompt_embeds",
        "pooled_projections": "pooled_prompt_embeds",
    },
    encoded=("prompt_embeds", "pooled_prompt_embeds", None),
    own_guidance={"true_cfg_scale": 1.0},
    per_sample=("timestep", "guidance"),
    model_timesteps=lambda timesteps: timesteps / 1000,
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
