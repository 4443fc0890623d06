"""Which step a call of the denoiser belongs to, and the noise level that it begins with."""

import diffusers
import numpy as np
import pytest
import torch

from vidcfg.pipelines.steps import calls_per_step, first_calls, step_of_call, step_sigmas


def _set(scheduler, num_steps):
    scheduler.set_timesteps(num_steps)
    return scheduler


def test_first_order_schedulers_call_once_a_step():
    scheduler = _set(diffusers.DDIMScheduler(), 5)
    assert step_of_call(scheduler) == first_calls(scheduler) == (0, 1, 2, 3, 4)


def test_second_order_schedulers_call_twice_but_in_the_last_step():
    scheduler = _set(diffusers.FlowMatchHeunDiscreteScheduler(), 4)
    assert calls_per_step(scheduler) == (2, 2, 2, 1)
    assert first_calls(scheduler) == (0, 2, 4, 6)


@pytest.mark.parametrize(
    ("skip", "num_steps", "calls"),
    [
        (True, 5, (2, 1, 1, 1, 1)),
        (True, 2, (2, 1)),
        (True, 1, (1,)),
        (False, 6, (4, 4, 4, 1, 1, 1)),
    ],
)
def test_pndm_repeats_its_first_steps_and_still_makes_as_many_as_asked_for(skip, num_steps, calls):
    scheduler = _set(diffusers.PNDMScheduler(skip_prk_steps=skip), num_steps)
    assert calls_per_step(scheduler) == calls
    sigmas = step_sigmas(scheduler)
    assert sigmas.shape == (num_steps,)
    assert (np.diff(sigmas) < 0).all()


def test_a_step_of_pndm_moves_the_sample_once(monkeypatch):
    """The sample before the first call of a step is the one that the step before it ended with."""
    scheduler = _set(diffusers.PNDMScheduler(skip_prk_steps=True), 4)
    reached = {}
    original = scheduler._get_prev_sample

    def spy(sample, timestep, prev_timestep, model_output):
        reached[len(reached)] = (int(timestep), int(prev_timestep))
        return original(sample, timestep, prev_timestep, model_output)

    monkeypatch.setattr(scheduler, "_get_prev_sample", spy)
    x = torch.ones(2, 3)
    for t in scheduler.timesteps:
        x = scheduler.step(torch.ones_like(x), t, x).prev_sample
    # calls 0 and 1 both go from the first level to the second
    assert reached[0] == reached[1]
    assert [reached[call][0] for call in first_calls(scheduler)] == [750, 500, 250, 0]
