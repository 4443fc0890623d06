"""`model:` of a config, and the pipeline that it names, loaded."""

import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field
from typing_extensions import TypedDict

from vidcfg.extras import without_bars
from vidcfg.mini import MINI_PATH
from vidcfg.progress import one_line
from vidcfg.settings.base import ConfigModel, Finding, refuse
from vidcfg.settings.validation import choose
from vidcfg.stored.read import parse


class CodecFile(TypedDict):
    stride: Annotated[int, Field(ge=1, le=1024)]


class IndexFile(TypedDict):
    _class_name: str


class ModelError(RuntimeError):
    """A model that cannot be loaded; the message says what to do."""


def _known_device(value: str) -> str:
    if not re.fullmatch(r"auto|cpu|cuda(:[0-9]{1,3})?", value):
        raise refuse(choose(value, ("auto", "cpu", "cuda", "cuda:0")))
    return value


def _not_blank(value: str) -> str:
    if not value.strip():
        raise refuse("but must be text of at least one character.")
    return value


Text = Annotated[str, AfterValidator(_not_blank)]
PathText = Annotated[Text, AfterValidator(os.path.expanduser)]
"""A file or folder, where `~` is the home of the user as in a shell."""
Device = Annotated[str, AfterValidator(_known_device)]
Dtype = Literal["auto", "float32", "bfloat16", "float16"]


class MiniModel(ConfigModel):
    """The model that ships with vidcfg; `checkpoint` is a folder with another training of it, or
    `few_steps`, its student of 4 steps at scale 1."""

    kind: Literal["mini"] = "mini"
    checkpoint: PathText | None = None
    device: Device = "auto"
    dtype: Dtype = "auto"
    attention: Literal["sdpa", "math", "xformers"] = "sdpa"

    def findings(self):
        if self.attention == "xformers" and self.device == "cpu":
            what = "is 'xformers', which needs CUDA, but device is cpu."
            yield Finding(("attention",), f"{what} Write sdpa, or device: cuda.")

    @property
    def folder(self) -> Path:
        """Where its files are; those of the student are updates of the embedded model."""
        is_own = self.checkpoint not in (None, "few_steps")
        return Path(self.checkpoint) if is_own else MINI_PATH

    @property
    def frame_map(self) -> Any:
        """The frame map of its codec, from a small file alone: no library is loaded."""
        from vidcfg.guidance.frame_map import CausalMap

        path = self.folder / "vae" / "config.json"
        return CausalMap(_small(path, CodecFile)["stride"] if path.is_file() else 4)

    def load(self, device: Any) -> Any:
        """See `load_pipeline`."""
        import torch

        from vidcfg.mini.pipeline import MiniVideoPipeline, to_few_steps

        if not (self.folder / "model_index.json").is_file():
            raise ModelError(
                f"model.checkpoint is {self.folder}, which holds no model_index.json. Name a "
                f"folder that `python scripts/train_mini` exported, or leave it out for the "
                f"embedded model."
            )
        dtype = torch.float32 if self.dtype == "auto" else getattr(torch, self.dtype)
        pipe = MiniVideoPipeline.from_pretrained(self.folder, torch_dtype=dtype, device=device)
        if self.checkpoint == "few_steps":
            to_few_steps(pipe)
        pipe.transformer.set_attention_backend(self.attention)
        return pipe


