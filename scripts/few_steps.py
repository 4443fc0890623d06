"""Teach the embedded model to make a video in few steps without guidance: low-rank updates of it.

    python scripts/few_steps.py configs/evidence/base.yaml --out runs/few_steps

The teacher is the model of the configuration under its guidance, on prompts of its own; its
latents are kept at the noise levels of the student's steps. The student learns, from latents at
one level, the velocity that leads straight to those at the next (progressive distillation,
Salimans & Ho 2022, arXiv:2202.00512, all halvings at once). A stopped run goes on with the same
command. The folder is one that `vidcfg/mini/pipeline.py` reads.
"""

import argparse
import itertools
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from evidence.make import UNSEEN, draw_prompts, quicken
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.utils import parametrize
from train_mini.loop import Clock, Log, Stop, descend, run_model

from vidcfg import cli, guide
from vidcfg.files import atomic_path, write_json
from vidcfg.mini.pipeline import UPDATES
from vidcfg.mini.scheduler import load_scheduler
from vidcfg.pipelines.schedulers import make_scheduler

CHUNK = 64

SOLVER = {
    "_class_name": "UniPCMultistepScheduler",
    "solver_order": 1,
    "disable_corrector": list(range(100)),
    "prediction_type": "flow_prediction",
    "use_flow_sigmas": True,
    "flow_shift": 5.0,
}
"""Up to 100 Euler steps of a flow at the noise levels of `unipc`; the last leads to the clip."""


class Way(nn.Module):
    """A weight with a low-rank update that is trained: W + up down, at first W."""

    def __init__(self, weight: Tensor, rank: int):
        super().__init__()
        self.down = nn.Parameter(torch.randn(rank, weight.shape[1]) / weight.shape[1] ** 0.5)
        self.up = nn.Parameter(torch.zeros(len(weight), rank))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + self.up @ self.down


class Student(nn.Module):
    """The transformer with updates on all its matrices; its own weights stay."""

    def __init__(self, transformer: nn.Module, rank: int):
        super().__init__()
        self.transformer, self.ways = transformer.requires_grad_(False), nn.ModuleDict()
        linear = [(n, m) for n, m in transformer.named_modules() if isinstance(m, nn.Linear)]
        for name, module in linear:
            way = Way(module.weight, rank)
            self.ways[name.replace(".", "/")] = way
            parametrize.register_parametrization(module, "weight", way)

    def updates(self, rank: int) -> dict[str, tuple[Tensor, Tensor]]:
        """(down, up) of every matrix, cut to the largest singular values."""
        found = {}
        for name, way in self.ways.items():
            up, values, down = torch.linalg.svd((way.up @ way.down).detach().double())
            num = min(rank, len(way.down), len(values))
            root = values[:num].sqrt()
            found[name.replace("/", ".")] = (root[:, None] * down[:num], up[:, :num] * root)
        return found


def trajectories(pipe: Any, config: Any, given: argparse.Namespace, log: Log, stop: Stop) -> Path:
    """The teacher's latents [N, K + 1, C, F, h, w] at the levels of the student's K steps, in
    files of CHUNK videos; those that are there are kept.

    Raises:
        KeyboardInterrupt: after a file, if a stop was asked for.
    """
    folder, every = given.out / "trajectories", config.sampling.num_steps // given.num_steps
    made_by = {"teacher": config.to_dict(), "num_steps": given.num_steps}
    known = folder / "teacher.json"
    if known.exists() and json.loads(known.read_text()) != json.loads(json.dumps(made_by)):
        raise ValueError(f"{folder} holds videos of another teacher. Choose another --out.")
    write_json(known, made_by)
    texts = draw_prompts(given.videos, held_out=False, start=UNSEEN)
    for start in range(0, given.videos, CHUNK):
        path, prompts = folder / f"{start:06d}.npz", texts[start : start + CHUNK]
        if path.exists():
            continue
        generators = [
            torch.Generator().manual_seed(10**6 + start + i) for i in range(len(prompts))
        ]
        size = (config.video.num_frames, config.video.height, config.video.width)
        noise = pipe.prepare_latents(len(prompts), *size, device=pipe.device, generator=generators)
        levels = [noise]

        def keep(pipe: Any, step: int, time: Any, tensors: dict, levels: list = levels) -> dict:
            if (step + 1) % every == 0:
                levels.append(tensors["latents"].float())
            return {}

        pipe.scheduler = make_scheduler(pipe, config.sampling)
        how = {"num_inference_steps": config.sampling.num_steps, "callback_on_step_end": keep}
        guidance = config.guidance.replace(share=False)
        mixed = torch.autocast(pipe.device.type, torch.bfloat16)
        with guide(pipe, guidance, fps=config.video.fps), mixed:
            sizes = dict(zip(("num_frames", "height", "width"), size))
            pipe(prompts, latents=noise, output_type="latent", **sizes, **how)
        kept = torch.stack(levels, dim=1).half().cpu().numpy()
        with atomic_path(path, overwrite=True) as part, open(part, "wb") as file:
            np.savez(file, latents=kept, prompts=np.array(prompts))
        log.note(f"{start + len(prompts)} of {given.videos} videos of the teacher")
        if stop.is_requested:
            raise KeyboardInterrupt
    return folder


