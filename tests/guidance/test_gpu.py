"""The engine on a CUDA device: every rule beside the CPU in float64, memory, and no waiting."""

import numpy as np
import pytest
import torch
from guidance_cases import SURFACE_BF, F, video
from rule_runs import branch_videos, every_rule, one_step, rule_of, whole_run

from vidcfg.guidance.layout import FrameLayout
from vidcfg.guidance.limits import Rescale, Threshold
from vidcfg.guidance.passes import Passes, StepInputs
from vidcfg.guidance.plan import Memory, SampleRows
from vidcfg.guidance.rules.zero_star import ZeroStar
from vidcfg.guidance.setting import Guidance
from vidcfg.guidance.step import GuidedDenoiser

pytestmark = pytest.mark.gpu

DEVICE = torch.device("cuda")
RULES = every_rule() | {"zero_star": ZeroStar(zero_init_steps=0)}
WEIGHT_BF = np.where(SURFACE_BF == 1, 0.0, 0.6)


def both(method, videos, *, dtype=torch.float32, **options):
    """The guided video and the spread before and after: in `dtype` on CUDA, on the CPU in float64.

    Both start from the same numbers, those of `dtype`.
    """
    videos = {name: v.to(dtype).double() for name, v in videos.items()}
    noisy = video(99).to(dtype).double()
    found = []
    for where in ({"device": DEVICE, "dtype": dtype}, {"dtype": torch.float64}):
        guided, trace, _ = one_step(
            method, videos, SURFACE_BF, WEIGHT_BF, noisy=noisy, **where, **options
        )
        assert guided.dtype == where["dtype"]
        spreads = (trace.std_cond_BF, trace.std_guided_BF)
        found.append([torch.as_tensor(x).cpu().double() for x in (guided, *spreads)])
    return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("axes", ["BCFHW", "tokens"])
@pytest.mark.parametrize("statistics", ["frame", "clip"])
@pytest.mark.parametrize("name", sorted(RULES))
def test_every_rule_gives_what_the_cpu_gives_in_float64(name, statistics, axes, dtype):
    method = RULES[name]
    options = {"statistics": statistics, "axes": axes, "dtype": dtype}
    ours, want = both(method, branch_videos(method), **options)
    # float32 roundings of terms up to 80; bfloat16 keeps 8 bits of the result
    rtol, atol = (1e-5, 1e-4) if dtype == torch.float32 else (2**-8, 1e-3)
    torch.testing.assert_close(ours[0], want[0], rtol=rtol, atol=atol)
    for mine, theirs in zip(ours[1:], want[1:]):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


LIMITS = {
    "std": {"rescale": Rescale(0.7)},
    "norm": {"rescale": Rescale(1.0, "norm")},
    "x0": {"rescale": Rescale(0.7, "std", "x0")},
    "threshold": {"threshold": Threshold(90.0, 0.5)},
    "clamp": {"clamp": 1.5},
}


@pytest.mark.parametrize("mean", [0.0, 300.0])
@pytest.mark.parametrize("statistics", ["frame", "clip"])
@pytest.mark.parametrize("name", list(LIMITS))
def test_every_limit_gives_what_the_cpu_gives_in_float64(name, statistics, mean):
    method = RULES["cfg"]
    videos = {branch: v + mean for branch, v in branch_videos(method).items()}
    ours, want = both(method, videos, statistics=statistics, **LIMITS[name])
    # float32 roundings of terms up to 80, or of the mean
    torch.testing.assert_close(ours[0], want[0], rtol=1e-5, atol=1e-4)
    # as far as the rounding of what is measured goes
    spread = 1e-5 if mean == 0 else 1e-3
    torch.testing.assert_close(ours[1:], want[1:], rtol=spread, atol=spread)


