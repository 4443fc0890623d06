"""Pipelines that start from a video, inside the schedule: two of their three steps run."""

from dataclasses import replace

from class_checks import TinyClass
from tiny_base import TinyPipeline
from tiny_twins import image, twin
from tiny_unets import animatediff
from tiny_video import cogvideox, wan
from tiny_video_unets import modelscope


def _from_video(base: TinyPipeline, name: str, num_frames: int, **parts) -> TinyPipeline:
    """`base` as the pipeline class `name`, which reads its frames from a random video."""
    size = base.shape["height"], base.shape["width"]
    tiny = twin(base, name, positive={"video": image(2 * num_frames, *size)}, **parts)
    tiny.positive["video"] = tiny.positive["video"].unflatten(0, (2, num_frames))
    shape = {n: value for n, value in tiny.shape.items() if n != "num_frames"}
    return replace(tiny, shape=shape | {"num_inference_steps": 3, "strength": 0.7})


def wan_v2v() -> TinyClass:
    tiny = _from_video(wan(), "WanVideoToVideoPipeline", 9)
    return TinyClass(tiny, "BCFHW", (1, 4, 4), begin=1)


def cogvideox_v2v() -> TinyClass:
    tiny = _from_video(cogvideox(), "CogVideoXVideoToVideoPipeline", 9)
    return TinyClass(tiny, "BFCHW", (1, 4, 4), begin=1)


def animatediff_v2v() -> TinyClass:
    parts = dict.fromkeys(("image_encoder", "feature_extractor"))
    tiny = _from_video(animatediff(), "AnimateDiffVideoToVideoPipeline", 3, **parts)
    return TinyClass(tiny, "BCFHW", (1, 1, 1), begin=1)


def modelscope_v2v() -> TinyClass:
    """The size is that of the video, and the pipeline makes one video at a time."""
    base = modelscope().tiny
    tiny = _from_video(base, "VideoToVideoSDPipeline", 3)
    tiny.shape.pop("height"), tiny.shape.pop("width")
    for given in (tiny.positive, tiny.negative):
        given |= {name: tensor[:1] for name, tensor in given.items()}
    return TinyClass(tiny, "BCFHW", (1, 1, 1), one_generator=True, begin=1)


FROM_VIDEO = {
    "WanVideoToVideoPipeline": wan_v2v,
    "CogVideoXVideoToVideoPipeline": cogvideox_v2v,
    "AnimateDiffVideoToVideoPipeline": animatediff_v2v,
    "VideoToVideoSDPipeline": modelscope_v2v,
}
