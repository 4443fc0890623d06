"""One guided step beside the diffusers guiders: everything between two predictions and the result.

A step of ours is `GuidedDenoiser.predict` on predictions that are at hand: the branches a step
needs, the rows that are equal (told by the plan on the first step), the rule and limits, the check
for NaN, the spread of frames for the trace. The step of a peer is `forward` of its guider, for
dynamic thresholding with what its schedulers do. Latents of a 480p clip of Wan 2.1 (and of 720p on
a GPU), float32 and bfloat16; `frame` statistics, which no peer has for rescale, APG and Zero*,
stand beside the same peer. K = 8 scales share one pair of predictions, as on the first step of a
sweep.
"""

from collections.abc import Callable
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import torch
from diffusers import DDPMScheduler
from diffusers.guiders import (
    AdaptiveProjectedGuidance,
    ClassifierFreeGuidance,
    ClassifierFreeZeroStarGuidance,
)
from harness import Row

from vidcfg.guidance.layout import FrameLayout
from vidcfg.guidance.passes import StepInputs
from vidcfg.guidance.plan import Memory, SampleRows
from vidcfg.guidance.setting import Guidance
from vidcfg.guidance.step import GuidedDenoiser

SHAPES = {"480p": (1, 16, 21, 60, 104), "720p": (1, 16, 21, 90, 160)}
SCALE, NORM = 6.5, 400.0
SCALES = tuple(2.0 + k for k in range(8))
SIGMA = 0.65


def rows(device: str) -> list[Row]:
    """Every rule in float32, then in bfloat16; eight scales of three rules after each."""
    found = []
    sizes = ("480p",) if device == "cpu" else tuple(SHAPES)
    for size, dtype in product(sizes, (torch.float32, torch.bfloat16)):
        generator = torch.Generator().manual_seed(0)
        uncond, shift, noisy = (torch.randn(SHAPES[size], generator=generator) for _ in range(3))
        cond = uncond + 0.3 * shift
        name = str(dtype).removeprefix("torch.")
        name = name if device == "cpu" else f"{size} {name}"
        made = _rows_of(name, *(t.to(device, dtype) for t in (cond, uncond, noisy)))
        if device != "cpu":  # whose goals and rounds are those of a CPU
            made = [replace(row, device=device, goal=None, rounds=8) for row in made]
            made += _kernels(name, *(t.to(device, dtype) for t in (cond, uncond)))
        found += made
    return found


def _rows_of(
    name: str, cond: torch.Tensor, uncond: torch.Tensor, noisy: torch.Tensor
) -> list[Row]:
    # Largest difference over largest value; a few roundings of the peer's chain in bfloat16.
    near = 1e-6 if cond.dtype == torch.float32 else 3e-2

    def peer(make: Callable[[float], Any], *scales: float) -> Callable[[], list[torch.Tensor]]:
        guiders = [make(scale) for scale in scales]
        for guider in guiders:
            guider._step = 1  # past the step that Zero* leaves out
        return lambda: [guider.forward(cond, uncond).pred for guider in guiders]

    def ours(*scales: float, **setting: Any) -> Callable[[], torch.Tensor]:
        return _step(cond, uncond, noisy, [Guidance(scale=s, **setting) for s in scales])

    def thresholded(per_frame: bool) -> Callable[[], list[torch.Tensor]]:
        guided = peer(ClassifierFreeGuidance, SCALE)
        scheduler = DDPMScheduler(dynamic_thresholding_ratio=0.995, sample_max_value=1e9)

        def run() -> list[torch.Tensor]:
            x0 = noisy - SIGMA * guided()[0]
            if per_frame:
                tamed = scheduler._threshold_sample(x0[0].movedim(1, 0)).movedim(0, 1)[None]
            else:
                tamed = scheduler._threshold_sample(x0)
            return [(noisy - tamed) / SIGMA]

        return run

    def rescaled(scale: float) -> Any:
        return ClassifierFreeGuidance(scale, 0.7)

    def projected(scale: float) -> Any:
        # Its original formulation moves from cond by `scale`, ours by `scale` - 1.
        return AdaptiveProjectedGuidance(
            scale - 1, None, NORM, eta=0.3, use_original_formulation=True
        )

    norm = NORM / np.prod(cond.shape[1:]) ** 0.5  # as a root mean square
    apg = {"kind": "apg", "eta": 0.3, "norm": norm, "space": "prediction"}
    zero = {"kind": "zero_star", "zero_init_steps": 0}
    threshold = {"percentile": 99.5, "floor": 1.0}
    cases = [
        ("cfg", peer(ClassifierFreeGuidance, SCALE), {}, 1.0, 0.0),
        ("rescale", peer(rescaled, SCALE), {"rescale": 0.7}, 3.0, near),
        ("apg", peer(projected, SCALE), {"method": apg}, 12.0, 100 * near),
        ("zero_star", peer(ClassifierFreeZeroStarGuidance, SCALE), {"method": zero}, 1.5, near),
    ]
    found = []
    for rule, theirs, setting, goal, tolerance in cases:
        for statistics in ("clip", "frame"):
            if rule == "cfg" and statistics == "clip":
                continue
            mine = ours(SCALE, statistics=statistics, **setting)
            agrees = _agreement(theirs, mine, tolerance)
            check = agrees if rule == "cfg" or statistics == "clip" else _another
            found.append(Row(f"{rule} {statistics} {name}", theirs, mine, check, goal=goal))
    for per_frame, statistics in ((False, "clip"), (True, "frame")):
        theirs = thresholded(per_frame)
        mine = ours(SCALE, statistics=statistics, threshold=threshold)
        check = _agreement(theirs, mine, 2 * near)
        title = f"threshold {statistics} {name}"
        found.append(Row(title, theirs, mine, check, goal=8.0, rounds=5))
    for rule, make, setting, goal, tolerance in (
        ("cfg", ClassifierFreeGuidance, {}, 2.0, 0.0),
        ("rescale", rescaled, {"rescale": 0.7, "statistics": "clip"}, 7.0, near),
        ("apg", projected, {"method": apg, "statistics": "clip"}, 15.0, 100 * near),
    ):
        theirs, mine = peer(make, *SCALES), ours(*SCALES, **setting)
        check = _agreement(theirs, mine, tolerance)
        found.append(Row(f"8 x {rule} {name}", theirs, mine, check, goal=goal, rounds=5))
    return found


