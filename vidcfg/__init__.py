"""Classifier-free guidance per frame and per step for video diffusion models.

    with vidcfg.guide(pipe, vidcfg.Guidance(scale=6.0), negative_prompt="blurry") as trace:
        video = pipe(prompt, num_frames=81, guidance_scale=1.0).frames

Public names are loaded when they are first used, so that importing the package costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vidcfg.guidance.frames import frames as register_frames
    from vidcfg.guidance.rule import rule as register_rule
    from vidcfg.guidance.schedule import schedule as register_schedule
    from vidcfg.guidance.setting import Guidance
    from vidcfg.metrics.metric import own_metric as register_metric
    from vidcfg.pipelines.check import check_pipeline
    from vidcfg.pipelines.families import register_family
    from vidcfg.pipelines.guide import guide

__version__ = "0.1.0"

_PUBLIC = {
    "Guidance": "vidcfg.guidance.setting:Guidance",
    "check_pipeline": "vidcfg.pipelines.check:check_pipeline",
    "guide": "vidcfg.pipelines.guide:guide",
    "register_family": "vidcfg.pipelines.families:register_family",
    "register_frames": "vidcfg.guidance.frames:frames",
    "register_metric": "vidcfg.metrics.metric:own_metric",
    "register_rule": "vidcfg.guidance.rule:rule",
    "register_schedule": "vidcfg.guidance.schedule:schedule",
}

__all__ = [
    "Guidance",
    "__version__",
    "check_pipeline",
    "guide",
    "register_family",
    "register_frames",
    "register_metric",
    "register_rule",
    "register_schedule",
]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        from vidcfg.extras import explained

        module, _, attribute = _PUBLIC[name].partition(":")
        with explained(f"vidcfg.{name}"):
            return getattr(import_module(module), attribute)
    if name in ("diffusers", "results"):
        return import_module(f"vidcfg.{name}")
    raise AttributeError(f"module 'vidcfg' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
