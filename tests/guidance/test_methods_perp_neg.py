"""Perp-Neg against its formula, per frame and per clip."""

import numpy as np
import pytest
import torch
from guidance_cases import LAYOUTS, SURFACE_BF, WEIGHT_BF, B, F, bits, into, out_of, video

from vidcfg.guidance.apply import combine
from vidcfg.guidance.gram import gram_of
from vidcfg.guidance.layout import FrameLayout
from vidcfg.guidance.rules.cfg import Cfg
from vidcfg.guidance.rules.perp_neg import PerpNeg


def guided_by(method, frames, *, clip=False, weight_BF=WEIGHT_BF):
    gram = gram_of(frames, base="uncond")
    combination = method.combination(
        gram.clip() if clip else gram,
        strength=torch.from_numpy(SURFACE_BF),
        weight=torch.from_numpy(weight_BF),
    )
    return combine(frames, combination)


def reference(frames, b, f, scale, clip):
    u, c, n = (frames[x][b].double().numpy() for x in ("uncond", "cond", "negative"))
    d, n = (c - u, n - u) if clip else (c[f] - u[f], n[f] - u[f])
    perp = n - (n * d).sum() / (d * d).sum() * d
    d, perp = (d[f], perp[f]) if clip else (d, perp)
    return u[f] + SURFACE_BF[b, f] * (d - scale * WEIGHT_BF[b, f] * perp)


def spread_apart():
    return {"uncond": video(0), "cond": video(1), "negative": video(2)}


def close_together():
    base = video(0, mean=30.0)
    return {"uncond": base, "cond": base + 1e-2 * video(1), "negative": base + 1e-2 * video(2)}


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("make", [spread_apart, close_together])
@pytest.mark.parametrize("axes", LAYOUTS)
def test_formula_with_products_per_frame_or_clip(axes, make, clip):
    videos, layout = make(), FrameLayout(axes)
    frames = {n: layout.frames(into(axes, v), F) for n, v in videos.items()}
    guided = out_of(axes, layout.restore(guided_by(PerpNeg(1.5), frames, clip=clip)))
    for b in range(B):
        for f in range(F):
            want = reference(videos, b, f, 1.5, clip)
            if SURFACE_BF[b, f] == 0:
                want = videos["uncond"][b, f].double().numpy()
            # float32 roundings of terms up to 150
            np.testing.assert_allclose(guided[b, f].numpy(), want, rtol=0, atol=6e-5)


def test_frame_of_weight_zero_is_cond_and_of_strength_zero_is_uncond():
    frames = spread_apart()
    guided = guided_by(PerpNeg(1.5), frames)
    assert torch.equal(bits(guided[0, 1]), bits(frames["cond"][0, 1]))
    assert torch.equal(guided[0, 2], frames["uncond"][0, 2])


def test_negative_scale_zero_is_plain_guidance():
    frames = spread_apart()
    plain = Cfg().combination(None, strength=SURFACE_BF, weight=WEIGHT_BF)
    pair = {n: frames[n] for n in ("cond", "uncond")}
    assert torch.equal(guided_by(PerpNeg(0.0), frames), combine(pair, plain))
    assert PerpNeg(0.0).required(SURFACE_BF[0], WEIGHT_BF[0]) == {"cond", "uncond"}


def test_negative_equal_to_the_prompt_cancels_nothing():
    frames = spread_apart()
    frames["negative"] = frames["cond"].clone()
    plain = guided_by(PerpNeg(0.0), frames)
    # the perpendicular part is zero up to float32 rounding of the projection
    torch.testing.assert_close(guided_by(PerpNeg(4.0), frames), plain, rtol=0, atol=2e-4)


def test_no_direction_gives_no_nan():
    frames = spread_apart()
    frames["cond"] = frames["uncond"].clone()
    assert torch.isfinite(guided_by(PerpNeg(1.0), frames)).all()


def test_another_sample_does_not_enter_the_products():
    frames = spread_apart()
    guided = guided_by(PerpNeg(1.0), frames)
    frames["negative"][1] *= 100
    assert torch.equal(guided_by(PerpNeg(1.0), frames)[0], guided[0])


def test_all_branches_are_required_where_the_negative_is_on():
    method = PerpNeg(1.0)
    assert method.required(np.ones(3), np.array([0, 0, 0.5])) == set(method.branches)
    assert method.required(np.ones(3), np.zeros(3)) == {"cond"}
    assert method.required(np.zeros(3), np.ones(3)) == {"uncond"}
