"""`model:` of a config to a loaded pipeline on its device."""

from pathlib import Path
from typing import Any

import torch

from vidcfg.config import DiffusersModel, MiniModel

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class ModelError(RuntimeError):
    """A model that cannot be loaded; the message says what to do."""


def load_pipeline(model: MiniModel | DiffusersModel) -> Any:
    """The pipeline that a config names, on its device, in its dtype, ready to be guided.

    Raises:
        ModelError: if the checkpoint or the device is not there.
    """
    device = pick_device(model.device)
    pipe = _load_mini(model, device) if model.kind == "mini" else _load_checkpoint(model, device)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def pick_device(wanted: str) -> torch.device:
    """`auto` takes CUDA where there is one.

    Raises:
        ModelError: if CUDA is asked for and there is none, or not that many devices.
    """
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(wanted)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ModelError(f"model.device is {wanted}, but no CUDA device is visible. Write cpu.")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise ModelError(f"model.device is {wanted}, but there are {count} CUDA devices.")
    return device


def pick_dtype(wanted: str, device: torch.device) -> torch.dtype:
    """`auto` is bfloat16 on CUDA and float32 on the CPU."""
    if wanted == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    return _DTYPES[wanted]


def _load_mini(model: MiniModel, device: torch.device) -> Any:
    from vidcfg.models.mini import MINI_PATH, MiniVideoPipeline

    folder = Path(model.checkpoint) if model.checkpoint else MINI_PATH
    if not (folder / "model_index.json").is_file():
        raise ModelError(
            f"model.checkpoint is {folder}, which holds no model_index.json. Name a folder that "
            f"`python -m vidcfg.train` exported, or leave it out for the embedded model."
        )
    dtype = torch.float32 if model.dtype == "auto" else _DTYPES[model.dtype]
    pipe = MiniVideoPipeline.from_pretrained(folder, torch_dtype=dtype).to(device)
    pipe.transformer.set_attention_backend(model.attention)
    return pipe


def _load_checkpoint(model: DiffusersModel, device: torch.device) -> Any:
    """A diffusers checkpoint from a folder or a repository, offloaded as asked."""
    from diffusers import DiffusionPipeline

    dtype = pick_dtype(model.dtype, device)
    try:
        pipe = DiffusionPipeline.from_pretrained(
            model.checkpoint, revision=model.revision, torch_dtype=dtype
        )
    except (OSError, ValueError) as error:
        where = "folder" if Path(model.checkpoint).exists() else "folder or repository"
        raise ModelError(
            f"model.checkpoint is {model.checkpoint}, and no pipeline could be loaded from that "
            f"{where}: {str(error).splitlines()[0]}"
        ) from error
    if model.vae_tiling:
        pipe.vae.enable_tiling()
    if model.offload == "model":
        pipe.enable_model_cpu_offload(device=device)
    elif model.offload == "sequential":
        pipe.enable_sequential_cpu_offload(device=device)
    else:
        pipe.to(device)
    return pipe
