"""Teach a model its own guidance: an adapter that reads the strength of every frame, in one pass.

    python scripts/distill.py configs/uniform.yaml --out runs/distill/mini.safetensors
    python scripts/distill.py configs/wan/wan2.1-1.3b.yaml --prompts prompts.txt --batch 2

The teacher is the model of the configuration under `cfg`: pairs of passes at random strengths that
change along the frames, from noise to video. The adapter learns from what it was shown and what
came out, so no videos are needed. Half of the batches go where the student leads, so that it
learns what to do where it gets to. The model's own weights stay as they are. Use the file with

    guidance: {method: {kind: distilled, adapter: runs/distill/mini.safetensors}, scale: 5.0}

A stopped run goes on with the same command. At the end the student's strengths are calibrated, so
that its videos go as far as its teacher's, and it is compared with its teacher at strengths of its
own.
"""

import argparse
import inspect
import itertools
import logging
import math
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import torch
from evidence.make import UNSEEN, draw_scenes
from torch import Tensor
from train_mini.data import DataConfig, loose_caption
from train_mini.loop import Clock, Log, Stop, descend, run_model

import vidcfg
from vidcfg import cli
from vidcfg.guidance.layout import per_frame
from vidcfg.pipelines.changes.distilled import StrengthAdapter, adapted, tokens_in
from vidcfg.pipelines.changes.layers import all_layers
from vidcfg.pipelines.families import family_of
from vidcfg.pipelines.family import Family
from vidcfg.pipelines.steps import steps_of
from vidcfg.render.config import RenderConfig

HIGHEST = 12.0
HELD_OUT = {
    "uniform 2": (2.0, "uniform"),
    "uniform 7": (7.0, "uniform"),
    "keyframes 5": (
        5.0,
        {"kind": "keyframes", "at": ["first", "last"], "floor": 0.3, "reach": 6},
    ),
    "decay 9": (9.0, {"kind": "decay", "end": 0.2}),
}
"""Settings that the end compares; training draws others."""
POWERS = (1.0, 1.05, 1.1, 1.15, 1.2, 1.3, 1.4)
CALIBRATED_AT = (2.0, 3.0, 5.0, 8.0)


class Seen(NamedTuple):
    """One step of the teacher: what the model got, the strengths [B, F], what came out, and how
    far the step goes, by noise level, 1 for the mean of the run."""

    arguments: dict[str, Any]
    strength: Tensor
    guided: Tensor
    length: float


class Teacher:
    """A pipeline under `cfg` at random strengths, whose steps are kept. `negative` holds what the
    unconditional side sees, as for `vidcfg.guide`; without it the empty text. Where there is a
    `student`, half of the batches go on with what it makes."""

    def __init__(
        self,
        pipe: Any,
        config: RenderConfig,
        prompts: list[str],
        *,
        batch: int,
        negative: Mapping[str, Any] = MappingProxyType({}),
    ):
        self.pipe, self.family, self.batch = pipe, family_of(pipe), batch
        self.negative = negative
        self.config, self.prompts = config, prompts
        self.student: StrengthAdapter | None = None

    def settings(self, rng: np.random.Generator) -> list[vidcfg.Guidance]:
        """One for each sample: log-uniform scales up to `HIGHEST`; uniform, falling or rising
        along the frames."""
        made = []
        for _ in range(self.batch):
            frames = [
                "uniform",
                {"kind": "decay", "end": float(rng.uniform())},
                {"kind": "ramp", "first": float(rng.uniform()), "last": 1.0},
            ][rng.integers(3)]
            scale = float(np.exp(rng.uniform(0.0, math.log(HIGHEST))))
            made.append(vidcfg.Guidance(scale=scale, frames=frames))
        return made

    def run(self, seed: int) -> list[Seen]:
        """All steps of one batch of videos, a function of the seed and of the student."""
        rng = np.random.default_rng(seed)
        leads = rng.random() < 0.5 and self.student is not None
        prompts = [self.prompts[i] for i in rng.integers(len(self.prompts), size=self.batch)]
        seen: list[tuple[dict[str, Any], Tensor]] = []
        with vidcfg.guide(self.pipe, self.settings(rng), **self.negative) as trace:
            session = type(self.pipe)._vidcfg_session
            forward = session.forward

            def strengths(step: int) -> Tensor:
                rows = [surface.strength_KF[step] for surface in trace.surfaces]
                return torch.tensor(np.stack(rows)).float()

            def kept(module: Any, original: Any, expert: Any, arguments: dict[str, Any]) -> Any:
                given = {
                    k: v.clone() if isinstance(v, Tensor) else v for k, v in arguments.items()
                }
                guided = forward(module, original, expert, arguments)
                tensor = guided if isinstance(guided, Tensor) else guided[0]
                seen.append((given, tensor.clone()))
                if not leads:
                    return guided
                strength = strengths(len(seen) - 1)
                return made_by(self.student, module, self.family, given, strength, original)

            session.forward = kept
            self.pipe(
                **call_of(self.pipe, self.config, prompts), generator=generators(rng, prompts)
            )
        lengths = step_lengths(self.pipe, self.family, len(seen))
        return [
            Seen(given, strengths(k), guided, float(lengths[k]))
            for k, (given, guided) in enumerate(seen)
        ]


