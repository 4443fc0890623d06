"""Variants of the Wan and CogVideoX pipelines: image to video, experts, derivatives."""

from dataclasses import replace

import torch
from PIL import Image
from tiny_base import TinyPipeline, image_processor, quiet, random, rebuilt, seeded, vision_encoder
from tiny_video import cogvideox, wan, wan_transformer


def _wan_variant(changes: dict, batch: int, num_steps: int, num_frames: int):
    """`wan` with some arguments of the transformer, the VAE or the pipeline changed."""
    from diffusers import AutoencoderKLWan

    base = wan(batch, num_steps, num_frames)
    pipe = base.pipe
    if "transformer" in changes:
        pipe.transformer = rebuilt(pipe.transformer, **changes["transformer"])
    if "vae" in changes:
        pipe.vae = seeded(lambda: AutoencoderKLWan(**changes["vae"]))
    return base


def wan22(batch: int = 2, num_steps: int = 4, num_frames: int = 9) -> TinyPipeline:
    """Two experts; the boundary lies between the second and the third of four steps."""
    from diffusers import UniPCMultistepScheduler, WanPipeline

    base = wan(batch, num_steps, num_frames)
    parts = base.pipe.components
    scheduler = UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
    )
    torch.manual_seed(1)
    parts |= {"transformer_2": wan_transformer(), "scheduler": scheduler}
    return replace(base, pipe=quiet(WanPipeline(**parts, boundary_ratio=0.875)))


def _image(batch: int, height: int, width: int):
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(5))


def wan_i2v(batch: int = 2, num_steps: int = 3, num_frames: int = 9) -> TinyPipeline:
    """Wan 2.1 image to video: condition channels behind the latents, image embeddings."""
    from diffusers import WanImageToVideoPipeline

    changes = {"transformer": {"in_channels": 36, "image_dim": 6, "added_kv_proj_dim": 24}}
    base = _wan_variant(changes, batch, num_steps, num_frames)
    vision = {"image_encoder": vision_encoder(6), "image_processor": image_processor()}
    pipe = WanImageToVideoPipeline(**base.pipe.components, **vision)
    return replace(base, pipe=quiet(pipe), shape=base.shape | {"image": _image(1, 16, 32)})


def wan_first_last(batch: int = 2, num_steps: int = 3, num_frames: int = 9) -> TinyPipeline:
    """Wan 2.1 from a first to a last frame: two rows of image embeddings per sample."""
    base = wan_i2v(batch, num_steps, num_frames)
    parts = base.pipe.components
    # Two images of four patches and a class token.
    parts["transformer"] = rebuilt(parts["transformer"], pos_embed_seq_len=10)
    places = parts["transformer"].condition_embedder.image_embedder.pos_embed
    places.data = random(*places.shape, seed=7)
    pictures = [Image.fromarray(p) for p in (_image(2, 16, 32) * 255).byte().movedim(1, 3).numpy()]
    shape = base.shape | {"image": pictures[0], "last_image": pictures[1]}
    return replace(base, pipe=quiet(type(base.pipe)(**parts)), shape=shape)


def wan_ti2v_5b(batch: int = 2, num_steps: int = 3, num_frames: int = 9) -> TinyPipeline:
    """Wan 2.2 TI2V-5B: a timestep for every token."""
    from diffusers import WanPipeline

    vae = {
        "base_dim": 3,
        "z_dim": 48,
        "in_channels": 12,
        "out_channels": 12,
        "is_residual": True,
        "patch_size": 2,
        "latents_mean": [0.0] * 48,
        "latents_std": [1.0] * 48,
        "dim_mult": [1, 1, 1, 1],
        "num_res_blocks": 1,
        "scale_factor_spatial": 16,
        "scale_factor_temporal": 4,
        "temperal_downsample": [False, True, True],
    }
    changes = {"vae": vae, "transformer": {"in_channels": 48, "out_channels": 48}}
    base = _wan_variant(changes, batch, num_steps, num_frames)
    pipe = WanPipeline(**base.pipe.components, expand_timesteps=True)
    return replace(base, pipe=quiet(pipe), shape=base.shape | {"height": 32, "width": 64})


def skyreels_v2(batch: int = 2, num_steps: int = 3, num_frames: int = 9) -> TinyPipeline:
    """SkyReels-V2 text to video."""
    from diffusers import SkyReelsV2Pipeline, SkyReelsV2Transformer3DModel, UniPCMultistepScheduler

    base = wan(batch, num_steps, num_frames)
    parts = {name: base.pipe.components[name] for name in ("tokenizer", "text_encoder", "vae")}
    transformer = seeded(
        lambda: SkyReelsV2Transformer3DModel(
            patch_size=(1, 2, 2),
            num_attention_heads=2,
            attention_head_dim=12,
            in_channels=16,
            out_channels=16,
            text_dim=32,
            freq_dim=256,
            ffn_dim=32,
            num_layers=1,
            cross_attn_norm=True,
            qk_norm="rms_norm_across_heads",
            rope_max_seq_len=32,
        )
    )
    scheduler = UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=8.0
    )
    pipe = SkyReelsV2Pipeline(**parts, transformer=transformer, scheduler=scheduler)
    return replace(base, pipe=quiet(pipe))


def cogvideox15(batch: int = 2, num_steps: int = 3, num_frames: int = 9) -> TinyPipeline:
    """CogVideoX 1.5: latents padded at the front, the model's own multistep scheduler."""
    from diffusers import CogVideoXDPMScheduler

    base = cogvideox(batch, num_steps, num_frames, patch_size_t=2)
    base.pipe.scheduler = CogVideoXDPMScheduler(prediction_type="v_prediction")
    return base


def cogvideox_i2v(batch: int = 2, num_steps: int = 3, num_frames: int = 9) -> TinyPipeline:
    """CogVideoX image to video: image latents behind the noisy ones."""
    from diffusers import CogVideoXImageToVideoPipeline

    base = cogvideox(batch, num_steps, num_frames)
    base.pipe.transformer = rebuilt(
        base.pipe.transformer,
        in_channels=8,
        attention_head_dim=16,
        use_rotary_positional_embeddings=True,
    )
    pipe = CogVideoXImageToVideoPipeline(**base.pipe.components)
    positive = base.positive | {"image": _image(batch, 16, 32)}
    return replace(base, pipe=quiet(pipe), positive=positive)
