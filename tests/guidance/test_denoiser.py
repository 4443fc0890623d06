"""Guided predictions of a closed-form model: the formula, the counts, independence, errors."""

import itertools

import numpy as np
import pytest
import torch
from guidance_cases import LAYOUTS, C, F, H, W, bits, into, out_of, video
from rule_runs import multi

from vidcfg.guidance import passes
from vidcfg.guidance.layout import FrameLayout
from vidcfg.guidance.limits import Rescale, Threshold
from vidcfg.guidance.passes import Passes, PassTimer, StepInputs, equal_rows
from vidcfg.guidance.plan import SampleRows, plan_run
from vidcfg.guidance.rules.cfg import Cfg
from vidcfg.guidance.rules.dual import Dual
from vidcfg.guidance.rules.perp_neg import PerpNeg
from vidcfg.guidance.setting import Guidance
from vidcfg.guidance.step import GuidedDenoiser, NonFiniteError

BRANCHES = {"cond": 0.9, "uncond": -0.4, "negative": 0.3, "condition:style": -1.1}


def model(rows, branches=()):
    """Every row on its own: no reduction, so that results do not depend on the batch."""
    x, text = rows["x"], rows["text"].reshape(-1, *[1] * (rows["x"].ndim - 1))
    return (x * (0.5 + text) + (x * x) * text + 0.1 * text).to(x.dtype)


class Counting:
    def __init__(self):
        self.calls = []

    def __call__(self, rows, branches):
        assert len(rows["x"]) == len(rows["text"]) == len(branches)
        self.calls.append(branches)
        return model(rows, branches)


def rule(method=None, **options):
    return Guidance(scale=1.0, method=method or Cfg(), **options)


def denoiser(rules, strength, weight=None, axes="BCFHW", **options):
    strength = np.asarray(strength, float)
    weight = np.ones_like(strength) if weight is None else np.asarray(weight, float)
    samples = SampleRows(tuple(rules), strength, weight)
    timer = options.pop("timer", None)
    combine_dtype = options.pop("combine_dtype", None)
    return GuidedDenoiser(FrameLayout(axes), samples, Passes(**options), combine_dtype, timer)


def inputs(x, *, step=0, texts=None, **options):
    count = len(x)
    by_branch = {n: {"text": torch.full((count, 1), v)} for n, v in BRANCHES.items()}
    for name, values in (texts or {}).items():
        by_branch[name] = {"text": torch.tensor(values)[:, None]}
    return StepInputs(shared={"x": x}, by_branch=by_branch, num_frames=F, step=step, **options)


def random_case(seed, count=5, steps=3):
    """Rules, strengths and weights with exact zeros and ones among them, some samples equal."""
    random = np.random.default_rng(seed)
    kinds = [Cfg(), Dual(2.0), multi(("style", 1.5)), PerpNeg(1.0)]
    limits = [{}, {"rescale": Rescale(0.7)}, {"clamp": 2.0, "statistics": "clip"}]
    rules = [rule(random.choice(kinds), **random.choice(limits)) for _ in range(count)]
    weight = random.choice([0.0, 1.0, 0.5, 0.3], size=(count, steps, F))
    strength = np.where(weight == 0, 1.0, random.choice([0.0, 1.0, 3.0, 7.3], (count, steps, F)))
    strength[:, random.integers(steps)], weight[:, random.integers(steps)] = 1.0, 0.0
    rules[1], strength[1], weight[1] = rules[0], strength[0], weight[0]
    x = video(seed, batch=count)
    x[1] = x[0]
    return rules, strength, weight, x


def run(rules, strength, weight, x, *, axes="BCFHW", **options):
    """All steps of an Euler-like sampler; the final latents, the traces and the model calls."""
    guided_by, evaluate = denoiser(rules, strength, weight, axes, **options), Counting()
    x, traces = into(axes, x), []
    for k in range(strength.shape[1]):
        guided, trace = guided_by.predict(inputs(x, step=k), evaluate)
        traces.append(trace)
        x = x - 0.1 * guided
    return out_of(axes, x), traces, evaluate.calls


