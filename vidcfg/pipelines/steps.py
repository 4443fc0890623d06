"""What a run is before its first step: its frames, and what its scheduler tells of its steps.

The run itself and a dry run ask the same functions. Steps are those of the scheduler's own list,
also in a run that begins inside it. numpy only.
"""

import inspect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from vidcfg.guidance.frame_map import FrameMap
from vidcfg.guidance.rule import Level
from vidcfg.pipelines.schedulers import is_flow


@dataclass(frozen=True, eq=False)
class RunFacts:
    """Pixel frames of a run, model calls of each step, and what else is known of the steps.

    A step that does not run, as a pipeline starts behind it or stops before, has no calls.
    `sigmas_K` are the noise levels at the start of each step, falling, and `experts` the name of
    the model of each; None where not known, or where there is one model. Branches in `always` run
    on every step, whatever the strengths. `part_T` are the pixel frames that the run makes, where
    a pipeline makes a video in several loops.
    """

    num_frames: int
    frame_map: FrameMap
    fps: float | None
    calls: tuple[int, ...]
    sigmas_K: np.ndarray | None = None
    experts: tuple[str, ...] | None = None
    always: frozenset[str] = frozenset()
    part_T: np.ndarray | None = None

    def of_surfaces(self) -> dict[str, Any]:
        """What the surfaces of a rule are made for: the arguments of its `surfaces`."""
        same = ("num_frames", "frame_map", "fps", "experts", "part_T")
        own = {name: getattr(self, name) for name in same}
        return own | {"num_steps": len(self.calls), "sigmas": self.sigmas_K}

    def of_rows(self) -> dict[str, Any]:
        """What `SampleRows` need beside the surfaces."""
        first_step = next(k for k, count in enumerate(self.calls) if count)
        return {"experts": self.experts, "always": self.always, "first_step": first_step}


class RunPlace:
    """Where in its scheduler's list of timesteps each call of the denoiser is.

    Found from the timestep that the model is given; `index` is the call's place in the list,
    `begin` that of the run's first call, and `levels` the noise level of every entry.

    Raises:
        ValueError: where the model is given a timestep that is not in the list.
    """

    def __init__(self, pipe: Any, family: Any, arguments: Mapping[str, Any]):
        self.pipe, self.family = pipe, family
        self.listed = pipe.scheduler.timesteps
        # Read here, once a run: on a GPU a step waits for no number of the scheduler's.
        self.values = self.listed.detach().cpu()
        calls = range(len(self.values) if family.has_levels else 0)
        self.levels = noise_levels(pipe.scheduler, calls)
        found = self._found(arguments)
        # A solver that calls twice lists a timestep twice; the pipeline or its scheduler know
        # which of them is the first.
        count = getattr(pipe, "num_timesteps", None) or 0
        hints = (len(self.values) - count, getattr(pipe.scheduler, "begin_index", None), 0)
        self.begin = self.index = next((i for i in hints if i in found), found[-1])

    def goes_on(self, arguments: Mapping[str, Any]) -> bool:
        """Move on to this call; False where the pipeline has begun its loop anew.

        Raises:
            ValueError: for a second call at a timestep that the scheduler has once.
        """
        if self.pipe.scheduler.timesteps is not self.listed:
            return False
        found = self._found(arguments)
        later = [i for i in found if i > self.index]
        if not later and self.index in found:
            raise ValueError(
                f"the pipeline calls its denoiser more often than its scheduler has timesteps "
                f"(again at {float(self.values[self.index]):g}), so the step of the surface "
                f"cannot be told. Switch off what calls it again."
            )
        self.index = min(later, default=self.index)
        return bool(later)

    def _found(self, arguments: Mapping[str, Any]) -> list[int]:
        """The entries of the list that this call may be at.

        Tokens with a timestep of their own are at the largest that the list has; those that are
        given, as an image, have another or none.
        """
        given, scheduler = arguments.get(self.family.timestep), self.pipe.scheduler
        if given is None:
            raise ValueError(
                f"a {type(self.pipe).__name__} gives its denoiser no argument "
                f"{self.family.timestep!r}, so the step cannot be told. Name the argument that "
                f"holds the timestep as Family.timestep."
            )
        exact, rounded = self.values.double(), self.values
        if hasattr(given, "dtype"):
            rounded, given = self.values.to(given.dtype), self._read(given)
        to_model = self.family.model_timesteps
        exact, rounded = (to_model(values, scheduler).double() for values in (exact, rounded))
        rounding = float((exact - rounded).abs().max())
        levels = sorted(given if isinstance(given, list) else [float(given)], reverse=True)
        for level in levels:
            distances, tolerance = (rounded - level).abs().tolist(), rounding + 1e-6 * abs(level)
            if found := [i for i, distance in enumerate(distances) if distance <= tolerance]:
                return found
        raise ValueError(
            f"a {type(self.pipe).__name__} gives its denoiser the timestep {levels[0]:g}, which "
            f"its {type(scheduler).__name__} does not have, so the step cannot be told. If the "
            f"pipeline changes timesteps on their way to the model, say how in "
            f"Family.model_timesteps."
        )

    def _read(self, given: Any) -> list[float]:
        """The timesteps in a tensor; where it is an entry of the list itself, from our copy."""
        start = given.storage_offset() - self.listed.storage_offset()
        is_entry = (
            given.dtype == self.listed.dtype
            and given.untyped_storage().data_ptr() == self.listed.untyped_storage().data_ptr()
            and self.listed.is_contiguous()
            and 0 <= start < len(self.values)
            and all(n == 1 or step == 0 for n, step in zip(given.shape, given.stride()))
        )
        found = self.values[start : start + 1] if is_entry else given.unique()
        return [float(timestep) for timestep in found.tolist()]


