"""CogVideoX 1.0 and 1.5, text and image to video: frames before channels, one batched call."""

from types import SimpleNamespace
from typing import Any

from vidcfg.guidance.frame_map import CogVideoXMap
from vidcfg.pipelines.family import Blocks, Family


def _published(cls: str, patch_size_t: int | None) -> tuple[str, dict[str, Any]]:
    transformer = SimpleNamespace(config={"patch_size_t": patch_size_t})
    return cls, {"vae_scale_factor_temporal": 4, "transformer": transformer}


FAMILY = Family(
    name="cogvideox",
    pipelines=(
        "CogVideoXPipeline",
        "CogVideoXImageToVideoPipeline",
        "CogVideoXVideoToVideoPipeline",
        "CogVideoXFunControlPipeline",
        "ConsisIDPipeline",
    ),
    layout="BFCHW",
    frame_rule="8k, 8k + 1 (1.5: padded)",
    tested="exact",
    checkpoints={
        "zai-org/CogVideoX-[25]b": _published("CogVideoXPipeline", None),
        "zai-org/CogVideoX-5b-I2V": _published("CogVideoXImageToVideoPipeline", None),
        "zai-org/CogVideoX1.5-5B": _published("CogVideoXPipeline", 2),
    },
    frame_map=lambda pipe: CogVideoXMap(
        pipe.vae_scale_factor_temporal, pipe.transformer.config.get("patch_size_t")
    ),
    length_argument="num_frames",  # the padding of 1.5 hides it
    # The face that a ConsisID keeps is one for all samples.
    constants=("image_rotary_emb", "id_cond", "id_vit_hidden"),
    own_guidance={"guidance_scale": 1.0, "use_dynamic_cfg": False},
    stock_passes="batched",
    combines_in_float32=True,
    prediction=None,
    blocks=Blocks(
        joint="before",
        returns=("hidden_states", "encoder_hidden_states"),
        layers={"stg": (11,)},
    ),
    size_multiple=16,
    default_scale=6.0,
    usual_range=(4.0, 8.0),
)
