"""A grid of 8 scales x 4 starts x 4 stops made together, against one video after the other.

    python tools/bench_sweep.py [--steps 50] [--scales 8] [--tiny]

Both sides leave out the unconditional pass where guidance is off; together, cells also share
every evaluation until their settings part. Outputs are compared bit for bit, and the count of
evaluations with the exact tree, before a time is printed. One thread, the same process.
"""

import argparse
import platform
import time
from itertools import product

import numpy as np
import torch

from vidcfg.guidance.setting import Guidance
from vidcfg.pipelines.load import MiniModel, load_pipeline
from vidcfg.pipelines.schedulers import make_scheduler
from vidcfg.render.config import RenderConfig
from vidcfg.render.sampling import sample_units
from vidcfg.render.units import units_of


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--scales", type=int, default=8)
    parser.add_argument("--tiny", action="store_true", help="9 frames of 16 x 16 pixels")
    options = parser.parse_args()
    torch.set_num_threads(1)
    schedules = grid(options.scales, options.steps)
    configs = [config_of(schedule, options) for schedule in schedules]
    pipe = load_pipeline(MiniModel(device="cpu"))
    pipe.scheduler = make_scheduler(pipe, configs[0].sampling)
    (unit,) = units_of(configs[0])
    sample_units(configs[:1], pipe, unit)
    began = time.perf_counter(), time.process_time()
    batch = sample_units(configs, pipe, unit)
    together = time.perf_counter() - began[0], time.process_time() - began[1]
    began = time.perf_counter(), time.process_time()
    singles = [sample_units([config], pipe, unit) for config in configs]
    alone = time.perf_counter() - began[0], time.process_time() - began[1]
    expected = trie_count(schedules)
    assert batch.executed == batch.planned == expected, (batch.executed, expected)
    for video, single in zip(batch.videos, singles, strict=True):
        assert np.array_equal(video.frames_THWC, single.videos[0].frames_THWC), "videos differ"
    evaluations = sum(single.executed for single in singles)
    print(f"{platform.processor() or platform.machine()}, torch {torch.__version__}, one thread")
    print(f"{len(configs)} videos, {options.steps} steps, all equal bit for bit")
    print(f"{'':12}{'evaluations':>12}{'wall s':>9}{'CPU s':>9}")
    print(f"{'one by one':12}{evaluations:>12}{alone[0]:>9.1f}{alone[1]:>9.1f}")
    print(f"{'together':12}{batch.executed:>12}{together[0]:>9.1f}{together[1]:>9.1f}")
    ratios = [evaluations / batch.executed, alone[0] / together[0], alone[1] / together[1]]
    print(f"{'ratio':12}{ratios[0]:>12.2f}{ratios[1]:>9.2f}{ratios[2]:>9.2f}")


def grid(num_scales: int, num_steps: int) -> list[tuple[float, ...]]:
    """Scales guided from a start to a stop, off elsewhere: starts 0 to 0.3, stops 0.4 to 1."""
    starts = [round(num_steps * share) for share in (0.0, 0.1, 0.2, 0.3)]
    stops = [round(num_steps * share) for share in (0.4, 0.6, 0.8, 1.0)]
    return [
        tuple(1.5 + scale if start <= k < stop else 1.0 for k in range(num_steps))
        for scale, start, stop in product(range(num_scales), starts, stops)
    ]


def trie_count(schedules: list[tuple[float, ...]]) -> int:
    """Evaluations of the tree of prefixes, counted without the planner."""
    total = 0
    for k in range(len(schedules[0])):
        pasts: dict[tuple, bool] = {}
        for schedule in schedules:
            pasts[schedule[:k]] = pasts.get(schedule[:k], False) or schedule[k] != 1.0
        total += sum(1 + is_guided for is_guided in pasts.values())
    return total


def config_of(schedule: tuple[float, ...], options: argparse.Namespace) -> RenderConfig:
    size = 16 if options.tiny else 32
    frames = 9 if options.tiny else 17
    return RenderConfig(
        schema=1,
        name="bench",
        model={"kind": "mini", "device": "cpu"},
        prompts="a red circle moving left over a navy background",
        seeds=0,
        video={"num_frames": frames, "height": size, "width": size, "fps": 8},
        sampling={"num_steps": len(schedule), "scheduler": "flow_euler"},
        guidance=Guidance(scale=list(schedule)),
        output={"dir": "out", "video": "ffv1"},
    )


if __name__ == "__main__":
    main()
