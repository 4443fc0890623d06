"""Inner products against float64 loops, also where float32 moments cancel."""

import numpy as np
import pytest
import torch
from guidance_cases import LAYOUTS, B, F, into, video

from vidcfg.guidance import gram as gram_module
from vidcfg.guidance.gram import gram_of, launched_spread
from vidcfg.guidance.layout import FrameLayout

NAMES = ("uncond", "cond", "negative")


def predictions(axes="BFCHW", mean=0.0, dtype=torch.float32, batch=B):
    layout = FrameLayout(axes)
    videos = {n: video(i, mean=mean, batch=batch).to(dtype) for i, n in enumerate(NAMES)}
    return {n: layout.frames(into(axes, v), F) for n, v in videos.items()}


def flat64(frames, b, f=None):
    part = frames[b] if f is None else frames[b, f]
    return part.double().flatten().numpy()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("mean", [0.0, 1e4])
@pytest.mark.parametrize("axes", LAYOUTS)
def test_products_and_covariances_equal_float64_loops(axes, mean, dtype):
    frames = predictions(axes, mean, dtype)
    gram = gram_of(frames)
    for first in NAMES:
        for second in NAMES:
            dots = gram.dot(first, second)
            covariances = gram.covariance(gram.vector(first), gram.vector(second))
            for b in range(B):
                for f in range(F):
                    p, q = flat64(frames[first], b, f), flat64(frames[second], b, f)
                    size = np.linalg.norm(p) * np.linalg.norm(q)
                    spread = p.std() * q.std()
                    # bfloat16 differences carry 8 bits; float32 sums of 72 products seven digits
                    rtol = 4e-3 if dtype == torch.bfloat16 else 1e-5
                    assert dots[b, f] == pytest.approx(p @ q, abs=rtol * size)
                    want = np.mean((p - p.mean()) * (q - q.mean()))
                    assert covariances[b, f] == pytest.approx(want, abs=rtol * max(spread, 1e-9))


@pytest.mark.parametrize("mean", [0.0, 1e4])
@pytest.mark.parametrize("axes", LAYOUTS)
def test_clip_moments_are_those_of_all_frames_together(axes, mean):
    frames = predictions(axes, mean)
    clip = gram_of(frames).clip()
    cond, negative = clip.vector("cond"), clip.vector("negative")
    for b in range(B):
        p, q = flat64(frames["cond"], b), flat64(frames["negative"], b)
        assert clip.average(cond)[b, 0] == pytest.approx(p.mean(), abs=1e-6 * max(mean, 1))
        assert clip.dot("cond", "negative")[b, 0] == pytest.approx(
            p @ q, abs=1e-5 * np.linalg.norm(p) * np.linalg.norm(q)
        )
        assert clip.covariance(cond, cond)[b, 0] == pytest.approx(p.var(), rel=1e-5)
        want = np.mean((p - p.mean()) * (q - q.mean()))
        assert clip.covariance(cond, negative)[b, 0] == pytest.approx(want, abs=1e-5 * p.var())


def test_small_difference_of_large_predictions_keeps_its_direction():
    base = video(0, mean=300.0)
    d, n = 1e-3 * video(1), 1e-3 * video(2)
    frames = {"uncond": base, "cond": base + d, "negative": base + n}
    gram = gram_of(frames)
    got = gram.inner(gram.vector("negative", "uncond"), gram.vector("cond", "uncond"))
    for b in range(B):
        for f in range(F):
            u = flat64(frames["uncond"], b, f)
            x, y = flat64(frames["negative"], b, f) - u, flat64(frames["cond"], b, f) - u
            # the products of the predictions are 1e11 times larger: float32 or 64 would lose all
            assert got[b, f] == pytest.approx(x @ y, abs=1e-6 * np.linalg.norm(x) ** 2)


def test_moments_of_a_sample_do_not_depend_on_its_batch_neighbours():
    frames = predictions("BCFHW", batch=3)
    far = predictions("BCFHW", batch=3)
    for p in far.values():
        p[0] += 1e4
    alone = gram_of({n: p[2:] for n, p in frames.items()})
    for together in (gram_of(frames), gram_of(far)):
        assert np.array_equal(together.scatter[2], alone.scatter[0])
        assert np.array_equal(together.mean[2], alone.mean[0])


def test_pieces_of_any_size_give_the_same_moments(monkeypatch):
    whole = gram_of(predictions("BCFHW"))
    monkeypatch.setattr(gram_module, "_PIECE", 1)
    pieces = gram_of(predictions("BCFHW"))
    assert np.array_equal(whole.scatter, pieces.scatter)


def test_autocast_does_not_touch_the_moments():
    plain = gram_of(predictions())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = gram_of(predictions())
    assert np.array_equal(plain.scatter, cast.scatter)


def test_base_may_be_any_branch():
    frames = predictions()
    first, second = gram_of(frames), gram_of(frames, base="negative")
    assert second.branches == ("negative", "uncond", "cond")
    np.testing.assert_allclose(
        first.dot("uncond", "cond"), second.dot("uncond", "cond"), rtol=0, atol=1e-4
    )


@pytest.mark.parametrize("mean", [0.0, 300.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_spread_of_one_launch_is_that_of_float64(mean, dtype):
    frames = (torch.randn(2, 3, 5, 8, 12).movedim(2, 1) + mean).to(dtype)
    want = frames.double().numpy().std(axis=(2, 3, 4))
    # a rounding of float32 at the mean, beside a spread of 1
    found = launched_spread(frames)
    np.testing.assert_allclose(found, want, rtol=1e-6 + 2**-23 * mean)
    assert found.dtype == torch.float64


def test_sums_of_whole_frames_on_a_device_are_those_of_numpy(monkeypatch):
    """The path of a GPU, in bfloat16, where the CPU takes torch too."""
    monkeypatch.setattr("vidcfg.guidance.gram.HOST", ())
    p, q = torch.randn(2, 2, 5, 3, 8, 12).bfloat16()
    gram = gram_of({"p": p, "q": q})
    flat = [t.double().numpy().reshape(2, 5, -1) for t in (p, q)]
    want = (flat[0] * flat[1]).sum(-1)
    # q - p is rounded to bfloat16: 2^-9 of each of 288 terms of size below 16
    np.testing.assert_allclose(gram.dot("p", "q"), want, atol=2**-9 * 16 * 288**0.5)
