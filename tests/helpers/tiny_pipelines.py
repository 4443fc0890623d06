"""Real diffusers pipelines with tiny random weights, built without a download."""

from collections.abc import Callable

from tiny_base import TinyPipeline, generators, random
from tiny_images import flux, sd3, sd15, sdxl
from tiny_streams import hunyuan_video15, ltx2
from tiny_unets import animatediff, svd
from tiny_video import cogvideox, hunyuan_video, ltx, mochi, wan, wan_transformer
from tiny_wan import cogvideox15, cogvideox_i2v, skyreels_v2, wan22, wan_i2v, wan_ti2v_5b

BUILDERS: dict[str, Callable[..., TinyPipeline]] = {
    "wan": wan,
    "ltx": ltx,
    "cogvideox": cogvideox,
    "mochi": mochi,
    "hunyuan_video": hunyuan_video,
    "wan_i2v": wan_i2v,
    "wan22": wan22,
    "wan_ti2v_5b": wan_ti2v_5b,
    "skyreels_v2": skyreels_v2,
    "cogvideox15": cogvideox15,
    "cogvideox_i2v": cogvideox_i2v,
    "hunyuan_video15": hunyuan_video15,
    "svd": svd,
    "animatediff": animatediff,
    "sd15": sd15,
    "sdxl": sdxl,
    "sd3": sd3,
    "flux": flux,
}
"""Every pipeline whose uniform guidance equals ours bit for bit."""

__all__ = ["BUILDERS", "TinyPipeline", "generators", "ltx2", "random", "wan_transformer"]
