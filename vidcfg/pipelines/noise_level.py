"""What a diffusers scheduler knows: the noise level of each call, the kind of prediction."""

from typing import Any

import numpy as np

_FLOW_KINDS = {"flow_prediction": "flow"}


def prediction_kind(scheduler: Any) -> str:
    """The kind of prediction that a scheduler expects (vidcfg.guidance.prediction.KINDS)."""
    kind = scheduler.config.get("prediction_type", "flow_prediction")
    return _FLOW_KINDS.get(kind, kind)


def is_flow(scheduler: Any) -> bool:
    """Whether x_t = (1 - sigma) x0 + sigma eps in this scheduler's sigmas."""
    return (
        scheduler.config.get("use_flow_sigmas", False) or "FlowMatch" in type(scheduler).__name__
    )


def noise_level(scheduler: Any, call: int) -> tuple[float, float] | None:
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
        product = float(scheduler.alphas_cumprod[int(scheduler.timesteps[call])])
        return product**0.5, (1 - product) ** 0.5
    return None


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
