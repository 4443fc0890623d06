"""Video UNets: Stable Video Diffusion and AnimateDiff."""

import torch
from tiny_base import TinyPipeline, image_processor, quiet, random, seeded, vision_encoder


def svd(batch: int = 2, num_steps: int = 3, num_frames: int = 5) -> TinyPipeline:
    from diffusers import (
        AutoencoderKLTemporalDecoder,
        EulerDiscreteScheduler,
        StableVideoDiffusionPipeline,
        UNetSpatioTemporalConditionModel,
    )

    unet = seeded(
        lambda: UNetSpatioTemporalConditionModel(
            block_out_channels=(32, 64),
            layers_per_block=1,
            sample_size=32,
            in_channels=8,
            out_channels=4,
            down_block_types=("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
            up_block_types=("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
            cross_attention_dim=32,
            num_attention_heads=4,
            projection_class_embeddings_input_dim=96,
            addition_time_embed_dim=32,
        )
    )
    vae = seeded(
        lambda: AutoencoderKLTemporalDecoder(
            block_out_channels=[32, 32],
            in_channels=3,
            out_channels=3,
            down_block_types=["DownEncoderBlock2D"] * 2,
            latent_channels=4,
        )
    )
    scheduler = EulerDiscreteScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        sigma_max=700.0,
        sigma_min=0.002,
        steps_offset=1,
        timestep_spacing="leading",
        timestep_type="continuous",
        use_karras_sigmas=True,
    )
    pipe = StableVideoDiffusionPipeline(
        vae=vae,
        image_encoder=vision_encoder(32, projected=True),
        unet=unet,
        scheduler=scheduler,
        feature_extractor=image_processor(),
    )
    image = torch.rand(batch, 3, 16, 16, generator=torch.Generator().manual_seed(5))
    return TinyPipeline(
        quiet(pipe),
        {
            "height": 8,
            "width": 16,
            "num_frames": num_frames,
            "num_inference_steps": num_steps,
            "output_type": "latent",
        },
        {"image": image},
        {},
        own=lambda pipe, s: {"min_guidance_scale": s, "max_guidance_scale": s},
    )


def animatediff(batch: int = 2, num_steps: int = 3, num_frames: int = 5) -> TinyPipeline:
    from diffusers import (
        AnimateDiffPipeline,
        AutoencoderKL,
        DDIMScheduler,
        MotionAdapter,
        UNet2DConditionModel,
    )

    unet = seeded(
        lambda: UNet2DConditionModel(
            block_out_channels=(8, 8),
            layers_per_block=1,
            sample_size=8,
            in_channels=4,
            out_channels=4,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            cross_attention_dim=32,
            norm_num_groups=2,
        )
    )
    vae = seeded(
        lambda: AutoencoderKL(
            block_out_channels=(8, 8),
            in_channels=3,
            out_channels=3,
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            latent_channels=4,
            norm_num_groups=2,
        )
    )
    adapter = seeded(
        lambda: MotionAdapter(
            block_out_channels=(8, 8),
            motion_layers_per_block=1,
            motion_norm_num_groups=2,
            motion_num_attention_heads=4,
        )
    )
    pipe = AnimateDiffPipeline(
        vae=vae,
        text_encoder=None,
        tokenizer=None,
        unet=unet,
        motion_adapter=adapter,
        scheduler=DDIMScheduler(beta_schedule="linear", clip_sample=False),
    )
    return TinyPipeline(
        quiet(pipe),
        {
            "height": 8,
            "width": 16,
            "num_frames": num_frames,
            "num_inference_steps": num_steps,
            "output_type": "latent",
        },
        {"prompt_embeds": random(batch, 7, 32, seed=1)},
        {"negative_prompt_embeds": random(batch, 7, 32, seed=2)},
    )
