"""SkyReels-V2 diffusion forcing: frames have noise levels of their own."""

from class_checks import TinyClass
from tiny_base import TinyPipeline
from tiny_twins import image, twin
from tiny_wan import skyreels_v2


def _forcing(name: str, positive=None, **shape) -> TinyPipeline:
    tiny = twin(skyreels_v2(), name, positive={"prompt": None} | (positive or {}))
    tiny.shape.update(shape)
    return tiny


def forcing() -> TinyClass:
    """Each frame is a step behind the one before it."""
    tiny = _forcing("SkyReelsV2DiffusionForcingPipeline", ar_step=1)
    return TinyClass(tiny, "BCFHW", (1, 4, 4))


def forcing_i2v() -> TinyClass:
    """Between two images, the second behind the video; all other frames are on one step."""
    images = {"image": image(1), "last_image": image(2)[1:]}
    tiny = _forcing("SkyReelsV2DiffusionForcingImageToVideoPipeline", images)
    return TinyClass(tiny, "BCFHW", (1, 4, 4, 0))


def forcing_v2v() -> TinyClass:
    """Two latent frames are given, those behind them follow one after the other."""
    video = image(2 * 5).unflatten(0, (2, 5))
    name = "SkyReelsV2DiffusionForcingVideoToVideoPipeline"
    shape = {"num_frames": 17, "overlap_history": 5, "base_num_frames": 17, "ar_step": 2}
    tiny = _forcing(name, {"video": video}, **shape)
    return TinyClass(tiny, "BCFHW", (1, 4, 4, 4, 4))


FORCING = {
    "SkyReelsV2DiffusionForcingPipeline": forcing,
    "SkyReelsV2DiffusionForcingImageToVideoPipeline": forcing_i2v,
    "SkyReelsV2DiffusionForcingVideoToVideoPipeline": forcing_v2v,
}
