"""Modular pipelines under `vidcfg.guide`; test_classes.py has each class at one scale, and more.

The oracle of a rule is `vidcfg.guide` on the pipeline without blocks, which runs its own passes.
"""

from dataclasses import replace

import pytest
import torch
from tiny_base import generators
from tiny_classes import tiny_class
from tiny_modular import modular
from tiny_text import t5, tokenizer
from tiny_video import wan
from tiny_wan import wan22

import vidcfg

TEXT = {"negative_prompt_embeds": torch.ones(2, 7, 32)}
RAMP = {"kind": "ramp", "first": 1.0, "last": 0.0}


def guided(tiny, negative=None, fps=None, **setting):
    """Latents, the trace, and the calls of the models."""
    calls, models = [], [tiny.pipe.transformer, getattr(tiny.pipe, "transformer_2", None)]
    hooks = [m.register_forward_hook(lambda *args: calls.append(1)) for m in models if m]
    negative = tiny.negative if negative is None else negative
    with vidcfg.guide(tiny.pipe, vidcfg.Guidance(**setting), fps=fps, **negative) as trace:
        made = tiny.unguided(generator=generators(0, 1))
    for hook in hooks:
        hook.remove()
    return made, trace, len(calls)


@pytest.fixture(scope="module")
def pair():
    """Wan in blocks and without, the same weights."""
    base = wan(num_steps=4)
    return modular(base, "WanModularPipeline"), base


@pytest.mark.parametrize(
    "setting",
    [
        {"scale": {"kind": "cosine", "start": 6.0, "end": 1.0, "over": "sigma"}, "frames": RAMP},
        {"scale": [1.0, 4.0, 4.0, 1.0], "rescale": 0.7, "clamp": 2.0, "statistics": "clip"},
        {"scale": 4.0, "frames": {"kind": "keyframes", "at": ["0.5s"], "floor": 0.1, "reach": 2}},
        {"scale": 4.0, "method": [{"kind": "freq", "space_low": 2.0}, "tcfg"], "frames": RAMP},
        {"scale": 4.0, "method": {"kind": "apg", "space": "prediction", "momentum": -0.5}},
        {"scale": 4.0, "method": "delta_reuse"},
        {"scale": 4.0, "method": {"kind": "adaptive_stop", "cosine": -1.0}},
    ],
)
def test_a_rule_is_the_same_with_blocks_and_without(pair, setting):
    ours, trace, calls = guided(pair[0], fps=8.0, **setting)
    want, wanted, _ = guided(pair[1], fps=8.0, **setting)
    assert torch.equal(ours, want)
    assert trace.evaluations == wanted.evaluations
    assert trace.planned.evaluations == wanted.planned.evaluations
    assert 2 * calls == trace.total
    assert [step.sigma for step in trace.steps] == [None] * 4
    assert (trace.surfaces[1].strength_KF == wanted.surfaces[1].strength_KF).all()


@pytest.mark.parametrize("name", ["HunyuanVideo15ModularPipeline", "LTXModularPipeline"])
def test_a_first_step_that_is_off_runs_no_unconditional_pass(name):
    tiny = tiny_class(name).tiny
    _, trace, calls = guided(tiny, scale=[1.0, 4.0])
    assert (calls, trace.evaluations) == (3, {"cond": 4, "uncond": 2})


def test_each_expert_has_its_own_scale_and_one_may_be_off():
    from diffusers.guiders import ClassifierFreeGuidance

    tiny = modular(wan22(), "Wan22ModularPipeline")
    tiny.pipe.guider, tiny.pipe.guider_2 = map(ClassifierFreeGuidance, (4.0, 1.0))
    stock = tiny.unguided(**tiny.negative, generator=generators(0, 1))
    for _ in range(2):
        ours, trace, calls = guided(tiny, scale={"high": 4.0, "low": 1.0})
        assert torch.equal(ours, stock)
        assert [step.expert for step in trace.steps] == ["high", "high", "low", "low"]
        assert (calls, trace.evaluations) == (6, {"cond": 8, "uncond": 4})


