"""Image-to-video twins of pipelines that other files build."""

from dataclasses import replace
from inspect import signature

import numpy as np
import torch
from class_checks import TinyClass
from tiny_base import TinyPipeline, image_processor, quiet, seeded, vision_encoder
from tiny_streams import hunyuan_video15, ltx2
from tiny_video import cogvideox, hunyuan_video, ltx, wan
from tiny_wan import skyreels_v2

from vidcfg.guidance.frame_map import CausalMap, OneToOneMap


def config_of(model) -> dict:
    """The arguments that a model was made with."""
    return {name: value for name, value in model.config.items() if not name.startswith("_")}


def changed(model, **changes):
    """A model of the same class and arguments but for some of them."""
    return seeded(lambda: type(model)(**config_of(model) | changes).eval())


def twin(base: TinyPipeline, name: str, changes=None, positive=None, **parts) -> TinyPipeline:
    """`base` as the pipeline class `name`, its transformer changed, with further parts."""
    import diffusers

    cls = getattr(diffusers, name)
    parts = dict(base.pipe.components) | parts
    if changes:
        parts["transformer"] = changed(parts["transformer"], **changes)
    taken = signature(cls).parameters
    pipe = quiet(cls(**{name: part for name, part in parts.items() if name in taken}))
    return replace(base, pipe=pipe, positive=base.positive | (positive or {}))


def image(batch: int = 2, height: int = 16, width: int = 32):
    """Random images, another one for each sample."""
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(5))


def picture(height: int = 16, width: int = 32):
    """One random image of PIL."""
    from PIL import Image

    pixels = image(1, height, width)[0].mul(255).byte().permute(1, 2, 0).numpy()
    return Image.fromarray(pixels)


def ltx_i2v() -> TinyClass:
    tiny = twin(ltx(num_steps=2), "LTXImageToVideoPipeline", positive={"image": image(2, 32, 64)})
    return TinyClass(tiny, "tokens", (1, 4, 4))


def ltx_condition(positive=None, pixels=(1, 4, 4)) -> TinyClass:
    """With an image at frame 0, which replaces a latent frame."""
    positive = positive or {"image": image(1, 32, 64)}
    tiny = twin(ltx(num_steps=2), "LTXConditionPipeline", positive=positive)
    return TinyClass(tiny, "tokens", pixels)


def ltx_condition_later() -> TinyClass:
    """With an image at frame 4, whose tokens stand before the video."""
    positive = {"image": image(2, 32, 64), "frame_index": 4, "strength": 0.8}
    return ltx_condition(positive, (0, 1, 4, 4))


def skyreels_v2_i2v() -> TinyClass:
    tiny = twin(
        skyreels_v2(num_steps=2),
        "SkyReelsV2ImageToVideoPipeline",
        {"in_channels": 36, "image_dim": 6, "added_kv_proj_dim": 24},
        positive={"image": image(1)},
        image_encoder=vision_encoder(6),
        image_processor=image_processor(),
    )
    return TinyClass(tiny, "BCFHW", (1, 4, 4))


def hunyuan_video15_i2v() -> TinyClass:
    base = hunyuan_video15(num_steps=2)
    base.shape.pop("height"), base.shape.pop("width")
    tiny = twin(
        base,
        "HunyuanVideo15ImageToVideoPipeline",
        {"task_type": "i2v"},
        positive={"image": picture()},
        image_encoder=vision_encoder(12),
        feature_extractor=image_processor(),
    )
    return TinyClass(tiny, "BCFHW", (1, 2, 2))


def ltx2_i2v() -> TinyClass:
    positive = {"image": image(2, 32, 32), "image_crf": 0}
    tiny = twin(ltx2(num_steps=2), "LTX2ImageToVideoPipeline", positive=positive)
    tiny.shape["width"] = 32
    return TinyClass(tiny, "tokens", (1, 2, 2))