def lessons(
    folder: Path, clock: Clock, *, batch: int, seed: int
) -> Iterator[tuple[list[str], np.ndarray, Tensor, Tensor]]:
    """Batches from the one of the clock on: prompts, step of the student, latents before and
    after it. All steps of all videos come once before any comes again."""
    files = [dict(np.load(path)) for path in sorted(folder.glob("*.npz"))]
    latents = np.concatenate([file["latents"] for file in files])
    prompts = np.concatenate([file["prompts"] for file in files])
    num_steps = latents.shape[1] - 1
    places = np.arange(len(latents) * num_steps)
    shuffled = (
        np.random.default_rng((seed, epoch)).permutation(places) for epoch in itertools.count()
    )
    drawn = itertools.islice(itertools.chain.from_iterable(shuffled), batch * clock.step, None)
    while True:
        video, step = np.divmod(np.array([*itertools.islice(drawn, batch)]), num_steps)
        before, after = (torch.from_numpy(latents[video, step + i]).float() for i in (0, 1))
        yield list(prompts[video]), step, before, after


def teach(pipe: Any, folder: Path, given: argparse.Namespace, log: Log, stop: Stop) -> Student:
    """Train, or go on with, the updates of the pipeline's transformer."""
    torch.manual_seed(given.seed)
    student = Student(pipe.transformer, given.rank)
    weights = list(student.ways.parameters())
    optimizer = torch.optim.AdamW(weights, lr=given.rate, betas=(0.9, 0.98), weight_decay=0.0)
    scheduler = load_scheduler(given.out / "scheduler")
    scheduler.set_timesteps(given.num_steps)
    sigmas, times = scheduler.sigmas, scheduler.timesteps
    clock, checkpoint = Clock(0.0, given.steps), given.out / "student.checkpoint"
    batches = lessons(folder, clock, batch=given.batch, seed=given.seed)

    def train_step(step: int, progress: float) -> dict[str, float]:
        prompts, at, before, after = next(batches)
        with torch.no_grad():
            text, mask = pipe.encode_prompt(prompts, None, False)[:2]
        span = (sigmas[at + 1] - sigmas[at])[:, None, None, None, None]
        with torch.autocast(pipe.device.type, torch.bfloat16):
            made = pipe.transformer(before, times[at].float(), text, mask, return_dict=False)[0]
        loss = (made.float() - (after - before) / span).square().mean()
        factor = min(1.0, (step + 1) / 30) * min(1.0, 2 * (1 - progress))
        return descend(loss, weights, optimizer, rate=given.rate * factor)

    how = {"log": log, "stop": stop}
    run_model("the student", checkpoint, student.ways, optimizer, clock, train_step, **how)
    return student


def save_updates(path: Path, updates: dict[str, tuple[Tensor, Tensor]]) -> None:
    """Write (down [rank, in], up [out, rank]) of the matrices by name, in half precision."""
    named = {}
    for name, (down, up) in updates.items():
        named |= {f"{name}.lora_A.weight": down, f"{name}.lora_B.weight": up}
    save_file({name: value.half().contiguous() for name, value in named.items()}, path)


def parser() -> argparse.ArgumentParser:
    made = cli.parser("few_steps", __doc__.splitlines()[0])
    made.prog = "few_steps.py"
    add = made.add_argument
    add("config", help="a render configuration of the embedded model: the teacher")
    add("--out", type=Path, default=Path("runs/few_steps"), help="folder of the student")
    add("--num-steps", type=int, default=4, help="steps of the student; divides the teacher's")
    add("--videos", type=int, default=1536, help="videos of the teacher")
    add("--steps", type=int, default=1500, help="training steps")
    add("--batch", type=int, default=16, help="pairs of latents in each of them")
    add("--rank", type=int, default=32, help="rank of the updates while they are trained")
    add("--keep", type=int, default=20, help="rank of the updates in the file")
    add("--rate", type=float, default=1e-3, help="learning rate")
    add("--seed", type=int, default=0)
    cli.add_set(made, "guidance.scale=6.0")
    return made


def run(given: argparse.Namespace) -> int:
    from vidcfg.pipelines.load import load_pipeline
    from vidcfg.render.config import load_render_config

    # what is asked for
    for name in ("num_steps", "videos", "steps", "batch", "rank", "keep"):
        if getattr(given, name) < 1:
            option = name.replace("_", "-")
            raise ValueError(f"--{option} is {getattr(given, name)}, but must be at least 1.")
    config = load_render_config(given.config, given.set)
    if config.sampling.num_steps % given.num_steps:
        raise ValueError(
            f"--num-steps is {given.num_steps}, but the teacher's {config.sampling.num_steps} "
            f"must be a multiple of it. Use --set sampling.num_steps={3 * given.num_steps}."
        )
    for part in ("scheduler", "trajectories"):
        (given.out / part).mkdir(parents=True, exist_ok=True)
    write_json(given.out / "scheduler" / "scheduler_config.json", SOLVER)
    log = Log(given.out / "log.jsonl")
    # the teacher's videos, then the student
    with Stop("stopped; the same command goes on") as stop:
        pipe = load_pipeline(config.model)
        quicken(pipe)
        folder = trajectories(pipe, config, given, log, stop)
        pipe = load_pipeline(config.model)
        pipe.transformer.set_attention_backend("math")
        student = teach(pipe, folder, given, log, stop)
    save_updates(given.out / UPDATES, student.updates(given.keep))
    cli.say(f"wrote {given.out}")
    return cli.DONE


if __name__ == "__main__":
    sys.exit(cli.run(parser(), run, None))