def step_lengths(pipe: Any, family: Family, num_steps: int) -> np.ndarray:
    """How far the noise level falls in each step of the last run, 1 for the mean; all 1 where the
    scheduler does not tell."""
    levels = steps_of(pipe, family)["sigmas_K"]
    if levels is None or len(levels) != num_steps:
        return np.ones(num_steps)
    falls = -np.diff(levels, append=0.0)
    return falls / falls.mean()


def generators(rng: np.random.Generator, prompts: list[str]) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(int(rng.integers(2**31))) for _ in prompts]


def call_of(pipe: Any, config: RenderConfig, prompts: list[str]) -> dict[str, Any]:
    """The pipeline call of several prompts, up to latents where the pipeline can stop there."""
    from vidcfg.render.call import call_arguments

    accepted = inspect.signature(type(pipe).__call__).parameters
    family, num_steps = family_of(pipe), config.sampling.num_steps
    call = call_arguments(config.prompts[0], config.video, num_steps, family, accepted)
    return call | {"prompt": prompts, "output_type": "latent"}


def lessons(teacher: Teacher, clock: Clock, *, seed: int) -> Iterator[Seen]:
    """Steps of the teacher from that of the clock on, of each batch of videos in random order."""
    begin, skipped = divmod(clock.step, teacher.config.sampling.num_steps)
    for run in itertools.count(begin):
        rng = np.random.default_rng((seed, run))
        steps = teacher.run(int(rng.integers(2**31)))
        yield from (steps[i] for i in rng.permutation(len(steps))[skipped:])
        skipped = 0


def made_by(
    adapter: StrengthAdapter,
    module: Any,
    family: Family,
    arguments: Mapping[str, Any],
    strength: Tensor,
    forward: Any = None,
) -> Any:
    """What the student returns for these arguments of the denoiser with this `forward`."""
    with adapted(module, family, adapter, strength.to(module.device), arguments):
        return (forward or module)(**arguments)


def loss_of(adapter: StrengthAdapter, module: Any, family: Family, seen: Seen) -> Tensor:
    """Squared error of the student, each frame relative to its strength: of a high one the errors
    are larger, and so is what they do to the video. A step counts by its length: late ones have
    small errors and go far."""
    strength = seen.strength.to(seen.guided.device)
    output = made_by(adapter, module, family, seen.arguments, strength)
    made = output if isinstance(output, Tensor) else output[0]
    frames = family.frame_layout.frames((made - seen.guided).float(), strength.shape[1])
    return seen.length * (frames.square() / per_frame(strength.clamp(min=1), frames)).mean()


def width_of(module: Any, family: Family, seen: Seen) -> tuple[int, int]:
    """The number of blocks, and the channels of the tokens that they return.

    Raises:
        ValueError: the family does not say where its blocks are.
    """
    if family.blocks is None:
        raise ValueError(f"the family '{family.name}' does not say where its blocks are.")
    found: list[int] = []
    layers = all_layers(module, family.blocks)

    def note(block: Any, given: Any, output: Any) -> None:
        found.append(tokens_in(family.blocks, output).shape[-1])

    handle = layers[0].block.register_forward_hook(note)
    with torch.no_grad():
        module(**seen.arguments)
    handle.remove()
    return len(layers), found[0]


