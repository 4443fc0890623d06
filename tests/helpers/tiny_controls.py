"""AnimateDiff with a ControlNet, whose residuals depend on the prompt."""

from dataclasses import replace

import torch
from class_checks import TinyClass
from tiny_base import seeded
from tiny_from_video import animatediff_v2v
from tiny_twins import image, twin
from tiny_unets import animatediff

_PARTS = dict.fromkeys(("image_encoder", "feature_extractor"))
_BLOCKS = {
    "block_out_channels": (8, 8),
    "layers_per_block": 1,
    "cross_attention_dim": 32,
    "norm_num_groups": 2,
}


def _controlnet(name: str = "ControlNetModel", **settings):
    """With no weight at zero, where a ControlNet begins and would do nothing."""
    import diffusers

    def build():
        model = getattr(diffusers, name)(**_BLOCKS | settings).eval()
        for weight in model.parameters():
            if not weight.any():
                torch.nn.init.normal_(weight, std=0.2)
        return model

    return seeded(build)


def _image_control():
    blocks = ("CrossAttnDownBlock2D", "DownBlock2D")
    return _controlnet(down_block_types=blocks, conditioning_embedding_out_channels=(8, 8))


def _condition_frames(length: int) -> dict:
    """Three frames of each sample, in a list of the length that the pipeline expects."""
    return {"conditioning_frames": list(image(2 * 3, 8, 16)[:, None].split(6 // length))}


def animatediff_control() -> TinyClass:
    tiny = twin(
        animatediff(num_steps=2, num_frames=3),
        "AnimateDiffControlNetPipeline",
        positive=_condition_frames(3),
        controlnet=_image_control(),
        **_PARTS,
    )
    return TinyClass(tiny, "BCFHW", (1, 1, 1))


def animatediff_sparse_control() -> TinyClass:
    """One condition frame, the same for all samples."""
    control = _controlnet(
        "SparseControlNetModel",
        down_block_types=("CrossAttnDownBlockMotion", "DownBlockMotion"),
        conditioning_embedding_out_channels=(8, 8),
        motion_num_attention_heads=4,
    )
    tiny = twin(
        animatediff(num_steps=2, num_frames=3),
        "AnimateDiffSparseControlNetPipeline",
        positive={"conditioning_frames": image(1, 8, 16), "controlnet_frame_indices": [1]},
        controlnet=control,
        **_PARTS,
    )
    return TinyClass(tiny, "BCFHW", (1, 1, 1))


def animatediff_v2v_control() -> TinyClass:
    case = animatediff_v2v()
    name = "AnimateDiffVideoToVideoControlNetPipeline"
    parts = {"controlnet": _image_control()} | _PARTS
    tiny = twin(case.tiny, name, positive=_condition_frames(2), **parts)
    return replace(case, tiny=tiny)


CONTROLS = {
    "AnimateDiffControlNetPipeline": animatediff_control,
    "AnimateDiffSparseControlNetPipeline": animatediff_sparse_control,
    "AnimateDiffVideoToVideoControlNetPipeline": animatediff_v2v_control,
}
