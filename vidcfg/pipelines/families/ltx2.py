"""LTX-2: video and audio in one call; the audio keeps a scale of its own for all frames."""

from collections.abc import Mapping

from torch import Tensor

from vidcfg.guidance.frame_map import CausalMap
from vidcfg.pipelines.family import Blocks, Family, SecondStream


def _connected(pipe, inputs: Mapping[str, Tensor], texts: list[str] | None) -> dict[str, Tensor]:
    """What the pipeline's connectors make of encoded texts: one embedding per stream."""
    video, audio, mask = pipe.connectors(
        inputs["prompt_embeds"],
        inputs["prompt_attention_mask"],
        padding_side=getattr(getattr(pipe, "tokenizer", None), "padding_side", "left"),
    )
    return {"video_embeds": video, "audio_embeds": audio, "mask": mask}


FAMILY = Family(
    name="ltx2",
    pipelines=("LTX2Pipeline",),
    layout="tokens",
    frame_rule="8k + 1",
    tested="close",
    frame_map=lambda pipe: CausalMap(pipe.vae_temporal_compression_ratio),
    latent_frames=lambda arguments: arguments["num_frames"],
    texts={
        "encoder_hidden_states": "video_embeds",
        "audio_encoder_hidden_states": "audio_embeds",
        "encoder_attention_mask": "mask",
        "audio_encoder_attention_mask": "mask",
    },
    encoded=("prompt_embeds", "prompt_attention_mask", None, None),
    finish_texts=_connected,
    per_sample=("timestep", "sigma", "audio_hidden_states", "video_coords", "audio_coords"),
    second_stream=SecondStream(output=1, scale_argument="audio_guidance_scale", fallback=7.0),
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
        ("transformer_blocks",),
        returns=("hidden_states", "audio_hidden_states"),
        layers={"stg": (28,)},
    ),
    size_multiple=32,
    default_scale=3.0,
    usual_range=(2.0, 7.0),
)
