"""Rescale, threshold and clamp against diffusers and float64 loops."""

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from diffusers.guiders.guider_utils import rescale_noise_cfg
from guidance_cases import LAYOUTS, SURFACE_BF, B, F, bits, into, out_of, video
from rule_runs import LEVEL, one_step

from vidcfg.guidance.apply import combine
from vidcfg.guidance.gram import NOISY, gram_of
from vidcfg.guidance.layout import FrameLayout
from vidcfg.guidance.limits import Rescale, Threshold, clamp, frame_std
from vidcfg.guidance.prediction import coefficients
from vidcfg.guidance.rules.cfg import Cfg

ONES = np.ones((B, F))


def plain_at(strength_BF):
    strength = torch.from_numpy(np.ascontiguousarray(strength_BF))
    return Cfg().combination(None, strength=strength, weight=torch.ones_like(strength))


def rescaled(frames, rescale, strength_BF, statistics):
    gram = gram_of(frames, base="uncond")
    plain = plain_at(strength_BF)
    combination = rescale.apply(plain, gram, statistics=statistics)
    return combine(frames, combination), frame_std(combination, gram)


def pair(mean=0.0):
    return {"cond": video(1, mean=mean), "uncond": video(0, mean=mean)}


def spread(values, by):
    return values.std() if by == "std" else np.linalg.norm(values)


