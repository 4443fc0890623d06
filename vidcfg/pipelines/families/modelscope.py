"""ModelScope's text to video and I2VGen-XL: a UNet over space and time, one latent a frame."""

from dataclasses import replace

from vidcfg.pipelines.families.unet import UNET
from vidcfg.pipelines.family import Family

FAMILY = Family(
    **UNET,
    name="modelscope",
    pipelines=("TextToVideoSDPipeline", "VideoToVideoSDPipeline"),
    frame_rule="one to one",
    tested="exact",
    per_sample=(),
    default_scale=9.0,
    usual_range=(6.0, 12.0),
)

I2VGEN = replace(
    FAMILY,
    name="i2vgen_xl",
    pipelines=("I2VGenXLPipeline",),
    per_sample=("fps", "image_latents"),
    unconditional=lambda arguments: {"image_embeddings": arguments["image_embeddings"] * 0},
    fps_argument="target_fps",
    fps_is_whole=True,
)
