"""Everything the page says, as plain data: the content of report.json."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from itertools import combinations
from typing import Any

import numpy as np

from vidcfg.report.axis import Axis, axis_of
from vidcfg.report.compare import (
    Change,
    Front,
    changes,
    estimates,
    front_of,
    key_mask,
    least_p,
    shared_mask,
)
from vidcfg.report.results import Results, ResultsError
from vidcfg.report.values import Table, make_table, shown_order
from vidcfg.report.words import Words, first_lines, summary

KIND = "vidcfg.report/1"
MOST_PAIRS = 2_000
"""Above so many pairs of cells (64 cells), each cell is compared with the best ones alone."""


def analyse(
    results: Results, *, metrics: Sequence[str] | None = None, baseline: str | None = None
) -> dict[str, Any]:
    """All numbers and sentences of the page.

    Raises:
        ResultsError: a metric or the baseline is unknown.
    """
    table = make_table(results, metrics=metrics)
    base = _baseline(results, table, baseline)
    means = {name: estimates(metric, table) for name, metric in table.metrics.items()}
    front = front_of(table)
    among = changes(table, _pairs(table, means, base))
    against = _against(table, base, among)
    axis = axis_of(results.cells)
    mask = key_mask(table)
    prompts = {pair[0] for pair, there in zip(table.pairs, mask) if there}
    words = Words(
        labels={cell.id: cell.label for cell in results.cells},
        table=table,
        means=means,
        against=against,
        among=among,
        front=front,
        base=base,
        prompts=len(prompts),
        clips=int(mask.sum()),
        least_p=least_p(len(prompts)) if prompts else 1.0,
    )
    return {
        "kind": KIND,
        "name": results.name,
        "source": results.kind,
        "status": status(results, table),
        "notices": first_lines(results, table),
        "summary": summary(words),
        "baseline": base,
        "axis": {"name": axis.name, "lines": list(axis.lines)},
        "cells": _cells(results, table, axis, means, front),
        "metrics": _metrics(results, table),
        "refused": table.refused,
        "changes": [_change(change) for change in against],
        "front": None
        if front is None
        else {"flicker": front.flicker, "alignment": front.alignment},
        "failed": [asdict(failure) for failure in results.failed],
        "cost": cost(results),
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


def _against(table: Table, base: str | None, among: Sequence[Change]) -> list[Change]:
    """Changes from the baseline, called clear as in the comparison of all pairs.

    One rule for all sentences; Holm and joint sign flips are over these changes alone.
    """
    own = changes(table, [(base, cell) for cell in table.cells if cell != base])
    found = {(c.what, c.base, c.cell): c.p_fdr for c in among}
    return [replace(c, p_fdr=found[c.what, c.base, c.cell]) for c in own]


def _pairs(table: Table, means, base: str | None) -> list[tuple[str, str]]:
    """All pairs of cells, the baseline first; where these are too many, those with the baseline
    or a best cell."""
    cells = sorted(table.cells, key=lambda cell: cell != base)
    pairs = list(combinations(cells, 2))
    if len(pairs) <= MOST_PAIRS:
        return pairs
    best = {base} | {min(table.cells, key=lambda c: _cost(table, means, n, c)) for n in means}
    return [pair for pair in pairs if best & set(pair)]


def _cost(table: Table, means, name: str, cell: str) -> float:
    value = means[name][cell].mean
    return -value if table.metrics[name].better == "higher" else value


def _change(change: Change) -> dict[str, Any]:
    return asdict(change) | {"is_clear": change.is_clear}


def status(results: Results, table: Table) -> dict[str, Any]:
    planned = len((results.plan or {}).get("units", results.units))
    return {
        "planned": planned,
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


def _cells(results: Results, table: Table, axis: Axis, means, front: Front | None) -> list[dict]:
    done = [unit.cell for unit in results.units]
    failed = [failure.cell for failure in results.failed]
    seconds: dict[str, list[float]] = {}
    for unit in results.units:
        if isinstance(unit.record.get("seconds"), int | float):
            seconds.setdefault(unit.cell, []).append(unit.record["seconds"])
    made = []
    for cell in results.cells:
        row = {
            "id": cell.id,
            "label": cell.label,
            "settings": dict(cell.settings),
            "x": axis.x[cell.id],
            "line": axis.line[cell.id],
            "videos": done.count(cell.id),
            "failed": failed.count(cell.id),
            "left_out": table.left_out.get(cell.id),
            "evaluations_per_video": cell.evaluations,
            "seconds_per_video": mean_or_none(seconds.get(cell.id)),
            "values": {
                n: asdict(found[cell.id]) for n, found in means.items() if cell.id in found
            },
        }
        if front is not None and cell.id in table.cells:
            index = table.cells.index(cell.id)
            row["on_front"] = bool(front.on_front_C[index])
            row["front_membership"] = float(front.membership_C[index])
        made.append(row)
    return made


def mean_or_none(values: Sequence[float] | None) -> float | None:
    return float(np.mean(values)) if values else None


def _metrics(results: Results, table: Table) -> dict[str, dict]:
    kinds = {name: what for what, name in table.key_metrics.items()}
    return {
        name: {
            "unit": metric.unit,
            "better": metric.better,
            "protocol": metric.protocol,
            "backend": metric.backend,
            "role": kinds.get(name),
            "clips": int(shared_mask(metric, table).sum()),
        }
        for name, metric in table.metrics.items()
    }


def _sets(results: Results) -> dict[str, dict]:
    """Distances and rates of whole cells: metrics that single videos do not have."""
    single = {name for unit in results.units for name in unit.rows}
    made: dict[str, dict] = {}
    for cell, rows in results.set_rows.items():
        for row in rows:
            if row["name"] not in single and row["value"] is not None:
                entry = made.setdefault(row["name"], _described(row))
                interval = row.get("interval") or (None, None)
                entry["values"][cell] = {
                    "mean": row["value"],
                    "low": interval[0],
                    "high": interval[1],
                    "clips": row.get("n"),
                }
    return dict(sorted(made.items(), key=lambda item: shown_order(item[0])))


def _described(row) -> dict[str, Any]:
    facts = {key: row.get(key) for key in ("unit", "better", "protocol", "backend")}
    return facts | {"values": {}}


def cost(results: Results) -> dict[str, Any] | None:
    """Model evaluations and seconds of the sweep; None without a plan."""
    if results.plan is None:
        return None
    of_unit = {unit["key"]: unit["cell"] for unit in results.plan["units"]}
    cells = {cell.id: {"executed": 0.0, "seconds": 0.0} for cell in results.cells}
    for job in results.jobs:
        keys = [key for key in job.get("units", []) if key in of_unit]
        for key in keys:
            for what in ("executed", "seconds"):
                cells[of_unit[key]][what] += float(job.get(what) or 0) / len(keys)
    jobs = results.jobs
    return {
        "planned": results.plan.get("planned"),
        "executed": sum(int(job.get("executed") or 0) for job in jobs) if jobs else None,
        "seconds": sum(float(job.get("seconds") or 0) for job in jobs) if jobs else None,
        "wall_s": (results.summary or {}).get("wall_s"),
        "workers": (results.summary or {}).get("workers"),
        "cells": cells if jobs else {},
    }
