"""Guidance per step: vidcfg beside the stock pipeline's own, in one run on one device.

    python tools/bench_overhead.py [CHECKPOINT] [--device cuda] [--dtype bfloat16] [--steps 8]
        [--frames 17] [--height 32] [--width 32] [--rounds 5] [--offload none]

CHECKPOINT is a folder or a repository (default: the embedded mini model). Every round runs, one
after the other, the stock pipeline without guidance and with its own, and vidcfg with a uniform
scale, with a frame ramp, with rescale, and with a uniform scale on half of the steps. A time per
step is the difference between a run of 2 n and one of n steps, divided by n, so that texts,
decoding and set-up do not count; the median over the rounds is printed, as a ratio to the stock
pipeline's guidance. Two passes a step are about 2.0 x one on models that fill the device.
"""

import argparse
import inspect
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

import vidcfg
from vidcfg.pipelines.families import Family, family_of
from vidcfg.pipelines.load import DiffusersModel, MiniModel, load_pipeline

PROMPT, NEGATIVE = "a red circle moving left over a navy background", "blurry"
STOCK = "stock pipeline, its own guidance"


def settings(scale: float) -> dict[str, vidcfg.Guidance]:
    """What vidcfg is timed with, by name."""
    half = {"kind": "interval", "value": scale, "from": 0.0, "to": 0.49}
    ramp = {"kind": "ramp", "first": 0.0, "last": 1.0}
    return {
        "vidcfg, uniform scale": vidcfg.Guidance(scale=scale),
        "vidcfg, frame ramp": vidcfg.Guidance(scale=scale, frames=ramp),
        "vidcfg, rescale 0.7": vidcfg.Guidance(scale=scale, rescale=0.7),
        "vidcfg, first half of the steps": vidcfg.Guidance(scale=half),
    }


def runs(pipe: Any, family: Family, call: dict, scale: float) -> dict[str, Callable[[int], None]]:
    """Name -> a function that samples with that number of steps."""
    scales = [n for n in family.own_guidance if n.endswith(("guidance_scale", "cfg_scale"))]
    own = dict.fromkeys(scales, scale)
    off = {n: v for n, v in family.own_guidance.items() if n in _accepted(pipe)}

    def stock(arguments: dict) -> Callable[[int], None]:
        return lambda num_steps: _sample(pipe, call | off | arguments, num_steps)

    def guided(name: str) -> Callable[[int], None]:
        def run(num_steps: int) -> None:
            guidance = settings(scale)[name]
            with vidcfg.guide(pipe, guidance, negative_prompt=NEGATIVE):
                _sample(pipe, call | off, num_steps)

        return run

    return {
        "stock pipeline, no guidance": stock({}),
        STOCK: stock(own | {"negative_prompt": NEGATIVE}),
        **{name: guided(name) for name in settings(scale)},
    }


def _accepted(pipe: Any) -> Any:
    return inspect.signature(type(pipe).__call__).parameters


def _sample(pipe: Any, call: dict, num_steps: int) -> None:
    generator = torch.Generator("cpu").manual_seed(0)
    pipe(**call, num_inference_steps=num_steps, generator=generator)
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def seconds_per_step(run: Callable[[int], None], num_steps: int) -> float:
    """(time of 2 n steps - time of n steps) / n."""
    times = []
    for count in (num_steps, 2 * num_steps):
        begin = time.perf_counter()
        run(count)
        times.append(time.perf_counter() - begin)
    return (times[1] - times[0]) / num_steps


def measure(
    pipe: Any, call: dict, *, num_steps: int, rounds: int, scale: float = 4.0
) -> dict[str, float]:
    """Median seconds per step by name, the rounds interleaved; the first one is not counted."""
    family = family_of(pipe)
    if family.guider is not None or family.unconditional is not None:
        raise SystemExit(f"{family.name} takes its own guidance in another form: not supported.")
    todo = runs(pipe, family, call, scale)
    found: dict[str, list[float]] = {name: [] for name in todo}
    for index in range(rounds + 1):
        for name, run in todo.items():
            taken = seconds_per_step(run, num_steps)
            if index:
                found[name].append(taken)
    return {name: statistics.median(times) for name, times in found.items()}


def report(times: dict[str, float]) -> str:
    """One line per row: milliseconds a step, and the ratio to the stock pipeline's guidance."""
    return "\n".join(
        f"{name:<36}{1000 * taken:>10.2f} ms{taken / times[STOCK]:>8.3f} x"
        for name, taken in times.items()
    )


def device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"


def loaded(arguments: argparse.Namespace) -> Any:
    """The pipeline that the command line names."""
    kind = {"device": arguments.device, "dtype": arguments.dtype}
    if arguments.checkpoint is None:
        return load_pipeline(MiniModel(**kind))
    named = {"checkpoint": arguments.checkpoint, "offload": arguments.offload}
    return load_pipeline(DiffusersModel(**named, **kind))


def main(argv: list[str] | None = None) -> int:
    made = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    made.add_argument("checkpoint", nargs="?")
    made.add_argument("--device", default="auto")
    made.add_argument("--dtype", default="auto")
    made.add_argument("--offload", default="none")
    for name, value in {"steps": 8, "frames": 17, "height": 32, "width": 32, "rounds": 5}.items():
        made.add_argument(f"--{name}", type=int, default=value)
    arguments = made.parse_args(argv)
    pipe = loaded(arguments)
    shape = {"num_frames": arguments.frames, "height": arguments.height}
    shape |= {"width": arguments.width, "output_type": "latent", "prompt": PROMPT}
    call = {name: value for name, value in shape.items() if name in _accepted(pipe)}
    times = measure(pipe, call, num_steps=arguments.steps, rounds=arguments.rounds)
    family = family_of(pipe)
    denoiser = getattr(pipe, next(iter(family.denoisers)))
    print(f"{type(pipe).__name__}, {denoiser.dtype}, {device_name(denoiser.device)}, ", end="")
    print(f"torch {torch.__version__}, {arguments.frames} x {arguments.height} x ", end="")
    print(f"{arguments.width}, median of {arguments.rounds} rounds")
    print(report(times))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
