"""Compiled loops over large predictions, beside the torch code that serves without them."""

import sys

import numpy as np
import pytest
import torch

from vidcfg.guidance import planes as module
from vidcfg.guidance.apply import combine
from vidcfg.guidance.combination import Combination
from vidcfg.guidance.gram import NOISY, gram_of, spread_of
from vidcfg.guidance.layout import SMALL, FrameLayout
from vidcfg.guidance.limits import Threshold
from vidcfg.guidance.planes import planes, room

SHAPES = {
    "BCFHW": (2, 4, 3, 60, 48),
    "BFCHW": (2, 3, 4, 60, 48),
    "BFHWC": (2, 3, 60, 48, 4),
    "tokens": (2, 3 * 2880, 4),
}
DTYPES = (torch.float32, torch.float64, torch.bfloat16)


def drawn(seed, axes="BCFHW", dtype=torch.float32, batch=2, mean=0.0):
    """Frames (B, 3, ...) of a latent that lies in memory as `axes` says."""
    shape = (batch, *SHAPES[axes][1:])
    latents = mean + torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return FrameLayout(axes).frames(latents.to(dtype), 3)


@pytest.fixture
def without(monkeypatch):
    """Runs something as on a machine without numba."""

    def run(what):
        with monkeypatch.context() as patch:
            patch.setattr(module, "loops", lambda: None)
            return what()

    return run


