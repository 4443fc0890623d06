"""How rows become model calls, and how the faster way is found."""

import numpy as np
import pytest
import torch
from guidance_cases import F, bits, video
from rule_runs import rule_of, whole_run

from vidcfg.guidance import passes
from vidcfg.guidance.passes import (
    Passes,
    PassTimer,
    StepInputs,
    clock,
    model_calls,
    run_rows,
)
from vidcfg.guidance.rules.apg import Apg
from vidcfg.guidance.rules.freq import Freq
from vidcfg.guidance.rules.perp_neg import PerpNeg
from vidcfg.guidance.rules.zero_star import ZeroStar

ROWS = [("cond", 0), ("cond", 2), ("uncond", 0), ("uncond", 1), ("uncond", 2)]


def cut(batched, micro_batch=None):
    return model_calls(ROWS, batched=batched, micro_batch=micro_batch, isolated=frozenset())


def test_sequential_is_one_call_per_branch_in_order_of_appearance():
    assert cut(False) == [ROWS[:2], ROWS[2:]]


def test_batched_is_one_call_in_batch_order():
    assert cut(True) == [ROWS[2:] + ROWS[:2]]


def test_micro_batch_caps_the_rows_of_a_call():
    assert cut(False, 2) == [ROWS[:2], ROWS[2:4], ROWS[4:]]
    assert cut(True, 2) == [ROWS[2:4], [ROWS[4], ROWS[0]], [ROWS[1]]]
    assert cut(False, 1) == [[row] for row in ROWS]
    assert cut(False, 99) == cut(False)


@pytest.mark.parametrize("batched", [True, False])
def test_every_row_is_run_once(batched):
    for size in (None, 1, 2, 3, 5):
        assert sorted(r for call in cut(batched, size) for r in call) == sorted(ROWS)


@pytest.mark.parametrize("samples", [[0], [1, 2], [0, 2], [2, 0], [0, 1, 2]])
def test_the_model_reads_rows_where_they_lie_if_they_are_neighbours(samples):
    noisy, text = torch.randn(3, 2, 4, 5), torch.randn(3, 7, 6)
    given = {"shared": {"x": noisy}, "by_branch": {"cond": {"text": text}}}
    inputs = StepInputs(**given, num_frames=4, step=0)
    seen = {}

    def evaluate(rows, branches):
        seen.update(rows)
        return 2 * rows["x"]

    rows = [("cond", sample) for sample in samples]
    found, calls = run_rows(rows, inputs, evaluate, Passes(), isolated=frozenset(), timer=None)
    assert calls == 1
    for (_, sample), (prediction, place) in found.items():
        assert torch.equal(prediction[place], 2 * noisy[sample])
    assert torch.equal(seen["text"], text[samples])
    is_view = seen["x"].untyped_storage().data_ptr() == noisy.untyped_storage().data_ptr()
    assert is_view == (samples not in ([0, 2], [2, 0]))


@pytest.fixture
def timer(monkeypatch):
    monkeypatch.setattr(passes, "_SECONDS", {})
    return PassTimer(("model", (2, 3), "cpu"))


def run(timer, seconds, steps, rows=(1, 1)):
    modes = []
    for _ in range(steps):
        modes.append(timer.choose(rows))
        timer.record(modes[-1], seconds[modes[-1]].pop(0), rows)
    return modes


@pytest.mark.parametrize("faster", ["batched", "sequential"])
def test_faster_way_is_kept_after_three_steps_of_each(timer, faster):
    slower = {"batched": "sequential", "sequential": "batched"}[faster]
    # the first time of each is start-up: it points the other way and must not count
    seconds = {faster: [9.0, 2.0, 2.1] + [50.0] * 9, slower: [0.1, 3.0, 3.1]}
    modes = run(timer, seconds, 12)
    assert modes[:6] == ["batched", "sequential"] * 3
    assert modes[6:] == [faster] * 6


def test_choice_is_remembered_per_key_and_rows(timer):
    seconds = {"batched": [1.0] * 3, "sequential": [2.0] * 3}
    run(timer, seconds, 6)
    assert PassTimer(timer.key).choose((1, 1)) == "batched"
    run(PassTimer(timer.key), {"batched": [2.0] * 3, "sequential": [1.0] * 3}, 6, (8, 8))
    assert timer.choose((8, 8)) == "sequential"
    assert timer.choose((1, 1)) == "batched"
    other = PassTimer(("model", (4, 3), "cpu"))
    run(other, {"batched": [1.0], "sequential": []}, 1)
    assert other.choose((1, 1)) == "sequential"


def test_measuring_goes_on_across_runs(timer):
    seconds = {"batched": [1.0] * 3, "sequential": [2.0] * 3}
    modes = [run(PassTimer(timer.key), seconds, 2) for _ in range(3)]
    assert modes == [["batched", "sequential"]] * 3
    assert timer.choose((1, 1)) == "batched"


def test_clock_goes_forward():
    assert clock(torch.device("cpu")) <= clock(torch.device("cpu"))


@pytest.mark.parametrize("axes", ["BFCHW", "tokens"])
@pytest.mark.parametrize("own", [(0.0, 0.0), (0.0, 0.4)], ids=["same texts", "same prompt"])
@pytest.mark.parametrize(
    "method",
    [Apg(momentum=-0.5), Freq(space_low=0.5), ZeroStar(zero_init_steps=0), PerpNeg()],
    ids=lambda method: method.kind,
)
def test_bits_do_not_depend_on_who_shares_a_prediction(method, own, axes):
    rules = [rule_of(method, rescale=0.7)] * 2
    strength = np.broadcast_to([[[3.0]], [[6.0]]], (2, 3, F))
    weights = np.ones_like(strength)
    # Beyond SMALL elements, where the layout of the helpers allows for it.
    x = video(3)[:1].repeat(2, 1, 1, *((1, 1) if axes == "tokens" else (20, 24)))
    together, traces, _ = whole_run(rules, strength, weights, x, axes=axes, own=own)
    assert traces[0].evaluations["cond"] == 1
    for b in (0, 1):
        one = slice(b, b + 1)
        given = (rules[one], strength[one], weights[one], x[one])
        alone, _, _ = whole_run(*given, axes=axes, own=own[one])
        assert torch.equal(bits(alone), bits(together[one]))
