"""Adaptive projected guidance against a float64 loop and diffusers' own."""

import itertools

import numpy as np
import pytest
import torch
from guidance_cases import LAYOUTS, SURFACE_BF, B, C, F, H, W, bits, into, out_of, video
from rule_runs import LEVEL, in_groups, one_step

from vidcfg.guidance.composite import Composite
from vidcfg.guidance.plan import Memory
from vidcfg.guidance.rules.apg import Apg
from vidcfg.guidance.rules.cfg import Cfg


def close_pair(seed=0):
    base = video(seed)
    return {"uncond": base, "cond": base + 0.5 * video(seed + 50)}


def apg(eta, norm=None):
    """The rule on one group, from the paper's algorithm 1 with the threshold as an RMS."""

    def formula(c, u, s, w):
        d = c - u
        if norm is not None:
            d = d * min(1.0, norm / np.sqrt((d**2).mean()))
        parallel = (d * c).sum() / (c**2).sum() * c
        return c + (s - 1) * ((d - parallel) + eta * parallel)

    return formula


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("space", ["x0", "prediction"])
@pytest.mark.parametrize("axes", LAYOUTS)
@pytest.mark.parametrize(("eta", "norm"), [(0.0, None), (0.3, 0.4), (1.0, 0.2)])
def test_formula_in_both_spaces(axes, space, clip, dtype, eta, norm):
    videos = {n: v.to(dtype).float() for n, v in close_pair().items()}
    noisy = video(99).to(dtype).float()
    guided, _, _ = one_step(
        Apg(eta, norm, space=space),
        videos,
        SURFACE_BF,
        axes=axes,
        dtype=dtype,
        noisy=noisy,
        statistics="clip" if clip else "frame",
    )
    level = (*LEVEL, noisy) if space == "x0" else None
    want = in_groups(apg(eta, norm), videos, SURFACE_BF, clip, level=level)
    # float32 roundings of terms up to 60; bfloat16 keeps 8 bits of the result
    rtol, atol = (1e-5, 1e-4) if dtype == torch.float32 else (2**-8, 1e-3)
    np.testing.assert_allclose(guided.double().numpy(), want, rtol=rtol, atol=atol)


def test_off_values_are_plain_guidance_to_the_bit():
    videos = close_pair()
    plain, _, _ = one_step(Cfg(), videos, SURFACE_BF)
    off, _, _ = one_step(Apg(eta=1.0), videos, SURFACE_BF)
    assert torch.equal(bits(off), bits(plain))
    capped, _, _ = one_step(Apg(eta=1.0, norm=1e9), videos, SURFACE_BF)
    torch.testing.assert_close(capped, plain, rtol=1e-6, atol=1e-5)


def sequence(count=4):
    return [close_pair(seed) for seed in range(count)]


def run(method, steps, strengths, *, memory=None, experts=None, **options):
    memory = memory or Memory()
    return [
        one_step(
            method,
            videos,
            strength,
            memory=memory,
            expert=None if experts is None else experts[k],
            **options,
        )[0]
        for k, (videos, strength) in enumerate(zip(steps, strengths))
    ]


@pytest.mark.parametrize("space", ["x0", "prediction"])
def test_momentum_adds_a_share_of_the_last_guided_step(space):
    beta, scale = -0.6, 1.0
    if space == "x0":
        scale = -LEVEL[1] / sum(LEVEL)
    steps = sequence()
    strengths = [3.0 * np.ones((B, F)), np.ones((B, F)), 0 * np.ones((B, F)), SURFACE_BF]
    found = run(Apg(1.0, None, beta, space), steps, strengths)
    average = 0.0
    for k, (videos, strength) in enumerate(zip(steps, strengths)):
        c, u = (videos[n].double().numpy() for n in ("cond", "uncond"))
        want = c
        if (strength != 1).any():
            average = scale * (c - u) + beta * average
            want = c + (strength - 1)[:, :, None, None, None] * average / scale
        # float32 roundings of terms up to 60
        np.testing.assert_allclose(found[k].double().numpy(), want, rtol=1e-5, atol=1e-4)


def test_momentum_is_reset_per_run_and_kept_per_expert():
    method = Apg(0.0, 0.5, 0.7)
    steps, strengths = sequence(), [SURFACE_BF] * 4
    first, again = (run(method, steps, strengths) for _ in range(2))
    assert all(torch.equal(bits(a), bits(b)) for a, b in zip(first, again))
    switched = run(method, steps, strengths, experts=["high", "high", "low", "low"])
    assert torch.equal(bits(switched[1]), bits(first[1]))
    afresh = run(method, steps[2:], strengths[2:])
    assert torch.equal(bits(switched[2]), bits(afresh[0]))
    assert torch.equal(bits(switched[3]), bits(afresh[1]))
    assert not torch.equal(first[2], afresh[0])


