"""Weak models: where they come from, and that nothing but their settings decides them."""

import copy
import gc
import weakref

import numpy as np
import pytest
import torch
from guided_runs import record_inside
from tiny_adapters import with_image_prompts
from tiny_base import rebuilt
from tiny_pipelines import BUILDERS, generators

import vidcfg
from vidcfg.guidance.rules.autoguidance import Autoguidance
from vidcfg.pipelines.changes.autoguidance import (
    content_of,
    degraded,
    weak_model,
    weak_weights,
)


def weights_of(seed: int = 0) -> dict:
    torch.manual_seed(seed)
    return {"a.weight": torch.randn(5, 7), "a.bias": torch.randn(5), "one": torch.tensor([2.0])}


def test_noise_is_relative_to_each_tensor_and_a_function_of_seed_and_name():
    weights = weights_of() | {"b.weight": 100 * weights_of(1)["a.weight"]}
    noisy = degraded(weights, Autoguidance(noise=0.5, seed=3))
    again = degraded({"a.weight": weights["a.weight"]}, Autoguidance(noise=0.5, seed=3))
    assert torch.equal(noisy["a.weight"], again["a.weight"])
    other = degraded(weights, Autoguidance(noise=0.5, seed=4))
    assert not torch.equal(noisy["a.weight"], other["a.weight"])
    for name in ("a.weight", "b.weight"):
        added = (noisy[name] - weights[name]).double().std() / weights[name].double().std()
        assert 0.35 < float(added) < 0.65  # 35 numbers: the spread of a spread is 12 %
    assert torch.equal(noisy["one"], weights["one"])


def test_rounding_leaves_the_extremes_and_moves_no_weight_further_than_half_a_level():
    weight = weights_of()["a.weight"]
    for bits in (1, 3, 8):
        coarse = degraded({"w": weight}, Autoguidance(bits=bits))["w"].double().numpy()
        low, high = weight.double().min().item(), weight.double().max().item()
        levels = np.linspace(low, high, 2**bits)
        nearest = np.abs(coarse[..., None] - levels).min(axis=-1)
        assert nearest.max() < 1e-6  # float32
        half = (high - low) / (2**bits - 1) / 2
        assert np.abs(coarse - weight.double().numpy()).max() <= half + 1e-6
    assert torch.equal(degraded({"c": torch.ones(3)}, Autoguidance(bits=2))["c"], torch.ones(3))


def test_a_checkpoint_of_a_smaller_model_guides_as_its_formula_says(tmp_path):
    tiny = BUILDERS["wan"]()
    weak = rebuilt(tiny.pipe.transformer, num_layers=1).eval()
    weak.save_pretrained(tmp_path / "transformer")
    method = {"kind": "autoguidance", "checkpoint": str(tmp_path)}
    guidance = vidcfg.Guidance(scale=2.5, method=method)
    seen = []
    with vidcfg.guide(tiny.pipe, guidance) as trace:
        handle = tiny.pipe.transformer.register_forward_pre_hook(
            lambda module, args, kwargs: seen.append(kwargs), with_kwargs=True
        )
        _, outputs, used = record_inside(tiny, generators(0, 1))
        handle.remove()
    assert trace.evaluations == {"cond": 6, f"weak/{tmp_path}": 6} == trace.planned.evaluations
    for cond, prediction, call in zip(outputs, used, seen, strict=True):
        with torch.no_grad():
            p = weak(**call)[0].double()
        want = p + 2.5 * (cond.double() - p)
        torch.testing.assert_close(prediction.double(), want, rtol=0, atol=1e-5)


