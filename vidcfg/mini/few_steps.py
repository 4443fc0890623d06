"""The embedded model distilled to a few steps without guidance: low-rank updates of its matrices.

Made by `scripts/few_steps.py`. Their names are those of LoRA files of diffusers.
"""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from vidcfg.mini import FEW_STEPS
from vidcfg.mini.scheduler import load_scheduler

UPDATES = "updates.safetensors"


@torch.no_grad()
def add_updates(model: nn.Module, path: Path) -> None:
    """Add up [out, rank] @ down [rank, in] of a file to the matrices of a model that it names.

    Raises:
        ValueError: there is no such file, or it is of another model.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        found = {name: value.float() for name, value in load_file(path).items()}
        for name in {name.rpartition(".lora_")[0] for name in found}:
            weight = model.get_submodule(name).weight
            update = found[f"{name}.lora_B.weight"] @ found[f"{name}.lora_A.weight"]
            weight.copy_(weight.float() + update.to(weight.device))
    except (OSError, SafetensorError, AttributeError, KeyError, RuntimeError) as error:
        raise ValueError(
            f"{path} holds no updates of this model ({error}). Make them with: "
            "python scripts/few_steps.py"
        ) from None


def to_few_steps(pipe: Any, folder: Path = FEW_STEPS) -> None:
    """Make a pipeline of the embedded model the student: its weights and its scheduler."""
    if pipe.device.type != "meta":
        add_updates(pipe.transformer, folder / UPDATES)
    pipe.scheduler = load_scheduler(folder / "scheduler")
