"""A setting as the engine reads it: surfaces per expert, grouping, order."""

import numpy as np
import pytest

from vidcfg.guidance.frame_map import CausalMap, OneToOneMap
from vidcfg.guidance.frames import Keyframes, Ramp
from vidcfg.guidance.limits import Rescale, Threshold
from vidcfg.guidance.plan import SampleRows
from vidcfg.guidance.rules.dual import Dual
from vidcfg.guidance.schedule import Constant, Linear
from vidcfg.guidance.setting import Guidance
from vidcfg.guidance.windows import Window

RUN = {"num_steps": 4, "num_frames": 5, "frame_map": OneToOneMap()}


def test_surface_has_the_schedule_weights_windows_and_reducer_of_the_rule():
    rule = Guidance(scale=Linear(5.0, 2.0), frames=Ramp(0, 1), windows=(Window((0, 1), 0.5, 1.0),))
    surface = rule.surface(**RUN)
    assert surface.strength_KF[0].tolist() == [1.0, 1.0, 3.0, 4.0, 5.0]
    assert surface.strength_KF[-1].tolist() == [1.0, 1.25, 1.5, 1.75, 2.0]
    keyframes = Guidance(scale=Constant(5.0), frames=Keyframes([2], 0.0, 1), reduce="mean")
    assert keyframes.surface(**RUN | {"frame_map": CausalMap(4)}).weights_KF[0, 1] == 0.25


def test_seconds_need_the_frame_rate_of_the_run():
    rule = Guidance(scale=Constant(5.0), frames=Keyframes(["0.5s"], 0.0, 1))
    assert rule.surface(**RUN, fps=8.0).weights_KT[0].tolist() == [0, 0, 0, 0, 1]


def test_each_step_reads_the_scale_of_its_expert():
    rule = Guidance(scale={"high": Linear(7.0, 4.0), "low": Constant(2.0)})
    surface = rule.surface(**RUN, experts=("high", "high", "low", "low"))
    assert surface.scale_K.tolist() == [7.0, 6.0, 2.0, 2.0]
    assert surface.strength_KF[:, 3].tolist() == [7.0, 6.0, 2.0, 2.0]
    assert surface.progress_K.tolist() == pytest.approx([0, 1 / 3, 2 / 3, 1])


def test_an_expert_without_a_scale_is_refused():
    rule = Guidance(scale={"high": Constant(4.0)})
    with pytest.raises(ValueError, match=r"names the experts high, but this pipeline has high, l"):
        rule.surface(**RUN, experts=("high", "low", "low", "low"))


def test_an_expert_whose_interval_holds_none_of_its_steps_is_refused():
    early = {"kind": "interval", "value": 4.0, "from": 0.0, "to": 0.4}
    rule, run = Guidance(scale={"high": 3.0, "low": early}), dict(RUN)
    run["experts"] = ("high", "high", "low", "low")
    match = r"guidance.scale.low guides no step: low runs from 0.6667 to 1, where its interval"
    with pytest.raises(ValueError, match=match):
        rule.surface(**run)
    late = rule.replace(scale={"high": 3.0, "low": {**early, "to": 0.7}}).surface(**run)
    assert late.strength_KF[:, 0].tolist() == [3.0, 3.0, 4.0, 1.0]


def test_expert_scales_for_a_single_model_are_refused():
    rule = Guidance(scale={"high": Constant(4.0), "low": Constant(3.0)})
    with pytest.raises(ValueError, match=r"has one model, without experts\. Use"):
        rule.surface(**RUN)


def test_order_names_what_is_applied():
    assert Guidance(scale=Constant(2.0)).order() == ("method:cfg",)
    full = Guidance(
        scale=Constant(2.0),
        method=Dual(),
        clamp=3.0,
        threshold=Threshold(),
        rescale=Rescale(0.7),
    )
    assert full.order() == ("method:dual", "rescale", "threshold", "clamp")


def test_samples_combine_together_unless_more_than_the_surface_differs():
    def key(guidance):
        rows = np.full((1, 1, 2), 2.0), np.ones((1, 1, 2))
        return SampleRows((guidance,), *rows).steps[0][0].key

    base = Guidance(scale=Constant(2.0))
    assert key(base) == key(Guidance(scale=Linear(9.0, 1.0), frames=Ramp(0, 1)))
    others = [
        Guidance(scale=Constant(2.0), method=Dual(2.0)),
        Guidance(scale=Constant(2.0), method=Dual(3.0)),
        Guidance(scale=Constant(2.0), rescale=Rescale(0.7)),
        Guidance(scale=Constant(2.0), threshold=Threshold()),
        Guidance(scale=Constant(2.0), clamp=3.0),
        Guidance(scale=Constant(2.0), statistics="clip"),
        Guidance(scale=Constant(2.0), precision="float32"),
    ]
    assert len({key(guidance) for guidance in [base, *others]}) == 8
