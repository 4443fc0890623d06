"""Everything the page says, as plain data: the content of report.json."""

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from vidcfg.metrics.record import Record
from vidcfg.report.compare import Findings, find
from vidcfg.report.sentences import first_lines, summary
from vidcfg.report.table import Table, make_table, shown_order
from vidcfg.results import CellResult, Results
from vidcfg.stored.read import ResultsError

KIND = "vidcfg.report/1"
PREFERRED = "guidance.scale"


def analyse(
    results: Results, *, metrics: Sequence[str] | None = None, baseline: str | None = None
) -> dict[str, Any]:
    """All numbers and sentences of the page.

    Raises:
        ResultsError: a metric or the baseline is unknown.
    """
    # Compare.
    table = make_table(results, metrics=metrics)
    base = _baseline(results, table, baseline)
    found = find(table, base, {cell.id: cell.label for cell in results.cells})
    axis, front = axis_of(results.cells), found.front

    # Say it as plain data.
    return {
        "kind": KIND,
        "name": results.name,
        "source": results.kind,
        "status": _status(results, table),
        "made_by": _made_by(results),
        "notices": first_lines(results, table),
        "summary": summary(found),
        "baseline": base,
        "axis": {"name": axis.name, "lines": list(axis.lines)},
        "cells": [_cell(cell, results, axis, found) for cell in results.cells],
        "metrics": _metrics(table),
        "refused": table.refused,
        "changes": [asdict(change) | {"is_clear": change.is_clear} for change in found.against],
        "front": front and {"flicker": front.flicker, "alignment": front.alignment},
        "failed": [asdict(failure) for failure in results.failed],
        "cost": _cost(results),
        "sets": _sets(results),
        "pairs": [list(pair) for pair in table.pairs],
    }


def _baseline(results: Results, table: Table, wanted: str | None) -> str | None:
    ids = {cell.id for cell in results.cells}
    labels = {cell.label: cell.id for cell in results.cells}
    if wanted is not None and wanted not in ids | set(labels):
        raise ResultsError(f"there is no cell {wanted!r}. There are: {', '.join(sorted(ids))}.")
    base = labels.get(wanted, wanted) if wanted is not None else results.baseline
    if base in table.cells:
        return base
    if wanted is not None:
        raise ResultsError(f"{wanted!r} cannot be the baseline: {table.left_out[base]}.")
    return table.cells[0] if table.cells else None


def _status(results: Results, table: Table) -> dict[str, Any]:
    return {
        "planned": len((results.plan or {}).get("units", results.units)),
        "done": len(results.units),
        "failed": len(results.failed),
        "missing": len(results.missing),
        "is_complete": not (results.failed or results.missing),
        "cells": len(results.cells),
        "compared_cells": len(table.cells),
        "pairs": table.num_pairs,
        "compared_pairs": len(table.pairs),
        "prompts": len({pair[0] for pair in table.pairs}),
        "self_check": (results.summary or {}).get("self_check"),
    }


def _made_by(results: Results) -> list[str]:
    """Models with checkpoint and hash, and versions, as far as render records say them."""
    models: dict[str, None] = {}
    versions: dict[str, dict[str, None]] = {}
    for unit in results.units:
        if (model := unit.render.get("model")) is not None:
            parts = [model.get(key) for key in ("pipeline", "kind", "checkpoint", "revision")]
            sha = [f"sha256 {model['sha256'][:16]}…"] if model.get("sha256") else []
            models[", ".join([*(str(part) for part in parts if part), *sha])] = None
        found = unit.render.get("versions") or {}
        for name in ("vidcfg", "torch", "diffusers"):
            if name in found:
                versions.setdefault(name, {})[str(found[name])] = None
    lines = [f"Model: {' or '.join(models) or 'not recorded beside these videos'}"]
    if versions:
        told = [f"{name} {' or '.join(found)}" for name, found in versions.items()]
        lines.append(f"Rendered with {', '.join(told)}")
    return lines


def _cell(cell: CellResult, results: Results, axis: "Axis", found: Findings) -> dict[str, Any]:
    units = [unit for unit in results.units if unit.cell == cell.id]
    seconds = [unit.render["seconds"] for unit in units if "seconds" in unit.render]
    row = {
        "id": cell.id,
        "label": cell.label,
        "settings": dict(cell.settings),
        "x": axis.x[cell.id],
        "line": axis.line[cell.id],
        "videos": len(units),
        "failed": sum(failure.cell == cell.id for failure in results.failed),
        "left_out": found.table.left_out.get(cell.id),
        "evaluations_per_video": cell.evaluations,
        "seconds_per_video": float(np.mean(seconds)) if seconds else None,
        "values": {n: asdict(m[cell.id]) for n, m in found.means.items() if cell.id in m},
    }
    if found.front is not None and cell.id in found.table.cells:
        index = found.table.cells.index(cell.id)
        row["on_front"] = bool(found.front.on_front_C[index])
        row["front_membership"] = float(found.front.membership_C[index])
    return row


