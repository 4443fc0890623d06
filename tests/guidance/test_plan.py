"""Evaluations counted by hand, and a grid counted by another way."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from rule_runs import multi, plan_of, rule_of

from vidcfg.guidance.limits import Rescale
from vidcfg.guidance.plan import Memory, SampleRows
from vidcfg.guidance.plan import plan_run as plan_samples
from vidcfg.guidance.rules.cfg import Cfg
from vidcfg.guidance.rules.dual import Dual
from vidcfg.guidance.rules.perp_neg import PerpNeg

K, F = 5, 3
TEXTS = {"cond": "a kite", "uncond": "", "negative": "blurry"}


def row(strength, *, weight=1.0, start=0, method=None, rescale=0.0, texts=TEXTS, num_steps=K):
    """One sample, and its start and texts."""
    shape = (num_steps, F)
    strength, weight = (
        np.broadcast_to(np.reshape(np.asarray(v, float), (-1, 1)), shape).copy()
        for v in (strength, weight)
    )
    rule = rule_of(method or Cfg(), rescale=Rescale(rescale))
    return SampleRows((rule,), (strength,), (weight,)), start, texts


def plan_run(rows, **how):
    samples, starts, texts = zip(*rows)
    return plan_samples(SampleRows.joined(samples), starts=starts, texts=texts, **how)


def test_a_row_of_ones_runs_one_pass_and_zeros_the_other():
    assert plan_run([row(1.0)]).evaluations == {"cond": K}
    assert plan_run([row(0.0)]).evaluations == {"uncond": K}
    assert plan_run([row([6.0, 1.0, 0.5, 1.0, 0.0])]).per_step == (
        {"cond": 1, "uncond": 1},
        {"cond": 1},
        {"cond": 1, "uncond": 1},
        {"cond": 1},
        {"uncond": 1},
    )


def test_one_guided_frame_is_enough_to_need_both():
    strength = np.ones((1, K, F))
    strength[0, 2, 1] = 1.5
    plan = plan_of(Cfg(), strength)
    assert plan.evaluations == {"cond": K, "uncond": 1}
    assert plan.naive == 2 * K


def test_eight_scales_of_one_prompt_and_seed_share_the_first_step():
    plan = plan_run([row(s) for s in range(2, 10)])
    assert plan.per_step[0] == {"cond": 1, "uncond": 1}
    assert plan.evaluations == {"cond": 8 * K - 7, "uncond": 8 * K - 7}
    assert plan.naive == 2 * 8 * K
    assert plan.total == 2 * (8 * K - 7)


def test_rows_share_as_long_as_their_strengths_coincide():
    rows = [row([5, 4, 3, 2, 1.5]), row([5, 4, 3, 7, 1.5]), row([5, 6, 3, 2, 1.5])]
    assert [s["cond"] for s in plan_run(rows).per_step] == [1, 1, 2, 2, 3]


def test_what_differs_is_not_shared():
    same = plan_run([row(6.0), row(6.0)])
    assert same.total == 2 * K
    other_texts = TEXTS | {"cond": "a dog"}
    for other in (row(6.0, start=1), row(6.0, texts=other_texts)):
        plan = plan_run([row(6.0), other])
        assert plan.evaluations["cond"] == 2 * K
    # texts of one branch may still coincide on the first step
    plan = plan_run([row(6.0), row(6.0, texts=other_texts)])
    assert plan.per_step[0] == {"cond": 2, "uncond": 1}
    limits = plan_run([row(6.0, rescale=0.0), row(6.0, rescale=0.7)])
    assert [s["cond"] for s in limits.per_step] == [1, 2, 2, 2, 2]


def test_limits_do_not_part_rows_before_the_first_guided_step():
    rows = [row([1, 1, 6, 6, 6], rescale=r) for r in (0.0, 0.7)]
    assert [s["cond"] for s in plan_run(rows).per_step] == [1, 1, 1, 2, 2]


def test_plain_guidance_shares_by_strength_whatever_the_weights():
    assert plan_run([row(2.0, weight=1.0), row(2.0, weight=0.5)]).total == 2 * K
    dual = [row(2.0, weight=w, method=Dual(1.5)) for w in (1.0, 0.5)]
    assert plan_run(dual).per_step[1] == {"cond": 2, "uncond": 2, "negative": 2}


def test_sharing_off_counts_every_sample():
    assert plan_run([row(6.0)] * 3, share=False).evaluations == {"cond": 3 * K, "uncond": 3 * K}


def test_heun_evaluates_twice_but_on_the_last_step():
    calls = {"evaluations_per_step": (2,) * (K - 1) + (1,)}
    plan = plan_run([row([6, 6, 1, 6, 1])], **calls)
    assert len(plan.per_step) == 2 * K - 1
    assert plan.evaluations == {"cond": 2 * K - 1, "uncond": 6}
    assert plan.naive == 2 * (2 * K - 1)
    pair = plan_run([row(2.0), row(3.0)], **calls)
    assert [s["cond"] for s in pair.per_step] == [1] + [2] * (2 * K - 2)


def test_branches_come_in_the_order_of_the_method():
    def needed(method, strength):
        samples, _, _ = row(strength, method=method)
        return samples.steps[0][0].branches

    assert needed(Dual(1.0), 3) == ("cond", "uncond", "negative")
    assert needed(Dual(2.0), 3) == ("cond", "negative")
    assert needed(multi(("b", 1.0), ("a", 1.0)), 1)[2:] == ("condition:b", "condition:a")


def grid(scales, starts, stops, num_steps=50):
    """Labels per step: the scale inside [start, stop) of the run, else 1."""
    k = np.arange(num_steps)
    return [
        np.where((k >= a * num_steps) & (k < b * num_steps), s, 1.0)
        for s in scales
        for a in starts
        for b in stops
    ]


def trie(labels):
    """Distinct prefixes, counted from the strings themselves."""
    cond = sum(len({tuple(r[:k]) for r in labels}) for k in range(len(labels[0])))
    uncond = sum(len({tuple(r[:k]) for r in labels if r[k] != 1}) for k in range(len(labels[0])))
    return cond + uncond


SCALES = (2, 3, 4, 5, 6, 7, 8, 9)


@pytest.mark.parametrize(
    ("starts", "stops", "count"),
    [
        ((0,), (1,), 786),
        ((0.2,), (0.8,), 556),
        ((0,), (0.4, 0.6, 0.8, 1), 1242),
        ((0, 0.1, 0.2, 0.3), (0.4, 0.6, 0.8, 1), 4500),
    ],
)
def test_grid_of_fifty_steps_takes_the_count_of_its_trie(starts, stops, count):
    labels = grid(SCALES, starts, stops)
    plan = plan_run([row(label, num_steps=50) for label in labels])
    assert plan.total == trie(labels)
    assert plan.total == count


def test_perp_neg_counts_three_branches_while_the_negative_is_on():
    plan = plan_run([row(4.0, weight=[1, 1, 0, 1, 0], method=PerpNeg(1.0))])
    assert plan.evaluations == {"cond": 5, "uncond": 5, "negative": 3}


def test_no_rows_need_nothing():
    assert plan_samples(SampleRows((), (), ())).total == 0


def test_a_cost_can_be_planned_without_torch():
    code = (
        "import sys; import vidcfg.guidance.plan, vidcfg.guidance.setting, vidcfg.guidance.trace; "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_evaluations_are_listed_in_the_order_of_the_method_whatever_the_hash_seed():
    code = """
