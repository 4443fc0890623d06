"""A sweep: a render, the settings that vary, and where the results go."""

import math
import os
from collections.abc import Iterable
from pathlib import Path as FilePath
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from vidcfg.render.config import PathText, Prompt, Text, file_name, prompt_from, seeds_from
from vidcfg.settings.base import AsTuple, ConfigModel, Finding, Positive, Range, refuse
from vidcfg.settings.document import ConfigDocument, apply_overrides, load_document, validate

MAX_CELLS = 10_000


class PromptFile(ConfigModel):
    """A text file with one prompt a line, or JSON lines with `text`, `negative` and `image`."""

    file: PathText


class Workers(ConfigModel):
    """Who renders. `num` 0 is this process, without Ray.

    `time_limit` is in seconds for each video; a video that fails is tried `max_retries` times
    more. `batch` is the most videos that are sampled together.
    """

    num: Annotated[int, Range(0, 100_000)] = 0
    gpus_per_worker: Annotated[float, Range(0, 64)] = 0.0
    cpus_per_worker: Annotated[float, Range(1e-4, 1024)] = 1.0
    max_retries: Annotated[int, Range(0, 100)] = 2
    time_limit: Positive | None = None
    batch: Annotated[int, Range(1, 4096)] = 32

    def findings(self):
        gpus = self.gpus_per_worker
        if 0 < gpus < 1e-4 or (gpus > 1 and gpus % 1):
            yield Finding(
                ("gpus_per_worker",),
                f"is {gpus:g}, but Ray hands out whole GPUs, or a part of one from 0.0001 on. "
                f"Use {'0' if gpus < 1 else f'{gpus // 1:g} or {gpus // 1 + 1:g}'}.",
            )


def _base_from(value: Any) -> Any:
    if not isinstance(value, str | dict):
        raise refuse("but must be a file such as ../uniform.yaml, or a render configuration.")
    return os.path.expanduser(value) if isinstance(value, str) else value


def _prompts_from(value: Any) -> Any:
    if isinstance(value, dict) and "file" in value:
        return PromptFile(**value)
    if isinstance(value, PromptFile):
        return value
    items = [value] if isinstance(value, str | dict) else value
    if not isinstance(items, list | tuple) or not items:
        raise refuse("but must be a list of prompts, or {file: prompts.txt}.")
    return tuple(Prompt(**prompt_from(i)) if not isinstance(i, Prompt) else i for i in items)


def _grid_from(value: Any) -> Any:
    if not isinstance(value, dict) or not value:
        raise refuse("but must map settings to lists, such as {guidance.scale: [1.0, 3.0]}.")
    for name, values in value.items():
        if not isinstance(values, list) or not values:
            raise refuse(f"but {name} must have a list of values, such as [1.0, 3.0, 6.0].")
    return value


_Prompts = Annotated[Any, BeforeValidator(_prompts_from)] | None
_Seeds = Annotated[tuple[int, ...], BeforeValidator(seeds_from)] | None


class Replaced(ConfigModel):
    """What a sweep's own prompts and seeds replace in its base, which is checked all the same."""

    prompts: _Prompts = None
    seeds: _Seeds = None


class SweepConfig(ConfigModel):
    """All that `python -m vidcfg.sweep` needs; every cell of the grid is one render config.

    Raises:
        ConfigError: listing every value that is not allowed.
    """

    schema_version: Literal[1] = Field(alias="schema", description="1")
    name: Annotated[str, AfterValidator(file_name)] = Field(
        description="a short name for the sweep"
    )
    base: Annotated[Any, BeforeValidator(_base_from)] = Field(
        description="a render configuration: a file, or its content"
    )
    set: dict[str, Any] = {}
    grid: Annotated[dict[str, list[Any]], BeforeValidator(_grid_from)] = Field(
        description="dotted settings, each with a list of values"
    )
    prompts: _Prompts = None
    seeds: _Seeds = None
    baseline: dict[str, Any] | None = None
    metrics: Annotated[tuple[str, ...], Field(strict=False, min_length=1), AsTuple] | None = None
    reference: PathText | None = None
    weights: dict[str, Text] = {}
    workers: Workers = Workers()
    store: PathText = Field(description="a folder, or an address such as s3://bucket/sweeps/kite")

    def findings(self):
        if self.workers.num and "memory://" in self.store:
            yield Finding(
                ("store",),
                f"is {self.store}, which this process alone sees, and workers.num is "
                f"{self.workers.num}. Use --workers 0, or --store with a folder or s3://bucket/path.",
            )
        count = math.prod(map(len, self.grid.values()))
        if count > MAX_CELLS:
            yield Finding(("grid",), f"has {count} cells. Use at most {MAX_CELLS}.")
        for name, values in self.grid.items():
            twice = [value for i, value in enumerate(values) if value in values[:i]]
            for value in twice[:1]:
                yield Finding(("grid", name), f"has {value} twice. Delete one.")
        for name in sorted({"prompts", "seeds", "output"} & {n.split(".")[0] for n in self.grid}):
            yield Finding(
                ("grid",), f"varies {name}, which all cells share. Write {name} beside the grid."
            )
        for name, value in (self.baseline or {}).items():
            if name not in self.grid:
                names = ", ".join(self.grid)
                yield Finding(("baseline", name), f"is not in the grid, which has {names}.")
            elif value not in self.grid[name]:
                listed = ", ".join(map(str, self.grid[name]))
                yield Finding(
                    ("baseline", name), f"is {value}, which the grid does not have: {listed}."
                )


def load_sweep_config(
    path: str | FilePath, overrides: Iterable[str] = ()
) -> tuple[SweepConfig, ConfigDocument]:
    """The checked sweep of a file, and the document that it came from (for places in errors).

    Raises:
        ConfigError: one line per problem.
    """
    document = apply_overrides(load_document(path), overrides)
    return validate(document, SweepConfig), document