def ltx2_condition() -> TinyClass:
    """With an image at a later latent frame."""
    from diffusers.pipelines.ltx2.pipeline_ltx2_condition import LTX2VideoCondition

    condition = LTX2VideoCondition(frames=image(1, 32, 32), index=1, strength=1.0, crf=0)
    tiny = twin(ltx2(num_steps=2), "LTX2ConditionPipeline", positive={"conditions": [condition]})
    tiny.shape["width"] = 32
    return TinyClass(tiny, "tokens", (1, 2, 2, 0))


def hunyuan_video_i2v() -> TinyClass:
    tiny = twin(
        hunyuan_video(num_steps=2),
        "HunyuanVideoImageToVideoPipeline",
        {"in_channels": 9, "guidance_embeds": False, "image_condition_type": "latent_concat"},
        positive={"image": image(2)},
        image_processor=image_processor(),
    )
    return TinyClass(tiny, "BCFHW", (1, 4, 4))


def hunyuan_skyreels_i2v() -> TinyClass:
    tiny = twin(
        hunyuan_video(num_steps=2),
        "HunyuanSkyreelsImageToVideoPipeline",
        {"in_channels": 8},
        positive={"image": image(2)},
    )
    return TinyClass(tiny, "BCFHW", (1, 4, 4))


def hunyuan_video_i2v_replace() -> TinyClass:
    """The image replaces the first latent frame, whose time is another one."""
    tiny = twin(
        hunyuan_video(num_steps=2),
        "HunyuanVideoImageToVideoPipeline",
        {"image_condition_type": "token_replace"},
        positive={"image": image(2)},
        image_processor=image_processor(),
    )
    return TinyClass(tiny, "BCFHW", (1, 4, 4))


def framepack(sampling: str = "inverted_anti_drifting") -> TinyClass:
    """Two sections of two latents, the second one first, behind the latent of the image."""
    from diffusers import HunyuanVideoFramepackTransformer3DModel

    base = hunyuan_video(num_steps=2, num_frames=10)
    settings = config_of(base.pipe.transformer) | {
        "image_condition_type": None,
        "patch_size": 2,
        "has_image_proj": True,
        "image_proj_dim": 6,
        "has_clean_x_embedder": True,
    }
    tiny = twin(
        base,
        "HunyuanVideoFramepackPipeline",
        positive={"image": image(2), "latent_window_size": 2, "sampling_type": sampling},
        transformer=seeded(lambda: HunyuanVideoFramepackTransformer3DModel(**settings)),
        image_encoder=vision_encoder(6),
        feature_extractor=image_processor(),
    )
    places = [slice(3, 5), slice(1, 3)] if "inverted" in sampling else [slice(1, 3), slice(3, 5)]

    def parts(strength):
        whole = strength(17, CausalMap(4))
        return [whole[:, place] for place in places]

    return TinyClass(tiny, "BCFHW", (4, 4), parts=parts)


def framepack_forwards() -> TinyClass:
    return framepack("vanilla")


def cogvideox_fun_control() -> TinyClass:
    positive = {"control_video": image(2 * 9).reshape(2, 9, 3, 16, 32)}
    base = cogvideox(num_steps=2, num_frames=9)
    base.shape.pop("num_frames")
    tiny = twin(base, "CogVideoXFunControlPipeline", {"in_channels": 8}, positive)
    return TinyClass(tiny, "BFCHW", (1, 4, 4))


def wan_vace() -> TinyClass:
    """With two reference images before the video; the pipeline makes one video at a time."""
    from diffusers import WanVACETransformer3DModel

    base = wan(batch=1, num_steps=2, num_frames=5)
    settings = config_of(base.pipe.transformer) | {"vace_layers": [0, 1], "vace_in_channels": 96}
    tiny = twin(
        base,
        "WanVACEPipeline",
        positive={"reference_images": [picture(), picture(32, 16)]},
        transformer=seeded(lambda: WanVACETransformer3DModel(**settings)),
    )
    return TinyClass(tiny, "BCFHW", (0, 0, 1, 4), one_generator=True)