def branch_frames(x, name):
    return model({"x": x, "text": torch.full((len(x), 1), BRANCHES[name])}).double().numpy()


def reference(item, strength_F, weight_F, x):
    """Method, rescale, threshold-free clamp in float64, for one sample (F, C, H, W)."""
    c, u, n = (branch_frames(x[None], b)[0] for b in ("cond", "uncond", "negative"))
    s, w = (v[:, None, None, None] for v in (strength_F, weight_F))
    g = u + s * (c - u)
    if isinstance(item.method, Dual):
        g = g - item.method.negative_scale * w * (n - u)
    for f in range(F):
        if not item.rescale.is_off:
            group = slice(None) if item.statistics == "clip" else f
            ratio = c[group].std() / (u + s * (c - u))[group].std()
            a = item.rescale.amount
            g[f] *= 1.0 if strength_F[f] == 0 else a * ratio + 1 - a
    off = (strength_F == 1) & ((weight_F == 0) | (item.method.kind == "cfg"))
    g[off] = c[off]
    groups = [slice(None)] if item.statistics == "clip" else range(F)
    for group in groups if item.clamp else []:
        mean, d = g[group].mean(), item.clamp * g[group].std()
        g[group] = g[group].clip(mean - d, mean + d)
    g[off] = c[off]
    return g


@pytest.mark.parametrize("statistics", ["frame", "clip"])
@pytest.mark.parametrize(
    "options",
    [{}, {"rescale": Rescale(0.6)}, {"clamp": 1.5}] + [{"rescale": Rescale(1.0), "clamp": 1.2}],
)
@pytest.mark.parametrize("axes", LAYOUTS)
def test_guided_prediction_equals_a_float64_reference(axes, options, statistics):
    strength = np.array([[[7.3, 1.0, 0.0, 2.5, 0.4]], [[1.0, 4.2, 3.0, 0.0, 9.1]]])
    item = rule(**options, statistics=statistics)
    x = video(5)
    guided, trace = denoiser([item] * 2, strength, axes=axes).predict(
        inputs(into(axes, x)), Counting()
    )
    guided = out_of(axes, guided).numpy()
    for b in range(2):
        want = reference(item, strength[b, 0], np.ones(F), x[b])
        # float32 roundings of values up to 200
        np.testing.assert_allclose(guided[b], want, rtol=1e-5, atol=1e-4)
        for f in range(F):
            std = want[f].std()
            assert trace.std_guided_BF[b, f] == pytest.approx(std, rel=1e-4)
            cond = branch_frames(x[b : b + 1], "cond")[0, f].std()
            assert trace.std_cond_BF[b, f] == pytest.approx(cond, rel=1e-5)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "flow"])
def test_threshold_acts_on_x0_and_keeps_the_bits_of_what_it_leaves(kind):
    alpha, sigma = 0.8, 0.6
    strength = np.full((2, 1, F), 5.0)
    strength[1, 0, 2] = 1.0
    x, frames = video(5), {}
    for name, limits in {"plain": {}, "cut": {"threshold": Threshold(90.0, 2.0)}}.items():
        options = {"level": (alpha, sigma), "prediction": kind}
        frames[name], _ = denoiser([rule(**limits)] * 2, strength, axes="BFCHW").predict(
            inputs(x, **options), Counting()
        )
    plain, cut, noisy = (t.double() for t in (frames["plain"], frames["cut"], x))
    x0 = {
        "epsilon": lambda p: (noisy - sigma * p) / alpha,
        "v_prediction": lambda p: alpha * noisy - sigma * p,
        "flow": lambda p: (noisy - sigma * p) / (alpha + sigma),
    }[kind]
    for b, f in itertools.product(range(2), range(F)):
        if strength[b, 0, f] == 1:
            assert torch.equal(bits(frames["cut"][b, f]), bits(frames["plain"][b, f]))
            continue
        q = max(float(torch.quantile(x0(plain)[b, f].abs().flatten(), 0.9)), 2.0)
        want = x0(plain)[b, f].clamp(-q, q) * 2.0 / q
        # float32 there and back, at values up to 200
        torch.testing.assert_close(x0(cut)[b, f], want, rtol=1e-4, atol=1e-4)
    far = denoiser([rule(threshold=Threshold(90.0, 1e6))] * 2, strength, axes="BFCHW")
    kept, _ = far.predict(inputs(x, level=(alpha, sigma), prediction=kind), Counting())
    assert torch.equal(bits(kept), bits(frames["plain"]))


