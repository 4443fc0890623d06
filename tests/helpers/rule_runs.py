"""One step, or a whole run, of any rule on predictions that a test makes up."""

import zlib

import numpy as np
import torch
from guidance_cases import B, F, into, out_of, video

from vidcfg.guidance.layout import FrameLayout
from vidcfg.guidance.passes import Passes, StepInputs
from vidcfg.guidance.plan import Memory, RunPlan, SampleRows, plan_run
from vidcfg.guidance.rules import RULES
from vidcfg.guidance.rules.cfg_pp import Renoised
from vidcfg.guidance.rules.multi import Multi
from vidcfg.guidance.setting import Guidance
from vidcfg.guidance.step import GuidedDenoiser

GRID = (4, 6)
LEVEL = (0.35, 0.65)


def every_rule() -> dict:
    """A rule of each kind, with values of its own where it has none by default."""
    made = {
        "multi": multi(("style", 1.5)),
        "distilled": RULES["distilled"](adapter="student.safetensors"),
        "apg": RULES["apg"](eta=0.3, norm=0.9, momentum=-0.4),
        "freq": RULES["freq"](space_low=0.4, space_high=1.5, time_low=1.2, time_high=0.1),
        "cfg_pp": Renoised(RULES["cfg_pp"](), 0.7),
    }
    return {name: made.get(name) or make() for name, make in RULES.items()}


def multi(*scales) -> Multi:
    """The rule for conditions of these (name, scale)."""
    return Multi([{"name": name, "prompt": name, "scale": scale} for name, scale in scales])


def rule_of(method, **options) -> Guidance:
    """A setting for strengths that a test gives itself."""
    return Guidance(scale=1.0, **options).model_copy(update={"method": method})


def plan_of(method, strength_BKF, weight_BKF=None, **how) -> RunPlan:
    """The plan of samples of one rule with these strengths; every weight is 1 by default."""
    weight_BKF = np.ones_like(strength_BKF) if weight_BKF is None else weight_BKF
    rules = (rule_of(method),) * len(strength_BKF)
    return plan_run(SampleRows(rules, strength_BKF, weight_BKF), **how)


def branch_text(branch: str) -> float:
    """A number for what a branch sees."""
    return zlib.crc32(branch.encode()) % 1000 / 500 - 1


def one_step(
    method,
    videos: dict,
    strength,
    weight=None,
    *,
    axes: str = "BCFHW",
    dtype=torch.float32,
    noisy=None,
    level=LEVEL,
    prediction: str = "flow",
    steps: int = 1,
    step: int = 0,
    memory: Memory | None = None,
    expert=None,
    device="cpu",
    **options,
):
    """The guided (B, F, C, H, W), the trace and the branches of each call, of one step.

    `videos` are the predictions by branch. `strength` is (B, F), or (B, N, F) for N terms, the
    same on all `steps`. All is computed on `device`.
    """
    strength = np.asarray(strength, float)
    weight = np.ones_like(strength) if weight is None else np.asarray(weight, float)
    rows = [np.repeat(np.asarray(v)[:, None], steps, axis=1) for v in (strength, weight)]
    precision = options.pop("precision", "float32")
    rule = rule_of(method, precision=precision, **options)
    count = len(strength)
    samples = SampleRows((rule,) * count, *rows)
    noisy = video(99, batch=count) if noisy is None else noisy
    ready = {name: into(axes, v.to(device, dtype)) for name, v in videos.items()}
    calls = []

    def evaluate(given, branches):
        calls.append(branches)
        picked = given["row"][:, 0].tolist()
        return torch.stack([ready[b][r] for b, r in zip(branches, picked)])

    inputs = StepInputs(
        shared={
            "x": into(axes, noisy.to(device, dtype)),
            "row": torch.arange(count, device=device)[:, None],
        },
        by_branch={name: {} for name in (*videos, "cond")},
        num_frames=F,
        step=step,
        level=level,
        prediction=prediction,
        grid=GRID,
        expert=expert,
    )
    guided_by = GuidedDenoiser(FrameLayout(axes), samples, Passes(share=False))
    guided, trace = guided_by.predict(inputs, evaluate, memory or Memory())
    return out_of(axes, guided), trace, calls