def test_they_serve_whole_blocks_of_memory_of_one_order_above_a_size():
    for axes in SHAPES:
        arrays = planes(drawn(0, axes), drawn(1, axes))
        assert arrays is not None, axes
        assert arrays[0].shape[2] == 3
        np.testing.assert_array_equal(np.sort(arrays[0].ravel()), drawn(0, axes).ravel().sort()[0])
    assert planes(drawn(0, "BFCHW"), drawn(1, "BFHWC")) is None
    assert planes(drawn(0)[..., :-1]) is None
    assert planes(drawn(0).half()) is None
    assert planes(torch.zeros(2, 3, SMALL // 3)) is None
    assert planes(torch.zeros(2, 3, 1, SMALL // 3 + 1)) is not None


def test_without_numba_torch_serves(monkeypatch):
    monkeypatch.delitem(sys.modules, "vidcfg.guidance.loops", raising=False)
    monkeypatch.setitem(sys.modules, "numba", None)
    module.loops.cache_clear()
    monkeypatch.delattr("vidcfg.guidance.loops", raising=False)
    assert planes(drawn(0)) is None
    monkeypatch.undo()
    module.loops.cache_clear()
    assert planes(drawn(0)) is not None


def surface(seed, low, high, batch=2):
    return np.random.default_rng(seed).uniform(low, high, (batch, 3))


CASES = {
    "one difference": Combination(
        "uncond", None, {"cond": surface(1, 2, 9)}, np.zeros((2, 3), bool)
    ),
    "gain, factor and a frame that is off": Combination(
        "uncond",
        surface(2, 0.5, 1),
        {"cond": surface(3, 2, 9)},
        np.array([[False, True, False], [False, False, True]]),
        factor_BF=surface(4, 0.7, 1.1),
    ),
    "two differences and a vector": Combination(
        "uncond",
        None,
        {"cond": surface(5, 2, 9), "weak": surface(6, -1, 1)},
        np.zeros((2, 3), bool),
        factor_BF=surface(7, 0.7, 1.1),
        extra_BF={NOISY: surface(8, -0.1, 0.1)},
    ),
}


@pytest.mark.parametrize("axes", SHAPES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", CASES)
def test_a_weighted_sum_is_that_of_torch_bit_for_bit(case, dtype, axes, without):
    names = ("uncond", "cond", "weak")
    frames = {name: drawn(i, axes, dtype) for i, name in enumerate(names)}
    vectors = {NOISY: drawn(9, axes, dtype)}

    def run():
        measured = []
        out = torch.empty_like(frames["cond"])
        given = {"vectors": vectors, "out": out, "measured": measured}
        return combine(frames, CASES[case], **given), measured[0]

    (ours, sums), (theirs, wanted) = run(), without(run)
    assert torch.equal(ours, theirs)
    torch.testing.assert_close(sums, wanted, rtol=2e-5, atol=2e-2)
    flat = ours.double().flatten(2)
    exact = torch.stack([flat.sum(-1), (flat**2).sum(-1)], -1)
    torch.testing.assert_close(sums[..., 2:], exact, rtol=2e-5, atol=2e-2)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_samples_that_share_their_predictions_get_what_each_gets_alone(dtype, without):
    frames = {name: drawn(i, dtype=dtype, batch=1) for i, name in enumerate(("uncond", "cond"))}
    off_BF = np.zeros((4, 3), bool)
    off_BF[2, 1] = True
    strength = surface(11, 2, 9, batch=4)
    together = Combination("uncond", None, {"cond": strength}, off_BF)

    def run(combination, batch):
        out = torch.empty_like(frames["cond"].expand(batch, *frames["cond"].shape[1:]))
        return combine(
            frames, combination, out=out.contiguous().movedim(1, 2).contiguous().movedim(2, 1)
        )

    ours = run(together, 4)
    assert torch.equal(ours, without(lambda: run(together, 4)))
    for k in range(4):
        alone = Combination("uncond", None, {"cond": strength[k : k + 1]}, off_BF[k : k + 1])
        assert torch.equal(ours[k : k + 1], run(alone, 1))


@pytest.mark.parametrize("num_vectors", [2, 4])
@pytest.mark.parametrize("mean", [0.0, 30.0])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_inner_products_are_those_of_float64(dtype, mean, num_vectors):
    names = ("uncond", "cond", "weak")[: num_vectors // 2 + 1]
    frames = {name: drawn(i, dtype=dtype, mean=mean) for i, name in enumerate(names)}
    raw = {NOISY: drawn(7, dtype=dtype)} if num_vectors == 4 else {}
    gram = gram_of(frames, base="uncond", raw=raw)
    base = frames["uncond"]
    # Differences are rounded to the dtype, as the weighted sum takes them.
    parts = [base, *(frames[name] - base for name in names[1:]), *raw.values()]
    flat = torch.stack([p.double().flatten(2) for p in parts], 2)
    means = flat.mean(-1, keepdim=True)
    scatter = (flat - means) @ (flat - means).mT
    size = scatter.diagonal(dim1=2, dim2=3).sqrt()
    near = 1e-12 if dtype == torch.float64 else 3e-6
    assert ((gram.scatter - scatter).abs() <= near * size[..., None] * size[..., None, :]).all()
    torch.testing.assert_close(gram.mean, means[..., 0], rtol=near, atol=near)
    second = ({n: p[1:] for n, p in tensors.items()} for tensors in (frames, raw))
    alone = gram_of(next(second), base="uncond", raw=next(second))
    assert torch.equal(gram.scatter[1:], alone.scatter)
    assert torch.equal(gram.mean[1:], alone.mean)
    torch.testing.assert_close(
        spread_of(frames["cond"]),
        frames["cond"].double().flatten(2).std(-1, correction=0),
        rtol=near,
        atol=0,
    )


LEVELS = (0.35, -0.65, 0.35 / 0.65, -1 / 0.65)


@pytest.mark.parametrize("statistics", ["clip", "frame"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("percentile", [51.0, 99.5, 99.999, 100.0])
def test_a_threshold_is_that_of_torch(percentile, dtype, statistics, without):
    threshold = Threshold(percentile=percentile, floor=0.8)
    off_BF = np.array([[False, True, False], [False, False, False]])

    def run():
        guided, noisy = drawn(1, dtype=dtype), drawn(2)
        before = guided.clone()
        given = {"statistics": statistics, "off_BF": off_BF}
        return before, threshold.limit(noisy, guided, LEVELS, **given)

    (before, ours), (_, theirs) = run(), without(run)
    assert torch.equal(ours[0, 1], before[0, 1])
    assert torch.equal(theirs[0, 1], before[0, 1])
    on = ~torch.from_numpy(off_BF)
    near = 2e-6 if dtype == torch.float32 else 1e-2
    torch.testing.assert_close(ours[on], theirs[on], rtol=near, atol=near)
    # The same elements are left alone, up to those at the bound itself.
    assert ((ours == before) != (theirs == before))[on].float().mean() < 1e-4


@pytest.mark.parametrize("values", [(1.0, 3.0), (0.0, 0.0), (2.0, 2.0)])
def test_a_percentile_between_two_far_values_is_theirs(values, without):
    """Half of all elements have one size and half another: their mean is the median."""
    sizes = torch.tensor(values).repeat(2, 3, 4, 60, 24)
    threshold = Threshold(percentile=50.001, floor=0.5)
    given = {"statistics": "frame", "off_BF": np.zeros((2, 3), bool)}
    identity = (0.0, 1.0, 0.0, 1.0)

    def run():
        return threshold.limit(torch.zeros_like(sizes), sizes.clone(), identity, **given)

    torch.testing.assert_close(run(), without(run), rtol=1e-6, atol=0)
    q = np.quantile(sizes[0, 0].double().numpy().ravel(), 0.50001)
    expected = sizes.clamp(-max(q, 0.5), max(q, 0.5)) * 0.5 / max(q, 0.5)
    torch.testing.assert_close(run(), expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("dtype", [*DTYPES, torch.float16], ids=str)
def test_room_is_an_empty_tensor_of_that_kind(dtype):
    for shape in ((2, 3), (3, 5, 1 << 16)):
        made = room(torch.zeros(1, dtype=dtype), shape, dtype)
        assert (made.shape, made.dtype, made.is_contiguous()) == (shape, dtype, True)
        made.fill_(2)
        assert made.sum(dtype=torch.float64) == 2 * made.numel()


def test_room_of_a_step_before_is_taken_again_once_nobody_holds_it():
    like, shape = torch.zeros(1), (3, 5, 1 << 17)
    first = room(like, shape, torch.float32).fill_(1)
    second = room(like, shape, torch.float32).fill_(2)
    place, view = first.data_ptr(), first[1, 2:]
    assert second.data_ptr() != place
    del first
    # A view holds it, and so does an array on a view.
    third = room(like, shape, torch.float32).fill_(3)
    assert third.data_ptr() != place
    array = view.numpy()
    del view, second, third
    assert room(like, shape, torch.float32).fill_(4).data_ptr() != place
    assert (array == 1).all()
    # Of a run whose result is held until the next one is there, two are used in turns.
    places, held = [], None
    for _ in range(6):
        held = room(like, shape, torch.float32)
        places.append(held.data_ptr())
    assert len(set(places[2:])) == 2