def test_threshold_without_a_noise_level_says_what_to_use():
    guided_by = denoiser([rule(threshold=Threshold())] * 2, np.full((2, 1, F), 5.0))
    with pytest.raises(ValueError, match=r"needs the noise level .* Use guidance\.rescale"):
        guided_by.predict(inputs(into("BCFHW", video(5))), Counting())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("axes", LAYOUTS)
def test_uniform_scale_is_the_stock_formula_bit_for_bit(axes, dtype):
    x = into(axes, video(5)).to(dtype)
    guided_by = denoiser([rule()] * 2, np.full((2, 1, F), 7.3), axes=axes)
    guided, _ = guided_by.predict(inputs(x), Counting())
    cond, uncond = (
        model({"x": x, "text": torch.full((2, 1), BRANCHES[n])}) for n in ("cond", "uncond")
    )
    assert torch.equal(bits(guided), bits(uncond + 7.3 * (cond - uncond)))
    assert guided.is_contiguous()
    exact = denoiser([rule(precision="float32")] * 2, np.full((2, 1, F), 7.3), axes=axes)
    want = (uncond.float() + 7.3 * (cond.float() - uncond.float())).to(dtype)
    assert torch.equal(bits(exact.predict(inputs(x), Counting())[0]), bits(want))


@pytest.mark.parametrize(
    "limits",
    [{"rescale": Rescale(1.0)}, {"threshold": Threshold(50.5, 0.1)}, {"clamp": 0.5}],
)
def test_frame_of_strength_one_is_cond_to_the_bit_whatever_the_limits(limits):
    x = into("BFCHW", video(5))
    x[:, :, 0, 0] = -0.0
    strength = np.array([[[7.3, 1.0, 0.0, 2.5, 0.4]], [[1.0, 4.2, 3.0, 0.0, 1.0]]])
    guided_by = denoiser([rule(**limits)] * 2, strength, axes="BFCHW")
    guided, _ = guided_by.predict(inputs(x, level=(0.8, 0.6)), Counting())
    cond = model({"x": x, "text": torch.full((2, 1), BRANCHES["cond"])})
    for b, f in itertools.product(range(2), range(F)):
        assert torch.equal(bits(guided[b, f]), bits(cond[b, f])) == (strength[b, 0, f] == 1)


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("seed", range(8))
def test_evaluations_run_are_those_planned(seed, share):
    rules, strength, weight, x = random_case(seed)
    _, traces, calls = run(rules, strength, weight, x, share=share)
    samples = SampleRows(tuple(rules), strength, weight)
    plan = plan_run(samples, starts=[0, 0, 2, 3, 4], texts=[BRANCHES] * 5, share=share)
    assert [t.evaluations for t in traces] == list(plan.per_step)
    run_rows = [branch for call in calls for branch in call]
    assert {b: run_rows.count(b) for b in set(run_rows)} == plan.evaluations
    assert sum(t.calls for t in traces) == len(calls)


