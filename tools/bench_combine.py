"""Combine speed: vidcfg's Gram and weighted sum against diffusers' guider, side by side.

    python tools/bench_combine.py [rounds]

One thread, (1, 16, 21, 60, 104) float32 (a 480p clip of Wan 2.1), interleaved rounds, minimum and
median of the thread's CPU time, so that other work on the machine counts as little as it can.
Both make the same result (checked before anything is timed); vidcfg's time includes the standard
deviation of every frame for the trace. The copy line is the machine's bandwidth.
"""

import statistics
import sys
import time

import numpy as np
import torch
from diffusers.guiders import ClassifierFreeGuidance

from vidcfg.guidance.layout import FrameLayout
from vidcfg.guidance.passes import StepInputs
from vidcfg.guidance.plan import SampleStep
from vidcfg.guidance.setting import Guidance
from vidcfg.guidance.step import SampleGroup

SHAPE = (1, 16, 21, 60, 104)
SCALE = 6.5
LAYOUT = FrameLayout("BCFHW")


def ours(cond: torch.Tensor, uncond: torch.Tensor, amount: float, by: str) -> torch.Tensor:
    """One guided prediction as the denoiser makes it."""
    guidance = Guidance(scale=SCALE, rescale=amount, statistics=by)
    rule, ones = guidance.method, np.ones(SHAPE[2])
    sample = SampleStep(0, guidance, rule, SCALE * ones, ones, rule.branches, (True,), {})
    inputs = StepInputs({"x": cond}, {}, num_frames=SHAPE[2], step=0)
    return SampleGroup([sample], LAYOUT, inputs).guide({"cond": cond, "uncond": uncond}).guided


def timed(cases: dict, rounds: int) -> dict[str, list[float]]:
    """CPU milliseconds of each case, one of each per round, after three rounds of warm-up."""
    found = {name: [] for name in cases}
    for _ in range(rounds + 3):
        for name, run in cases.items():
            began = time.thread_time()
            run()
            found[name].append(1e3 * (time.thread_time() - began))
    return {name: times[3:] for name, times in found.items()}


def main(rounds: int) -> None:
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    uncond = torch.randn(SHAPE, generator=generator)
    cond = uncond + 0.3 * torch.randn(SHAPE, generator=generator)
    out = torch.empty_like(cond)
    for amount in (0.0, 0.7):
        stock = ClassifierFreeGuidance(SCALE, amount).forward(cond, uncond).pred
        error = float((ours(cond, uncond, amount, "clip") - stock).abs().max() / stock.abs().max())
        print(
            f"rescale {amount}: largest difference from diffusers {error:.1e} of the largest value"
        )
        assert error <= (2e-6 if amount else 0.0)
    cases = {
        "copy": lambda: out.copy_(cond),
        "diffusers cfg": lambda: ClassifierFreeGuidance(SCALE).forward(cond, uncond),
        "vidcfg cfg": lambda: ours(cond, uncond, 0.0, "frame"),
        "diffusers rescale": lambda: ClassifierFreeGuidance(SCALE, 0.7).forward(cond, uncond),
        "vidcfg rescale clip": lambda: ours(cond, uncond, 0.7, "clip"),
        "vidcfg rescale frame": lambda: ours(cond, uncond, 0.7, "frame"),
    }
    times = timed(cases, rounds)
    best = {name: min(values) for name, values in times.items()}
    for name, values in times.items():
        peer = f"diffusers {name.split()[1]}" if name != "copy" else None
        ratio = f"{best[peer] / best[name]:6.2f} x" if peer else ""
        print(
            f"{name:22} min {best[name]:7.2f} ms  median {statistics.median(values):7.2f} {ratio}"
        )
    gigabytes = 2 * 4 * cond.numel() / 1e9
    print(f"copy bandwidth {gigabytes / (best['copy'] / 1e3):.1f} GB/s")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 30)
