"""Guidance that ends once both predictions point the same way."""

import numpy as np
import pytest
import torch
from guidance_cases import LAYOUTS, SURFACE_BF, B, F, bits, video
from rule_runs import LEVEL, one_step, plan_of, rule_of, whole_run

from vidcfg.guidance.composite import Composite
from vidcfg.guidance.plan import Memory
from vidcfg.guidance.rules.adaptive_stop import AdaptiveStop
from vidcfg.guidance.rules.cfg import Cfg

STRENGTH = np.full((B, F), 3.0)


def turned(degrees_BF):
    """cond at the given angle to uncond in every frame."""
    uncond, other = video(0), video(1)
    for b in range(B):
        for f in range(F):
            u, o = uncond[b, f], other[b, f]
            o -= u * (o * u).sum() / (u * u).sum()
            o *= u.norm() / o.norm()
    angle = torch.deg2rad(torch.as_tensor(degrees_BF).float())[:, :, None, None, None]
    return {"uncond": uncond, "cond": torch.cos(angle) * uncond + torch.sin(angle) * other}


@pytest.mark.parametrize("axes", LAYOUTS)
def test_frame_is_guided_for_the_last_time_on_the_step_that_passes(axes):
    angles = np.array([[2.0, 30, 30, 30, 2.0], [30, 30, 30, 30, 30]])
    memory, method = Memory(), AdaptiveStop(cosine=np.cos(np.deg2rad(10)))
    plain, _, _ = one_step(Cfg(), turned(angles), STRENGTH, axes=axes)
    first, trace, _ = one_step(method, turned(angles), STRENGTH, axes=axes, memory=memory)
    assert torch.equal(bits(first), bits(plain))
    assert (trace.strength_BF == 3).all()
    # frames 0 and 4 of sample 0 have stopped, whatever their angle is from here on
    wide = turned(np.full((B, F), 30.0))
    second, trace, _ = one_step(method, wide, STRENGTH, axes=axes, memory=memory)
    want = np.full((B, F), 3.0)
    want[0, [0, 4]] = 1
    assert np.array_equal(trace.strength_BF, want)
    plain, _, _ = one_step(Cfg(), wide, want, axes=axes)
    assert torch.equal(bits(second), bits(plain))


def test_uncond_is_left_out_once_no_frame_is_left():
    memory, method = Memory(), AdaptiveStop(cosine=0.9)
    angles = np.array([[2.0] * F, [2.0] * (F - 1) + [40.0]])
    _, _, calls = one_step(method, turned(angles), STRENGTH, memory=memory)
    assert calls == [("cond",) * B, ("uncond",) * B]
    _, trace, calls = one_step(method, turned(angles), STRENGTH, memory=memory)
    assert calls == [("cond",) * B, ("uncond",)]
    assert trace.evaluations == {"cond": 2, "uncond": 1}


def test_clip_statistics_stop_all_frames_at_once():
    memory, method = Memory(), AdaptiveStop(cosine=0.9)
    angles = np.array([[20.0] * F, [80.0] * F])
    angles[0, 0] = 40.0
    one_step(method, turned(angles), STRENGTH, memory=memory, statistics="clip")
    assert memory.stopped[0, None].all()
    assert (1, None) not in memory.stopped


@pytest.mark.parametrize("space", ["x0", "prediction"])
def test_cosine_is_that_of_its_space(space):
    videos, noisy, memory = turned(np.arange(10.0, 60, 5).reshape(B, F)), video(99), Memory()
    c, u = (videos[n].double().flatten(2) for n in ("cond", "uncond"))
    if space == "x0":
        c, u = ((noisy.double().flatten(2) - LEVEL[1] * p) / sum(LEVEL) for p in (c, u))
    cosine = (c * u).sum(2) / (c.norm(dim=2) * u.norm(dim=2))
    low, high = cosine.flatten().sort().values[4:6]
    middle = float(low + high) / 2
    one_step(AdaptiveStop(middle, space), videos, STRENGTH, memory=memory, noisy=noisy)
    for b in range(B):
        stopped = memory.stopped.get((b, None), np.zeros(F, bool))
        assert np.array_equal(stopped, (cosine[b] > middle).numpy())


def test_cosine_one_never_stops_and_is_plain_guidance():
    videos = turned(np.zeros((B, F)))
    memory = Memory()
    off, _, _ = one_step(AdaptiveStop(1.0), videos, SURFACE_BF, memory=memory)
    plain, _, _ = one_step(Cfg(), videos, SURFACE_BF)
    assert torch.equal(bits(off), bits(plain))
    assert memory.stopped == {}


def test_other_terms_go_on_and_another_expert_starts_afresh():
    method = Composite((AdaptiveStop(0.9), Cfg()))
    memory, videos = Memory(), turned(np.full((B, F), 2.0))
    strength = np.full((B, 2, F), 3.0)
    one_step(method, videos, strength, memory=memory, expert="high")
    guided, trace, _ = one_step(method, videos, strength, memory=memory, expert="high")
    plain, _, _ = one_step(Cfg(), videos, STRENGTH)
    torch.testing.assert_close(guided, plain, rtol=1e-6, atol=1e-5)
    assert (trace.terms[0]["adaptive_stop"] == 1).all()
    assert (trace.terms[0]["cfg"] == 3).all()
    _, trace, _ = one_step(method, videos, strength, memory=memory, expert="low")
    assert (trace.terms[0]["adaptive_stop"] == 3).all()


def test_plan_is_an_upper_bound_and_says_so():
    rules = [rule_of(AdaptiveStop(-0.999))] * 2
    rows = np.full((2, 4, F), 3.0)
    plan = plan_of(rules[0].method, rows, starts=range(2))
    assert plan.is_upper_bound
    assert plan.evaluations == {"cond": 8, "uncond": 8}
    _, traces, _ = whole_run(rules, rows, 0 * rows + 1, video(3))
    executed = [t.evaluations for t in traces]
    assert executed == [{"cond": 2, "uncond": 2}] + [{"cond": 2}] * 3
    assert not plan_of(Cfg(), rows[:1]).is_upper_bound
