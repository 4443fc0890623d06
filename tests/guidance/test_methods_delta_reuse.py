"""Guidance that keeps cond - uncond for some steps, against a hand-written loop."""

import numpy as np
import pytest
import torch
from guidance_cases import LAYOUTS, B, F, bits, into, out_of, video
from rule_runs import branch_text, model, plan_of, rule_of, whole_run

from vidcfg.guidance.composite import Composite
from vidcfg.guidance.rules.cfg import Cfg
from vidcfg.guidance.rules.delta_reuse import DeltaReuse
from vidcfg.guidance.rules.zero_star import ZeroStar

K = 7


def strengths(seed=0):
    """Two samples; step 3 of the first is off, step 0 of the second all unconditional."""
    random = np.random.default_rng(seed)
    rows = random.choice([1.0, 3.0, 0.0, 5.5], size=(B, K, F))
    rows[:, 0] = 2.0
    rows[0, 3] = 1.0
    rows[1, 0] = 0.0
    return rows


def by_hand(x, strength_KF, every, axes, experts=None):
    """One sample in float64, from the definition; the steps on which uncond is evaluated."""
    x, kept, last, made = into(axes, x[None]).double(), None, None, []
    for k, row in enumerate(strength_KF):
        c, u = (
            model({"x": x, "text": torch.full((1, 1), branch_text(n)).double()})
            for n in ("cond", "uncond")
        )
        fresh = last is None or k - last >= every
        fresh = fresh or (experts is not None and experts[k] != experts[last])
        if fresh and (row != 1).any():
            kept, last = out_of(axes, c - u), k
            made.append(k)
        guided = out_of(axes, c).clone()
        if (row != 1).any():
            guided += torch.from_numpy(row - 1)[None, :, None, None, None] * kept
        x = x - 0.1 * into(axes, guided)
    return out_of(axes, x)[0], made


@pytest.mark.parametrize("every", [2, 3])
@pytest.mark.parametrize("axes", LAYOUTS)
def test_run_equals_a_loop_written_by_hand(axes, every):
    rows, x = strengths(), video(4)
    rules = [rule_of(DeltaReuse(every))] * B
    found, traces, _ = whole_run(rules, rows, 0 * rows + 1, x, axes=axes)
    for b in range(B):
        want, made = by_hand(x[b], rows[b], every, axes)
        # float32 steps of values up to 30
        torch.testing.assert_close(found[b].double(), want, rtol=1e-4, atol=1e-4)
        plan = plan_of(DeltaReuse(every), rows[b : b + 1])
        assert [k for k in range(K) if "uncond" in plan.per_step[k]] == made
    assert sum(t.evaluations.get("uncond", 0) for t in traces) == sum(
        len(by_hand(x[b], rows[b], every, axes)[1]) for b in range(B)
    )


def test_another_expert_makes_its_own_difference():
    experts = ("high", "high", "high", "low", "low", "low", "low")
    rows = np.full((B, K, F), 3.0)
    x = video(4)
    found, traces, _ = whole_run(
        [rule_of(DeltaReuse(4))] * B, rows, 0 * rows + 1, x, experts=experts
    )
    assert [k for k, t in enumerate(traces) if "uncond" in t.evaluations] == [0, 3]
    for b in range(B):
        want, made = by_hand(x[b], rows[b], 4, "BCFHW", experts)
        assert made == [0, 3]
        torch.testing.assert_close(found[b].double(), want, rtol=1e-4, atol=1e-4)


def test_every_step_is_plain_guidance_to_the_bit():
    rows, x = strengths(), video(4)
    off, _, calls = whole_run([rule_of(DeltaReuse(1))] * B, rows, 0 * rows + 1, x)
    plain, _, _ = whole_run([rule_of(Cfg())] * B, rows, 0 * rows + 1, x)
    assert torch.equal(bits(off), bits(plain))


def test_step_that_is_off_is_cond_and_keeps_nothing():
    rows = np.full((1, 3, F), 1.0)
    rows[0, 2] = 4.0
    methods = DeltaReuse(2).steps(rows[0], rows[0])
    assert [type(m).__name__ for m in methods] == ["DeltaReuse"] * 3
    plan = plan_of(DeltaReuse(2), rows, rows)
    assert plan.per_step == ({"cond": 1}, {"cond": 1}, {"cond": 1, "uncond": 1})


def test_second_evaluation_of_a_step_shares_the_decision():
    plan = plan_of(DeltaReuse(2), np.full((1, 3, F), 4.0), evaluations_per_step=(2, 2, 1))
    both, one = {"cond": 1, "uncond": 1}, {"cond": 1}
    assert plan.per_step == (both, both, one, one, both)


@pytest.mark.parametrize("axes", LAYOUTS)
@pytest.mark.parametrize("zeroed", [1, 2])
def test_beside_zeroed_steps_the_difference_is_made_on_the_first_step_that_moves(zeroed, axes):
    """Some steps stand still; from there on the loop written by hand, since zero_star is off."""
    rows, x = strengths(), video(4)
    still = np.ones_like(rows)
    still[:, :zeroed] = 3.0
    pairs = np.stack([still, rows], axis=2)
    method = Composite((ZeroStar(zeroed), DeltaReuse(2)))
    found, traces, _ = whole_run([rule_of(method)] * B, pairs, 0 * pairs + 1, x, axes=axes)
    for b in range(B):
        want, made = by_hand(x[b], rows[b, zeroed:], 2, axes)
        torch.testing.assert_close(found[b].double(), want, rtol=1e-4, atol=1e-4)
        plan = plan_of(method, pairs[b : b + 1])
        assert [k for k in range(K) if "uncond" in plan.per_step[k]] == [k + zeroed for k in made]
    assert traces[0].evaluations == {}
