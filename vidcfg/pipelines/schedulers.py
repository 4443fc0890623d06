"""`sampling.scheduler` to a diffusers scheduler that fits what the model predicts."""

import inspect
import re
from typing import Any

from vidcfg.pipelines.noise_level import is_flow, prediction_kind
from vidcfg.pipelines.settings import Sampling

FLOW_SOLVERS = ("flow_euler", "unipc", "dpm++", "heun")
DIFFUSION_SOLVERS = ("ddim", "dpm++", "unipc")


def make_scheduler(pipe: Any, sampling: Sampling) -> Any:
    """A fresh scheduler for `pipe`, made from the noise schedule of the one it came with.

    `pipeline` keeps the checkpoint's own solver. `shift` moves a flow model's steps towards the
    noise (above 1) or the picture; None keeps the checkpoint's shift.

    Raises:
        ValueError: if this solver cannot step what the model predicts, naming those that can, or
            if `shift` has no effect.
    """
    return scheduler_for(type(pipe), pipe.scheduler, sampling)


def scheduler_for(cls: type, current: Any, sampling: Sampling) -> Any:
    """`make_scheduler` by the class of a pipeline and the scheduler that it comes with."""
    name = sampling.scheduler
    possible = _possible(cls, current)
    if name not in possible:
        what = "a flow" if is_flow(current) else prediction_kind(current)
        raise ValueError(
            f"sampling.scheduler is {name}, but {cls.__name__} predicts {what} and steps "
            f"it with {type(current).__name__}. Use one of: {', '.join(possible)}."
        )
    if is_flow(current):
        return _flow_scheduler(current, name, sampling.shift)
    if sampling.shift is not None:
        raise ValueError(
            f"sampling.shift is {sampling.shift:g}, but it has an effect on flow models alone and "
            f"{cls.__name__} is not one. Delete it."
        )
    return _diffusion_scheduler(current, name)


def possible_schedulers(pipe: Any) -> tuple[str, ...]:
    """The values of `sampling.scheduler` that this pipeline can be stepped with."""
    return _possible(type(pipe), pipe.scheduler)


def _possible(cls: type, current: Any) -> tuple[str, ...]:
    if not is_flow(current):
        own = _cogvideox_solvers(current)
        return ("pipeline", *(own or DIFFUSION_SOLVERS))
    # These pipelines hand the noise levels of each step, or a shift that depends on the size of
    # the clip, to set_timesteps, which other solvers do not take.
    needs_levels = _passes_sigmas(cls) or current.config.get("use_dynamic_shifting", False)
    return ("pipeline", "flow_euler") if needs_levels else ("pipeline", *FLOW_SOLVERS)


def _passes_sigmas(cls: type) -> bool:
    source = inspect.getsource(cls.__call__)
    return re.search(r"retrieve_timesteps\([^()]*\bsigmas\b", source) is not None


def own_noise_levels(cls: type, scheduler: Any) -> str | None:
    """Why the noise levels of a run are not those of `scheduler.set_timesteps(num_steps)`."""
    if scheduler.config.get("use_dynamic_shifting", False):
        return "its scheduler shifts them by the size of the clip"
    if re.search(r"^\s+sigmas = ", inspect.getsource(cls.__call__), re.M):
        return f"{cls.__name__} hands its own to the scheduler"
    return None


def _flow_scheduler(current: Any, name: str, shift: float | None) -> Any:
    import diffusers

    config = current.config
    if name == "pipeline":
        key = "shift" if "shift" in config else "flow_shift"
        changes = {} if shift is None else {key: shift}
        return type(current).from_config(config, **changes)
    if shift is None:
        shift = config.get("shift", config.get("flow_shift", 1.0))
    shared = {"num_train_timesteps": config.get("num_train_timesteps", 1000)}
    if name == "flow_euler":
        if type(current) is diffusers.FlowMatchEulerDiscreteScheduler:
            return type(current).from_config(config, shift=shift)
        return diffusers.FlowMatchEulerDiscreteScheduler(shift=shift, **shared)
    if name == "heun":
        return diffusers.FlowMatchHeunDiscreteScheduler(shift=shift, **shared)
    multistep = {
        "unipc": diffusers.UniPCMultistepScheduler,
        "dpm++": diffusers.DPMSolverMultistepScheduler,
    }
    return multistep[name](
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift, **shared
    )


def _cogvideox_solvers(current: Any) -> dict[str, str] | None:
    """CogVideoX shifts its signal-to-noise ratio, which the general solvers do not know."""
    if "snr_shift_scale" not in current.config:
        return None
    return {"ddim": "CogVideoXDDIMScheduler", "dpm++": "CogVideoXDPMScheduler"}


def _diffusion_scheduler(current: Any, name: str) -> Any:
    import diffusers

    if name == "pipeline":
        return type(current).from_config(current.config)
    classes = _cogvideox_solvers(current) or {
        "ddim": "DDIMScheduler",
        "dpm++": "DPMSolverMultistepScheduler",
        "unipc": "UniPCMultistepScheduler",
    }
    return getattr(diffusers, classes[name]).from_config(current.config)