def _kernels(name: str, cond: torch.Tensor, uncond: torch.Tensor) -> list[Row]:
    """Both kernels beside a copy of as many bytes; the sum also for eight scales of one pair."""
    from vidcfg.guidance import kernels

    def copying(bytes_moved: int) -> Callable[[], object]:
        source, target = torch.empty(
            2, bytes_moved // 2, dtype=torch.uint8, device=cond.device
        ).unbind()
        return lambda: target.copy_(source)

    def weighing(count: int) -> tuple[Callable[[], torch.Tensor], Callable[[], str]]:
        numbers = torch.ones(4, count, cond.shape[2], device=cond.device)
        numbers[2], numbers[3] = 0, SCALE
        out = torch.empty_like(cond.expand(count, *cond.shape[1:]).contiguous())
        blocks = [t.flatten(3) for t in (out, uncond, cond)]

        def weigh() -> torch.Tensor:
            kernels.weighted(*blocks, blocks[2:], 1, numbers)
            return out

        def same() -> str:
            assert torch.equal(weigh(), (uncond + SCALE * (cond - uncond)).expand_as(out))
            return "equal bits"

        return weigh, same

    size = cond.numel() * cond.itemsize
    options = {"note": "a copy", "goal": 0.8, "rounds": 8, "device": "cuda"}
    pair = [t.flatten(3) for t in (uncond, cond)]
    return [
        Row(f"kernel weighted {name}", copying(3 * size), *weighing(1), **options),
        Row(f"kernel weighted 8 x {name}", copying(10 * size), *weighing(8), **options),
        Row(
            f"kernel moments {name}",
            copying(2 * size),
            lambda: kernels.moments(pair, 1),
            _another,
            **options,
        ),
    ]


def _another() -> str:
    return "another statistic"


def _step(
    cond: torch.Tensor, uncond: torch.Tensor, noisy: torch.Tensor, rules: list[Guidance]
) -> Callable[[], torch.Tensor]:
    """A guided step of samples that see the same noise, on predictions that are at hand."""
    count, num_frames = len(rules), cond.shape[2]
    strength = np.stack([np.full((2, num_frames), rule.scale.value) for rule in rules])
    samples = SampleRows(tuple(rules), strength, np.ones_like(strength))
    denoiser = GuidedDenoiser(FrameLayout("BCFHW"), samples)
    inputs = StepInputs(
        shared={"latents": noisy.repeat(count, 1, 1, 1, 1)},
        by_branch={"cond": {}, "uncond": {}},
        num_frames=num_frames,
        step=1,
        level=(1 - SIGMA, SIGMA),
    )
    ready, memory = {"cond": cond, "uncond": uncond}, Memory()
    return lambda: denoiser.predict(inputs, lambda _, names: ready[names[0]], memory)[0]


def _agreement(peer: Callable, ours: Callable, tolerance: float) -> Callable[[], str]:
    """A check that the largest difference is at most so much of the largest value."""

    def check() -> str:
        theirs, mine = torch.cat(peer()).double(), ours().double()
        if torch.equal(theirs, mine):
            return "equal bits"
        error = float((theirs - mine).abs().max() / theirs.abs().max())
        assert error <= tolerance, error
        return f"within {error:.1e}"

    return check