@pytest.mark.parametrize("seed", range(3))
def test_sharing_batching_and_micro_batches_do_not_change_a_bit(seed):
    case = random_case(seed)
    plain, _, _ = run(*case, share=False, mode="sequential")
    for share, mode, size in itertools.product(
        (True, False), ("sequential", "batched"), (None, 1)
    ):
        other, _, calls = run(*case, share=share, mode=mode, micro_batch=size)
        assert torch.equal(bits(other), bits(plain))
        assert size is None or all(len(call) == 1 for call in calls)


@pytest.mark.parametrize("axes", LAYOUTS)
def test_a_sample_depends_neither_on_its_neighbours_nor_on_its_place(axes):
    rules, strength, weight, x = random_case(11)
    together, _, _ = run(rules, strength, weight, x, axes=axes)
    order = [3, 0, 4, 2]
    moved, _, _ = run(
        [rules[i] for i in order], strength[order], weight[order], x[order], axes=axes
    )
    assert torch.equal(bits(moved), bits(together[order]))
    for b in range(5):
        one = slice(b, b + 1)
        alone, _, _ = run(rules[one], strength[one], weight[one], x[one], axes=axes)
        assert torch.equal(bits(alone), bits(together[one]))


@pytest.mark.parametrize("method", [Cfg(), Dual(2.0), PerpNeg(1.0)])
def test_a_branch_that_is_left_out_does_not_matter(method):
    for strengths in itertools.product([0.0, 1.0, 3.0], repeat=2):
        strength = np.repeat(strengths, [2, 3])[None, None]
        for weight in (0.0, 1.0):
            guided_by = denoiser([rule(method)], strength, np.full_like(strength, weight))
            x = into("BCFHW", video(5, batch=1))
            evaluate = Counting()
            guided, _ = guided_by.predict(inputs(x), evaluate)
            ran = {branch for call in evaluate.calls for branch in call}
            for branch in method.branches:
                other, _ = guided_by.predict(inputs(x, texts={branch: [17.0]}), Counting())
                assert torch.equal(other, guided) == (branch not in ran)


def test_auto_keeps_the_faster_way(monkeypatch):
    monkeypatch.setattr(passes, "_SECONDS", {})
    timer = PassTimer(("closed form",))
    guided_by = denoiser([rule()] * 2, np.full((2, 8, F), 3.0), mode="auto", timer=timer)
    now = itertools.count()
    monkeypatch.setattr("vidcfg.guidance.passes.clock", lambda device: float(next(now)))
    x, evaluate = into("BCFHW", video(5)), Counting()
    calls = [guided_by.predict(inputs(x, step=k), evaluate)[1].calls for k in range(7)]
    # equal times: the first way, batched, stays
    assert calls == [1, 2, 1, 2, 1, 2, 1]


def test_batched_call_has_uncond_first_and_sequential_starts_with_cond():
    x = into("BCFHW", video(5))
    for mode, want in {
        "batched": [("uncond", "uncond", "cond", "cond")],
        "sequential": [("cond", "cond"), ("uncond", "uncond")],
    }.items():
        evaluate = Counting()
        denoiser([rule()] * 2, np.full((2, 1, F), 3.0), mode=mode).predict(inputs(x), evaluate)
        assert evaluate.calls == want


def test_texts_of_different_length_are_not_batched():
    given = inputs(into("BCFHW", video(5)))
    given.by_branch["uncond"]["text"] = torch.full((2, 2), 0.3)
    calls = []

    def evaluate(rows, branches):
        calls.append(branches)
        return rows["x"] * float(rows["text"].sum())

    denoiser([rule()] * 2, np.full((2, 1, F), 3.0), mode="batched").predict(given, evaluate)
    assert calls == [("cond", "cond"), ("uncond", "uncond")]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("axes", LAYOUTS)
