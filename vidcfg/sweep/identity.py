"""What identifies a unit, and what of its cost and surface is known before a model is loaded."""

import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

from vidcfg.guidance.plan import RunRow
from vidcfg.render.config import Prompt, RenderConfig
from vidcfg.render.forecast import forecast_of
from vidcfg.render.record import fingerprint, model_folder
from vidcfg.sweep.cells import Cell


def cell_digest(config: RenderConfig, model: str | None, surface: dict | None) -> str:
    """What the videos of a cell have in common: settings, files of the model, strengths.

    `model` is the sha256 of the model's files; where it is known, their place does not matter.
    """
    whole = config.to_dict()
    settings = {name: whole[name] for name in ("schema", "model", "video", "sampling", "guidance")}
    if model is not None:
        settings["model"] = settings["model"] | {"checkpoint": model}
    output = {name: whole["output"][name] for name in ("video", "enlarge")}
    return digest(canonical(settings | {"output": output, "surface": surface}))


def unit_key(cell: str, prompt: Prompt, seed: int) -> str:
    """The name of a video in the store: equal for equal cells (by digest), prompts and seeds."""
    shown = prompt.to_dict()
    if prompt.image and Path(prompt.image).is_file():
        shown["image"] = _file_digest(str(Path(prompt.image).resolve()))
    return digest(canonical({"cell": cell, "prompt": shown, "seed": seed}))


@cache
def _file_digest(path: str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def anchored(data: dict[str, Any], name: str) -> dict[str, Any]:
    """`data` with the path under `name` made absolute, for workers that run elsewhere."""
    value = data.get(name)
    is_here = value is not None and Path(value).exists()
    return data | {name: str(Path(value).resolve())} if is_here else data


def run_of(cell: Cell) -> dict[str, Any]:
    """What videos of one run must have in common, beside prompt and seed."""
    config = cell.config
    whole = config.to_dict()
    guidance = whole["guidance"]
    kept = {name: whole[name] for name in ("model", "video", "sampling")}
    calls = {name: guidance[name] for name in ("passes", "micro_batch", "share")}
    # A branch made from another one's result is never shared, nor is anything beside it.
    is_alone = any(rule.follows_cond for rule in config.guidance.method.terms)
    if is_alone or not shares_exactly(config):
        return kept | {"cell": cell.id}
    return kept | calls


def shares_exactly(config: RenderConfig) -> bool:
    """Whether videos that are made together come out as if they were made alone.

    True where the model is called with one row at a time; where only the loaded model can tell,
    True as well, and the worker decides.
    """
    guidance = config.guidance
    if guidance.passes != "pipeline" or guidance.micro_batch == 1:
        return guidance.passes == "sequential" or guidance.micro_batch == 1
    if config.model.kind == "mini":
        return True
    family = forecast_of(config).family
    return family is None or family.stock_passes == "sequential"


def surface_of(config: RenderConfig) -> dict | None:
    """The strengths of a render, where they are known before its model is loaded."""
    forecast = forecast_of(config)
    try:
        return forecast.facts and next(iter(forecast.surfaces.values())).to_dict()
    except ValueError:
        return None


def row_of(config: RenderConfig) -> RunRow | None:
    """The first video of a render in a plan of evaluations; None where the model must tell."""
    forecast = forecast_of(config)
    try:
        return forecast.facts and forecast.row(config.prompts[0], config.seeds[0])
    except ValueError:
        # A scale by experts or noise levels that only the loaded model knows.
        return None


def identity_of(config: RenderConfig) -> str | None:
    """The sha256 of the model's files; None where they are not here."""
    folder = model_folder(config)
    return None if folder is None or not folder.is_dir() else fingerprint(folder)["sha256"]


def canonical(value: Any) -> str:
    """JSON that is equal for equal values."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest(text: str) -> str:
    """sha256 of a text, as hexadecimal digits."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
