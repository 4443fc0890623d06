"""Result sets as pandas frames."""

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from vidcfg.extras import explained
from vidcfg.stored.read import GoneError, ResultsError, render_of

NO_SETTINGS = ("schema", "name", "prompt", "prompts", "seed", "seeds", "output")
"""Parts of a resolved configuration that are no settings of a video."""


class ResultFrames(NamedTuple):
    """Two frames of one result set.

    units    a row per video: `key`, `cell`, `label`, `prompt`, `seed`, `status` (done, failed or
             missing), `video`, `seconds` and model `evaluations` of its render (in a sweep, which
             shares them, those that it takes alone); a column for each setting by its dotted
             path, and one for each metric by its name (NaN without a value)
    records  a row per value: the same place, then `metric`, `value`, `low`, `high`, `n`, `unit`,
             `better`, `status`, `skipped_reason`, `protocol` and `comparable_to_literature`. Those
             of a whole cell or folder have no `key`.
    """

    units: Any
    records: Any


def by_path(settings: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Settings by their dotted paths. One that comes in kinds is its kind, a constant its number:
    `guidance.scale: 6.0`, or `guidance.scale: cosine` beside `guidance.scale.start`."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        path = f"{above}{name}"
        if not isinstance(value, Mapping):
            found[path] = json.dumps(value) if isinstance(value, list | tuple) else value
        elif value.get("kind") == "constant":
            found[path] = value.get("value")
        else:
            rest = {k: v for k, v in value.items() if k != "kind"}
            found |= ({path: value["kind"]} if "kind" in value else {}) | by_path(rest, f"{path}.")
    return found


def settings_of(config: Mapping[str, Any] | None) -> dict[str, Any]:
    """The settings of a resolved configuration by their dotted paths."""
    return by_path({k: v for k, v in (config or {}).items() if k not in NO_SETTINGS})


def frames_of(results: Any) -> ResultFrames:
    """The frames of a `vidcfg.results.Results`."""
    plan = results.plan or {}
    planned = {cell["id"]: cell.get("render") for cell in plan.get("cells", ())}
    cells = {cell.id: cell for cell in results.cells}

    def place(key: str | None, cell: str, prompt: str | None, seed: int | None) -> dict[str, Any]:
        label = cells[cell].label if cell in cells else cell
        # A baseline has -1 where the clip has no seed.
        known = None if seed == -1 else seed
        return {"key": key, "cell": cell, "label": label, "prompt": prompt, "seed": known}

    def settings(unit: Any, cell: str) -> dict[str, Any]:
        found = settings_of(planned.get(cell) or getattr(unit, "render", {}).get("settings"))
        return found | by_path(cells[cell].settings if cell in cells else {})

    # A row for each video that there is, or should be.
    units, records = [], []
    for unit in results.units:
        where = place(unit.key, unit.cell, unit.prompt, unit.seed)
        values = {name: record.value for name, record in unit.records.items()}
        made = {"status": "done", "video": unit.video and str(unit.video)} | _cost(unit.render)
        if planned:  # the record of a unit counts those of all that it was made with
            made["evaluations"] = cells[unit.cell].evaluations
        units.append(where | made | settings(unit, unit.cell) | values)
        records += [where | _row(record) for record in unit.records.values()]
    for failure in results.failed:
        where = place(failure.key, failure.cell, failure.prompt, failure.seed)
        units.append(where | {"status": "failed"} | settings(failure, failure.cell))
    missing = set(results.missing)
    for unit in plan.get("units", ()):
        if unit["key"] in missing:
            where = place(unit["key"], unit["cell"], results.prompts[unit["prompt"]], unit["seed"])
            units.append(where | {"status": "missing"} | settings(None, unit["cell"]))

    # Values of whole cells.
    for cell, of_cell in results.of_cells.items():
        records += [place(None, cell, None, None) | _row(record) for record in of_cell]
    return _framed(units, records)


def frames_of_renders(folder: Path) -> ResultFrames:
    """The frames of a folder of renders that nobody has scored: no records.

    Raises:
        ResultsError: there is no record of a render.
    """
    units = []
    for path in sorted(folder.rglob("[!.]*.json")):
        # A render may be at work here.
        render = {}
        with suppress(GoneError):
            render = render_of(path)
        if render.get("kind") != "vidcfg.render/1":
            continue
        name = path.relative_to(folder).with_suffix("").as_posix()
        prompt = (render.get("settings") or {}).get("prompt") or {}
        video = (render.get("files") or {}).get("video")
        where = {"key": name, "cell": str(Path(name).parent), "label": render.get("name")}
        where |= {"prompt": prompt.get("text"), "seed": render.get("seed")}
        made = {"status": "done", "video": video and str(path.parent / video)}
        units.append(where | made | _cost(render) | settings_of(render.get("settings")))
    if not units:
        raise ResultsError(f"{folder} holds no results: no store, no scores and no renders.")
    return _framed(units, [])


def _cost(render: Mapping[str, Any]) -> dict[str, Any]:
    evaluations = (render.get("trace") or {}).get("evaluations")
    total = sum(evaluations.values()) if evaluations else None
    return {"seconds": render.get("seconds"), "evaluations": total}


def _row(record: Any) -> dict[str, Any]:
    low, high = record.interval or (None, None)
    kept = ("n", "unit", "better", "status", "skipped_reason", "protocol")
    row = {"metric": record.name, "value": record.value, "low": low, "high": high}
    row |= {name: getattr(record, name) for name in kept}
    return row | {"comparable_to_literature": record.comparable_to_literature}


def _framed(units: list[dict[str, Any]], records: list[dict[str, Any]]) -> ResultFrames:
    with explained("vidcfg.results.load", error=ModuleNotFoundError):
        import pandas
    return ResultFrames(pandas.DataFrame(units), pandas.DataFrame(records))