def test_a_prediction_that_is_not_finite_names_step_branch_sample_and_frame(axes, bad):
    def evaluate(rows, branches):
        prediction = out_of(axes, model(rows)).clone()
        for row, branch in enumerate(branches):
            if branch == "uncond" and row == 1:
                prediction[row, 3, C - 1, H - 1, W - 1] = bad
        return into(axes, prediction)

    guided_by = denoiser([rule()] * 2, np.full((2, 4, F), 3.0), axes=axes)
    said = "step 2: the uncond prediction of sample 1 holds NaN or Inf, first in latent frame 3"
    with pytest.raises(NonFiniteError, match=said):
        guided_by.predict(inputs(into(axes, video(5)), step=2), evaluate)


def test_large_half_precision_values_are_finite():
    x = torch.full((2, C, F, H, W), 60000.0, dtype=torch.float16)
    x[:, :, 0] = -60000.0
    guided_by = denoiser([rule()] * 2, np.ones((2, 1, F)))
    guided, _ = guided_by.predict(inputs(x), lambda rows, branches: rows["x"])
    assert torch.equal(guided, x)


def test_output_has_the_dtype_in_which_the_stock_pipeline_combines():
    x = into("BCFHW", video(5)).bfloat16()
    for strength in (1.0, 3.0):
        guided_by = denoiser(
            [rule()] * 2, np.full((2, 1, F), strength), combine_dtype=torch.float32
        )
        assert guided_by.predict(inputs(x), Counting())[0].dtype == torch.float32


def test_equal_rows_are_told_from_rows_with_the_same_sum():
    first = torch.tensor([[1.0, 2.0, 3.0], [3.0, 2.0, 1.0], [1.0, 2.0, 3.0], [0.0, 3.0, 3.0]])
    assert equal_rows([first]) == [0, 1, 0, 3]
    second = torch.tensor([[5], [5], [6], [5]])
    assert equal_rows([first, second]) == [0, 1, 2, 3]
    assert equal_rows([first[[2, 3, 0]]]) == [0, 1, 0]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64, torch.int64, torch.bool])
def test_equal_rows_reads_every_dtype_to_the_bit(dtype):
    rows = torch.tensor([[0, 1], [1, 0], [0, 1]]).to(dtype)
    assert equal_rows([rows]) == [0, 1, 0]
    signs = torch.tensor([[0.0], [-0.0], [0.0]], dtype=torch.float32)
    assert equal_rows([signs]) == [0, 1, 0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", [(96, 160), (97, 151)])
@pytest.mark.parametrize("axes", ["BCFHW", "BFCHW", "BFHWC", "tokens"])
def test_planes_of_many_elements_are_guided_as_small_ones(axes, size, dtype):
    """As of a video of 720p, where one channel of a frame is summed in several rows."""
    generator = torch.Generator().manual_seed(0)
    shape = {"BFCHW": (2, 3, 4, *size), "BFHWC": (2, 3, *size, 4)}.get(axes, (2, 4, 3, *size))
    shape = (2, 3 * size[0] * size[1], 4) if axes == "tokens" else shape
    cond, uncond, noisy = (torch.randn(shape, generator=generator).to(dtype) for _ in range(3))
    ready = {"cond": cond, "uncond": uncond}
    by_branch = {"cond": {}, "uncond": {}}
    given = StepInputs(shared={"x": noisy}, by_branch=by_branch, num_frames=3, step=0)
    strength = np.full((2, 1, 3), 4.3)
    plain = denoiser([rule()] * 2, strength, axes=axes, share=False)
    guided, _ = plain.predict(given, lambda _, names: ready[names[0]])
    assert torch.equal(bits(guided), bits(uncond + 4.3 * (cond - uncond)))

    limited = denoiser([rule(rescale=1.0)] * 2, strength, axes=axes, share=False)
    guided, _ = limited.predict(given, lambda _, names: ready[names[0]])
    spreads = [
        limited.layout.frames(video, 3).double().flatten(2).std(2) for video in (guided, cond)
    ]
    # roundings, of the factor too
    rtol = 1e-5 if dtype == torch.float32 else 1e-3
    torch.testing.assert_close(*spreads, rtol=rtol, atol=0)