def teach(teacher: Teacher, given: argparse.Namespace, log: Log, stop: Stop) -> StrengthAdapter:
    """Train, or go on with, the adapter of the file `given.out`.

    Raises:
        ValueError: the pipeline has several models, or blocks that cannot be adapted.
    """
    family, models = teacher.family, teacher.family.models_of(teacher.pipe)
    if len(models) > 1:
        raise ValueError(f"the pipeline has several models ({', '.join(models)}); one is needed.")
    [module] = models.values()
    module.requires_grad_(False)
    torch.manual_seed(given.seed)
    size = width_of(module, family, teacher.run(given.seed)[0])
    adapter = StrengthAdapter(*size, rank=given.rank).to(module.device)
    teacher.student = adapter
    weights = list(adapter.parameters())
    optimizer = torch.optim.AdamW(weights, lr=given.rate, weight_decay=0.0)
    clock = Clock(given.minutes, None) if given.minutes else Clock(0.0, given.steps)
    checkpoint = given.out.with_suffix(".checkpoint")
    steps = lessons(teacher, clock, seed=given.seed)

    def train_step(step: int, progress: float) -> dict[str, float]:
        rate = min(1.0, (step + 1) / 20) * min(1.0, 2 * (1 - progress))
        loss = loss_of(adapter, module, family, next(steps))
        return descend(loss, weights, optimizer, rate=given.rate * rate)

    how = {"log": log, "stop": stop}
    run_model("the adapter", checkpoint, adapter, optimizer, clock, train_step, **how)
    adapter.save(given.out)
    return adapter


def videos(teacher: Teacher, count: int, **guidance: Any) -> tuple[Tensor, int]:
    """Latents of the last `count` prompts, from the same noise each time, and passes of each."""
    prompts = [teacher.prompts[-1 - i % len(teacher.prompts)] for i in range(count)]
    call = call_of(teacher.pipe, teacher.config, prompts)
    with vidcfg.guide(teacher.pipe, vidcfg.Guidance(**guidance), **teacher.negative) as trace:
        rng = np.random.default_rng(2**31 + 1)
        output = teacher.pipe(**call, generator=generators(rng, prompts))
    latents = output[0] if isinstance(output, tuple) else next(iter(output.values()))
    return latents.double(), sum(trace.evaluations.values()) // count


def calibrate(teacher: Teacher, path: Path, *, count: int) -> list[str]:
    """Give the adapter of a file the power of `POWERS` at which its videos are as far from those
    of the plain model as the teacher's, and tell both distances.

    A student that cannot foresee all of its teacher's guidance applies less of it: the part that
    it can foresee.
    """
    adapter, tried = StrengthAdapter.load(path), path.with_suffix(".tried.safetensors")
    plain, _ = videos(teacher, count, scale=1.0)

    def distances(**method: Any) -> np.ndarray:
        """Mean squared, at each of `CALIBRATED_AT`."""
        made = (videos(teacher, count, scale=scale, **method)[0] for scale in CALIBRATED_AT)
        return np.array([float((latents - plain).square().mean()) for latents in made])

    def of_power(power: float) -> np.ndarray:
        adapter.power = power
        adapter.save(tried)
        return distances(method={"kind": "distilled", "adapter": str(tried)})

    try:
        wanted = distances()
        found = {power: of_power(power) for power in POWERS}
    finally:
        tried.unlink(missing_ok=True)
    adapter.power = min(found, key=lambda power: np.square(np.log(found[power] / wanted)).sum())
    adapter.save(path)
    return [
        f"strengths are read to the power {adapter.power:g}",
        "| scale | distance of the student to the plain model, over its teacher's | at power 1 |",
        "|---|---|---|",
        *(
            f"| {scale:g} | {calibrated:.2f} | {before:.2f} |"
            for scale, calibrated, before in zip(
                CALIBRATED_AT, found[adapter.power] / wanted, found[1.0] / wanted
            )
        ),
    ]


def compare(teacher: Teacher, path: Path, *, count: int) -> list[str]:
    """Lines of a table: PSNR of the student's latents to its teacher's, and the passes of both.

    The peak is twice the standard deviation of the teacher's latents on either side.
    """
    lines = ["| setting | PSNR to the teacher | plain model | passes of teacher, student |",
             "|---|---|---|---|"]  # fmt: skip
    student = {"kind": "distilled", "adapter": str(path)}
    for name, (scale, frames) in HELD_OUT.items():
        ways = {
            "cfg": {"scale": scale},
            "distilled": {"scale": scale, "method": student},
            "none": {"scale": 1.0},
        }
        made, passes = {}, {}
        for key, way in ways.items():
            made[key], passes[key] = videos(teacher, count, frames=frames, **way)
        shown = [f"{psnr(made[key], made['cfg']):.1f} dB" for key in ("distilled", "none")]
        counts = f"{passes['cfg']}, {passes['distilled']}"
        lines.append(f"| {name} | {' | '.join(shown)} | {counts} |")
    return lines


