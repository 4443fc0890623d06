"""A tiny Wan under several rules, alone or with its tokens split over a group of processes."""

from pathlib import Path

import torch
from diffusers import ContextParallelConfig
from tiny_pipelines import BUILDERS, generators

import vidcfg

RULES = {
    "cfg": "cfg",
    "pag": {"kind": "pag", "layers": [0]},
    "seg": {"kind": "seg", "layers": [0], "sigma": 0.7},
    "slg": {"kind": "slg", "layers": [1]},
    "stg": {"kind": "stg", "layers": [0], "mode": "residual"},
}


def latents_by_rule() -> dict[str, torch.Tensor]:
    """Guided latents of every rule, and those of the stock pipeline."""
    found = {}
    for name, method in RULES.items():
        tiny = BUILDERS["wan"](num_steps=2)
        if torch.distributed.is_initialized():
            torch.accelerator.device_count = lambda: 2  # without an accelerator it divides by 0
            split = ContextParallelConfig(ulysses_degree=2)
            tiny.pipe.transformer.enable_parallelism(config=split)
        if name == "cfg":
            found["stock"] = tiny.stock(3.0, generator=generators(0, 1))
        negative = tiny.negative if name == "cfg" else {}
        with vidcfg.guide(tiny.pipe, vidcfg.Guidance(3.0, method=method), **negative):
            found[name] = tiny.unguided(generator=generators(0, 1))
    return found


def latents_of_two_processes(folder: Path) -> list[dict[str, torch.Tensor]]:
    """`latents_by_rule` of each process of a group of two, which meet in this folder."""
    torch.multiprocessing.spawn(_in_a_group, (folder,), nprocs=2)
    return [torch.load(folder / f"{rank}.pt") for rank in (0, 1)]


def _in_a_group(rank: int, folder: Path) -> None:
    where = f"file://{folder / 'group'}"
    torch.distributed.init_process_group("gloo", where, rank=rank, world_size=2)
    torch.save(latents_by_rule(), folder / f"{rank}.pt")
