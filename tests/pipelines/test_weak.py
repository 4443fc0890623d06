"""Weak models: where they come from, and that nothing but their settings decides them."""

import gc
import weakref

import numpy as np
import pytest
import torch
from guided_runs import record_inside
from tiny_base import rebuilt
from tiny_pipelines import BUILDERS, generators

import vidcfg
from vidcfg.guidance.perturbation import WeakModel
from vidcfg.pipelines.changes.autoguidance import degraded, weak_model


def weights_of(seed: int = 0) -> dict:
    torch.manual_seed(seed)
    return {"a.weight": torch.randn(5, 7), "a.bias": torch.randn(5), "one": torch.tensor([2.0])}


def test_noise_is_relative_to_each_tensor_and_a_function_of_seed_and_name():
    weights = weights_of() | {"b.weight": 100 * weights_of(1)["a.weight"]}
    noisy = degraded(weights, WeakModel(noise=0.5, seed=3))
    again = degraded({"a.weight": weights["a.weight"]}, WeakModel(noise=0.5, seed=3))
    assert torch.equal(noisy["a.weight"], again["a.weight"])
    other = degraded(weights, WeakModel(noise=0.5, seed=4))
    assert not torch.equal(noisy["a.weight"], other["a.weight"])
    for name in ("a.weight", "b.weight"):
        added = (noisy[name] - weights[name]).double().std() / weights[name].double().std()
        assert 0.35 < float(added) < 0.65  # 35 numbers: the spread of a spread is 12 %
    assert torch.equal(noisy["one"], weights["one"])


def test_rounding_leaves_the_extremes_and_moves_no_weight_further_than_half_a_level():
    weight = weights_of()["a.weight"]
    for bits in (1, 3, 8):
        coarse = degraded({"w": weight}, WeakModel(bits=bits))["w"].double().numpy()
        low, high = weight.double().min().item(), weight.double().max().item()
        levels = np.linspace(low, high, 2**bits)
        nearest = np.abs(coarse[..., None] - levels).min(axis=-1)
        assert nearest.max() < 1e-6  # float32
        half = (high - low) / (2**bits - 1) / 2
        assert np.abs(coarse - weight.double().numpy()).max() <= half + 1e-6
    assert torch.equal(degraded({"c": torch.ones(3)}, WeakModel(bits=2))["c"], torch.ones(3))


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
    ours = weak_model(strong.transformer, WeakModel("mini"), "transformer", torch.device("cpu"))
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


def test_a_weak_model_is_made_once_and_dies_with_its_denoiser():
    module = BUILDERS["wan"]().pipe.transformer
    setting = WeakModel(noise=0.1)
    first = weak_model(module, setting, "transformer", torch.device("cpu"))
    assert weak_model(module, setting, "transformer", torch.device("cpu")) is first
    kept = weakref.ref(first)
    del first, module
    gc.collect()
    assert kept() is None
