"""Cosmos 1, 2 and 2.5, whose stock scale is one less than ours."""

from dataclasses import replace

import torch
from class_checks import TinyClass
from diffusers.configuration_utils import ConfigMixin
from diffusers.models.modeling_utils import ModelMixin
from tiny_base import TinyPipeline, quiet, random, seeded
from tiny_twins import image, picture
from tiny_video import wan


class NothingChecked(ModelMixin, ConfigMixin):
    """In the place of the safety checker, whose weights are large."""

    def __init__(self):
        super().__init__()
        self.register_buffer("somewhere", torch.zeros(1))

    def check_text_safety(self, prompt):
        return True


def _own(pipe, scale):
    return {"guidance_scale": 1.0 if scale == 1.0 else scale - 1}


def _cosmos(name: str, vae, scheduler, channels: int, further=None) -> TinyClass:
    import diffusers

    condition = 0 if name == "CosmosTextToWorldPipeline" else 1
    transformer = seeded(
        lambda: diffusers.CosmosTransformer3DModel(
            in_channels=channels + condition,
            out_channels=channels,
            num_attention_heads=2,
            attention_head_dim=16,
            num_layers=1,
            mlp_ratio=2,
            text_embed_dim=32,
            adaln_lora_dim=4,
            max_size=(4, 32, 32),
            patch_size=(1, 2, 2),
            rope_scale=(2.0, 1.0, 1.0),
            concat_padding_mask=True,
            extra_pos_embed_type="learnable",
        )
    )
    pipe = getattr(diffusers, name)(
        text_encoder=None,
        tokenizer=None,
        transformer=transformer,
        vae=vae,
        scheduler=scheduler,
        safety_checker=NothingChecked(),
    )
    shape = {"height": 16, "width": 32, "num_frames": 9, "num_inference_steps": 2}
    tiny = TinyPipeline(
        quiet(pipe),
        shape | {"output_type": "latent"},
        {"prompt_embeds": random(2, 6, 32, seed=1)} | (further or {}),
        {"negative_prompt_embeds": random(2, 6, 32, seed=2)},
        own=_own,
    )
    return TinyClass(tiny, "BCFHW", (1, 4, 4))


def cosmos() -> TinyClass:
    from diffusers import AutoencoderKLCosmos, EDMEulerScheduler

    vae = seeded(
        lambda: AutoencoderKLCosmos(
            latent_channels=4,
            encoder_block_out_channels=(8, 8, 8, 8),
            decode_block_out_channels=(8, 8, 8, 8),
            attention_resolutions=(8,),
            resolution=64,
            num_layers=1,
            patch_size=4,
            patch_type="haar",
            temporal_compression_ratio=4,
            spatial_compression_ratio=4,
        )
    )
    # Not 80: from there the solver itself loses two digits, x - 80 (x - x0) / 80.
    scheduler = EDMEulerScheduler(
        sigma_min=0.002, sigma_max=2, sigma_data=0.5, final_sigmas_type="sigma_min"
    )
    return _cosmos("CosmosTextToWorldPipeline", vae, scheduler, 4)


def cosmos2() -> TinyClass:
    from diffusers import FlowMatchEulerDiscreteScheduler

    scheduler = FlowMatchEulerDiscreteScheduler(use_karras_sigmas=True)
    vae, images = wan().pipe.vae, {"image": image(2)}
    return _cosmos("Cosmos2VideoToWorldPipeline", vae, scheduler, 16, images)


def cosmos25() -> TinyClass:
    from diffusers import UniPCMultistepScheduler

    scheduler = UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
    )
    vae, images = wan().pipe.vae, {"image": picture()}
    case = _cosmos("Cosmos2_5_PredictBasePipeline", vae, scheduler, 16, images)
    return replace(case, one_generator=True)


COSMOS = {
    "CosmosTextToWorldPipeline": cosmos,
    "Cosmos2VideoToWorldPipeline": cosmos2,
    "Cosmos2_5_PredictBasePipeline": cosmos25,
}
