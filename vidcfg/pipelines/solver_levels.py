"""The noise levels between which a solver of first order steps."""

from typing import Any

from vidcfg.guidance.rule import Level
from vidcfg.pipelines.noise_level import noise_level

_EULER = ("FlowMatchEulerDiscreteScheduler", "EulerDiscreteScheduler")
_DDIM = ("DDIMScheduler", "CogVideoXDDIMScheduler")


def solver_levels(scheduler: Any) -> tuple[tuple[Level, Level], ...]:
    """The levels (alpha, sigma) before and after every step of an Euler or DDIM solver.

    Such a step is x' = alpha' x0 + sigma' eps with x0 and eps of one prediction.

    Raises:
        ValueError: for another solver, or one that changes x0 or adds noise, naming the fix.
    """
    name = type(scheduler).__name__
    if name not in _EULER + _DDIM:
        raise ValueError(
            f"guidance.method cfg_pp changes the step of the solver, which it can for Euler and "
            f"DDIM, but this pipeline uses {name}. Use sampling.scheduler: flow_euler (flow "
            f"models) or ddim; in Python one of {', '.join(_EULER + _DDIM)}."
        )
    for option in ("stochastic_sampling", "clip_sample", "thresholding"):
        if scheduler.config.get(option, False):
            raise ValueError(
                f"guidance.method cfg_pp needs a solver that keeps the predicted video and adds "
                f"no noise, but this {name} has {option}=True. Use {option}=False."
            )
    before = [noise_level(scheduler, k) for k in range(len(scheduler.timesteps))]
    return tuple((level, _after(scheduler, k)) for k, level in enumerate(before))


def _after(scheduler: Any, step: int) -> Level:
    """The level at the end of a step, as the solver itself finds it."""
    if type(scheduler).__name__ in _EULER:
        return noise_level(scheduler, step + 1)
    stride = scheduler.config.num_train_timesteps // scheduler.num_inference_steps
    previous = int(scheduler.timesteps[step]) - stride
    product = float(
        scheduler.alphas_cumprod[previous] if previous >= 0 else scheduler.final_alpha_cumprod
    )
    return product**0.5, (1 - product) ** 0.5
