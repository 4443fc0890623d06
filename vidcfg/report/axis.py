"""Which setting of a grid runs along the x axis, and which lines it gives."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vidcfg.report.results import Cell

PREFERRED = "guidance.scale"


@dataclass(frozen=True)
class Axis:
    """`x` and `line` by cell id. `name` is the setting's path, None if cells are only counted."""

    name: str | None
    x: Mapping[str, float]
    line: Mapping[str, str]
    lines: tuple[str, ...]


def axis_of(cells: Sequence[Cell]) -> Axis:
    """The numeric setting with the most values, `guidance.scale` if it varies at all.

    Without one, cells stand side by side, in their order, on one line.
    """
    numeric = {}
    for path in dict.fromkeys(path for cell in cells for path in cell.settings):
        values = [cell.settings.get(path) for cell in cells]
        if all(isinstance(v, int | float) and not isinstance(v, bool) for v in values):
            numeric[path] = len(set(values))
    varied = {path: count for path, count in numeric.items() if count > 1}
    if not varied:
        x = {cell.id: float(index) for index, cell in enumerate(cells)}
        return Axis(None, x, dict.fromkeys(x, ""), ("",))
    name = PREFERRED if PREFERRED in varied else max(varied, key=varied.__getitem__)
    others = [p for cell in cells for p in cell.settings if p != name]
    others = [
        p for p in dict.fromkeys(others) if len({_key(c.settings.get(p)) for c in cells}) > 1
    ]
    line = _lines(cells, others)
    x = {cell.id: float(cell.settings[name]) for cell in cells}
    return Axis(name, x, line, tuple(dict.fromkeys(line.values())))


def _lines(cells: Sequence[Cell], paths: Sequence[str]) -> dict[str, str]:
    """Names by cell: kinds alone where these already differ, else all that is set."""
    keys = {cell.id: tuple(_key(cell.settings.get(path)) for path in paths) for cell in cells}
    for is_brief in (True, False):
        names = {
            cell.id: ", ".join(
                setting_text(path, cell.settings.get(path), is_brief=is_brief) for path in paths
            )
            for cell in cells
        }
        if len(set(names.values())) == len(set(keys.values())):
            break
    return names


def _key(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def setting_text(path: str, value: Any, *, is_brief: bool = False) -> str:
    """A short text such as `keyframes`, `decay end 0.2` or `rescale 0.7`; briefly `decay`."""
    name = path.rpartition(".")[2]
    if isinstance(value, Mapping):
        rest = {k: v for k, v in value.items() if k != "kind"}
        if is_brief and "kind" in value:
            return str(value["kind"])
        words = [str(value["kind"])] if "kind" in value else [name]
        return " ".join(words + [f"{k} {_short(v)}" for k, v in rest.items()])
    return _short(value) if isinstance(value, str) else f"{name} {_short(value)}"


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return value if isinstance(value, str) else json.dumps(value, default=str)