class FramePlace:
    """The steps of the frames in each denoiser call, where they have noise levels of their own.

    `steps_NF` is told by the pipeline; `index` is the place of a call in it.

    Raises:
        ValueError: where a frame that is denoised has another timestep than the pipeline tells.
    """

    begin = 0

    def __init__(self, family: Any, told: Any, arguments: Mapping[str, Any]):
        self.family, self.index = family, 0
        self.timesteps_NF, self.steps_NF = family.frame_levels.read(told)
        self._check(arguments)

    def goes_on(self, arguments: Mapping[str, Any]) -> bool:
        """Move on to this call, the next one."""
        self.index += 1
        self._check(arguments)
        return True

    @property
    def is_joint(self) -> bool:
        """Whether all frames that are denoised in a call are on the same step."""
        steps, latest = self.steps_NF, self.steps_NF.max(axis=1, keepdims=True)
        return bool(((steps == latest) | (steps < 0)).all())

    def _check(self, arguments: Mapping[str, Any]) -> None:
        given_BF = arguments[self.family.timestep].cpu().numpy()
        told = self.index < len(self.steps_NF) and given_BF.shape[-1] == self.steps_NF.shape[1]
        if told:
            on = self.steps_NF[self.index] >= 0
            told = bool((given_BF[:, on] == self.timesteps_NF[self.index, on]).all())
        if not told:
            raise ValueError(
                f"the frames of denoiser call {self.index + 1} have other timesteps than the "
                f"pipeline's {self.family.frame_levels.method} tells, so their steps are unknown. "
                f"Leave out what changes them."
            )


def begin_of(pipe: Any, call: Mapping[str, Any]) -> int:
    """The first of the scheduler's timesteps that a call with `strength` runs, before it runs."""
    get = getattr(pipe, "get_timesteps", None)
    if get is None or call.get("strength") is None:
        return 0
    timesteps = pipe.scheduler.timesteps
    known = {
        "num_inference_steps": pipe.scheduler.num_inference_steps,
        "timesteps": timesteps,
        "strength": call["strength"],
        "device": timesteps.device,
    }
    taken = {name: known[name] for name in inspect.signature(get).parameters if name in known}
    return len(timesteps) - len(get(**taken)[0])


def steps_of(pipe: Any, family: Any, begin: int = 0, end: int | None = None) -> dict[str, Any]:
    """`calls`, `sigmas_K` and `experts` of a run, from a scheduler that has its timesteps.

    The run begins at entry `begin` of them and ends before `end` (None: behind the last).
    """
    scheduler, steps = pipe.scheduler, step_of_call(pipe.scheduler, begin)
    first = [steps.index(k) for k in range(steps[-1] + 1)]
    levels = noise_levels(scheduler, first) if family.has_levels else [None]
    experts = [None]
    if family.expert_of is not None:
        timesteps = _numbers(scheduler, "timesteps")
        experts = [family.expert_of(pipe, timesteps[call]) for call in first]
    return {
        "calls": tuple(steps[begin:end].count(k) for k in range(len(first))),
        "sigmas_K": None if None in levels else np.array([sigma for _, sigma in levels]),
        "experts": None if None in experts else tuple(experts),
    }