def branch_videos(method) -> dict:
    """A random prediction of every branch, close to one another as those of a model are."""
    base = video(7)
    return {name: base + 0.6 * video(zlib.crc32(name.encode()) % 1000) for name in method.branches}


def in_groups(formula, videos, strength, clip, *, weight=None, level=None):
    """A float64 formula(c, u, s, w) sample by sample and group by group, as (B, F, C, H, W).

    With `level` = (alpha, sigma, noisy) the formula sees x0 of a flow and its result is turned
    back.
    """
    weight = np.ones_like(strength) if weight is None else weight
    c, u = (videos[name].double().numpy() for name in ("cond", "uncond"))
    if level is not None:
        alpha, sigma, noisy = level[0], level[1], level[2].double().numpy()
        c, u = ((noisy - sigma * p) / (alpha + sigma) for p in (c, u))
    out = np.empty_like(c)
    for b in range(len(c)):
        for group in [slice(None)] if clip else [slice(f, f + 1) for f in range(len(c[b]))]:
            s, w = (v[b, group][:, None, None, None] for v in (strength, weight))
            out[b, group] = formula(c[b, group], u[b, group], s, w)
    if level is not None:
        out = (noisy - (alpha + sigma) * out) / sigma
    off = strength == 1
    out[off] = videos["cond"].double().numpy()[off]
    return out


def model(rows, branches=()):
    """Every row on its own: no reduction, so that results do not depend on the batch."""
    x, text = rows["x"], rows["text"].reshape(-1, *[1] * (rows["x"].ndim - 1))
    return x * (0.5 + 0.3 * text) + torch.sin(x) * text + 0.1 * text


def whole_run(
    rules, strength, weight, x, *, axes="BCFHW", experts=None, levels=None, own=None, **options
):
    """All steps of an Euler-like sampler: final (B, F, C, H, W), traces, branches of the calls.

    `own` is a number for each sample that tells its texts apart, but for that of `cond`.
    """
    samples = SampleRows(tuple(rules), strength, weight, experts=experts, levels=levels)
    guided_by = GuidedDenoiser(FrameLayout(axes), samples, Passes(**options))
    names = {name for rule in rules for name in rule.method.branches}
    calls, traces, memory = [], [], Memory()
    x = into(axes, x)
    own_B1 = x.new_tensor([0.0] * len(x) if own is None else own)[:, None]
    texts = {n: {"text": branch_text(n) + own_B1 * (n != "cond")} for n in names}

    def evaluate(given, branches):
        calls.append(branches)
        return model(given, branches)

    for k in range(samples.num_steps):
        inputs = StepInputs(
            shared={"x": x},
            by_branch=texts,
            num_frames=F,
            step=k,
            level=LEVEL,
            grid=GRID,
            expert=None if experts is None else experts[k],
        )
        guided, trace = guided_by.predict(inputs, evaluate, memory)
        traces.append(trace)
        x = x - 0.1 * guided
    return out_of(axes, x), traces, calls


__all__ = ["B", "F", "GRID", "LEVEL"]


def assert_follows(method, formula, videos: dict, strength, *, axes, clip, dtype, atol=1e-4):
    """One guided step equals a float64 formula (cond, uncond, strength, weight) in its own space.

    `atol` is for float32, whose terms reach 60 to 100; bfloat16 keeps 8 bits of the result.
    """
    videos = {name: v.to(dtype).float() for name, v in videos.items()}
    noisy = video(99).to(dtype).float()
    statistics = "clip" if clip else "frame"
    guided, _, _ = one_step(
        method, videos, strength, axes=axes, dtype=dtype, noisy=noisy, statistics=statistics
    )
    level = (*LEVEL, noisy) if method.in_x0 else None
    want = in_groups(formula, videos, strength, clip, level=level)
    rtol, atol = (1e-5, atol) if dtype == torch.float32 else (2**-8, 1e-3)
    np.testing.assert_allclose(guided.double().numpy(), want, rtol=rtol, atol=atol)