@pytest.mark.parametrize("amount", [0.7, 1.0])
def test_clip_rescale_at_a_uniform_scale_is_that_of_diffusers(amount):
    frames = pair()
    guided, _ = rescaled(frames, Rescale(amount), 6.5 * ONES, "clip")
    plain = frames["uncond"] + 6.5 * (frames["cond"] - frames["uncond"])
    stock = rescale_noise_cfg(plain, frames["cond"], amount)
    # float32 standard deviations of 360 numbers agree to six digits
    torch.testing.assert_close(guided, stock, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("mean", [0.0, 100.0])
@pytest.mark.parametrize("by", ["std", "norm"])
@pytest.mark.parametrize("statistics", ["frame", "clip"])
@pytest.mark.parametrize("axes", LAYOUTS)
def test_rescale_equals_a_float64_loop(axes, statistics, by, mean):
    videos, layout = pair(mean), FrameLayout(axes)
    frames = {n: layout.frames(into(axes, v), F) for n, v in videos.items()}
    guided, stds = rescaled(frames, Rescale(0.7, by), SURFACE_BF, statistics)
    guided = out_of(axes, layout.restore(guided))
    for b in range(B):
        c, u = (videos[n][b].double().numpy() for n in ("cond", "uncond"))
        g = u + SURFACE_BF[b][:, None, None, None] * (c - u)
        for f in range(F):
            group = slice(None) if statistics == "clip" else f
            ratio = spread(c[group], by) / spread(g[group], by)
            want = g[f] * (0.7 * ratio + 0.3)
            want = {0.0: u[f], 1.0: c[f]}.get(SURFACE_BF[b, f], want)
            # float32 roundings of values up to 150, and of their spread
            np.testing.assert_allclose(guided[b, f].numpy(), want, rtol=5e-6, atol=2e-5)
            if SURFACE_BF[b, f] != 1:
                assert stds[b, f] == pytest.approx(want.std(), rel=1e-4)


@pytest.mark.parametrize("statistics", ["frame", "clip"])
@pytest.mark.parametrize("kind", ["flow", "v_prediction"])
def test_rescale_in_x0_equals_a_float64_loop(kind, statistics):
    alpha, sigma = (0.4, 0.6) if kind == "flow" else (0.6, 0.8)
    frames, noisy = pair(), video(2)
    gram = gram_of(frames, base="uncond", raw={NOISY: noisy})
    plain = plain_at(SURFACE_BF)
    x0 = coefficients(kind, "sample", alpha, sigma)
    combination = Rescale(0.7, space="x0").apply(plain, gram, statistics=statistics, x0=x0)
    guided = combine(frames, combination, vectors={NOISY: noisy})
    for b in range(B):
        c, u, x = (v[b].double().numpy() for v in (frames["cond"], frames["uncond"], noisy))
        size = 1.0 if kind == "flow" else alpha
        clean = {n: size * x - sigma * v for n, v in (("c", c), ("u", u))}
        strength = SURFACE_BF[b][:, None, None, None]
        g = clean["u"] + strength * (clean["c"] - clean["u"])
        for f in range(F):
            group = slice(None) if statistics == "clip" else f
            factor = 0.7 * clean["c"][group].std() / g[group].std() + 0.3
            want = (size * x[f] - factor * g[f]) / sigma
            want = {0.0: u[f], 1.0: c[f]}.get(SURFACE_BF[b, f], want)
            np.testing.assert_allclose(guided[b, f].numpy(), want, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("statistics", ["frame", "clip"])
@pytest.mark.parametrize("which", [("cond",), ("uncond",), ("cond", "uncond")])
def test_constant_predictions_give_neither_nan_nor_a_blow_up(which, statistics):
    frames = pair()
    for name in which:
        frames[name] = torch.full_like(frames[name], 0.1 if name == "cond" else 0.3)
    for by in ("std", "norm"):
        guided, stds = rescaled(frames, Rescale(1.0, by), 6.5 * ONES, statistics)
        assert torch.isfinite(guided).all()
        assert np.isfinite(stds).all()
        assert guided.abs().max() < 60


def test_amount_zero_changes_nothing():
    frames = pair()
    plain = plain_at(SURFACE_BF)
    guided, _ = rescaled(frames, Rescale(0.0), SURFACE_BF, "frame")
    assert torch.equal(guided, combine(frames, plain))


@pytest.mark.parametrize("statistics", ["frame", "clip"])
def test_frames_of_strength_one_and_zero_pass_rescale_untouched(statistics):
    frames = pair()
    guided, _ = rescaled(frames, Rescale(1.0), SURFACE_BF, statistics)
    assert torch.equal(bits(guided[0, 1]), bits(frames["cond"][0, 1]))
    assert torch.equal(guided[0, 2], frames["uncond"][0, 2])


def test_rising_strength_turns_clip_statistics_into_a_contrast_ramp():
    generator = torch.Generator().manual_seed(0)
    uncond = torch.randn(2, 21, 3, 16, 16, generator=generator)
    cond = uncond + 0.3 * torch.randn(uncond.shape, generator=generator)
    frames = {"uncond": uncond, "cond": cond}
    strength = np.linspace(1, 8, 21)[None].repeat(2, 0)
    ratios = {}
    for statistics in ("frame", "clip"):
        guided, _ = rescaled(frames, Rescale(1.0), strength, statistics)
        ratios[statistics] = (guided.flatten(2).std(2) / cond.flatten(2).std(2)).numpy()
    np.testing.assert_allclose(ratios["frame"], 1.0, rtol=1e-5)
    assert (ratios["clip"][:, 1] < 0.8).all()
    assert (ratios["clip"][:, -1] > 1.3).all()
    # noise of 768 numbers per frame: the rise holds between frames a quarter of the clip apart
    assert (ratios["clip"][:, 6::5] > ratios["clip"][:, 1:-5:5]).all()


@pytest.mark.parametrize("percentile", [50.5, 90.0, 99.5, 100.0])
@pytest.mark.parametrize("statistics", ["frame", "clip"])
def test_threshold_equals_a_loop_with_torch_quantile(statistics, percentile):
    x0 = video(3)
    tamed = Threshold(percentile, 1.5).apply(x0, statistics=statistics)
    for b in range(B):
        for f in range(F):
            group = x0[b] if statistics == "clip" else x0[b, f]
            q = float(torch.quantile(group.abs().double().flatten(), percentile / 100))
            q = max(q, 1.5)
            want = x0[b, f].double().clamp(-q, q) * 1.5 / q
            # one float32 interpolation and one product
            torch.testing.assert_close(tamed[b, f].double(), want, rtol=1e-6, atol=1e-6)


def test_clip_threshold_at_floor_one_is_that_of_diffusers():
    x0 = video(3)
    scheduler = DDIMScheduler(
        thresholding=True, dynamic_thresholding_ratio=0.95, sample_max_value=1e9
    )
    tamed = Threshold(95.0, 1.0).apply(x0, statistics="clip")
    torch.testing.assert_close(tamed, scheduler._threshold_sample(x0), rtol=1e-5, atol=1e-6)


def test_below_the_floor_elements_keep_their_bits_and_outliers_are_cut():
    x0 = video(3)
    tamed = Threshold(90.0, 6.0).apply(x0, statistics="frame")
    inside = x0.abs() <= 6.0
    assert torch.equal(bits(tamed[inside]), bits(x0[inside]))
    x0[1, 2, 0, 0, 0] = -50.0
    assert Threshold(90.0, 6.0).apply(x0, statistics="frame")[1, 2, 0, 0, 0] == -6.0
    assert torch.equal(Threshold(99.5, 1e6).apply(x0, statistics="clip"), x0)


@pytest.mark.parametrize("statistics", ["frame", "clip"])
def test_clamp_equals_a_float64_loop(statistics):
    guided = video(3, mean=2.0)
    clamped = clamp(guided, 1.5, statistics=statistics)
    for b in range(B):
        for f in range(F):
            group = (guided[b] if statistics == "clip" else guided[b, f]).double().numpy()
            low, high = (group.mean() + s * 1.5 * group.std() for s in (-1, 1))
            want = guided[b, f].double().numpy().clip(low, high)
            np.testing.assert_allclose(clamped[b, f].numpy(), want, rtol=2e-6, atol=2e-6)
            inside = torch.from_numpy((want > low) & (want < high))
            assert torch.equal(bits(clamped[b, f][inside]), bits(guided[b, f][inside]))
    assert not torch.equal(clamped, guided)
    constant = torch.full_like(guided, 0.1)
    torch.testing.assert_close(clamp(constant, 1.0, statistics=statistics), constant)


def test_clamp_takes_bfloat16():
    guided = video(3).bfloat16()
    clamped = clamp(guided, 2.0, statistics="frame")
    assert clamped.dtype == torch.bfloat16
    assert clamped.abs().max() < guided.abs().max()


def test_a_clamp_behind_a_threshold_measures_frames_that_are_off_as_they_are():
    videos = pair()
    strength = np.where(np.arange(F) == 3, 1.0, [[4.0], [2.5]])
    _, sigma = LEVEL
    videos["cond"][:, 3] *= 9
    noisy = video(99)
    limits = {"threshold": {"percentile": 80.0, "floor": 0.5}, "clamp": 1.2}
    guided, _, _ = one_step(Cfg(), videos, strength, noisy=noisy, statistics="clip", **limits)
    c, u, x = (v.double().numpy() for v in (videos["cond"], videos["uncond"], noisy))
    g = u + strength[..., None, None, None] * (c - u)
    for b in range(B):
        x0 = x[b] - sigma * g[b]
        q = np.percentile(abs(x0), 80.0)
        tamed = (x[b] - x0.clip(-q, q) * 0.5 / q) / sigma
        tamed[3] = c[b, 3]
        low, high = (tamed.mean() + s * 1.2 * tamed.std() for s in (-1, 1))
        want = tamed.clip(low, high)
        want[3] = c[b, 3]
        np.testing.assert_allclose(guided[b].numpy(), want, rtol=1e-5, atol=1e-5)
