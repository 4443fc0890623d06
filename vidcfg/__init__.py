"""Classifier-free guidance per frame and per step for video diffusion models.

    with vidcfg.guide(pipe, vidcfg.Guidance(scale=6.0), negative_prompt="blurry") as trace:
        video = pipe(prompt, num_frames=81, guidance_scale=1.0).frames

Public names are loaded when they are first used, so that importing the package costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vidcfg.guidance.setting import Guidance
    from vidcfg.pipelines.check import check_pipeline
    from vidcfg.pipelines.families import register_family
    from vidcfg.pipelines.guide import guide

__version__ = "0.1.0"

_PUBLIC = {
    "Guidance": "vidcfg.guidance.setting",
    "check_pipeline": "vidcfg.pipelines.check",
    "guide": "vidcfg.pipelines.guide",
    "register_family": "vidcfg.pipelines.families",
}

__all__ = ["Guidance", "__version__", "check_pipeline", "guide", "register_family"]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'vidcfg' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
