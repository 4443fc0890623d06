"""HunyuanVideo-1.5 (guider based) and LTX-2 (video and audio)."""

import torch
from tiny_base import TinyPipeline, quiet, random, seeded


def _guider_scale(pipe, scale: float) -> dict:
    from diffusers.guiders import ClassifierFreeGuidance

    pipe.guider = ClassifierFreeGuidance(guidance_scale=scale)
    return {}


def hunyuan_video15(batch: int = 2, num_steps: int = 3, num_frames: int = 5) -> TinyPipeline:
    from diffusers import (
        AutoencoderKLHunyuanVideo15,
        FlowMatchEulerDiscreteScheduler,
        HunyuanVideo15Pipeline,
        HunyuanVideo15Transformer3DModel,
    )
    from diffusers.guiders import ClassifierFreeGuidance

    transformer = seeded(
        lambda: HunyuanVideo15Transformer3DModel(
            in_channels=9,
            out_channels=4,
            num_attention_heads=2,
            attention_head_dim=8,
            num_layers=1,
            num_refiner_layers=1,
            mlp_ratio=2.0,
            patch_size=1,
            patch_size_t=1,
            text_embed_dim=16,
            text_embed_2_dim=32,
            image_embed_dim=12,
            rope_axes_dim=(2, 2, 4),
            target_size=16,
            task_type="t2v",
        ).eval()
    )
    vae = seeded(
        lambda: AutoencoderKLHunyuanVideo15(
            in_channels=3,
            out_channels=3,
            latent_channels=4,
            block_out_channels=(16, 16),
            layers_per_block=1,
            spatial_compression_ratio=4,
            temporal_compression_ratio=2,
            downsample_match_channel=False,
            upsample_match_channel=False,
        ).eval()
    )
    pipe = HunyuanVideo15Pipeline(
        text_encoder=None,
        tokenizer=None,
        text_encoder_2=None,
        tokenizer_2=None,
        transformer=transformer,
        vae=vae,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=7.0),
        guider=ClassifierFreeGuidance(guidance_scale=1.0),
    )
    pipe.vision_num_semantic_tokens = 3
    mask = torch.ones(batch, 6)
    mask[0, 4:] = 0
    return TinyPipeline(
        quiet(pipe),
        {
            "height": 16,
            "width": 32,
            "num_frames": num_frames,
            "num_inference_steps": num_steps,
            "output_type": "latent",
        },
        {
            "prompt_embeds": random(batch, 6, 16, seed=1),
            "prompt_embeds_mask": mask,
            "prompt_embeds_2": random(batch, 4, 32, seed=3),
            "prompt_embeds_mask_2": torch.ones(batch, 4),
        },
        {
            "negative_prompt_embeds": random(batch, 6, 16, seed=2),
            "negative_prompt_embeds_mask": torch.ones(batch, 6),
            "negative_prompt_embeds_2": random(batch, 4, 32, seed=4),
            "negative_prompt_embeds_mask_2": torch.ones(batch, 4),
        },
        own=_guider_scale,
    )


def ltx2(
    batch: int = 2, num_steps: int = 3, num_frames: int = 5, perturbs_itself: bool = False
) -> TinyPipeline:
    from diffusers import (
        AutoencoderKLLTX2Audio,
        AutoencoderKLLTX2Video,
        FlowMatchEulerDiscreteScheduler,
        LTX2Pipeline,
        LTX2VideoTransformer3DModel,
    )
    from diffusers.pipelines.ltx2 import LTX2TextConnectors

    transformer = seeded(
        lambda: LTX2VideoTransformer3DModel(
            in_channels=4,
            out_channels=4,
            patch_size=1,
            patch_size_t=1,
            num_attention_heads=2,
            attention_head_dim=8,
            cross_attention_dim=16,
            audio_in_channels=4,
            audio_out_channels=4,
            audio_num_attention_heads=2,
            audio_attention_head_dim=4,
            audio_cross_attention_dim=8,
            num_layers=1,
            qk_norm="rms_norm_across_heads",
            perturbed_attn=perturbs_itself,
            caption_channels=8,
            rope_double_precision=False,
            rope_type="split",
        )
    )
    connectors = seeded(
        lambda: LTX2TextConnectors(
            caption_channels=8,
            text_proj_in_factor=3,
            video_connector_num_attention_heads=2,
            video_connector_attention_head_dim=4,
            video_connector_num_layers=1,
            video_connector_num_learnable_registers=None,
            audio_connector_num_attention_heads=2,
            audio_connector_attention_head_dim=4,
            audio_connector_num_layers=1,
            audio_connector_num_learnable_registers=None,
            connector_rope_base_seq_len=32,
            rope_theta=10000.0,
            rope_double_precision=False,
            causal_temporal_positioning=False,
            rope_type="split",
        )
    )
    vae = seeded(
        lambda: AutoencoderKLLTX2Video(
            in_channels=3,
            out_channels=3,
            latent_channels=4,
            block_out_channels=(8,),
            decoder_block_out_channels=(8,),
            layers_per_block=(1,),
            decoder_layers_per_block=(1, 1),
            spatio_temporal_scaling=(True,),
            decoder_spatio_temporal_scaling=(True,),
            decoder_inject_noise=(False, False),
            downsample_type=("spatial",),
            upsample_residual=(False,),
            upsample_factor=(1,),
            timestep_conditioning=False,
            patch_size=1,
            patch_size_t=1,
            encoder_causal=True,
            decoder_causal=False,
        )
    )
    audio_vae = seeded(
        lambda: AutoencoderKLLTX2Audio(
            base_channels=4,
            output_channels=2,
            ch_mult=(1,),
            num_res_blocks=1,
            attn_resolutions=None,
            in_channels=2,
            resolution=32,
            latent_channels=2,
            norm_type="pixel",
            causality_axis="height",
            dropout=0.0,
            mid_block_add_attention=False,
            sample_rate=16000,
            mel_hop_length=160,
            is_causal=True,
            mel_bins=8,
        )
    )
    pipe = LTX2Pipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=vae,
        audio_vae=audio_vae,
        text_encoder=None,
        tokenizer=None,
        connectors=connectors,
        transformer=transformer,
        vocoder=None,
    )
    mask = torch.ones(batch, 6, dtype=torch.long)
    mask[0, :2] = 0
    off = {"stg_scale": 0.0, "modality_scale": 1.0, "guidance_rescale": 0.0}
    off |= {f"audio_{name}": value for name, value in off.items()}
    return TinyPipeline(
        quiet(pipe),
        {
            "height": 32,
            "width": 64,
            "num_frames": num_frames,
            "num_inference_steps": num_steps,
            "frame_rate": 25.0,
            "audio_guidance_scale": 1.0,
            "output_type": "latent",
        }
        | off,
        {"prompt_embeds": random(batch, 6, 24, seed=1), "prompt_attention_mask": mask},
        {
            "negative_prompt_embeds": random(batch, 6, 24, seed=2),
            "negative_prompt_attention_mask": torch.ones(batch, 6, dtype=torch.long),
        },
    )


def vocoder():
    """For the spectrograms of `ltx2`: two channels of eight bins."""
    from diffusers.pipelines.ltx2 import LTX2Vocoder

    return seeded(
        lambda: LTX2Vocoder(
            in_channels=16,
            hidden_channels=32,
            out_channels=2,
            upsample_kernel_sizes=[4, 4],
            upsample_factors=[2, 2],
            resnet_kernel_sizes=[3],
            resnet_dilations=[[1, 3, 5]],
            leaky_relu_negative_slope=0.1,
            output_sampling_rate=16000,
        ).eval()
    )
