"""LTX-Video: latents are packed into tokens, one batched call, combined in float32.

Conditions at later frames stand before the video, as further tokens of whole latent frames.
"""

from dataclasses import replace

from vidcfg.pipelines.family import MASKED_TEXTS, Blocks, Family, modular

FAMILY = Family(
    name="ltx",
    pipelines=("LTXPipeline", "LTXImageToVideoPipeline"),
    layout="tokens",
    frame_rule="8k + 1",
    tested="exact",
    checkpoints={"Lightricks/LTX-Video": ("LTXPipeline", {"vae_temporal_compression_ratio": 8})},
    **MASKED_TEXTS,
    own_guidance={"guidance_scale": 1.0, "guidance_rescale": 0.0},
    stock_passes="batched",
    combines_in_float32=True,
    latent_frames=lambda arguments: arguments["num_frames"],
    fps_argument="frame_rate",
    blocks=Blocks(layers={"stg": (19,)}),
    size_multiple=32,
    default_scale=3.0,
    usual_range=(2.0, 5.0),
)


def _frames_of_positions(arguments) -> int:
    """Latent frames by the number of tokens at each place (height, width) of the positions."""
    positions = arguments["video_coords"][0]
    return positions.shape[1] // positions[1:].unique(dim=1).shape[1]


CONDITION = replace(
    FAMILY,
    name="ltx_condition",
    pipelines=("LTXConditionPipeline",),
    frame_rule="8k + 1, behind conditions",
    per_sample=("timestep", "video_coords"),
    latent_frames=_frames_of_positions,
    length_argument="num_frames",
    others="before",
)

MODULAR = modular(
    FAMILY,
    "LTXModularPipeline",
    stock_passes="sequential",
    combines_in_float32=False,
    length_argument="num_frames",
)
