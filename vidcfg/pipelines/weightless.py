"""The pipeline of a checkpoint without its weights: the class and parts that a run has."""

import contextlib
import functools
import logging
import warnings
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from vidcfg.extras import without_bars
from vidcfg.pipelines.load import DiffusersModel, MiniModel, local_folder, pipeline_class_of
from vidcfg.progress import one_line


class NotKnownError(ValueError):
    """Something that only the loaded model can tell; the message says why."""


@functools.lru_cache(maxsize=8)
def weightless(model: MiniModel | DiffusersModel) -> Any:
    """The pipeline that `load_pipeline` gives for a folder, its models on the meta device.

    It is made by the same class from the same small files; no weight is read. What serves texts
    and images alone is left out. Of a published checkpoint that is not here, it has the class and
    what its frame map reads, and no scheduler. Do not change it: it is kept for the next caller.

    Raises:
        NotKnownError: where the folder does not tell its pipeline, and no family knows the name.
    """
    if model.folder is None:
        return _published(model)
    if not (model.folder / "model_index.json").is_file():
        raise NotKnownError("the checkpoint is not in a local folder")
    cls = pipeline_class_of(model)
    if cls is None:
        raise NotKnownError(f"{model.folder} names a pipeline that is not in diffusers")
    try:
        if model.kind == "mini":
            return cls.from_pretrained(model.folder, device="meta")
        return _made(model, cls)
    except (OSError, ValueError, ImportError, AttributeError, TypeError) as error:
        what = f"the files in {model.folder} do not tell it: {one_line(error)}"
        raise NotKnownError(what) from error


def _published(model: DiffusersModel) -> Any:
    """A pipeline of its class without any part, known by the name of its repository."""
    from vidcfg.pipelines.families import FAMILIES, pipeline_class

    known = (item for family in FAMILIES.values() for item in family.checkpoints.items())
    name, facts = next((v for k, v in known if fnmatchcase(model.checkpoint, k)), ("", {}))
    cls = pipeline_class_of(model) or pipeline_class(name)
    if cls is None:
        raise NotKnownError("the checkpoint is not in a local folder")
    pipe = cls.__new__(cls)
    vars(pipe).update(facts, scheduler=None)
    return pipe


def _made(model: DiffusersModel, cls: Any) -> Any:
    import torch

    folder, adapter = model.folder, model.adapter
    index = cls.load_config(folder, local_files_only=True)
    wanted, _ = cls._get_signature_keys(cls)
    with _silent():
        parts = {name: _part(folder, name, index.get(name)) for name in wanted}
        if adapter is not None:
            motion = local_folder(model.motion_adapter)
            parts[adapter.part] = motion and _part(motion, "", ("diffusers", adapter.cls))
        with torch.device("meta"):
            pipe = cls.from_pretrained(folder, local_files_only=True, **parts)
    if adapter is not None and pipe.scheduler is not None:
        pipe.scheduler = adapter.scheduler(pipe.scheduler)
    return pipe


def _part(folder: Path, name: str, named: Any) -> Any:
    """A model without weights, a scheduler or tokenizer as it is; None for what serves others."""
    import torch
    from diffusers import ModelMixin, SchedulerMixin
    from diffusers.pipelines.pipeline_loading_utils import simple_get_class_obj

    library, class_name = named if isinstance(named, list | tuple) else (None, None)
    is_tokenizer = (folder / name / "tokenizer.json").is_file()
    if library is None or (library == "transformers" and not is_tokenizer):
        return None
    cls = simple_get_class_obj(library, class_name)
    if is_tokenizer:
        return cls.from_pretrained(folder / name, local_files_only=True)
    if not issubclass(cls, ModelMixin | SchedulerMixin):
        return None
    settings = cls.load_config(folder, subfolder=name or None, local_files_only=True)
    # The numbers of a scheduler are real, those of a model are not.
    with torch.device("meta") if issubclass(cls, ModelMixin) else contextlib.nullcontext():
        return cls.from_config(settings)


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """No progress bar and no notes of the libraries on parts that are left out."""
    from diffusers.utils import logging as own

    level = own.get_verbosity()
    own.set_verbosity(logging.CRITICAL)
    try:
        with without_bars("diffusers"), warnings.catch_warnings(action="ignore"):
            yield
    finally:
        own.set_verbosity(level)