class DiffusersModel(ConfigModel):
    """A checkpoint of a supported diffusers pipeline: a folder or a repository name."""

    kind: Literal["diffusers"] = "diffusers"
    checkpoint: Text = Field(
        description="a folder or a repository such as Wan-AI/Wan2.1-T2V-1.3B-Diffusers"
    )
    revision: Text | None = None
    motion_adapter: Text | None = Field(
        None, description="AnimateDiff's motion modules: a folder or a repository"
    )
    dtype: Dtype = "auto"
    device: Device = "auto"
    offload: Literal["none", "model", "sequential"] = "none"
    vae_tiling: bool = False
    attention: Text | None = None
    compile: bool = False

    def findings(self):
        if self.offload != "none" and self.device == "cpu":
            message = f"is '{self.offload}', but device is cpu. Write none, or device: cuda."
            yield Finding(("offload",), message)

    @property
    def folder(self) -> Path | None:
        """Where its files are; None for the name of a repository."""
        return local_folder(self.checkpoint)

    @property
    def adapter(self) -> Any:
        """The adapter that makes another pipeline of the checkpoint, None for its own."""
        from vidcfg.pipelines.families import adapted_family

        return adapted_family("motion_adapter").adapter if self.motion_adapter else None

    def load(self, device: Any) -> Any:
        """See `load_pipeline`."""
        import torch

        self._check_place()
        auto = "bfloat16" if device.type == "cuda" else "float32"
        try:
            pipe = self._loaded(getattr(torch, auto if self.dtype == "auto" else self.dtype))
        except MemoryError as error:
            raise ModelError(self._no_memory("this machine")) from error
        except (OSError, ValueError, ImportError, AttributeError) as error:
            raise ModelError(self._why_not(error)) from error
        try:
            return self._placed(pipe, device)
        except torch.OutOfMemoryError as error:
            raise ModelError(self._no_memory(str(device))) from error

    def _loaded(self, dtype: Any) -> Any:
        """The pipeline that the checkpoint names, or that an adapter makes of it."""
        import diffusers

        def read(cls: Any, name: str, **more: Any) -> Any:
            folder = local_folder(name)
            more |= {"dtype": dtype, "local_files_only": folder is not None}
            with without_bars("diffusers", "transformers"):
                return cls.from_pretrained(str(folder or name), **more)

        parts, adapter = {}, self.adapter
        if adapter is not None:
            parts[adapter.part] = read(getattr(diffusers, adapter.cls), self.motion_adapter)
        cls = pipeline_class_of(self) or diffusers.DiffusionPipeline
        pipe = read(cls, self.checkpoint, revision=self.revision, **parts)
        if adapter is not None:
            pipe.scheduler = adapter.scheduler(pipe.scheduler)
        return pipe

    def _check_place(self) -> None:
        """Raise a ModelError for a folder that holds no pipeline, or a path that is nowhere."""
        folder = self.folder
        if folder and not (folder / "model_index.json").is_file():
            raise ModelError(
                f"model.checkpoint is {folder}, a folder without model_index.json. Name the "
                f"folder that `save_pretrained` of a diffusers pipeline wrote."
            )
        if folder and self.revision is not None:
            raise ModelError(
                f"model.revision is {self.revision}, but {folder} is a folder, which has one "
                f"version. Delete model.revision."
            )
        is_path = self.checkpoint.startswith((".", "/", "~")) or self.checkpoint.count("/") != 1
        if not folder and is_path:
            raise ModelError(
                f"model.checkpoint is {self.checkpoint}, and there is no such folder. Name a "
                f"folder, or a repository such as Wan-AI/Wan2.1-T2V-1.3B-Diffusers."
            )

    def _why_not(self, error: Exception) -> str:
        """One line on a checkpoint that cannot be loaded, with what to do."""
        name = type(error).__name__
        if self.folder:
            return f"the pipeline in {self.folder} cannot be loaded: {name}: {one_line(error)}"
        if name in ("RepositoryNotFoundError", "GatedRepoError"):
            return (
                f"there is no repository {self.checkpoint} that this account may read. Check the "
                f"name; for a gated one accept its terms and run `hf auth login`."
            )
        if name == "RevisionNotFoundError":
            return (
                f"{self.checkpoint} has no revision {self.revision}. Delete model.revision, or "
                f"name a branch, tag or commit of it."
            )
        return (
            f"{self.checkpoint} is not on this machine and cannot be fetched ({name}). Download "
            f"it where there is a network, with `hf download {self.checkpoint} --local-dir "
            f"FOLDER`, and write model.checkpoint: FOLDER."
        )

    def _no_memory(self, where: str) -> str:
        advice = {
            "none": "Write model.offload: model",
            "model": "Write model.offload: sequential",
            "sequential": "Use a smaller checkpoint",
        }[self.offload]
        return f"{self.checkpoint} does not fit into the memory of {where}. {advice}."

    def _placed(self, pipe: Any, device: Any) -> Any:
        """`pipe` with its attention, compilation, tiling and place."""
        from vidcfg.pipelines.families import family_of

        try:
            family = family_of(pipe)
        except ValueError as error:
            raise ModelError(str(error)) from error
        for name, denoiser in family.models_of(pipe).items():
            if self.attention is not None:
                _set_attention(name, denoiser, self.attention)
            if self.compile:
                _compile(name, denoiser)
        if self.vae_tiling:
            if not hasattr(pipe.vae, "enable_tiling"):
                name = type(pipe.vae).__name__
                raise ModelError(f"model.vae_tiling is true, but {name} cannot tile. Delete it.")
            pipe.vae.enable_tiling()
        if self.offload == "none":
            pipe.to(device)
        else:  # enable_model_cpu_offload or enable_sequential_cpu_offload
            getattr(pipe, f"enable_{self.offload}_cpu_offload")(device=device)
        return pipe


