"""Video transformers: Wan, LTX, CogVideoX, Mochi, HunyuanVideo."""

import torch
from tiny_base import TinyPipeline, quiet, random, seeded


def wan(batch: int = 2, num_steps: int = 3, num_frames: int = 9) -> TinyPipeline:
    from diffusers import (
        AutoencoderKLWan,
        FlowMatchEulerDiscreteScheduler,
        WanPipeline,
    )

    vae = seeded(
        lambda: AutoencoderKLWan(
            base_dim=3,
            z_dim=16,
            dim_mult=[1, 1, 1, 1],
            num_res_blocks=1,
            temperal_downsample=[False, True, True],
        )
    )
    pipe = WanPipeline(
        tokenizer=None,
        text_encoder=None,
        transformer=seeded(wan_transformer),
        transformer_2=None,
        vae=vae,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=7.0),
    )
    return TinyPipeline(
        quiet(pipe),
        {
            "height": 16,
            "width": 32,
            "num_frames": num_frames,
            "num_inference_steps": num_steps,
            "output_type": "latent",
        },
        {"prompt_embeds": random(batch, 7, 32, seed=1)},
        {"negative_prompt_embeds": random(batch, 7, 32, seed=2)},
    )


def wan_transformer():
    from diffusers import WanTransformer3DModel

    return WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=16,
        out_channels=16,
        text_dim=32,
        freq_dim=256,
        ffn_dim=32,
        num_layers=2,
        cross_attn_norm=True,
        qk_norm="rms_norm_across_heads",
        rope_max_seq_len=32,
    )


def ltx(batch: int = 2, num_steps: int = 3, num_frames: int = 9) -> TinyPipeline:
    from diffusers import (
        AutoencoderKLLTXVideo,
        FlowMatchEulerDiscreteScheduler,
        LTXPipeline,
        LTXVideoTransformer3DModel,
    )

    transformer = seeded(
        lambda: LTXVideoTransformer3DModel(
            in_channels=8,
            out_channels=8,
            patch_size=1,
            patch_size_t=1,
            num_attention_heads=4,
            attention_head_dim=8,
            cross_attention_dim=32,
            num_layers=1,
            caption_channels=32,
        )
    )
    vae = seeded(
        lambda: AutoencoderKLLTXVideo(
            in_channels=3,
            out_channels=3,
            latent_channels=8,
            block_out_channels=(8, 8, 8, 8),
            decoder_block_out_channels=(8, 8, 8, 8),
            layers_per_block=(1, 1, 1, 1, 1),
            decoder_layers_per_block=(1, 1, 1, 1, 1),
            spatio_temporal_scaling=(True, True, False, False),
            decoder_spatio_temporal_scaling=(True, True, False, False),
            decoder_inject_noise=(False,) * 5,
            upsample_residual=(False,) * 4,
            upsample_factor=(1,) * 4,
            timestep_conditioning=False,
            patch_size=1,
            patch_size_t=1,
            encoder_causal=True,
            decoder_causal=False,
        )
    )
    vae.use_framewise_encoding = vae.use_framewise_decoding = False
    pipe = LTXPipeline(
        tokenizer=None,
        text_encoder=None,
        transformer=transformer,
        vae=vae,
        scheduler=FlowMatchEulerDiscreteScheduler(),
    )
    mask = torch.ones(batch, 6, dtype=torch.bool)
    mask[0, 4:] = False
    return TinyPipeline(
        quiet(pipe),
        {
            "height": 32,
            "width": 64,
            "num_frames": num_frames,
            "num_inference_steps": num_steps,
            "output_type": "latent",
        },
        {"prompt_embeds": random(batch, 6, 32, seed=1), "prompt_attention_mask": mask},
        {
            "negative_prompt_embeds": random(batch, 6, 32, seed=2),
            "negative_prompt_attention_mask": torch.ones(batch, 6, dtype=torch.bool),
        },
    )


def cogvideox(
    batch: int = 2, num_steps: int = 3, num_frames: int = 8, patch_size_t: int | None = None
) -> TinyPipeline:
    from diffusers import (
        AutoencoderKLCogVideoX,
        CogVideoXPipeline,
        CogVideoXTransformer3DModel,
        DDIMScheduler,
    )

    transformer = seeded(
        lambda: CogVideoXTransformer3DModel(
            num_attention_heads=4,
            attention_head_dim=8 if patch_size_t is None else 16,
            in_channels=4,
            out_channels=4,
            time_embed_dim=2,
            text_embed_dim=32,
            num_layers=1,
            sample_width=4,
            sample_height=2,
            sample_frames=9,
            patch_size=2,
            patch_size_t=patch_size_t,
            temporal_compression_ratio=4,
            max_text_seq_length=16,
            use_rotary_positional_embeddings=patch_size_t is not None,
        )
    )
    vae = seeded(
        lambda: AutoencoderKLCogVideoX(
            in_channels=3,
            out_channels=3,
            down_block_types=("CogVideoXDownBlock3D",) * 4,
            up_block_types=("CogVideoXUpBlock3D",) * 4,
            block_out_channels=(8, 8, 8, 8),
            latent_channels=4,
            layers_per_block=1,
            norm_num_groups=2,
            temporal_compression_ratio=4,
        )
    )
    pipe = CogVideoXPipeline(
        tokenizer=None,
        text_encoder=None,
        transformer=transformer,
        vae=vae,
        scheduler=DDIMScheduler(),
    )
    return TinyPipeline(
        quiet(pipe),
        {
            "height": 16,
            "width": 32,
            "num_frames": num_frames,
            "num_inference_steps": num_steps,
            "max_sequence_length": 16,
            "output_type": "latent",
        },
        {"prompt_embeds": random(batch, 16, 32, seed=1)},
        {"negative_prompt_embeds": random(batch, 16, 32, seed=2)},
    )


