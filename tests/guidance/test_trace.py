"""What a run leaves behind, as plain data."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from vidcfg.guidance.plan import RunRow, plan_run
from vidcfg.guidance.rules.cfg import Cfg
from vidcfg.guidance.trace import NonFiniteError, StepTrace, Trace


def step(number, evaluations):
    return StepTrace(
        step=number,
        sigma=0.5,
        expert=None,
        strength_BF=np.array([[6.0, 1.0, 0.1], [1.0, 1.0, 1.0]]),
        evaluations=evaluations,
        calls=2,
        std_cond_BF=np.array([[1 / 3, 1.0, 2e-7 / 3], [1.0, 1.0, 1.0]]),
        std_guided_BF=np.array([[123456.789, 1.0, 0.0], [1.0, 1.0, 1.0]]),
    )


def test_evaluations_are_summed_over_the_steps_of_the_last_run():
    trace = Trace()
    trace.start_run(surfaces=[], planned=None, order=("method:cfg",))
    trace.steps += [step(0, {"cond": 2, "uncond": 1}), step(1, {"cond": 2})]
    assert trace.evaluations == {"cond": 4, "uncond": 1}
    assert trace.total == 5
    trace.start_run(surfaces=[], planned=None, order=("method:dual",))
    assert (trace.total, trace.num_runs, trace.order) == (0, 2, ("method:dual",))


def test_json_holds_strengths_to_the_bit_and_six_digits_of_spread():
    rows = [RunRow(Cfg(), np.full((2, 3), 6.0), np.ones((2, 3)))]
    trace = Trace()
    trace.start_run(surfaces=[], planned=plan_run(rows), order=("method:cfg", "rescale"))
    trace.steps.append(step(0, {"cond": 1, "uncond": 1}))
    data = json.loads(json.dumps(trace.to_dict(), allow_nan=False))
    assert data["order"] == ["method:cfg", "rescale"]
    assert data["planned"] == {"cond": 2, "uncond": 2}
    assert data["naive"] == 4
    first = data["steps"][0]
    assert first["strength"] == [[6.0, 1.0, 0.1], [1.0, 1.0, 1.0]]
    assert first["std_cond"][0] == [0.333333, 1.0, 6.66667e-08]
    assert first["std_guided"][0] == [123457.0, 1.0, 0.0]
    assert first["evaluations"] == {"cond": 1, "uncond": 1}


def test_spread_that_no_step_waited_for_is_looked_at_when_the_run_ends():
    late = {name: torch.ones(2, 3).double() for name in ("std_cond_BF", "std_guided_BF")}
    trace = Trace([replace(step(k, {"cond": 2}), **late) for k in range(3)])
    trace.check_finite()
    late["std_guided_BF"] = torch.tensor([[1.0, 1, 1], [1, 1, torch.nan]]).double()
    trace.steps[1] = replace(trace.steps[1], **late)
    with pytest.raises(NonFiniteError, match="step 1: a prediction of sample 1 .* frame 2"):
        trace.check_finite()


def test_a_trace_without_a_run_is_empty():
    assert Trace().to_dict()["planned"] is None
    assert Trace().evaluations == {}
