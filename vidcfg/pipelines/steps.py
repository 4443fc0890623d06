"""What a run is before its first step: its frames, and what its scheduler tells of its steps.

The run itself and a dry run ask the same functions. numpy only.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from vidcfg.guidance.frame_map import FrameMap
from vidcfg.guidance.rule import Level
from vidcfg.pipelines.schedulers import is_flow


@dataclass(frozen=True, eq=False)
class RunFacts:
    """Pixel frames of a run, model calls of each step, and what else is known of the steps.

    `sigmas_K` are the noise levels at the start of each step, falling, and `experts` the name of
    the model of each; None where not known, or where there is one model. Branches in `always` run
    on every step, whatever the strengths.
    """

    num_frames: int
    frame_map: FrameMap
    fps: float | None
    calls: tuple[int, ...]
    sigmas_K: np.ndarray | None = None
    experts: tuple[str, ...] | None = None
    always: frozenset[str] = frozenset()

    def of_surfaces(self) -> dict[str, Any]:
        """What the surfaces of a rule are made for: the arguments of its `surfaces`."""
        return {
            "num_steps": len(self.calls),
            "num_frames": self.num_frames,
            "frame_map": self.frame_map,
            "fps": self.fps,
            "sigmas": self.sigmas_K,
            "experts": self.experts,
        }

    def of_rows(self) -> dict[str, Any]:
        """What `SampleRows` need beside the surfaces."""
        return {"experts": self.experts, "always": self.always}


def steps_of(pipe: Any, family: Any) -> dict[str, Any]:
    """`calls`, `sigmas_K` and `experts` of a run, from a scheduler that has its timesteps."""
    scheduler = pipe.scheduler
    first = first_calls(scheduler)
    experts = None
    if family.expert_of is not None:
        found = [family.expert_of(pipe, float(scheduler.timesteps[call])) for call in first]
        experts = None if None in found else tuple(found)
    return {
        "calls": calls_per_step(scheduler),
        "sigmas_K": step_sigmas(scheduler) if family.has_levels else None,
        "experts": experts,
    }


def step_of_call(scheduler: Any) -> tuple[int, ...]:
    """The step that each call of the denoiser belongs to, in the order of `timesteps`.

    A second-order scheduler takes two calls a step but the last. PNDM takes two for its first
    step; with Runge-Kutta steps (`skip_prk_steps: false`) four for each of its first three.
    """
    count = len(scheduler.timesteps)
    if not hasattr(scheduler, "prk_timesteps"):
        return tuple(call // scheduler.order for call in range(count))
    if scheduler.config.skip_prk_steps:
        return tuple(max(0, call - 1) for call in range(count))
    return tuple(call // 4 if call < 12 else call - 9 for call in range(count))


def calls_per_step(scheduler: Any) -> tuple[int, ...]:
    """How often each step calls the denoiser."""
    steps = step_of_call(scheduler)
    return tuple(steps.count(k) for k in range(steps[-1] + 1))


def first_calls(scheduler: Any) -> tuple[int, ...]:
    """The first call of each step."""
    steps = step_of_call(scheduler)
    return tuple(steps.index(k) for k in range(steps[-1] + 1))


def step_sigmas(scheduler: Any) -> np.ndarray | None:
    """The noise level sigma_k at the start of each step, falling; None where it is not known."""
    levels = [noise_level(scheduler, call) for call in first_calls(scheduler)]
    return None if None in levels else np.array([sigma for _, sigma in levels])


def noise_level(scheduler: Any, call: int) -> Level | None:
    """(alpha, sigma) of x_t = alpha x0 + sigma eps at the denoiser's `call`-th evaluation.

    For schedulers that divide the model input by sqrt(sigma^2 + 1) it is the level of that input.
    None where the scheduler tells neither sigmas nor cumulative alphas.
    """
    if hasattr(scheduler, "sigmas") and len(scheduler.sigmas) > call:
        sigma = float(scheduler.sigmas[call])
        if is_flow(scheduler):
            inverted = scheduler.config.get("invert_sigmas", False)
            return (sigma, 1 - sigma) if inverted else (1 - sigma, sigma)
        scale = (sigma**2 + 1) ** 0.5
        return 1 / scale, sigma / scale
    if hasattr(scheduler, "alphas_cumprod"):
        return _level_of(scheduler.alphas_cumprod[int(scheduler.timesteps[call])])
    return None


def _level_of(product: Any) -> Level:
    product = float(product)
    return product**0.5, (1 - product) ** 0.5


def _after_ddim(scheduler: Any, step: int) -> Level:
    """The level at the end of a step, as the solver itself finds it."""
    stride = scheduler.config.num_train_timesteps // scheduler.num_inference_steps
    previous = int(scheduler.timesteps[step]) - stride
    known = previous >= 0
    return _level_of(
        scheduler.alphas_cumprod[previous] if known else scheduler.final_alpha_cumprod
    )


def _after_euler(scheduler: Any, step: int) -> Level | None:
    return noise_level(scheduler, step + 1)


FIRST_ORDER = {
    "FlowMatchEulerDiscreteScheduler": _after_euler,
    "EulerDiscreteScheduler": _after_euler,
    "DDIMScheduler": _after_ddim,
    "CogVideoXDDIMScheduler": _after_ddim,
}
"""Solvers whose step is x' = alpha' x0 + sigma' eps with x0 and eps of one prediction."""


def solver_levels(scheduler: Any) -> tuple[tuple[Level, Level], ...]:
    """The levels (alpha, sigma) before and after every step of an Euler or DDIM solver.

    Raises:
        ValueError: for another solver, or one that changes x0 or adds noise, naming the fix.
    """
    name = type(scheduler).__name__
    if name not in FIRST_ORDER:
        raise ValueError(
            f"guidance.method cfg_pp changes the step of the solver, which it can for Euler and "
            f"DDIM, but this pipeline uses {name}. Use sampling.scheduler: flow_euler (flow "
            f"models) or ddim; in Python one of {', '.join(FIRST_ORDER)}."
        )
    for option in ("stochastic_sampling", "clip_sample", "thresholding"):
        if scheduler.config.get(option, False):
            raise ValueError(
                f"guidance.method cfg_pp needs a solver that keeps the predicted video and adds "
                f"no noise, but this {name} has {option}=True. Use {option}=False."
            )
    steps = range(len(scheduler.timesteps))
    return tuple((noise_level(scheduler, k), FIRST_ORDER[name](scheduler, k)) for k in steps)
