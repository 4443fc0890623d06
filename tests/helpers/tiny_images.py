"""Image pipelines: Stable Diffusion 1.5, SDXL, SD3, Flux.1."""

from tiny_base import TinyPipeline, quiet, random, seeded

_SHAPE = {"height": 16, "width": 32, "output_type": "latent"}


def _unet(**changes):
    from diffusers import UNet2DConditionModel

    settings = {
        "block_out_channels": (8, 16),
        "layers_per_block": 1,
        "sample_size": 8,
        "in_channels": 4,
        "out_channels": 4,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "cross_attention_dim": 32,
        "norm_num_groups": 2,
        "attention_head_dim": 4,
    }
    return seeded(lambda: UNet2DConditionModel(**settings | changes))


def _vae(latent_channels: int = 4, **changes):
    from diffusers import AutoencoderKL

    settings = {
        "block_out_channels": (8, 16),
        "in_channels": 3,
        "out_channels": 3,
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
        "latent_channels": latent_channels,
        "norm_num_groups": 2,
    }
    return seeded(lambda: AutoencoderKL(**settings | changes))


def _texts(batch: int, width: int, pooled: int | None, length: int = 7):
    positive = {"prompt_embeds": random(batch, length, width, seed=1)}
    negative = {"negative_prompt_embeds": random(batch, length, width, seed=2)}
    if pooled:
        positive["pooled_prompt_embeds"] = random(batch, pooled, seed=3)
        negative["negative_pooled_prompt_embeds"] = random(batch, pooled, seed=4)
    return positive, negative


def sd15(batch: int = 2, num_steps: int = 3) -> TinyPipeline:
    from diffusers import PNDMScheduler, StableDiffusionPipeline

    pipe = StableDiffusionPipeline(
        unet=_unet(),
        vae=_vae(),
        scheduler=PNDMScheduler(skip_prk_steps=True),
        text_encoder=None,
        tokenizer=None,
        safety_checker=None,
        feature_extractor=None,
        image_encoder=None,
        requires_safety_checker=False,
    )
    shape = _SHAPE | {"num_inference_steps": num_steps - 1}  # PNDM calls the model once more
    return TinyPipeline(quiet(pipe), shape, *_texts(batch, 32, None), extra_calls=1)


def sdxl(batch: int = 2, num_steps: int = 3) -> TinyPipeline:
    from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline

    unet = _unet(
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + 16,
    )
    pipe = StableDiffusionXLPipeline(
        unet=unet,
        vae=_vae(),
        scheduler=EulerDiscreteScheduler(
            beta_start=0.00085, beta_end=0.012, steps_offset=1, timestep_spacing="leading"
        ),
        text_encoder=None,
        tokenizer=None,
        text_encoder_2=None,
        tokenizer_2=None,
        add_watermarker=False,
    )
    return TinyPipeline(
        quiet(pipe), _SHAPE | {"num_inference_steps": num_steps}, *_texts(batch, 32, 16)
    )


def sd3(batch: int = 2, num_steps: int = 3) -> TinyPipeline:
    from diffusers import (
        FlowMatchEulerDiscreteScheduler,
        SD3Transformer2DModel,
        StableDiffusion3Pipeline,
    )

    transformer = seeded(
        lambda: SD3Transformer2DModel(
            sample_size=32,
            patch_size=1,
            in_channels=4,
            num_layers=1,
            attention_head_dim=8,
            num_attention_heads=4,
            caption_projection_dim=32,
            joint_attention_dim=32,
            pooled_projection_dim=16,
            out_channels=4,
        )
    )
    missing = [f"{kind}{i}" for kind in ("text_encoder", "tokenizer") for i in ("", "_2", "_3")]
    pipe = StableDiffusion3Pipeline(
        transformer=transformer,
        vae=_vae(shift_factor=0.06, scaling_factor=1.5),
        scheduler=FlowMatchEulerDiscreteScheduler(),
        **dict.fromkeys(missing),
    )
    return TinyPipeline(
        quiet(pipe), _SHAPE | {"num_inference_steps": num_steps}, *_texts(batch, 32, 16)
    )


def flux(batch: int = 2, num_steps: int = 3) -> TinyPipeline:
    """With an embedded scale beside true guidance, as Flux.1 dev."""
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel

    transformer = seeded(
        lambda: FluxTransformer2DModel(
            patch_size=1,
            in_channels=4,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=32,
            pooled_projection_dim=16,
            axes_dims_rope=[4, 4, 8],
            guidance_embeds=True,
        )
    )
    pipe = FluxPipeline(
        transformer=transformer,
        vae=_vae(latent_channels=1, shift_factor=0.06, scaling_factor=1.5),
        scheduler=FlowMatchEulerDiscreteScheduler(),
        text_encoder=None,
        tokenizer=None,
        text_encoder_2=None,
        tokenizer_2=None,
    )
    return TinyPipeline(
        quiet(pipe),
        _SHAPE | {"num_inference_steps": num_steps, "guidance_scale": 4.5},
        *_texts(batch, 32, 16),
        scale_argument="true_cfg_scale",
    )
