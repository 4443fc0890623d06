"""Further video families: those around a Wan VAE, Allegro, Latte, Kandinsky 5, EasyAnimate."""

from dataclasses import replace
from inspect import signature

import numpy as np
import torch
from class_checks import TinyClass
from tiny_base import TinyPipeline, image_processor, quiet, random, seeded, vision_encoder
from tiny_images import _vae
from tiny_streams import _guider_scale
from tiny_twins import config_of, image, picture, twin
from tiny_video import cogvideox, hunyuan_video, wan

from vidcfg.guidance.frame_map import OneToOneMap

_SHAPE = {"height": 16, "width": 32, "num_inference_steps": 2, "output_type": "latent"}


def _texts(width: int, *, has_mask: bool = False, batch: int = 2, length: int = 6):
    """Embeddings of prompts and of negative ones; a mask hides the end of the first prompt."""
    positive = {"prompt_embeds": random(batch, length, width, seed=1)}
    negative = {"negative_prompt_embeds": random(batch, length, width, seed=2)}
    if has_mask:
        negative["negative_prompt_attention_mask"] = torch.ones(batch, length, dtype=torch.long)
        positive["prompt_attention_mask"] = torch.ones(batch, length, dtype=torch.long)
        positive["prompt_attention_mask"][0, 4:] = 0
    return positive, negative


def allegro() -> TinyClass:
    from diffusers import (
        AllegroPipeline,
        AllegroTransformer3DModel,
        AutoencoderKLAllegro,
        DDIMScheduler,
    )

    transformer = seeded(
        lambda: AllegroTransformer3DModel(
            num_attention_heads=2,
            attention_head_dim=12,
            in_channels=4,
            out_channels=4,
            num_layers=1,
            cross_attention_dim=24,
            sample_width=8,
            sample_height=8,
            sample_frames=8,
            caption_channels=32,
        )
    )
    vae = seeded(
        lambda: AutoencoderKLAllegro(
            down_block_types=("AllegroDownBlock3D",) * 4,
            up_block_types=("AllegroUpBlock3D",) * 4,
            block_out_channels=(8, 8, 8, 8),
            latent_channels=4,
            layers_per_block=1,
            norm_num_groups=2,
        )
    )
    pipe = AllegroPipeline(None, None, vae, transformer, DDIMScheduler())
    texts = _texts(32, has_mask=True)
    tiny = TinyPipeline(quiet(pipe), _SHAPE | {"num_frames": 12, "negative_prompt": None}, *texts)
    return TinyClass(tiny, "BCFHW", (4, 4, 4))


def latte() -> TinyClass:
    """With a learned variance behind the prediction."""
    from diffusers import DDIMScheduler, LattePipeline, LatteTransformer3DModel

    transformer = seeded(
        lambda: LatteTransformer3DModel(
            sample_size=8,
            num_layers=1,
            patch_size=2,
            attention_head_dim=8,
            num_attention_heads=3,
            caption_channels=32,
            in_channels=4,
            cross_attention_dim=24,
            out_channels=8,
            attention_bias=True,
            activation_fn="gelu-approximate",
            num_embeds_ada_norm=1000,
            norm_type="ada_norm_single",
            norm_elementwise_affine=False,
            norm_eps=1e-6,
            video_length=3,
        ).eval()
    )
    pipe = LattePipeline(None, None, _vae(), transformer, DDIMScheduler())
    tiny = TinyPipeline(
        quiet(pipe),
        _SHAPE | {"video_length": 3, "negative_prompt": None, "mask_feature": False},
        *_texts(32),
    )
    return TinyClass(tiny, "BCFHW", (1, 1, 1))


def sana_video(name: str = "SanaVideoPipeline") -> TinyClass:
    import diffusers

    transformer = seeded(
        lambda: diffusers.SanaVideoTransformer3DModel(
            in_channels=16,
            out_channels=16,
            num_attention_heads=2,
            attention_head_dim=12,
            num_layers=1,
            num_cross_attention_heads=2,
            cross_attention_head_dim=12,
            cross_attention_dim=24,
            caption_channels=8,
            mlp_ratio=2.5,
            sample_size=8,
            patch_size=(1, 2, 2),
            qk_norm="rms_norm_across_heads",
            rope_max_seq_len=32,
        )
    )
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=7.0)
    pipe = getattr(diffusers, name)(None, None, wan().pipe.vae, transformer, scheduler)
    shape = _SHAPE | {"frames": 9, "use_resolution_binning": False, "negative_prompt": None}
    shape |= {"height": 32, "width": 64}
    tiny = TinyPipeline(quiet(pipe), shape, *_texts(8, has_mask=True))
    return TinyClass(tiny, "BCFHW", (1, 4, 4))


def sana_video_i2v() -> TinyClass:
    case = sana_video("SanaImageToVideoPipeline")
    positive = case.tiny.positive | {"image": image(1, 32, 64)}
    return replace(case, tiny=replace(case.tiny, positive=positive))


