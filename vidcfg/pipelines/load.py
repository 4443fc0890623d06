"""`model:` of a config to a loaded pipeline on its device."""

from pathlib import Path
from typing import Any

import torch

from vidcfg.mini import dtype_argument
from vidcfg.pipelines.settings import DiffusersModel, MiniModel

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
    from vidcfg.mini.pipeline import MINI_PATH, MiniVideoPipeline

    folder = Path(model.checkpoint) if model.checkpoint else MINI_PATH
    if not (folder / "model_index.json").is_file():
        raise ModelError(
            f"model.checkpoint is {folder}, which holds no model_index.json. Name a folder that "
            f"`python scripts/train_mini` exported, or leave it out for the embedded model."
        )
    dtype = torch.float32 if model.dtype == "auto" else _DTYPES[model.dtype]
    # The codec is small, and its pixels stay exact.
    dtypes = dtype_argument({"vae": torch.float32, "default": dtype})
    pipe = MiniVideoPipeline.from_pretrained(folder, **dtypes).to(device)
    pipe.transformer.set_attention_backend(model.attention)
    return pipe


def _load_checkpoint(model: DiffusersModel, device: torch.device) -> Any:
    """A diffusers checkpoint from a folder or a repository, offloaded as asked."""
    dtype = pick_dtype(model.dtype, device)
    folder = Path(model.checkpoint).expanduser()
    _check_place(model, folder)
    try:
        pipe = _loaded(model, folder, dtype)
    except MemoryError as error:
        raise ModelError(_no_memory(model, "this machine")) from error
    except (OSError, ValueError, ImportError, AttributeError) as error:
        raise ModelError(_why_not(model, folder, error)) from error
    _check_guidable(pipe)
    try:
        return _placed(pipe, model, device)
    except torch.OutOfMemoryError as error:
        raise ModelError(_no_memory(model, str(device))) from error


def _loaded(model: DiffusersModel, folder: Path, dtype: torch.dtype) -> Any:
    """The pipeline that the checkpoint names; AnimateDiff where a motion adapter is named."""
    from diffusers import AnimateDiffPipeline, DiffusionPipeline, MotionAdapter

    where = str(folder) if folder.is_dir() else model.checkpoint
    options = {
        "revision": model.revision,
        "local_files_only": folder.is_dir(),
        **dtype_argument(dtype),
    }
    if model.motion_adapter is None:
        return DiffusionPipeline.from_pretrained(where, **options)
    motion = Path(model.motion_adapter).expanduser()
    adapter = MotionAdapter.from_pretrained(
        str(motion) if motion.is_dir() else model.motion_adapter,
        local_files_only=motion.is_dir(),
        **dtype_argument(dtype),
    )
    pipe = AnimateDiffPipeline.from_pretrained(where, motion_adapter=adapter, **options)
    pipe.scheduler = animatediff_scheduler(pipe.scheduler)
    return pipe


def animatediff_scheduler(scheduler: Any) -> Any:
    """DDIM with the noise schedule that motion adapters are trained with.

    Source: the AnimateDiff page of diffusers.
    """
    from diffusers import DDIMScheduler

    trained = {"beta_schedule": "linear", "timestep_spacing": "linspace", "clip_sample": False}
    return DDIMScheduler.from_config(scheduler.config, **trained, steps_offset=1)


def _check_place(model: DiffusersModel, folder: Path) -> None:
    """Raise a ModelError for a folder that holds no pipeline, or a path that is nowhere."""
    if folder.is_dir() and not (folder / "model_index.json").is_file():
        raise ModelError(
            f"model.checkpoint is {folder}, a folder without model_index.json. Name the folder "
            f"that `save_pretrained` of a diffusers pipeline wrote."
        )
    if folder.is_dir() and model.revision is not None:
        raise ModelError(
            f"model.revision is {model.revision}, but {folder} is a folder, which has one "
            f"version. Delete model.revision."
        )
    is_path = model.checkpoint.startswith((".", "/", "~")) or model.checkpoint.count("/") != 1
    if not folder.is_dir() and is_path:
        raise ModelError(
            f"model.checkpoint is {model.checkpoint}, and there is no such folder. Name a folder, "
            f"or a repository such as Wan-AI/Wan2.1-T2V-1.3B-Diffusers."
        )


def _why_not(model: DiffusersModel, folder: Path, error: Exception) -> str:
    """One line on a checkpoint that cannot be loaded, with what to do."""
    name = type(error).__name__
    reason = " ".join(str(error).split())
    if folder.is_dir():
        return f"the pipeline in {folder} cannot be loaded: {name}: {reason[:300]}"
    if name in ("RepositoryNotFoundError", "GatedRepoError"):
        return (
            f"there is no repository {model.checkpoint} that this account may read. Check the "
            f"name; for a gated one accept its terms and run `hf auth login`."
        )
    if name == "RevisionNotFoundError":
        return (
            f"{model.checkpoint} has no revision {model.revision}. Delete model.revision, or "
            f"name a branch, tag or commit of it."
        )
    return (
        f"{model.checkpoint} is not on this machine and cannot be fetched ({name}). Download it "
        f"where there is a network, with `hf download {model.checkpoint} --local-dir FOLDER`, "
        f"and write model.checkpoint: FOLDER."
    )


def _no_memory(model: DiffusersModel, where: str) -> str:
    advice = {
        "none": "Write model.offload: model",
        "model": "Write model.offload: sequential",
        "sequential": "Use a smaller checkpoint",
    }[model.offload]
    return f"{model.checkpoint} does not fit into the memory of {where}. {advice}."


def _check_guidable(pipe: Any) -> None:
    from vidcfg.pipelines.families import family_of

    try:
        family_of(pipe)
    except ValueError as error:
        raise ModelError(str(error)) from error


def _placed(pipe: Any, model: DiffusersModel, device: torch.device) -> Any:
    """`pipe` with its attention, compilation, tiling and place."""
    from vidcfg.pipelines.families import family_of

    denoisers = {name: getattr(pipe, name, None) for name in family_of(pipe).denoisers}
    for name, denoiser in denoisers.items():
        if denoiser is not None and model.attention is not None:
            _set_attention(name, denoiser, model.attention)
        if denoiser is not None and model.compile:
            _compile(name, denoiser)
    if model.vae_tiling:
        if not hasattr(pipe.vae, "enable_tiling"):
            raise ModelError(
                f"model.vae_tiling is true, but {type(pipe.vae).__name__} cannot tile. Delete it."
            )
        pipe.vae.enable_tiling()
    if model.offload == "model":
        pipe.enable_model_cpu_offload(device=device)
    elif model.offload == "sequential":
        pipe.enable_sequential_cpu_offload(device=device)
    else:
        pipe.to(device)
    return pipe


def _set_attention(name: str, denoiser: Any, backend: str) -> None:
    try:
        denoiser.set_attention_backend(backend)
    except (ValueError, RuntimeError, ImportError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise ModelError(
            f"model.attention is {backend}, which {name} cannot use: {reason[:300]}"
        ) from error


def _compile(name: str, denoiser: Any) -> None:
    """Compile the repeated blocks: short to compile, and guidance reaches around them."""
    if not getattr(denoiser, "_repeated_blocks", None):
        raise ModelError(
            f"model.compile is true, but {name} ({type(denoiser).__name__}) has no repeated "
            f"blocks to compile. Delete it."
        )
    denoiser.compile_repeated_blocks()
