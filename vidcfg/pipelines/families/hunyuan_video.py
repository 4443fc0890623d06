"""HunyuanVideo: true guidance beside the embedded scale, which stays the pipeline's own.

FramePack makes sections of a fixed number of latents, each in a loop of its own, from the end of
the video to its beginning or the other way round. The image is frame 0.
"""

from dataclasses import replace

import numpy as np

from vidcfg.guidance.frame_map import BlockMap
from vidcfg.pipelines.family import MASKED_TEXTS, STRIDE_4, Blocks, Family

FAMILY = Family(
    name="hunyuan_video",
    pipelines=(
        "HunyuanVideoPipeline",
        "HunyuanVideoImageToVideoPipeline",
        "HunyuanSkyreelsImageToVideoPipeline",
    ),
    frame_rule="4k + 1",
    tested="exact",
    checkpoints={"hunyuanvideo-community/HunyuanVideo": ("HunyuanVideoPipeline", STRIDE_4)},
    texts=MASKED_TEXTS["texts"] | {"pooled_projections": "pooled_prompt_embeds"},
    encoded=("prompt_embeds", "pooled_prompt_embeds", "prompt_attention_mask"),
    own_guidance={"true_cfg_scale": 1.0},
    per_sample=("timestep", "guidance"),
    embedded=("guidance", 1000.0),
    blocks=Blocks(
        ("transformer_blocks", "single_transformer_blocks"),
        attention="attn",
        joint="after",
        returns=("hidden_states", "encoder_hidden_states"),
        layers={"stg": (2,)},
    ),
    size_multiple=16,
    default_scale=6.0,
    usual_range=(1.0, 7.0),
)


def _section(pipe, call, number: int) -> tuple[int, np.ndarray]:
    ratio, window = pipe.vae_scale_factor_temporal, call["latent_window_size"]
    alone = ratio * (window - 1) + 1  # the length of a section that is decoded alone
    num_sections = max(1, -(-call["num_frames"] // alone))
    backwards = call["sampling_type"] == "inverted_anti_drifting"
    place = num_sections - 1 - number if backwards else number
    length = ratio * window
    return 1 + num_sections * length, np.arange(length) + 1 + place * length


_HISTORY = ("latents_clean", "latents_history_2x", "latents_history_4x")
FRAMEPACK = replace(
    FAMILY,
    name="framepack",
    pipelines=("HunyuanVideoFramepackPipeline",),
    frame_rule="4k in a section",
    frame_map=lambda pipe: BlockMap(pipe.vae_scale_factor_temporal),
    per_sample=(*FAMILY.per_sample, "image_embeds", *_HISTORY),
    constants=("indices_latents", *(f"indices_{name}" for name in _HISTORY)),
    part=_section,
)
