"""Annealed conditions: the schedule, the statistics, and which noise which sample gets."""

import inspect

import numpy as np
import pytest
import torch
from guided_runs import rows
from tiny_pipelines import BUILDERS, generators

import vidcfg
from vidcfg.guidance.rules.cads import Cads
from vidcfg.pipelines.changes.cads import anneal


def test_gamma_falls_linearly_from_the_clean_to_the_noisy_end():
    setting = Cads(tau1=0.5, tau2=0.75)
    found = [setting.gamma(k, 9) for k in range(9)]  # t = 1, 7/8, 6/8, ...
    assert found == pytest.approx([0, 0, 0, 0.5, 1, 1, 1, 1, 1])
    assert Cads().gamma(0, 1) == 0


def test_annealed_condition_against_its_formula_in_float64():
    y = torch.randn(7, 5, generator=torch.Generator().manual_seed(0)) * 3 + 2
    noise = torch.randn(7, 5, generator=torch.Generator().manual_seed(1))
    setting = Cads(noise_scale=0.4, mix=0.3)
    ours = anneal(y, noise, 0.36, setting).double().numpy()
    y64, n64 = y.double().numpy(), noise.double().numpy()
    moved = 0.6 * y64 + 0.4 * 0.8 * n64
    spread = np.std(moved, ddof=1)
    back = (moved - moved.mean()) / spread * np.std(y64, ddof=1) + y64.mean()
    np.testing.assert_allclose(ours, 0.3 * back + 0.7 * moved, rtol=0, atol=1e-5)


def test_full_mix_keeps_mean_and_spread_and_no_spread_is_no_nan():
    y = torch.randn(2, 6, 5) * 3 + 2
    ours = anneal(y, torch.randn(6, 5), 0.2, Cads(mix=1.0))
    torch.testing.assert_close(ours.mean(), y.mean(), rtol=0, atol=1e-5)
    torch.testing.assert_close(ours.std(), y.std(), rtol=0, atol=1e-5)
    flat = anneal(torch.zeros(6, 5), torch.zeros(6, 5), 0.2, Cads())
    assert torch.equal(flat, torch.zeros(6, 5))


def conditions(tiny, guidance, **extra):
    """What the denoiser saw as a text, call by call."""
    seen = []
    denoiser_class = type(tiny.denoiser)
    original = denoiser_class.forward

    def spy(self, *args, **kwargs):
        seen.append(kwargs["encoder_hidden_states"].clone())
        return original(self, *args, **kwargs)

    spy.__signature__ = inspect.signature(original)
    denoiser_class.forward = spy
    try:
        with vidcfg.guide(tiny.pipe, guidance, **tiny.negative) as trace:
            tiny.unguided(**extra)
    finally:
        denoiser_class.forward = original
    assert trace.evaluations == trace.planned.evaluations
    return seen


SETTING = {"kind": "cads", "tau1": 0.4, "tau2": 0.9, "noise_scale": 0.5, "mix": 0.0}


def test_only_the_prompt_is_annealed_and_only_on_noisy_steps():
    tiny = BUILDERS["wan"](num_steps=5)
    guidance = vidcfg.Guidance(scale=3.0, method=SETTING)
    seen = conditions(tiny, guidance, generator=generators(0, 1))
    cond, uncond = seen[::2], seen[1::2]
    y = tiny.positive["prompt_embeds"]
    assert all(torch.equal(u, tiny.negative["negative_prompt_embeds"]) for u in uncond)
    gammas = [0.0, 0.3, 0.8, 1.0, 1.0]  # (0.9 - t) / 0.5 at t = 1, 3/4, 1/2, 1/4, 0
    noises = []
    for found, gamma in zip(cond, gammas):
        if gamma == 1:
            assert torch.equal(found, y)
            continue
        noises.append((found - gamma**0.5 * y) / (0.5 * (1 - gamma) ** 0.5))
    noise = torch.stack(noises)
    flat = noise.flatten(2).flatten(0, 1)
    # 224 numbers each: mean within 4 / sqrt(224), spread within 4 / sqrt(448)
    assert float(flat.mean(1).abs().max()) < 0.27
    assert float((flat.std(1) - 1).abs().max()) < 0.19
    mixed = torch.corrcoef(flat) - torch.eye(len(flat))
    assert float(mixed.abs().max()) < 0.27, "samples and steps have noise of their own"


def test_the_noise_of_a_sample_does_not_depend_on_its_place_nor_on_further_branches():
    tiny = BUILDERS["wan"](num_steps=2)
    one = vidcfg.Guidance(scale=3.0, method=SETTING)
    together = conditions(tiny, one, generator=generators(0, 1))
    with_pag = vidcfg.Guidance(scale=3.0, method=[SETTING, {"kind": "pag", "layers": [0]}])
    more = conditions(tiny, with_pag, generator=generators(0, 1))
    assert torch.equal(more[0], together[0])
    assert torch.equal(more[2], together[0]), "the perturbed branch sees what cond sees"
    assert torch.equal(more[3], together[2])
    single = dict(tiny.negative)
    tiny.negative.update(rows(single, 1, 2))
    alone = conditions(tiny, one, **rows(tiny.positive, 1, 2), generator=generators(1))
    tiny.negative.update(single)
    assert torch.equal(alone[0], together[0][1:])
    other = vidcfg.Guidance(scale=3.0, method=SETTING | {"seed": 9})
    assert not torch.equal(conditions(tiny, other, generator=generators(0, 1))[0], together[0])


def test_without_annealed_steps_it_is_plain_guidance_bit_for_bit():
    tiny = BUILDERS["hunyuan_video"](num_steps=2)
    results = []
    for method in ("cfg", {"kind": "cads", "tau1": 1.0, "tau2": 1.0}):
        with vidcfg.guide(
            tiny.pipe, vidcfg.Guidance(scale=3.0, method=method), **tiny.negative
        ) as trace:
            results.append(tiny.unguided(generator=generators(0, 1)))
        assert trace.evaluations == trace.planned.evaluations
    assert torch.equal(*results)


def test_plain_and_annealed_samples_of_one_seed_share_no_conditional_pass():
    tiny = BUILDERS["wan"](num_steps=2)
    for tensors in (tiny.positive, tiny.negative):
        tensors.update({n: t[:1].repeat(2, 1, 1) for n, t in tensors.items()})
    settings = [vidcfg.Guidance(scale=3.0, method=m) for m in ("cfg", SETTING)]
    with vidcfg.guide(tiny.pipe, settings, **tiny.negative) as trace:
        tiny.unguided(generator=generators(4, 4))
    assert trace.steps[0].evaluations == {"cond": 2, "uncond": 1}
    assert trace.evaluations == trace.planned.evaluations


def test_frames_of_animatediff_get_one_annealed_prompt():
    tiny = BUILDERS["animatediff"]()
    plain = tiny.unguided(generator=generators(0, 1))
    guidance = vidcfg.Guidance(scale=1.0, method=SETTING)
    with vidcfg.guide(tiny.pipe, guidance, **tiny.negative):
        ours = tiny.unguided(generator=generators(0, 1))
    assert not torch.equal(ours, plain)


def test_a_model_without_a_text_cannot_be_annealed():
    tiny = BUILDERS["svd"]()
    with (
        vidcfg.guide(tiny.pipe, vidcfg.Guidance(scale=3.0, method=SETTING)),
        pytest.raises(ValueError, match="cads anneals a text"),
    ):
        tiny.unguided(generator=generators(0, 1))