def step_of_call(scheduler: Any, begin: int = 0) -> tuple[int, ...]:
    """The step that each call of the denoiser belongs to, in the order of `timesteps`.

    A second-order scheduler takes two calls a step but the last. PNDM takes two for its first
    step; with Runge-Kutta steps (`skip_prk_steps: false`) four for each of its first three. The
    run begins at entry `begin`: at the first of two entries for one noise level, PNDM takes its
    two calls there.
    """
    count = len(scheduler.timesteps)
    if not hasattr(scheduler, "prk_timesteps"):
        return tuple(call // scheduler.order for call in range(count))
    if scheduler.config.skip_prk_steps:
        # Begun at the second level, its first two entries are both calls of that step.
        pair = int(begin == 1)
        return tuple(max(call - 1, min(call, pair)) for call in range(count))
    return tuple(call // 4 if call < 12 else call - 9 for call in range(count))


MIDPOINT = ("KDPM2DiscreteScheduler", "DPMSolverSDEScheduler")
"""Solvers whose second call of a step is at the geometric mean of two sigmas."""


def noise_levels(scheduler: Any, calls: Iterable[int]) -> list[Level | None]:
    """(alpha, sigma) of x_t = alpha x0 + sigma eps at these evaluations of the denoiser.

    For schedulers that divide the model input by sqrt(sigma^2 + 1) it is the level of that input.
    None where the scheduler tells neither sigmas nor cumulative alphas, or scales its input in
    another way, as those of EDM do. Its lists are read once, since a GPU is waited for at each
    reading.
    """
    sigmas, products = _numbers(scheduler, "sigmas"), _numbers(scheduler, "alphas_cumprod")
    timesteps = _numbers(scheduler, "timesteps")
    name = type(scheduler).__name__
    of_flow = is_flow(scheduler) or name == "LTXEulerAncestralRFScheduler"

    def level(call: int) -> Level | None:
        if not products and not of_flow:
            return None
        if len(sigmas) > call:
            sigma = sigmas[call]
            if name in MIDPOINT and call % 2:
                sigma = (sigmas[call - 1] * sigma) ** 0.5
            if of_flow:
                inverted = scheduler.config.get("invert_sigmas", False)
                return (sigma, 1 - sigma) if inverted else (1 - sigma, sigma)
            scale = (sigma**2 + 1) ** 0.5
            return 1 / scale, sigma / scale
        return _level_of(products[int(timesteps[call])]) if len(products) else None

    return [level(call) for call in calls]


def _numbers(scheduler: Any, name: str) -> list[float]:
    """A scheduler's list of numbers, on the host; empty where it has none."""
    found = getattr(scheduler, name, None)
    found = found.tolist() if hasattr(found, "tolist") else found
    return [float(number) for number in (() if found is None else found)]


def _level_of(product: float) -> Level:
    return product**0.5, (1 - product) ** 0.5


EULER = ("FlowMatchEuler", "FlowMatchEulerDiscreteScheduler", "EulerDiscreteScheduler")
DDIM = ("DDIMScheduler", "CogVideoXDDIMScheduler")
"""Solvers whose step is x' = alpha' x0 + sigma' eps with x0 and eps of one prediction."""


def solver_levels(scheduler: Any, eta: float | None = None) -> tuple[tuple[Level, Level], ...]:
    """The levels (alpha, sigma) before and after every step of an Euler or DDIM solver.

    `eta` is what the pipeline call gives a solver that takes it.

    Raises:
        ValueError: for another solver, or one that changes x0 or adds noise, naming the fix.
    """
    name = type(scheduler).__name__
    if name not in EULER + DDIM:
        raise ValueError(
            f"guidance.method cfg_pp changes the step of the solver, which it can for Euler and "
            f"DDIM, but this pipeline uses {name}. Use sampling.scheduler: flow_euler (flow "
            f"models) or ddim; in Python one of {', '.join(EULER + DDIM)}."
        )
    for option in ("stochastic_sampling", "clip_sample", "thresholding"):
        if scheduler.config.get(option, False):
            raise ValueError(
                f"guidance.method cfg_pp needs a solver that keeps the predicted video and adds "
                f"no noise, but this {name} has {option}=True. Use {option}=False."
            )
    if eta and "eta" in inspect.signature(scheduler.step).parameters:
        raise ValueError(
            f"guidance.method cfg_pp needs a solver that adds no noise, but this call has "
            f"eta={eta:g}. Pass eta=0.0."
        )
    timesteps = _numbers(scheduler, "timesteps")
    if name in EULER:
        return tuple(pairwise(noise_levels(scheduler, range(len(timesteps) + 1))))
    # The level at the end of a step, as DDIM finds it itself.
    stride = scheduler.config.num_train_timesteps // scheduler.num_inference_steps
    products, last = _numbers(scheduler, "alphas_cumprod"), float(scheduler.final_alpha_cumprod)
    places = [int(timestep) - stride for timestep in timesteps]
    after = [_level_of(last if place < 0 else products[place]) for place in places]
    return tuple(zip(noise_levels(scheduler, range(len(timesteps))), after))