@pytest.mark.parametrize("name", sorted(RULES))
def test_whole_runs_with_equal_samples_are_those_of_the_cpu(name):
    rules = [rule_of(RULES[name])] * 3
    rows = np.stack([SURFACE_BF[0], SURFACE_BF[0], SURFACE_BF[1]])[:, None].repeat(5, axis=1)
    weights = np.where(rows == 1, 0.0, 0.6)
    x = video(8, batch=3)
    x[1] = x[0]
    found = [whole_run(rules, rows, weights, start) for start in (x.to(DEVICE), x.double())]
    (ours, traces, calls), (want, wanted, expected) = found
    # float32 roundings of five steps, each of terms up to 80
    torch.testing.assert_close(ours.cpu().double(), want, rtol=1e-4, atol=1e-3)
    assert calls == expected
    assert [trace.evaluations for trace in traces] == [trace.evaluations for trace in wanted]
    assert torch.equal(ours[1], ours[0])


STEPS = {
    "cfg": ({}, 3),
    "rescale": ({"rescale": 0.7}, 4),
    "zero_star": ({"method": {"kind": "zero_star", "zero_init_steps": 0}}, 4),
    "tcfg": ({"method": "tcfg", "rescale": 0.7, "statistics": "clip"}, 4),
    "apg": ({"method": {"kind": "apg", "norm": 0.5, "momentum": -0.3}}, 5),
}
"""A setting, and the tensors of float32 latents that a step of it holds beyond its inputs."""


def step_of(setting, *, batch, size, dtype=torch.float32, device=DEVICE):
    """A function that takes one guided step on latents (batch, 16, F, *size)."""
    rules = (Guidance(scale=3.0, **setting),) * batch
    rows = np.repeat(SURFACE_BF[:batch, None], 2, axis=1)
    samples = SampleRows(rules, rows, np.ones_like(rows))
    denoiser = GuidedDenoiser(FrameLayout("BCFHW"), samples, Passes(share=batch == 1))
    noisy, cond, uncond = torch.randn(3, batch, 16, F, *size, device=device).to(dtype)
    ready = {"cond": cond, "uncond": uncond}
    given = StepInputs(
        shared={"x": noisy},
        by_branch={"cond": {}, "uncond": {}},
        num_frames=F,
        step=1,
        level=(0.4, 0.6),
    )
    return lambda: denoiser.predict(given, lambda _, names: ready[names[0]], Memory())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", list(STEPS))
def test_kernels_give_what_torch_gives(name, dtype, monkeypatch):
    step = step_of(STEPS[name][0], batch=2, size=(60, 104), dtype=dtype)
    found = {}
    for kernels in ("", "triton"):
        monkeypatch.setenv("VIDCFG_KERNELS", kernels)
        guided, trace = step()
        found[kernels] = (guided, trace.std_cond_BF, trace.std_guided_BF)
    near = 1e-5 if dtype == torch.float32 else 2**-7
    if name == "cfg":
        assert torch.equal(found[""][0], found["triton"][0])
    for ours, wanted in zip(found["triton"], found[""]):
        torch.testing.assert_close(ours, wanted, rtol=near, atol=near)


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("name", list(STEPS))
def test_memory_of_a_step_is_a_few_tensors_beyond_its_inputs(name, batch):
    """Of latents of 1080p: the result, the differences, and one product in float64 at a time."""
    setting, count = STEPS[name]
    step = step_of(setting, batch=batch, size=(136, 240))
    step()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    step()
    peak = torch.cuda.max_memory_allocated() - before
    one = 4 * batch * 16 * F * 136 * 240
    assert peak <= (count + 0.1) * one, f"{peak / one:.2f} tensors"


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("name", [*STEPS, "clamp"])
def test_no_step_waits_for_the_device(name, batch):
    setting = {"clamp": 3.0} if name == "clamp" else STEPS[name][0]
    step = step_of(setting, batch=batch, size=(8, 12), dtype=torch.bfloat16)
    step()
    torch.cuda.set_sync_debug_mode("error")
    try:
        guided, trace = step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert guided.device.type == trace.std_guided_BF.device.type == "cuda"
    assert torch.isfinite(guided).all()
