"""What a run leaves behind, as plain data."""

import json
import sys
from dataclasses import replace
from types import SimpleNamespace
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from rule_runs import plan_of

from vidcfg.guidance.rules.cfg import Cfg
from vidcfg.guidance.step import NonFiniteError, check_finite
from vidcfg.guidance.trace import StepTrace, Trace


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
    trace.start_run(("method:cfg",))
    trace.steps += [step(0, {"cond": 2, "uncond": 1}), step(1, {"cond": 2})]
    assert trace.evaluations == {"cond": 4, "uncond": 1}
    assert trace.total == 5
    trace.surfaces, trace.planned = ["of this run"], plan_of(Cfg(), np.full((1, 2, 3), 6.0))
    trace.start_run(("method:dual",))
    assert (trace.total, trace.num_runs, trace.order) == (0, 2, ("method:dual",))
    assert (trace.surfaces, trace.planned) == ([], None)


def test_json_holds_strengths_to_the_bit_and_six_digits_of_spread():
    trace, planned = Trace(), plan_of(Cfg(), np.full((1, 2, 3), 6.0))
    trace.start_run(("method:cfg", "rescale"))
    trace.planned = planned
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
    steps = [replace(step(k, {"cond": 2}), **late) for k in range(3)]
    check_finite(steps)
    late["std_guided_BF"] = torch.tensor([[1.0, 1, 1], [1, 1, torch.nan]]).double()
    steps[1] = replace(steps[1], **late)
    with pytest.raises(NonFiniteError, match="step 1: a prediction of sample 1 .* frame 2"):
        check_finite(steps)


def test_a_trace_without_a_run_is_empty():
    assert Trace().to_dict()["planned"] is None
    assert Trace().evaluations == {}


def test_a_trace_is_told_in_a_line_a_table_and_rows():
    trace = Trace()
    assert repr(trace) == "Trace(no run yet)"
    assert trace._repr_html_() == "<p>Trace(no run yet)</p>"
    trace.steps += [step(0, {"cond": 2, "uncond": 1}), step(1, {"cond": 2})]
    line = (
        "Trace(2 steps, 2 samples, 3 latent frames, strength 0.1 to 6, "
        "5 evaluations: 4 cond, 1 uncond)"
    )
    assert repr(trace) == line
    page = ElementTree.fromstring(f"<html>{trace._repr_html_()}</html>")
    cells = [[cell.text for cell in row] for row in page.iter("tr")]
    spread = ["6.667e-08 to 1", "0 to 1.235e+05"]
    assert cells[1] == ["0", "0.5", None, "0.1 to 6", *spread, "2 cond, 1 uncond"]
    assert len(cells) == 3
    assert "frames, strength 6, 2 ev" in repr(
        Trace([replace(step(0, {"cond": 2}), strength_BF=np.full((2, 3), 6.0))])
    )
    rows = trace.rows()
    assert len(rows) == 12
    place = {"step": 1, "sigma": 0.5, "expert": None, "sample": 0, "frame": 2}
    assert rows[8] == place | {"strength": 0.1, "std_cond": 2e-7 / 3, "std_guided": 0.0}


def test_rows_are_handed_to_pandas_and_without_it_the_error_says_what_to_type(monkeypatch):
    trace = Trace(steps=[step(0, {"cond": 2})])
    monkeypatch.setitem(sys.modules, "pandas", SimpleNamespace(DataFrame=tuple))
    assert trace.to_pandas() == tuple(trace.rows())
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ModuleNotFoundError, match="needs pandas, .*Type: pip install pandas"):
        trace.to_pandas()


def test_the_plot_shows_the_numbers_of_the_sample_at_its_steps():
    trace = Trace([step(k, {"cond": 2, "uncond": k}) for k in (0, 0, 3)])
    strengths = np.array([[6.0, 1.0, 0.1], [5.0, 1.0, 1.0], [1.0, 1.0, 1.0]])
    late = {"std_cond_BF": torch.ones(2, 3).double()}
    trace.steps = [
        replace(one, strength_BF=np.stack([np.full(3, 9.0), row]), **late)
        for one, row in zip(trace.steps, strengths)
    ]
    figure = trace.plot(1)
    strength, spread, passes = figure.axes[:3]
    shown = strength.images[0].get_array().T
    assert np.array_equal(shown.filled(1.0), strengths)
    assert np.array_equal(shown.mask, strengths == 1)
    before, after = (line.get_ydata().tolist() for line in spread.lines)
    assert (before, after) == ([1.0] * 3, [1.0] * 3)
    assert [bar.get_height() for bar in passes.patches] == [2, 2, 2, 0, 0, 3]
    assert passes.get_legend_handles_labels()[1] == ["cond", "uncond"]
    # two calls of step 0, then step 3
    assert [passes.xaxis.get_major_formatter()(x, 0) for x in range(4)] == ["0", "0", "3", ""]
    assert "3 steps" in figure.get_suptitle()
    titles = [axis.get_title(loc="left") for axis in (strength, passes)]
    assert titles == ["strength, sample 1", "model evaluations, all samples"]
    assert figure._repr_png_().startswith(b"\x89PNG")


def test_the_head_of_a_plot_with_many_branches_fits_the_picture():
    branches = dict.fromkeys(("cond", "uncond", "negative", "perturbed:stg", "weak"), 2)
    lines = Trace([step(0, branches)] * 50).plot().get_suptitle().split("\n")
    assert " ".join(lines) == repr(Trace([step(0, branches)] * 50))
    assert max(map(len, lines)) <= 100


def test_a_plot_without_steps_or_of_no_sample_says_what_to_do():
    with pytest.raises(ValueError, match="nothing to plot.*Call the pipeline first"):
        Trace().plot()
    with pytest.raises(ValueError, match="sample is 2, but the run has 0 to 1"):
        Trace([step(0, {"cond": 2})]).plot(2)
