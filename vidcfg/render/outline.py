"""What the small files of a checkpoint folder tell of its pipeline, without a weight read."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from inspect import Parameter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from vidcfg.pipelines.settings import Sampling
from vidcfg.render.config import RenderConfig
from vidcfg.render.record import model_folder


class NotKnownError(ValueError):
    """Something that only the loaded model can tell; the message says why."""


@dataclass(frozen=True)
class Outline:
    """A folder that `save_pretrained` wrote, and the class of the pipeline that it is for.

    With a motion adapter, a Stable Diffusion checkpoint becomes an AnimateDiff pipeline.
    """

    folder: Path
    pipeline: str
    has_adapter: bool = False

    @property
    def family(self) -> Any:
        """Its family, by name; None for a class that is not declared by name."""
        from vidcfg.pipelines.families import FAMILIES

        found = (f for f in FAMILIES.values() if self.pipeline in f.pipelines)
        return next(found, None)

    @property
    def cls(self) -> type | None:
        """The class of the pipeline, None where neither diffusers nor vidcfg has it."""
        import diffusers

        from vidcfg.mini.pipeline import MiniVideoPipeline

        if self.pipeline == MiniVideoPipeline.__name__:
            return MiniVideoPipeline
        return getattr(diffusers, self.pipeline, None)

    @property
    def parameters(self) -> Mapping[str, Parameter] | None:
        """The parameters of the pipeline's call."""
        from inspect import signature

        return None if self.cls is None else signature(self.cls.__call__).parameters

    def component(self, name: str) -> dict[str, Any]:
        """The configuration of a component, empty if there is none."""
        return _read(self.folder / name / "config.json")


def outline_of(config: RenderConfig) -> Outline | None:
    """The outline of the configuration's model; None for a repository name."""
    folder = model_folder(config)
    if folder is None or not (folder / "model_index.json").is_file():
        return None
    name = _read(folder / "model_index.json").get("_class_name", "")
    if getattr(config.model, "motion_adapter", None):
        return Outline(folder, "AnimateDiffPipeline", has_adapter=True)
    return Outline(folder, name)


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text("utf-8")) if path.is_file() else {}


def known_frame_map(config: RenderConfig) -> Any:
    """The frame map of the mini model or of a checkpoint folder; None where it is not known."""
    from vidcfg.pipelines.cost import MINI_FRAME_MAP

    if config.model.kind == "mini":
        return MINI_FRAME_MAP
    outline = outline_of(config)
    if outline is None:
        return None
    known = (make for start, make in _FRAME_MAPS.items() if outline.pipeline.startswith(start))
    make = next(known, None)
    return None if make is None else make(outline)


def _causal(ratio: int) -> Callable[[Outline], Any]:
    def make(outline: Outline) -> Any:
        from vidcfg.guidance.frame_map import CausalMap

        vae = outline.component("vae")
        names = ("temporal_compression_ratio", "scale_factor_temporal")
        own = next((vae[name] for name in names if vae.get(name)), ratio)
        return CausalMap(int(own))

    return make


def _cogvideox(outline: Outline) -> Any:
    from vidcfg.guidance.frame_map import CogVideoXMap

    ratio = outline.component("vae").get("temporal_compression_ratio", 4)
    return CogVideoXMap(int(ratio), outline.component("transformer").get("patch_size_t"))


def _one_to_one(outline: Outline) -> Any:
    from vidcfg.guidance.frame_map import OneToOneMap

    return OneToOneMap()


_FRAME_MAPS: dict[str, Callable[[Outline], Any]] = {
    "MiniVideo": _causal(4),
    "Wan": _causal(4),
    "SkyReelsV2": _causal(4),
    "HunyuanVideo": _causal(4),
    "LTX": _causal(8),
    "Mochi": _causal(6),
    "CogVideoX": _cogvideox,
    "StableVideoDiffusion": _one_to_one,
    "AnimateDiff": _one_to_one,
    "StableDiffusion": _one_to_one,
    "Flux": _one_to_one,
}


def known_steps(outline: Outline | None, sampling: Sampling) -> Any:
    """Noise levels, model calls and experts of the run's steps (vidcfg.pipelines.cost.KnownSteps).

    Raises:
        NotKnownError: where the pipeline finds them while it runs, with the reason.
        ValueError: for a scheduler that cannot step this model.
    """
    from vidcfg.pipelines.cost import KnownSteps
    from vidcfg.pipelines.noise_level import calls_per_step, first_calls, step_sigmas
    from vidcfg.pipelines.schedulers import own_noise_levels, scheduler_for

    if outline is None:
        raise NotKnownError("the checkpoint is not in a local folder")
    if outline.cls is None or outline.family is None:
        raise NotKnownError(f"{outline.pipeline} is not a pipeline of diffusers that is declared")
    scheduler = scheduler_for(outline.cls, _own_scheduler(outline), sampling)
    why = own_noise_levels(outline.cls, scheduler)
    if why is not None:
        raise NotKnownError(f"the noise levels are found while it runs: {why}")
    scheduler.set_timesteps(sampling.num_steps)
    times = [float(scheduler.timesteps[call]) for call in first_calls(scheduler)]
    return KnownSteps(step_sigmas(scheduler), calls_per_step(scheduler), _experts(outline, times))


def _own_scheduler(outline: Outline) -> Any:
    """The scheduler that the pipeline comes with."""
    import diffusers

    settings = _read(outline.folder / "scheduler" / "scheduler_config.json")
    cls = getattr(diffusers, settings.get("_class_name", ""), None)
    if cls is None:
        raise NotKnownError(f"{outline.folder / 'scheduler'} names no scheduler of diffusers")
    scheduler = cls.from_config(settings)
    if outline.has_adapter:
        from vidcfg.pipelines.load import animatediff_scheduler

        return animatediff_scheduler(scheduler)
    return scheduler


def _experts(outline: Outline, times: list[float]) -> tuple[str, ...] | None:
    """The name of the model of each step, as the family tells it; None for one model."""
    if outline.family.expert_of is None:
        return None
    index = _read(outline.folder / "model_index.json")
    pipe = SimpleNamespace(
        config=SimpleNamespace(boundary_ratio=index.get("boundary_ratio")),
        scheduler=_own_scheduler(outline),
    )
    names = tuple(outline.family.expert_of(pipe, time) for time in times)
    return None if None in names else names