def drawn_captions(num: int) -> list[str]:
    """Captions of the embedded model's world that no evidence is made with; a third leave parts
    out."""
    rng, data = np.random.default_rng(0), DataConfig(wrong=0.0, partial=1 / 3)
    scenes = draw_scenes(num, held_out=False, start=UNSEEN)
    return [loose_caption(scene, data, rng) for scene in scenes]


def psnr(made: Tensor, wanted: Tensor) -> float:
    error = (made.double() - wanted.double()).square().mean()
    return float(10 * torch.log10((4 * wanted.double().std()) ** 2 / error))


def parser() -> argparse.ArgumentParser:
    made = cli.parser("distill", __doc__.splitlines()[0])
    made.prog = "distill.py"
    add = made.add_argument
    add("config", help="a render configuration: its model, video and sampling")
    add("--prompts", type=Path, help="a file with one prompt a line (default: those of the file)")
    add("--drawn", type=int, metavar="N", help="learn from N drawn captions of the embedded model")
    add("--out", type=Path, default=Path("runs/distill/adapter.safetensors"), help="the adapter")
    add("--steps", type=int, default=2000, help="training steps")
    add("--minutes", type=float, default=0.0, help="train for so long, in place of --steps")
    add("--batch", type=int, default=16, help="videos of the teacher at once")
    add("--rank", type=int, default=64, help="channels of the adapter's bottleneck")
    add("--rate", type=float, default=2e-3, help="learning rate")
    add("--seed", type=int, default=0)
    cli.add_set(made, "sampling.num_steps=12")
    return made


def run(given: argparse.Namespace) -> int:
    from vidcfg.pipelines.load import load_pipeline
    from vidcfg.pipelines.schedulers import make_scheduler
    from vidcfg.render.config import load_render_config

    for name in ("steps", "batch", "rank"):
        if getattr(given, name) < 1:
            raise ValueError(f"--{name} is {getattr(given, name)}, but must be at least 1.")
    if not 0 < given.rate < math.inf:
        raise ValueError(f"--rate is {given.rate}, but must be above 0, such as 0.002.")
    if not 0 <= given.minutes < math.inf:
        raise ValueError(f"--minutes is {given.minutes}, but must be above 0, or left out.")
    if given.drawn is not None and given.drawn < 1:
        raise ValueError(f"--drawn is {given.drawn}, but must be at least 1, such as 1024.")
    if given.prompts and given.drawn:
        raise ValueError("Give --prompts or --drawn, not both.")
    if given.prompts and not given.prompts.is_file():
        raise ValueError(f"--prompts is {given.prompts}, which is no file.")
    config = load_render_config(given.config, given.set)
    prompts = [prompt.text for prompt in config.prompts]
    if given.prompts:
        prompts = [line for line in given.prompts.read_text().splitlines() if line.strip()]
    if given.drawn:
        if config.model.kind != "mini":
            raise ValueError("--drawn has captions for the embedded model alone. Give --prompts.")
        prompts = drawn_captions(given.drawn)
    if not prompts:
        raise ValueError(f"{given.prompts} holds no prompt. Write one a line.")
    given.out.parent.mkdir(parents=True, exist_ok=True)
    log = Log(given.out.with_suffix(".log.jsonl"))
    pipe = load_pipeline(config.model)
    pipe.scheduler = make_scheduler(pipe, config.sampling)
    logging.getLogger("vidcfg").setLevel(logging.ERROR)  # it is told of scales that nobody chose
    teacher = Teacher(pipe, config, prompts, batch=given.batch)
    with Stop("stopped; the same command goes on") as stop:
        teach(teacher, given, log, stop)
    told = calibrate(teacher, given.out, count=given.batch)
    table = compare(teacher, given.out, count=min(given.batch, 8))
    print("\n".join([f"wrote {given.out}", *told, "", *table]))
    return cli.DONE


if __name__ == "__main__":
    sys.exit(cli.run(parser(), run, None))