def test_momentum_of_a_sample_starts_at_its_own_first_guided_step():
    method = Apg(0.0, None, 0.7)
    steps = sequence()
    late = [np.ones((B, F)), np.ones((B, F)), SURFACE_BF, SURFACE_BF]
    mixed = [np.stack([SURFACE_BF[0], row[1]]) for row in late]
    found = run(method, steps, mixed)
    early, other = run(method, steps, [SURFACE_BF] * 4), run(method, steps, late)
    for k in range(4):
        assert torch.equal(bits(found[k][0]), bits(early[k][0]))
        assert torch.equal(bits(found[k][1]), bits(other[k][1]))


def test_norm_does_not_depend_on_the_resolution_or_the_number_of_frames():
    method = Apg(0.0, 0.2)
    small = torch.randn(2, C, F, H, W, generator=torch.Generator().manual_seed(0))
    change = torch.randn(2, C, F, H, W, generator=torch.Generator().manual_seed(1))

    def guided(tile, statistics):
        videos = {
            "uncond": tile(small).permute(0, 2, 1, 3, 4),
            "cond": tile(small + change).permute(0, 2, 1, 3, 4),
        }
        strength = np.full((2, F), 5.0)
        return one_step(method, videos, strength, noisy=videos["cond"], statistics=statistics)[0]

    for statistics in ("frame", "clip"):
        plain = guided(lambda v: v, statistics)
        large = guided(lambda v: v.repeat(1, 1, 1, 2, 3), statistics)
        torch.testing.assert_close(large[..., :H, :W], plain, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("eta", [0.0, 1.0])
@pytest.mark.parametrize("momentum", [0.0, -0.5])
@pytest.mark.parametrize(("norm_dim", "statistics"), [(None, "clip"), ((-1, -2, -4), "frame")])
def test_equals_diffusers_at_equal_settings(eta, momentum, norm_dim, statistics):
    from diffusers import AdaptiveProjectedGuidance

    scale, norm = 7.5, 0.3
    count = C * H * W * (F if statistics == "clip" else 1)
    peer = AdaptiveProjectedGuidance(
        scale - 1,
        momentum or None,
        adaptive_projected_guidance_rescale=norm * count**0.5,
        adaptive_projected_guidance_norm_dim=norm_dim,
        eta=eta,
        use_original_formulation=True,  # cond + (s - 1) update, as in the paper
    )
    method = Apg(eta, norm, momentum, "prediction")
    memory = Memory()
    for k, videos in enumerate(sequence(3)):
        peer.set_state(k, 3, torch.tensor(k))
        if k == 0:
            peer.prepare_inputs({})
        ready = {n: into("BCFHW", v) for n, v in videos.items()}
        want = out_of("BCFHW", peer.forward(ready["cond"], ready["uncond"]).pred)
        guided, _, _ = one_step(
            method, videos, np.full((B, F), scale), memory=memory, statistics=statistics
        )
        # float32 on both sides, values up to 20
        torch.testing.assert_close(guided, want, rtol=1e-5, atol=2e-5)


def test_a_strength_of_zero_still_compares_both_predictions():
    method = Apg()
    assert method.required(np.zeros(F), np.ones(F)) == {"cond", "uncond"}
    assert method.required(np.ones(F), np.zeros(F)) == {"cond"}


def test_frames_do_not_enter_each_others_projection():
    method, videos = Apg(0.0, 0.3), close_pair()
    guided, _, _ = one_step(method, videos, SURFACE_BF)
    loud = {n: v.clone() for n, v in videos.items()}
    loud["cond"][:, 2] *= 50
    other, _, _ = one_step(method, loud, SURFACE_BF)
    for b, f in itertools.product(range(B), range(F)):
        assert f == 2 or torch.equal(bits(other[b, f]), bits(guided[b, f]))


def test_momentum_of_a_term_that_is_off_waits_while_other_samples_go_on():
    method = Composite((Cfg(), Apg(0.0, None, 0.7)))
    steps, rows = sequence(2), np.full((B, 2, F), 3.0)
    first = rows.copy()
    first[1, 1] = 1.0
    found = run(method, steps, [first, rows])
    alone = run(method, steps[1:], [rows])
    both = run(method, steps, [rows, rows])
    assert torch.equal(bits(found[1][0]), bits(both[1][0]))
    assert torch.equal(bits(found[1][1]), bits(alone[0][1]))