def mochi(batch: int = 2, num_steps: int = 3, num_frames: int = 7) -> TinyPipeline:
    from diffusers import (
        AutoencoderKLMochi,
        FlowMatchEulerDiscreteScheduler,
        MochiPipeline,
        MochiTransformer3DModel,
    )

    transformer = seeded(
        lambda: MochiTransformer3DModel(
            patch_size=2,
            num_attention_heads=2,
            attention_head_dim=8,
            num_layers=2,
            pooled_projection_dim=16,
            in_channels=12,
            out_channels=None,
            qk_norm="rms_norm",
            text_embed_dim=32,
            time_embed_dim=4,
            activation_fn="swiglu",
            max_sequence_length=16,
        )
    )
    transformer.pos_frequencies.data = torch.zeros_like(transformer.pos_frequencies)
    vae = seeded(
        lambda: AutoencoderKLMochi(
            latent_channels=12,
            out_channels=3,
            encoder_block_out_channels=(32,) * 4,
            decoder_block_out_channels=(32,) * 4,
            layers_per_block=(1, 1, 1, 1, 1),
        )
    )
    pipe = MochiPipeline(
        tokenizer=None,
        text_encoder=None,
        transformer=transformer,
        vae=vae,
        scheduler=FlowMatchEulerDiscreteScheduler(invert_sigmas=True),
    )
    mask = torch.ones(batch, 6, dtype=torch.bool)
    mask[0, 4:] = False
    return TinyPipeline(
        quiet(pipe),
        {
            "height": 16,
            "width": 32,
            "num_frames": num_frames,
            "num_inference_steps": num_steps,
            "output_type": "latent",
        },
        {"prompt_embeds": random(batch, 6, 32, seed=1), "prompt_attention_mask": mask},
        {
            "negative_prompt_embeds": random(batch, 6, 32, seed=2),
            "negative_prompt_attention_mask": torch.ones(batch, 6, dtype=torch.bool),
        },
    )


def hunyuan_video(batch: int = 2, num_steps: int = 3, num_frames: int = 9) -> TinyPipeline:
    from diffusers import (
        AutoencoderKLHunyuanVideo,
        FlowMatchEulerDiscreteScheduler,
        HunyuanVideoPipeline,
        HunyuanVideoTransformer3DModel,
    )

    transformer = seeded(
        lambda: HunyuanVideoTransformer3DModel(
            in_channels=4,
            out_channels=4,
            num_attention_heads=2,
            attention_head_dim=10,
            num_layers=1,
            num_single_layers=1,
            num_refiner_layers=1,
            patch_size=1,
            patch_size_t=1,
            guidance_embeds=True,
            text_embed_dim=16,
            pooled_projection_dim=8,
            rope_axes_dim=(2, 4, 4),
        )
    )
    vae = seeded(
        lambda: AutoencoderKLHunyuanVideo(
            in_channels=3,
            out_channels=3,
            latent_channels=4,
            down_block_types=("HunyuanVideoDownBlock3D",) * 4,
            up_block_types=("HunyuanVideoUpBlock3D",) * 4,
            block_out_channels=(8, 8, 8, 8),
            layers_per_block=1,
            act_fn="silu",
            norm_num_groups=4,
            scaling_factor=0.476986,
            spatial_compression_ratio=8,
            temporal_compression_ratio=4,
            mid_block_add_attention=True,
        )
    )
    pipe = HunyuanVideoPipeline(
        text_encoder=None,
        tokenizer=None,
        text_encoder_2=None,
        tokenizer_2=None,
        transformer=transformer,
        vae=vae,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=7.0),
    )
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
            "pooled_prompt_embeds": random(batch, 8, seed=3),
            "prompt_attention_mask": mask,
        },
        {
            "negative_prompt_embeds": random(batch, 6, 16, seed=2),
            "negative_pooled_prompt_embeds": random(batch, 8, seed=4),
            "negative_prompt_attention_mask": torch.ones(batch, 6),
        },
        scale_argument="true_cfg_scale",
    )
