"""Every pipeline class with tiny random weights, by its name and what is particular."""

from collections.abc import Callable
from functools import cache

from class_checks import TinyClass
from tiny_controls import CONTROLS
from tiny_cosmos import COSMOS
from tiny_forcing import FORCING
from tiny_from_video import FROM_VIDEO
from tiny_modular import MODULAR
from tiny_more import MORE
from tiny_pipelines import BUILDERS, ltx2
from tiny_twins import TWINS
from tiny_video_unets import VIDEO_UNETS

CLASSES: dict[str, Callable[[], TinyClass]] = (
    TWINS | MORE | VIDEO_UNETS | COSMOS | FROM_VIDEO | CONTROLS | FORCING | MODULAR
)
"""Those that only test_classes.py checks."""

tiny_class = cache(lambda name: CLASSES[name]())
"""Built once for all tests."""


def _first(build: Callable, layout: str, *pixels: int, **shape) -> Callable[[], TinyClass]:
    return lambda: TinyClass(build(num_steps=2, **shape), layout, pixels)


FIRST: dict[str, Callable[[], TinyClass]] = {
    "WanPipeline": _first(BUILDERS["wan"], "BCFHW", 1, 4, 4),
    "WanPipeline, timestep by token": _first(BUILDERS["wan_ti2v_5b"], "BCFHW", 1, 4, 4),
    "WanImageToVideoPipeline": _first(BUILDERS["wan_i2v"], "BCFHW", 1, 4, 4),
    "LTXPipeline": _first(BUILDERS["ltx"], "tokens", 1, 4, 4),
    "LTX2Pipeline": _first(ltx2, "tokens", 1, 2, 2),
    "CogVideoXPipeline": _first(BUILDERS["cogvideox"], "BFCHW", 4, 4),
    "CogVideoXPipeline, 1.5": _first(BUILDERS["cogvideox15"], "BFCHW", 0, 1, 4, 4),
    "CogVideoXImageToVideoPipeline": _first(BUILDERS["cogvideox_i2v"], "BFCHW", 1, 4, 4),
    "MochiPipeline": _first(BUILDERS["mochi"], "BCFHW", 1, 6),
    "HunyuanVideoPipeline": _first(BUILDERS["hunyuan_video"], "BCFHW", 1, 4, 4),
    "HunyuanVideo15Pipeline": _first(BUILDERS["hunyuan_video15"], "BCFHW", 1, 2, 2),
    "SkyReelsV2Pipeline": _first(BUILDERS["skyreels_v2"], "BCFHW", 1, 4, 4),
    "StableVideoDiffusionPipeline": _first(BUILDERS["svd"], "BFCHW", 1, 1, 1, 1, 1),
    "AnimateDiffPipeline": _first(BUILDERS["animatediff"], "BCFHW", 1, 1, 1, 1, 1),
}
"""Those that test_guided_families.py checks in more ways."""