def _metrics(table: Table) -> dict[str, dict]:
    roles = {name: what for what, name in table.key_metrics.items()}
    return {
        name: _described(m.like, role=roles.get(name), clips=int(table.mask_of(m).sum()))
        for name, m in table.metrics.items()
    }


def _described(record: Record, **more: Any) -> dict[str, Any]:
    row = record.to_dict()
    return {key: row[key] for key in ("unit", "better", "protocol", "backend")} | more


def _sets(results: Results) -> dict[str, dict]:
    """Distances and rates of whole cells: metrics that single videos do not have."""
    single = {name for unit in results.units for name in unit.records}
    made: dict[str, dict] = {}
    for cell, records in results.of_cells.items():
        for record in records:
            if record.name not in single and record.value is not None:
                low, high = record.interval or (None, None)
                value = {"mean": record.value, "low": low, "high": high, "clips": record.n}
                entry = made.setdefault(record.name, _described(record, values={}))
                entry["values"][cell] = value
    return dict(sorted(made.items(), key=lambda item: shown_order(item[0])))


def _cost(results: Results) -> dict[str, Any] | None:
    """Model evaluations and seconds of the sweep; None without a plan."""
    if results.plan is None:
        return None
    jobs, told, plan = results.jobs, results.summary or {}, results.plan
    of_unit = {unit["key"]: unit["cell"] for unit in plan["units"]}
    checked = {unit["key"] for unit in (plan.get("check") or {}).get("units", ())}
    cells = {cell.id: {"executed": 0.0, "seconds": 0.0} for cell in results.cells}
    # Videos that only an earlier plan had are no cost of this one.
    total = {"executed": 0.0, "seconds": 0.0}
    for job, what in itertools.product(jobs, total):
        share = job[what] / len(job["units"])
        for key in job["units"]:
            total[what] += share if key in of_unit or key in checked else 0.0
            if key in of_unit:
                cells[of_unit[key]][what] += share
    return {
        "planned": results.plan.get("planned"),
        "executed": round(total["executed"]) if jobs else None,
        "seconds": total["seconds"] if jobs else None,
        "wall_s": told.get("wall_s"),
        "workers": told.get("workers"),
        "cells": cells if jobs else {},
    }


@dataclass(frozen=True)
class Axis:
    """The setting that runs along x, None if cells are only counted; x and line by cell id."""

    name: str | None
    x: Mapping[str, float]
    line: Mapping[str, str]

    @property
    def lines(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(self.line.values()))


def axis_of(cells: Sequence[CellResult]) -> Axis:
    """The numeric setting with the most values, `guidance.scale` if it varies at all.

    Without one, cells stand side by side, in their order, on one line.
    """
    given = {p: [c.settings.get(p) for c in cells] for cell in cells for p in cell.settings}
    counts = {path: len(set(map(_plain, values))) for path, values in given.items()}
    numeric = {p: len(set(values)) for p, values in given.items() if _is_numeric(values)}
    numeric = {path: count for path, count in numeric.items() if count > 1}
    if not numeric:
        x = {cell.id: float(index) for index, cell in enumerate(cells)}
        return Axis(None, x, dict.fromkeys(x, ""))
    name = PREFERRED if PREFERRED in numeric else max(numeric, key=numeric.__getitem__)
    paths = [path for path, count in counts.items() if path != name and count > 1]
    return Axis(name, {c.id: float(c.settings[name]) for c in cells}, _lines(cells, paths))


def _is_numeric(values: Sequence[Any]) -> bool:
    return all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)


def _lines(cells: Sequence[CellResult], paths: Sequence[str]) -> dict[str, str]:
    """Names by cell: kinds alone where these already differ, else all that is set."""
    given = {cell.id: [(path, cell.settings.get(path)) for path in paths] for cell in cells}
    different = {_plain(settings) for settings in given.values()}
    for is_brief in (True, False):
        texts = {c: [setting_text(*s, is_brief=is_brief) for s in own] for c, own in given.items()}
        names = {cell: ", ".join(own) for cell, own in texts.items()}
        if len(set(names.values())) == len(different):
            break
    return names


def setting_text(path: str, value: Any, *, is_brief: bool = False) -> str:
    """A short text such as `keyframes`, `decay end 0.2` or `rescale 0.7`; briefly `decay`."""
    name = path.rpartition(".")[2]
    if not isinstance(value, Mapping):
        return value if isinstance(value, str) else f"{name} {_short(value)}"
    kind = str(value.get("kind", name))
    if is_brief and "kind" in value:
        return kind
    return " ".join([kind, *(f"{k} {_short(v)}" for k, v in value.items() if k != "kind")])


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _plain(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)