@pytest.fixture(scope="module")
def speaking():
    """Wan with its block for texts."""
    base = wan(num_steps=2)
    parts = {"text_encoder": t5(), "tokenizer": tokenizer()}
    tiny = modular(base, "WanModularPipeline", without=("decode",), **parts)
    prompts = {"prompt": ["a red circle", "a blue square"], "max_sequence_length": 7}
    return replace(tiny, positive=prompts, negative={})


@pytest.mark.parametrize("negative", ["blurry", ["blurry", "static"]])
def test_negative_prompts_are_encoded_by_the_blocks(speaking, negative):
    several = [negative] * 2 if isinstance(negative, str) else negative
    speaking.negative["negative_prompt"] = several
    stock = speaking.stock(4.0, generator=generators(0, 1))
    speaking.negative.clear()
    ours, _, _ = guided(speaking, {"negative_prompt": negative}, scale=4.0)
    assert torch.equal(ours, stock)
    assert not torch.equal(ours, guided(speaking, {}, scale=4.0)[0])


def test_guiders_are_their_own_again_after_a_call_that_fails(speaking):
    pipe, own = speaking.pipe, speaking.pipe.guider
    with vidcfg.guide(pipe, 4.0):
        with pytest.raises(ValueError, match="divisible by"):
            speaking.unguided(num_frames=8)
        assert pipe.guider is own
        with pytest.raises(ValueError, match="already inside a vidcfg.guide block"):
            vidcfg.guide(pipe, 4.0).__enter__()
    # an interrupted run leaves nothing behind for the next
    assert guided(speaking, {}, scale=[4.0, 1.0])[2] == 3


@pytest.mark.parametrize(
    ("guidance", "negative", "call", "match"),
    [
        ({"scale": 4.0, "method": "cads"}, {}, {}, "cannot do method: cads.*without blocks"),
        ({"scale": 4.0, "method": "stg"}, {}, {}, "cannot do method: stg"),
        ({"scale": 4.0, "method": "apg"}, {}, {}, "cannot do method: apg"),
        ({"scale": 4.0, "method": "zero_star"}, {}, {}, "cannot do method: zero_star"),
        ({"scale": 4.0, "threshold": {"floor": 1.0}}, {}, {}, "cannot do threshold"),
        ({"scale": 4.0, "passes": "batched"}, {}, {}, "cannot do passes: batched"),
        ({"scale": {"high": 4.0, "low": 3.0}}, {}, {}, "high"),
        ({"scale": 4.0}, TEXT, {}, "take negative_prompt. Pass that"),
        ({"scale": 4.0}, {}, {"negative_prompt": "blurry"}, "Pass it to vidcfg.guide"),
    ],
)
def test_what_cannot_be_is_refused_with_what_to_do(speaking, guidance, negative, call, match):
    with (
        pytest.raises(ValueError, match=match),
        vidcfg.guide(speaking.pipe, vidcfg.Guidance(**guidance), **negative),
    ):
        speaking.unguided(**call)


def test_one_setting_serves_all_samples(pair):
    with (
        pytest.raises(ValueError, match="call it once for each setting"),
        vidcfg.guide(pair[0].pipe, [4.0, 3.0]),
    ):
        pass


def test_embeddings_that_are_missing_are_named(pair):
    with pytest.raises(ValueError, match="Pass negative_prompt_embeds to vidcfg.guide"):
        guided(pair[0], {}, scale=4.0)


def test_blocks_have_no_call_of_a_model_that_could_be_checked(pair):
    with pytest.raises(ValueError, match="blocks of a WanModularPipeline call its model"):
        vidcfg.check_pipeline(pair[0].pipe)


def test_a_text_is_not_given_to_blocks_that_take_embeddings(pair):
    with (
        pytest.raises(ValueError, match="got negative_prompt, but.*take negative_prompt_embeds"),
        vidcfg.guide(pair[0].pipe, 4.0, negative_prompt="blurry"),
    ):
        pass


def test_a_scheduler_that_calls_twice_a_step_is_refused(pair):
    from diffusers import FlowMatchHeunDiscreteScheduler

    tiny = modular(wan(num_steps=2), "WanModularPipeline")
    tiny.pipe.update_components(scheduler=FlowMatchHeunDiscreteScheduler())
    with pytest.raises(ValueError, match="Use a scheduler of first order"):
        guided(tiny, scale=4.0)
