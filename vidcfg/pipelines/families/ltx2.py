"""LTX-2: video and sound in one call; the sound keeps a scale of its own for all frames.

Conditions at later frames stand behind the video, as further tokens of whole latent frames.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from vidcfg.pipelines.family import Blocks, Family, SecondStream


def _connected(pipe, inputs: Mapping[str, Tensor], texts: list[str] | None) -> dict[str, Tensor]:
    """What the pipeline's connectors make of encoded texts: one embedding per stream."""
    video, audio, mask = pipe.connectors(
        inputs["prompt_embeds"],
        inputs["prompt_attention_mask"],
        padding_side=getattr(getattr(pipe, "tokenizer", None), "padding_side", "left"),
    )
    return {"video_embeds": video, "audio_embeds": audio, "mask": mask}


def _own_stg(module: Any, layers: list[int]) -> dict[str, Any]:
    # LTX-2.0 has no such attention: what the stock pipeline asks for has no effect there.
    has_own = module.config.get("perturbed_attn", False)
    return {"spatio_temporal_guidance_blocks": layers} if has_own else {}


FAMILY = Family(
    name="ltx2",
    pipelines=("LTX2Pipeline", "LTX2ImageToVideoPipeline"),
    layout="tokens",
    frame_rule="8k + 1",
    tested="close",
    checkpoints={"Lightricks/LTX-2": ("LTX2Pipeline", {"vae_temporal_compression_ratio": 8})},
    latent_frames=lambda arguments: arguments["num_frames"],
    texts={
        "encoder_hidden_states": "video_embeds",
        "audio_encoder_hidden_states": "audio_embeds",
        "encoder_attention_mask": "mask",
        "audio_encoder_attention_mask": "mask",
    },
    encoded=("prompt_embeds", "prompt_attention_mask", None, None),
    finish_texts=_connected,
    per_sample=(
        "timestep",
        "audio_timestep",
        "sigma",
        "audio_sigma",
        "audio_hidden_states",
        "video_coords",
        "audio_coords",
    ),
    second_stream=SecondStream(
        noisy="audio_hidden_states",
        output=1,
        scale_argument="audio_guidance_scale",
        fallback=7.0,
    ),
    own_guidance={
        "guidance_scale": 1.0,
        "stg_scale": 0.0,
        "modality_scale": 1.0,
        "guidance_rescale": 0.0,
        "audio_stg_scale": 0.0,
        "audio_modality_scale": 1.0,
        "audio_guidance_rescale": 0.0,
    },
    stock_passes="batched",
    combines_in_float32=True,
    rescale_space="x0",
    fps_argument="frame_rate",
    blocks=Blocks(
        returns=("hidden_states", "audio_hidden_states"),
        layers={"stg": (28,), "modality": "all"},
        own={"identity": _own_stg, "isolate": lambda module, layers: {"isolate_modalities": True}},
    ),
    size_multiple=32,
    default_scale=3.0,
    usual_range=(2.0, 7.0),
)

CONDITION = replace(
    FAMILY,
    name="ltx2_condition",
    pipelines=("LTX2ConditionPipeline",),
    frame_rule="8k + 1, before conditions",
    latent_frames=lambda arguments: (
        arguments["hidden_states"].shape[1] // (arguments["height"] * arguments["width"])
    ),
    length_argument="num_frames",
    others="after",
)