def test_the_mini_model_brings_its_weak_checkpoint():
    from vidcfg.mini.pipeline import load_mini

    strong, weak = load_mini(), load_mini(weak=True)
    ours = weak_model(strong.transformer, Autoguidance("mini"), "transformer", torch.device("cpu"))
    for mine, theirs in zip(ours.parameters(), weak.transformer.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_another_model_must_say_what_is_weak():
    tiny = BUILDERS["ltx"]()
    with (
        vidcfg.guide(tiny.pipe, vidcfg.Guidance(scale=2.0, method="autoguidance")),
        pytest.raises(ValueError, match="Say what is weak: checkpoint:"),
    ):
        tiny.unguided(generator=generators(0, 1))


def test_a_checkpoint_that_is_not_there_is_named():
    tiny = BUILDERS["ltx"]()
    method = {"kind": "autoguidance", "checkpoint": "/no/such/folder"}
    with (
        vidcfg.guide(tiny.pipe, vidcfg.Guidance(scale=2.0, method=method)),
        pytest.raises(ValueError, match="weak model /no/such/folder cannot be loaded"),
    ):
        tiny.unguided(generator=generators(0, 1))


NOISE = {"kind": "autoguidance", "noise": 0.2, "seed": 1}


def guided(tiny, method=NOISE):
    with vidcfg.guide(tiny.pipe, vidcfg.Guidance(scale=2.0, method=method)):
        return tiny.unguided(generator=generators(0, 1))


def test_weak_weights_are_made_once_follow_their_source_and_die_with_it():
    module = BUILDERS["wan"]().pipe.transformer
    given = (Autoguidance(noise=0.1), "transformer", torch.device("cpu"))
    (name, first), *_ = weak_weights(module, *given).items()
    assert weak_weights(module, *given)[name] is first
    module.to(torch.float64).to(torch.float32)  # other memory, the same numbers
    assert weak_weights(module, *given)[name] is first
    next(module.parameters()).data.mul_(2)  # as fusing an adapter does: no version is counted
    assert weak_weights(module, *given)[name] is not first
    kept = weakref.ref(weak_weights(module, *given)[name])
    del module
    gc.collect()
    assert kept() is None


def test_content_tells_rows_apart_and_not_where_they_lie():
    weights = weights_of()
    clone = {name: tensor.clone() for name, tensor in weights.items()}
    assert content_of(clone) == content_of(weights)
    swapped = weights | {"a.weight": weights["a.weight"].roll(1, dims=0)}
    renamed = {name.upper(): tensor for name, tensor in weights.items()}
    narrow = {name: tensor.bfloat16() for name, tensor in weights.items()}
    for other in (swapped, renamed, narrow):
        assert content_of(other) != content_of(weights)


class Adapted(torch.nn.Module):
    """A linear layer with a low-rank part beside it, named as peft names them."""

    def __init__(self, base: torch.nn.Linear, amount: float):
        super().__init__()
        self.base_layer = base
        self.lora_A = torch.nn.Linear(base.in_features, 3, bias=False)
        self.lora_B = torch.nn.Linear(3, base.out_features, bias=False)
        torch.nn.init.constant_(self.lora_B.weight, amount)

    def forward(self, x):
        return self.base_layer(x) + self.lora_B(self.lora_A(x))


def test_an_adapter_that_is_loaded_after_the_first_run_is_part_of_the_weak_model():
    tiny = BUILDERS["wan"]()
    plain, attention = guided(tiny), tiny.pipe.transformer.blocks[0].attn1
    base = attention.to_q
    attention.to_q = Adapted(base, 0.0)
    assert torch.equal(guided(tiny), plain)  # it adds nothing, and the noise stays as it was
    attention.to_q = Adapted(base, 0.5)
    with vidcfg.guide(tiny.pipe, vidcfg.Guidance(scale=2.0, method=NOISE)):
        _, outputs, used = record_inside(tiny, generators(0, 1))
    # The first step of the same model, with weights loaded by hand.
    seen = []
    handle = tiny.pipe.transformer.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs), with_kwargs=True
    )
    tiny.unguided(generator=generators(0, 1))
    handle.remove()
    model = copy.deepcopy(tiny.pipe.transformer)
    weights = degraded(model.state_dict(), Autoguidance(noise=0.2, seed=1))
    model.load_state_dict(weights)
    with torch.no_grad():
        weak = model(**seen[0])[0].double()
    cond = outputs[0].double()
    torch.testing.assert_close(used[0].double(), weak + 2 * (cond - weak), rtol=0, atol=1e-5)
    assert not torch.allclose(cond, weak, atol=1e-3)


def test_weights_that_change_after_a_run_guide_as_in_a_pipeline_that_had_them_before():
    tiny, other = BUILDERS["wan"](), BUILDERS["wan"]()
    guided(tiny)
    for each in (tiny, other):
        each.pipe.transformer.proj_out.weight.data += 0.05
    assert torch.equal(guided(tiny), guided(other))


def test_a_checkpoint_follows_the_dtype_of_its_model(tmp_path):
    module = BUILDERS["wan"]().pipe.transformer
    module.save_pretrained(tmp_path)
    given = (Autoguidance(str(tmp_path)), "transformer", torch.device("cpu"))
    first = weak_model(module, *given)
    assert weak_model(module, *given) is first
    assert weak_model(module.bfloat16(), *given).dtype == torch.bfloat16


def test_quantised_weights_are_refused_with_what_works():
    tiny = BUILDERS["wan"]()
    head = tiny.pipe.transformer.proj_out
    small = torch.nn.Parameter(head.weight.to(torch.int8), requires_grad=False)
    packed = torch.ao.nn.quantized.dynamic.Linear(head.in_features, head.out_features)
    for name, part in (("weight", small), ("proj_out", packed)):
        owner = head if name == "weight" else tiny.pipe.transformer
        setattr(owner, name, part)
        with pytest.raises(ValueError, match="quantised .proj_out.*checkpoint of a weaker.*skip"):
            weak_weights(tiny.denoiser, Autoguidance(bits=4), "transformer", torch.device("cpu"))


def test_another_checkpoint_beside_an_image_prompt_is_refused():
    tiny = BUILDERS["sd15"]()
    call = {"ip_adapter_image_embeds": with_image_prompts(tiny)}
    method = {"kind": "autoguidance", "checkpoint": "somewhere"}
    with (
        vidcfg.guide(tiny.pipe, vidcfg.Guidance(scale=2.0, method=method)),
        pytest.raises(ValueError, match="somewhere would not see the image prompt"),
    ):
        tiny.unguided(generator=generators(0, 1), **call)