def local_folder(name: str) -> Path | None:
    """The folder that a setting names; None where it names a repository."""
    folder = Path(name).expanduser()
    return folder if folder.is_dir() else None


def model_from(value: Any) -> Any:
    """`mini`, or a mapping, as the setting of a model."""
    if value == "mini":
        return {"kind": "mini"}
    if not isinstance(value, dict | ConfigModel):
        raise refuse(
            "but must be mini or a mapping such as {kind: diffusers, checkpoint: folder}."
        )
    return value


def load_pipeline(model: MiniModel | DiffusersModel) -> Any:
    """The pipeline that a config names, on its device, in its dtype, ready to be guided.

    Raises:
        ModelError: if the checkpoint or the device is not there.
    """
    pipe = model.load(pick_device(model.device))
    pipe.set_progress_bar_config(disable=True)
    return pipe


def pipeline_class_of(model: MiniModel | DiffusersModel) -> type | None:
    """The pipeline class that a folder names, or that an adapter makes; None where not known."""
    from vidcfg.pipelines.families import adapted_family, pipeline_class

    if getattr(model, "motion_adapter", None):
        return pipeline_class(adapted_family("motion_adapter").pipelines[0])
    index = model.folder and model.folder / "model_index.json"
    if not index or not index.is_file():
        return None
    return pipeline_class(_small(index, IndexFile)["_class_name"])


def _small(path: Path, shape: Any) -> Any:
    """A small JSON file of a checkpoint, of the shape."""
    return parse(path.read_bytes(), path, shape, fix="Copy the checkpoint again.")


def pick_device(wanted: str) -> Any:
    """`auto` takes CUDA where there is one.

    Raises:
        ModelError: if CUDA is asked for and there is none, or not that many devices.
    """
    import torch

    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(wanted)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ModelError(f"model.device is {wanted}, but no CUDA device is visible. Write cpu.")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise ModelError(f"model.device is {wanted}, but there are {count} CUDA devices.")
    return device


def _set_attention(name: str, denoiser: Any, backend: str) -> None:
    try:
        denoiser.set_attention_backend(backend)
    except (ValueError, RuntimeError, ImportError, AttributeError) as error:
        raise ModelError(
            f"model.attention is {backend}, which {name} cannot use: {one_line(error)}"
        ) from error


def _compile(name: str, denoiser: Any) -> None:
    """Compile the repeated blocks: short to compile, and guidance reaches around them."""
    if not getattr(denoiser, "_repeated_blocks", None):
        raise ModelError(
            f"model.compile is true, but {name} ({type(denoiser).__name__}) has no repeated "
            f"blocks to compile. Delete it."
        )
    denoiser.compile_repeated_blocks()
