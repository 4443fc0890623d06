"""Which units can be made in one run, and what is known of it before a model is loaded."""

from pathlib import Path
from typing import Any

from vidcfg.guidance.plan import RunRow
from vidcfg.render.config import RenderConfig
from vidcfg.render.forecast import forecast_of
from vidcfg.sweep.cells import Cell


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


def row_of(config: RenderConfig) -> RunRow | None:
    """The first video of a render in a plan of evaluations; None where the model must tell."""
    forecast = forecast_of(config)
    try:
        return forecast.facts and forecast.row(config.prompts[0], config.seeds[0])
    except ValueError:
        # A scale by experts or noise levels that only the loaded model knows.
        return None