import numpy as np
from vidcfg.guidance.rules.dual import Dual
from vidcfg.guidance.plan import SampleRows, plan_run
from vidcfg.guidance.setting import Guidance
ones = np.ones((1, 2, 3))
rule = Guidance(4.0, method=Dual(1.0))
print(list(plan_run(SampleRows((rule,), 4 * ones, ones)).evaluations))
"""
    for seed in ("1", "2", "3"):
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.strip() == "['cond', 'uncond', 'negative']"


def test_memory_keeps_what_a_later_step_does_not_name_and_frames_that_stopped():
    memory, keys = Memory(), [(3, None), (5, "low")]
    first, second, third = torch.randn(3, 2, F, 4, generator=torch.Generator().manual_seed(0))
    memory.keep(keys, {"0.a": first, "1.b": second}, torch.eye(F)[[0, 0]] > 0)
    memory.keep(keys, {"1.b": third}, torch.eye(F)[[0, 2]] > 0)
    memory.keep(keys[:1], {}, None)
    for i, key in enumerate(keys):
        assert torch.equal(memory.vectors[key]["0.a"], first[i : i + 1])
        assert torch.equal(memory.vectors[key]["1.b"], third[i : i + 1])
    assert [list(np.flatnonzero(memory.stopped[key])) for key in keys] == [[0], [0, 2]]
