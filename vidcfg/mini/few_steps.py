"""The embedded model distilled to a few steps without guidance: low-rank updates of its matrices.

Made by `scripts/few_steps.py`. Their names are those of LoRA files of diffusers.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vidcfg.mini import FEW_STEPS
from vidcfg.mini.scheduler import load_scheduler

UPDATES = "updates.safetensors"

SOLVER = {
    "_class_name": "UniPCMultistepScheduler",
    "solver_order": 1,
    "disable_corrector": list(range(100)),
    "prediction_type": "flow_prediction",
    "use_flow_sigmas": True,
    "flow_shift": 5.0,
}
"""Up to 100 Euler steps of a flow at the noise levels of `unipc`; the last leads to the clip."""


def save_updates(path: Path, updates: dict[str, tuple[Tensor, Tensor]]) -> None:
    """Write (down [rank, in], up [out, rank]) of the matrices by name, in half precision."""
    from safetensors.torch import save_file

    named = {}
    for name, (down, up) in updates.items():
        named |= {f"{name}.lora_A.weight": down, f"{name}.lora_B.weight": up}
    save_file({name: value.half().contiguous() for name, value in named.items()}, path)


@torch.no_grad()
def add_updates(model: nn.Module, path: Path) -> None:
    """Add up @ down of a file of `save_updates` to the matrices of a model.

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
