"""Self-attention guidance: the degraded latents and the prediction, written out step by step."""

import inspect
import math

import numpy as np
import pytest
import torch
from guided_runs import record_inside
from tiny_pipelines import BUILDERS, generators

import vidcfg
from vidcfg.guidance.layout import FrameLayout
from vidcfg.guidance.rules.sag import Sag
from vidcfg.pipelines.changes.sag import Space, degraded_latents, seen_from

B, F, C, H, W = 2, 3, 5, 4, 6


def blurred_by_hand(frame: np.ndarray, sigma: float) -> np.ndarray:
    """[C, H, W] under a Gaussian whose weights inside the frame sum to 1, by plain loops."""
    for axis in (1, 2):
        size = frame.shape[axis]
        moved = np.moveaxis(frame, axis, 0)
        rows = []
        for i in range(size):
            w = [math.exp(-((i - j) ** 2) / (2 * sigma**2)) for j in range(size)]
            rows.append(sum(a * row for a, row in zip(w, moved)) / sum(w))
        frame = np.moveaxis(np.stack(rows), 0, axis)
    return frame


def arrange(video: np.ndarray, axes: str) -> torch.Tensor:
    """[B, F, C, H, W] in a model's layout."""
    if axes == "BCFHW":
        return torch.tensor(video.transpose(0, 2, 1, 3, 4))
    if axes == "BFCHW":
        return torch.tensor(video)
    return torch.tensor(video.transpose(0, 1, 3, 4, 2).reshape(B, F * H * W, C))


@pytest.mark.parametrize("axes", ["BCFHW", "BFCHW", "tokens"])
@pytest.mark.parametrize("kind", ["flow", "epsilon", "v_prediction"])
def test_degraded_latents_and_their_prediction_by_hand(axes, kind):
    rng = np.random.default_rng(0)
    x, p, q = (rng.standard_normal((B, F, C, H, W)) for _ in range(3))
    maps = rng.random((B, F, H // 2, W // 2)) * 2
    alpha, sigma = (0.7, 0.3) if kind == "flow" else (0.8, 0.6)
    space = Space(FrameLayout(axes), (F, H, W), kind, (alpha, sigma))
    setting = Sag(blur=0.9, threshold=1.1)
    args = (arrange(x, axes).float(), arrange(p, axes).float(), torch.tensor(maps).float())
    ours = degraded_latents(*args, setting, space)

    if kind == "flow":  # p = eps - x0
        x0, eps = x - sigma * p, x + alpha * p
    elif kind == "epsilon":
        x0, eps = (x - sigma * p) / alpha, p
    else:  # p = alpha eps - sigma x0
        x0, eps = alpha * x - sigma * p, sigma * x + alpha * p
    want = np.empty_like(x)
    for b in range(B):
        for f in range(F):
            hazy = blurred_by_hand(x0[b, f], 0.9)
            for i in range(H):
                for j in range(W):
                    salient = maps[b, f, i // 2, j // 2] > 1.1
                    clean = (hazy if salient else x0[b, f])[:, i, j]
                    want[b, f, :, i, j] = alpha * clean + sigma * eps[b, f, :, i, j]
    torch.testing.assert_close(ours.double(), arrange(want, axes), rtol=0, atol=1e-5)

    seen = seen_from(args[0], ours, arrange(q, axes).float(), space)
    back = {"flow": want + alpha * q, "epsilon": q, "v_prediction": sigma * want + alpha * q}[kind]
    clean = (x - sigma * back) / alpha
    expected = {
        "flow": back - clean,
        "epsilon": back,
        "v_prediction": alpha * back - sigma * clean,
    }
    torch.testing.assert_close(seen.double(), arrange(expected[kind], axes), rtol=0, atol=1e-5)


def test_on_pure_noise_there_is_no_estimate_and_the_latents_stay():
    space = Space(FrameLayout("BFCHW"), (F, H, W), "flow", (0.0, 1.0))
    x, p = torch.randn(B, F, C, H, W), torch.randn(B, F, C, H, W)
    assert torch.equal(degraded_latents(x, p, torch.ones(B, F, 2, 3), Sag(), space), x)
    assert torch.equal(seen_from(x, x, p, space), p)


def test_in_a_pipeline_the_perturbed_pass_gets_the_latents_made_from_its_own_step():
    tiny = BUILDERS["wan"]()
    seen, signature = [], inspect.signature(type(tiny.pipe.transformer).forward)
    method = {"kind": "sag", "layers": [1], "threshold": 0.9, "blur": 0.8}
    guidance = vidcfg.Guidance(scale=3.0, method=method)
    with vidcfg.guide(tiny.pipe, guidance) as trace:
        session = type(tiny.pipe)._vidcfg_session
        forward = session.forward

        def spy(module, original, expert, arguments):
            def noted(**kwargs):
                seen.append(signature.bind(module, **kwargs).arguments["hidden_states"].clone())
                return original(**kwargs)

            return forward(module, noted, expert, arguments)

        session.forward = spy  # record_inside takes it away again
        _, outputs, used = record_inside(tiny, generators(0, 1))
    name = next(b for b in trace.evaluations if b != "cond")
    assert trace.evaluations == {"cond": 6, name: 6} == trace.planned.evaluations
    sigmas = [float(step.sigma) for step in trace.steps]
    assert sigmas[0] == 1
    torch.testing.assert_close(seen[0], seen[1], rtol=0, atol=0)  # pure noise
    for k in (1, 2):
        sigma = sigmas[k]
        x, hazy = seen[2 * k].double(), seen[2 * k + 1].double()
        cond, there = outputs[2 * k].double(), outputs[2 * k + 1].double()
        assert float((x - hazy).abs().max()) > 1e-3
        eps = hazy + (1 - sigma) * there
        perturbed = (eps - x) / (1 - sigma)
        want = cond + 2.0 * (cond - perturbed)
        torch.testing.assert_close(used[k].double(), want, rtol=0, atol=2e-4)


def test_latents_with_further_channels_keep_them():
    tiny = BUILDERS["wan_i2v"]()
    method = {"kind": "sag", "layers": [0], "threshold": 0.9}
    with vidcfg.guide(tiny.pipe, vidcfg.Guidance(scale=3.0, method=method)) as trace:
        ours = tiny.unguided(generator=generators(0, 1))
    assert torch.isfinite(ours).all()
    assert trace.evaluations == trace.planned.evaluations