def wan_animate_segments() -> TinyClass:
    """Nine frames in two segments; the fifth is in both."""
    case = wan_animate()
    case.tiny.positive.update(pose_video=[picture()] * 9, face_video=[picture(16, 16)] * 9)

    def parts(strength):
        each = strength(9, OneToOneMap())
        segments = [(each[:, [s, s]], each[:, s + 1 : s + 5].mean(1)) for s in (0, 4)]
        return [np.column_stack(columns) for columns in segments]

    return replace(case, parts=parts)


def wan_animate() -> TinyClass:
    """One segment, behind the image of the character."""
    from diffusers import WanAnimateTransformer3DModel

    base = wan(num_steps=2, num_frames=5)
    settings = config_of(base.pipe.transformer) | {
        "in_channels": 36,
        "latent_channels": 16,
        "image_dim": 6,
        "motion_encoder_channel_sizes": {"4": 4, "8": 4, "16": 4},
        "motion_encoder_size": 16,
        "motion_style_dim": 8,
        "motion_dim": 4,
        "motion_encoder_dim": 16,
        "face_encoder_hidden_dim": 16,
        "face_encoder_num_heads": 2,
        "inject_face_latents_blocks": 2,
    }
    tiny = twin(
        base,
        "WanAnimatePipeline",
        positive={
            "image": picture(),
            "pose_video": [picture()] * 5,
            "face_video": [picture(16, 16)] * 5,
        },
        transformer=seeded(lambda: WanAnimateTransformer3DModel(**settings)),
        image_encoder=vision_encoder(6),
        image_processor=image_processor(),
    )
    tiny.shape["segment_frame_length"] = tiny.shape.pop("num_frames")
    return TinyClass(tiny, "BCFHW", (0, 1, 4))


def anyflow() -> TinyClass:
    from diffusers import AnyFlowTransformer3DModel, FlowMapEulerDiscreteScheduler

    base = wan(num_steps=2, num_frames=5)
    taken = signature(AnyFlowTransformer3DModel).parameters
    settings = {n: v for n, v in config_of(base.pipe.transformer).items() if n in taken}
    settings |= {"gate_value": 0.25, "deltatime_type": "r"}
    parts = {
        "transformer": seeded(lambda: AnyFlowTransformer3DModel(**settings)),
        "scheduler": FlowMapEulerDiscreteScheduler(shift=5.0),
    }
    return TinyClass(twin(base, "AnyFlowPipeline", **parts), "BFCHW", (1, 4))


def lucy_edit() -> TinyClass:
    """The pipeline makes one video at a time."""
    base = wan(batch=1, num_steps=2, num_frames=5)
    video = {"video": [picture()] * 5}
    tiny = twin(base, "LucyEditPipeline", {"in_channels": 32}, video)
    return TinyClass(tiny, "BCFHW", (1, 4), one_generator=True)


TWINS = {
    "AnyFlowPipeline": anyflow,
    "LucyEditPipeline": lucy_edit,
    "LTXImageToVideoPipeline": ltx_i2v,
    "LTXConditionPipeline": ltx_condition,
    "LTXConditionPipeline, later frame": ltx_condition_later,
    "SkyReelsV2ImageToVideoPipeline": skyreels_v2_i2v,
    "HunyuanVideo15ImageToVideoPipeline": hunyuan_video15_i2v,
    "LTX2ImageToVideoPipeline": ltx2_i2v,
    "LTX2ConditionPipeline": ltx2_condition,
    "HunyuanVideoImageToVideoPipeline": hunyuan_video_i2v,
    "HunyuanVideoImageToVideoPipeline, token_replace": hunyuan_video_i2v_replace,
    "HunyuanSkyreelsImageToVideoPipeline": hunyuan_skyreels_i2v,
    "CogVideoXFunControlPipeline": cogvideox_fun_control,
    "WanVACEPipeline": wan_vace,
    "WanAnimatePipeline": wan_animate,
    "WanAnimatePipeline, two segments": wan_animate_segments,
    "HunyuanVideoFramepackPipeline": framepack,
    "HunyuanVideoFramepackPipeline, forwards": framepack_forwards,
}