def chronoedit() -> TinyClass:
    from diffusers import ChronoEditTransformer3DModel

    base = wan(num_steps=2, num_frames=5)
    settings = config_of(base.pipe.transformer) | {"in_channels": 36, "image_dim": 6}
    tiny = twin(
        base,
        "ChronoEditPipeline",
        positive={"image": picture()},
        transformer=seeded(lambda: ChronoEditTransformer3DModel(**settings)),
        image_encoder=vision_encoder(6),
        image_processor=image_processor(),
    )
    return TinyClass(tiny, "BCFHW", (1, 4))


def consisid() -> TinyClass:
    """One identity for all samples of a batch, as the stock pipeline has it."""
    from diffusers import ConsisIDTransformer3DModel

    base = cogvideox(num_steps=2, num_frames=9)
    settings = config_of(base.pipe.transformer) | {
        "in_channels": 8,
        "attention_head_dim": 16,
        "num_attention_heads": 2,
        "use_rotary_positional_embeddings": True,
        "cross_attn_interval": 1,
        "is_train_face": True,
        "cross_attn_dim_head": 1,
        "cross_attn_num_heads": 1,
        "LFE_id_dim": 2,
        "LFE_vit_dim": 2,
        "LFE_depth": 5,
        "LFE_dim_head": 8,
        "LFE_num_heads": 2,
        "LFE_num_id_token": 1,
        "LFE_num_querie": 1,
        "LFE_output_dim": 21,
        "LFE_ff_mult": 1,
        "LFE_num_scale": 1,
    }
    settings.pop("patch_size_t"), settings.pop("patch_bias"), settings.pop("ofs_embed_dim")
    tiny = twin(
        base,
        "ConsisIDPipeline",
        positive={
            "image": image(2),
            "id_vit_hidden": [random(1, 2, 2, seed=6)],
            "id_cond": random(1, 2, seed=7),
        },
        transformer=seeded(lambda: ConsisIDTransformer3DModel(**settings).eval()),
    )
    return TinyClass(tiny, "BFCHW", (1, 4, 4))


def kandinsky5(name: str = "Kandinsky5T2VPipeline", **changes) -> TinyClass:
    """The negative texts are longer than the prompts."""
    import diffusers

    transformer = seeded(
        lambda: diffusers.Kandinsky5Transformer3DModel(
            in_visual_dim=4,
            in_text_dim=32,
            in_text_dim2=16,
            time_dim=16,
            out_visual_dim=4,
            patch_size=(1, 2, 2),
            model_dim=16,
            ff_dim=32,
            num_text_blocks=1,
            num_visual_blocks=1,
            axes_dims=(1, 1, 2),
            attention_type="regular",
            **changes,
        )
    )
    base = hunyuan_video(num_steps=2, num_frames=5)
    names = ("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2")
    pipe = getattr(diffusers, name)(
        transformer=transformer,
        vae=base.pipe.vae,
        scheduler=base.pipe.scheduler,
        **dict.fromkeys(names),
    )

    def own(pipe, scale):
        lengths = torch.tensor([0, 8, 16])
        return {"guidance_scale": scale} | (
            {"negative_prompt_cu_seqlens": lengths} if scale != 1.0 else {}
        )

    tiny = TinyPipeline(
        quiet(pipe),
        base.shape,
        {
            "prompt_embeds_qwen": random(2, 6, 32, seed=1),
            "prompt_embeds_clip": random(2, 16, seed=3),
            "prompt_cu_seqlens": torch.tensor([0, 6, 12]),
        },
        {
            "negative_prompt_embeds_qwen": random(2, 8, 32, seed=2),
            "negative_prompt_embeds_clip": random(2, 16, seed=4),
        },
        own=own,
    )
    return TinyClass(tiny, "BFHWC", (1, 4))


def kandinsky5_i2v() -> TinyClass:
    case = kandinsky5("Kandinsky5I2VPipeline", visual_cond=True)
    tiny = replace(case.tiny, positive=case.tiny.positive | {"image": image(2)})
    tiny.shape["num_frames"] = 21  # the first four latents are normalised by those behind them
    return replace(case, tiny=tiny, pixels=(1, 4, 4, 4, 4, 4))


def motif_video(name: str = "MotifVideoPipeline", batch: int = 2) -> TinyClass:
    import diffusers
    from diffusers.guiders import ClassifierFreeGuidance

    transformer = seeded(
        lambda: diffusers.MotifVideoTransformer3DModel(
            in_channels=33,
            out_channels=16,
            num_attention_heads=2,
            attention_head_dim=12,
            num_layers=1,
            num_single_layers=1,
            mlp_ratio=2.0,
            patch_size=1,
            patch_size_t=1,
            qk_norm="rms_norm",
            text_embed_dim=32,
            rope_axes_dim=(4, 4, 4),
        )
    )
    base = wan(num_steps=2, num_frames=5)
    pipe = getattr(diffusers, name)(
        scheduler=base.pipe.scheduler,
        vae=base.pipe.vae,
        text_encoder=None,
        tokenizer=None,
        transformer=transformer,
        guider=ClassifierFreeGuidance(guidance_scale=1.0),
        feature_extractor=None,
    )
    texts = _texts(32, has_mask=True, batch=batch)
    tiny = TinyPipeline(quiet(pipe), base.shape, *texts, own=_guider_scale)
    return TinyClass(tiny, "BCFHW", (1, 4))


