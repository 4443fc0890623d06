"""Video families whose denoiser is a UNet: twins of AnimateDiff, and UNets over space and time."""

from dataclasses import replace

from class_checks import TinyClass
from tiny_base import TinyPipeline, image_processor, quiet, random, seeded, vision_encoder
from tiny_images import _unet, _vae
from tiny_more import _SHAPE, _texts
from tiny_twins import changed, config_of, image, picture, twin
from tiny_unets import animatediff


def animatediff_sdxl() -> TinyClass:
    from diffusers import UNet2DConditionModel

    base = animatediff(num_steps=2, num_frames=3)
    unet = seeded(
        lambda: UNet2DConditionModel(
            block_out_channels=(8, 8),
            layers_per_block=1,
            sample_size=8,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            cross_attention_dim=32,
            norm_num_groups=2,
            attention_head_dim=4,
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=6 * 8 + 16,
            transformer_layers_per_block=(1, 1),
        )
    )
    parts = {"unet": unet, "motion_adapter": changed(base.pipe.motion_adapter)}
    parts |= dict.fromkeys(("text_encoder_2", "tokenizer_2"))
    tiny = twin(base, "AnimateDiffSDXLPipeline", **parts)
    tiny.positive["pooled_prompt_embeds"] = random(2, 16, seed=3)
    tiny.negative["negative_pooled_prompt_embeds"] = random(2, 16, seed=4)
    return TinyClass(tiny, "BCFHW", (1, 1, 1))


def animatediff_pag() -> TinyClass:
    base = animatediff(num_steps=2, num_frames=3)
    parts = dict.fromkeys(("image_encoder", "feature_extractor"))
    tiny = twin(base, "AnimateDiffPAGPipeline", positive={"pag_scale": 0.0}, **parts)
    return TinyClass(tiny, "BCFHW", (1, 1, 1))


def pia() -> TinyClass:
    from diffusers import MotionAdapter

    base = animatediff(num_steps=2, num_frames=3)
    settings = config_of(base.pipe.motion_adapter)
    settings |= {"conv_in_channels": 9, "block_out_channels": (8, 16)}
    parts = {"motion_adapter": seeded(lambda: MotionAdapter(**settings))}
    parts |= {"unet": _unet(), "image_encoder": None, "feature_extractor": None}
    tiny = twin(base, "PIAPipeline", positive={"image": image(2, 8, 16)}, **parts)
    return TinyClass(tiny, "BCFHW", (1, 1, 1))


def modelscope(name: str = "TextToVideoSDPipeline", unet="UNet3DConditionModel", **parts):
    """A UNet over space and time."""
    import diffusers

    unet = seeded(
        lambda: getattr(diffusers, unet)(
            block_out_channels=(4, 8),
            layers_per_block=1,
            sample_size=8,
            down_block_types=("CrossAttnDownBlock3D", "DownBlock3D"),
            up_block_types=("UpBlock3D", "CrossAttnUpBlock3D"),
            cross_attention_dim=32,
            attention_head_dim=4,
            norm_num_groups=2,
        ).eval()
    )
    pipe = getattr(diffusers, name)(
        vae=_vae(),
        text_encoder=None,
        tokenizer=None,
        unet=unet,
        scheduler=diffusers.DDIMScheduler(clip_sample=False),
        **parts,
    )
    tiny = TinyPipeline(quiet(pipe), _SHAPE | {"num_frames": 3}, *_texts(32))
    return TinyClass(tiny, "BCFHW", (1, 1, 1))


def i2vgen_xl() -> TinyClass:
    vision = {
        "image_encoder": vision_encoder(32, projected=True),
        "feature_extractor": image_processor(),
    }
    case = modelscope("I2VGenXLPipeline", "I2VGenXLUNet", **vision)
    positive = case.tiny.positive | {"image": [picture(), picture(32, 16)]}
    return replace(case, tiny=replace(case.tiny, positive=positive))


VIDEO_UNETS = {
    "AnimateDiffPAGPipeline": animatediff_pag,
    "PIAPipeline": pia,
    "TextToVideoSDPipeline": modelscope,
    "I2VGenXLPipeline": i2vgen_xl,
    "AnimateDiffSDXLPipeline": animatediff_sdxl,
}
