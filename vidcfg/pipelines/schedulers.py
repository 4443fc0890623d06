"""`sampling:` of a config: how a pipeline is stepped, and the scheduler that does it."""

import inspect
import re
from typing import Annotated, Any, Literal

from pydantic import Field

from vidcfg.settings.base import ConfigModel, Positive, Range

FLOW_SOLVERS = {
    "flow_euler": "FlowMatchEulerDiscreteScheduler",
    "unipc": "UniPCMultistepScheduler",
    "dpm++": "DPMSolverMultistepScheduler",
    "heun": "FlowMatchHeunDiscreteScheduler",
}
"""`sampling.scheduler` -> class in diffusers, for models that predict a flow."""

DIFFUSION_SOLVERS = {
    "ddim": "DDIMScheduler",
    "dpm++": "DPMSolverMultistepScheduler",
    "unipc": "UniPCMultistepScheduler",
}
"""The same for models that predict noise, x0 or v."""

SNR_SHIFTED_SOLVERS = {"ddim": "CogVideoXDDIMScheduler", "dpm++": "CogVideoXDPMScheduler"}
"""CogVideoX shifts its signal-to-noise ratio, which the general solvers do not know."""


class Sampling(ConfigModel):
    """The solver. `pipeline` is the scheduler that the checkpoint itself names."""

    num_steps: Annotated[int, Range(1, 10_000)] = Field(description="a whole number")
    scheduler: Literal[("pipeline", *(FLOW_SOLVERS | DIFFUSION_SOLVERS))] = "pipeline"
    shift: Positive | None = None

    @property
    def usual_calls(self) -> tuple[int, ...]:
        """Model calls of each step, as far as the solver's name tells."""
        each = 2 if self.scheduler == "heun" else 1
        return (each,) * (self.num_steps - 1) + (1,)


def make_scheduler(pipe: Any, sampling: Sampling) -> Any:
    """A fresh scheduler for `pipe`, made from the noise schedule of the one it came with.

    `pipeline` keeps the checkpoint's own solver. `shift` moves a flow model's steps towards the
    noise (above 1) or the picture; None keeps the checkpoint's shift.

    Raises:
        ValueError: if this solver cannot step what the model predicts, naming those that can, or
            if `shift` has no effect.
    """
    current, name = pipe.scheduler, sampling.scheduler
    possible = possible_schedulers(pipe)
    if name not in possible:
        what = "a flow" if is_flow(current) else prediction_kind(current)
        raise ValueError(
            f"sampling.scheduler is {name}, but {type(pipe).__name__} predicts {what} and "
            f"steps it with {type(current).__name__}. Use one of: {', '.join(possible)}."
        )
    if is_flow(current):
        return _flow_scheduler(current, name, sampling.shift)
    if sampling.shift is not None:
        raise ValueError(
            f"sampling.shift is {sampling.shift:g}, but it has an effect on flow models alone and "
            f"{type(pipe).__name__} is not one. Delete it."
        )
    if name == "pipeline":
        return type(current).from_config(current.config)
    return _diffusers(_diffusion_solvers(current)[name]).from_config(current.config)


def _flow_scheduler(current: Any, name: str, shift: float | None) -> Any:
    config = current.config
    key = "shift" if "shift" in config else "flow_shift"
    if name == "pipeline":
        return type(current).from_config(config, **({} if shift is None else {key: shift}))
    if shift is None:
        shift = config.get(key, 1.0)
    if name == "flow_euler" and "FlowMatchEuler" in type(current).__name__:
        return type(current).from_config(config, shift=shift)
    made = _diffusers(FLOW_SOLVERS[name])
    settings = {"num_train_timesteps": config.get("num_train_timesteps", 1000)}
    if "use_flow_sigmas" in inspect.signature(made).parameters:
        settings |= {"prediction_type": "flow_prediction", "use_flow_sigmas": True}
        return made(**settings, flow_shift=shift)
    return made(**settings, shift=shift)


def possible_schedulers(pipe: Any) -> tuple[str, ...]:
    """The values of `sampling.scheduler` that this pipeline can be stepped with."""
    current = pipe.scheduler
    if not is_flow(current):
        return ("pipeline", *_diffusion_solvers(current))
    # These pipelines hand the noise levels of each step, or a shift that depends on the size of
    # the clip, to set_timesteps, which other solvers do not take.
    passes_sigmas = re.search(r"retrieve_timesteps\([^()]*\bsigmas\b", _call_of(pipe))
    if passes_sigmas or current.config.get("use_dynamic_shifting", False):
        return ("pipeline", "flow_euler")
    return ("pipeline", *FLOW_SOLVERS)


def own_noise_levels(pipe: Any) -> str | None:
    """Why the noise levels of a run are not those of `scheduler.set_timesteps(num_steps)`."""
    if pipe.scheduler.config.get("use_dynamic_shifting", False):
        return "its scheduler shifts them by the size of the clip"
    if re.search(r"^\s+sigmas = ", _call_of(pipe), re.M):
        return f"{type(pipe).__name__} hands its own to the scheduler"
    return None


def prediction_kind(scheduler: Any) -> str:
    """The kind of prediction that a scheduler expects (vidcfg.guidance.prediction.KINDS)."""
    kind = scheduler.config.get("prediction_type", "flow_prediction")
    return "flow" if kind == "flow_prediction" else kind


def is_flow(scheduler: Any) -> bool:
    """Whether x_t = (1 - sigma) x0 + sigma eps in this scheduler's sigmas."""
    return (
        scheduler.config.get("use_flow_sigmas", False) or "FlowMatch" in type(scheduler).__name__
    )


def _call_of(pipe: Any) -> str:
    return inspect.getsource(type(pipe).__call__)


def _diffusion_solvers(current: Any) -> dict[str, str]:
    return SNR_SHIFTED_SOLVERS if "snr_shift_scale" in current.config else DIFFUSION_SOLVERS


def _diffusers(name: str) -> Any:
    import diffusers

    return getattr(diffusers, name)