def motif_video_i2v() -> TinyClass:
    """The pipeline makes one video at a time."""
    case = motif_video("MotifVideoImage2VideoPipeline", batch=1)
    positive = case.tiny.positive | {"image": picture(), "prompt": None}
    return replace(case, tiny=replace(case.tiny, positive=positive), one_generator=True)


def easyanimate(name: str = "EasyAnimatePipeline", further=None, **changes) -> TinyClass:
    import diffusers

    transformer = seeded(
        lambda: diffusers.EasyAnimateTransformer3DModel(
            **{
                "num_attention_heads": 2,
                "attention_head_dim": 16,
                "in_channels": 4,
                "out_channels": 4,
                "time_embed_dim": 2,
                "text_embed_dim": 16,
                "num_layers": 1,
                "sample_width": 16,
                "sample_height": 16,
                "patch_size": 2,
            }
            | changes
        )
    )
    vae = seeded(
        lambda: diffusers.AutoencoderKLMagvit(
            down_block_types=("SpatialDownBlock3D",) + ("SpatialTemporalDownBlock3D",) * 3,
            up_block_types=("SpatialUpBlock3D",) + ("SpatialTemporalUpBlock3D",) * 3,
            block_out_channels=(8, 8, 8, 8),
            latent_channels=4,
            layers_per_block=1,
            norm_num_groups=2,
            spatial_group_norm=False,
        )
    )
    pipe = getattr(diffusers, name)(
        text_encoder=None,
        tokenizer=None,
        transformer=transformer,
        vae=vae,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
    )
    positive, negative = _texts(16)
    positive |= {"prompt_attention_mask": torch.ones(2, 6)} | (further or {})

    def own(pipe, scale):
        masks = {"negative_prompt_attention_mask": torch.ones(2, 6)}
        return {"guidance_scale": scale} | (masks if scale != 1.0 else {})

    tiny = TinyPipeline(quiet(pipe), _SHAPE | {"num_frames": 9}, positive, negative, own=own)
    return TinyClass(tiny, "BCFHW", (1, 4, 4), one_generator=bool(further))


def easyanimate_inpaint() -> TinyClass:
    video = {
        "video": image(2 * 9).reshape(2, 3, 9, 16, 32),
        "mask_video": (image(2 * 3).reshape(2, 1, 9, 16, 32) > 0.5).float(),
    }
    return easyanimate(
        "EasyAnimateInpaintPipeline", video, in_channels=12, resize_inpaint_mask_directly=False
    )


def helios() -> TinyClass:
    """Two chunks of two latents, behind the history of the first."""
    from diffusers import HeliosScheduler, HeliosTransformer3DModel

    base = wan(num_steps=2, num_frames=10)
    taken = signature(HeliosTransformer3DModel).parameters
    settings = {n: v for n, v in config_of(base.pipe.transformer).items() if n in taken}
    settings |= {"rope_dim": (4, 4, 4)}
    parts = {
        "transformer": seeded(lambda: HeliosTransformer3DModel(**settings)),
        "scheduler": HeliosScheduler(stages=1, stage_range=[0, 1], gamma=1 / 3),
    }
    tiny = twin(base, "HeliosPipeline", positive={"num_latent_frames_per_chunk": 2}, **parts)

    def parts_of(strength):
        each = strength(10, OneToOneMap())
        chunks = [(each[:, s], each[:, s + 1 : s + 5].mean(1)) for s in (0, 5)]
        return [np.column_stack(columns) for columns in chunks]

    return TinyClass(tiny, "BCFHW", (1, 4), parts=parts_of)


MORE = {
    "HeliosPipeline": helios,
    "AllegroPipeline": allegro,
    "LattePipeline": latte,
    "SanaVideoPipeline": sana_video,
    "SanaImageToVideoPipeline": sana_video_i2v,
    "ChronoEditPipeline": chronoedit,
    "ConsisIDPipeline": consisid,
    "Kandinsky5T2VPipeline": kandinsky5,
    "Kandinsky5I2VPipeline": kandinsky5_i2v,
    "MotifVideoPipeline": motif_video,
    "MotifVideoImage2VideoPipeline": motif_video_i2v,
    "EasyAnimatePipeline": easyanimate,
    "EasyAnimateInpaintPipeline": easyanimate_inpaint,
}
