"""From a result set to `index.html`, `report.json` and `report.md`: charts and tables from the
analysis, players from the clips."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from vidcfg.files import write_json, write_text
from vidcfg.media.drawing import strength_colours, strength_range, strength_text
from vidcfg.places import is_url, reach
from vidcfg.report.analyse import analyse
from vidcfg.report.charts import Point, curve_chart, scatter_chart
from vidcfg.report.formats import change_text, fill, number, picture_uri
from vidcfg.report.players import Players, embed
from vidcfg.report.table import shown_order
from vidcfg.results import CellResult, Results, read_results
from vidcfg.stored.read import ResultsError

MAX_MEGABYTES = 16.0


def write_report(
    store: str | Path,
    *,
    out: str | Path | None = None,
    metrics: Sequence[str] | None = None,
    baseline: str | None = None,
    max_megabytes: float | int = MAX_MEGABYTES,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> str | Path:
    """Write the page of a store or evaluation and return its path.

    `out` is an HTML file (default: `report/index.html` in the store); report.json and report.md
    (or, for another name than index.html, files of that name) are written beside it. Existing
    ones are replaced, each whole or not at all. In a store such as `s3://bucket/store` they are
    put into its `report` folder, and the path is the address there.

    `metrics` limits what is shown, `baseline` names another cell to compare with,
    `max_megabytes` bounds the embedded videos.

    Raises:
        ResultsError: the results cannot be read, a name is unknown, or `out` is no place for a
            file.
        FileError: a file cannot be written.
    """
    if not 0 <= max_megabytes <= 1e6:
        raise ValueError(f"--max-mb is {max_megabytes}, it has to be from 0 to 1e6.")
    # Read and compare.
    results = read_results(store, traces=False)
    analysis = analyse(results, metrics=metrics, baseline=baseline)
    shared = [tuple(pair) for pair in analysis["pairs"]]

    # Embed the videos that fit, then write all three files.
    limit = int(max_megabytes * 1e6)
    players = embed(results, shared, max_bytes=limit, progress=progress)
    html = Path(out) if out is not None else results.root / "report" / "index.html"
    stem = "report" if html.stem == "index" else html.stem
    try:
        html.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResultsError(f"the report cannot be written: {error}") from error
    by_cell = changes_by_cell(analysis)
    files = [
        write_text(html, page(results, analysis, players)),
        write_json(html.with_name(f"{stem}.json"), analysis),
        write_text(html.with_name(f"{stem}.md"), fill("report.md", a=analysis, changes=by_cell)),
    ]
    if out is None and is_url(store):
        return _put(files, f"{str(store).rstrip('/')}/report")
    return html


def _put(files: Sequence[Path], url: str) -> str:
    """Copy files into the folder at `url`, replacing those of the same name; the first's URL."""
    system, root = reach(url, ResultsError)
    system.makedirs(root, exist_ok=True)
    for path in files:
        system.put_file(str(path), f"{root.rstrip('/')}/{path.name}")
    return f"{url}/{files[0].name}"


Analysis = Mapping[str, Any]


def page(results: Results, analysis: Analysis, players: Players) -> str:
    """The whole page as one file: no link, script, font or picture from anywhere else."""
    maps, bar = strength_maps(results.cells)
    return fill(
        "page.html",
        a=analysis,
        cells={cell["id"]: cell for cell in analysis["cells"]},
        front_chart=_front_chart(analysis),
        change_charts=list(_change_charts(analysis)),
        curves=list(_curves(analysis)),
        changes=changes_by_cell(analysis),
        heat=maps,
        bar=bar,
        notes=players.notes,
        player=_player(results, players, maps),
    )


def changes_by_cell(analysis: Analysis) -> dict[str, dict[str, Any]]:
    """Changes from the baseline by cell and deciding metric."""
    made: dict[str, dict[str, Any]] = {}
    for change in analysis["changes"]:
        made.setdefault(change["cell"], {})[change["what"]] = change
    return made


def strength_maps(cells: Sequence[CellResult]) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """Pictures of one pixel per step (downwards) and frame by cell id, and their colour bar.

    `rows` are the strengths [K, T], or one row where all steps are equal. Colours have one scale
    for all cells. Cells without a surface are left out.
    """
    given = {cell.id: np.array((cell.surface or {}).get("strength") or ()) for cell in cells}
    tables = {key: table.astype(np.float64) for key, table in given.items() if table.size}
    low, high = strength_range(*tables.values())
    made = {}
    for key, strength_KT in tables.items():
        is_constant = bool((strength_KT == strength_KT[:1]).all())
        rows = strength_KT[:1] if is_constant else strength_KT
        least, most = float(strength_KT.min()), float(strength_KT.max())
        reach = "throughout" if least == most else f"to {strength_text(most)}"
        made[key] = {
            "src": _png(strength_colours(strength_KT, low=low, high=high)),
            "rows": [[float(f"{x:.5g}") for x in row] for row in rows],
            "text": f"strength {strength_text(least)} {reach}".replace("1 off", "1 (off)"),
        }
    ramp = strength_colours(np.linspace(low, high, 64)[None] + 1e-9, low=low, high=high)
    return made, {"src": _png(ramp), "low": f"{low:g}", "high": f"{high:g}"}


def _png(colours_HWC: np.ndarray) -> str:
    return picture_uri(colours_HWC.astype(np.uint8), "png")


def _point(analysis: Analysis, cell: Mapping, value: Mapping, tip: str, **more: Any) -> Point:
    """Where a cell stands with a value; the baseline has a ring."""
    line = analysis["axis"]["lines"].index(cell["line"])
    more = {"low": value["low"], "high": value["high"], **more}
    is_marked = cell["id"] == analysis["baseline"]
    return Point(cell["x"], value["mean"], line, tip, is_marked=is_marked, **more)


def _x(analysis: Analysis) -> dict[str, Any]:
    if analysis["axis"]["name"] is not None:
        return {"x_name": analysis["axis"]["name"]}
    return {"x_name": "cell", "x_labels": {c["x"]: c["label"] for c in analysis["cells"]}}


def _curves(analysis: Analysis) -> Iterator[tuple[str, str]]:
    """Charts of every metric, those of single videos and of sets, in the order of importance."""
    about = analysis["metrics"] | analysis["sets"]
    for name in sorted(about, key=shown_order):
        points = []
        for cell in analysis["cells"]:
            found = cell["values"].get(name) or about[name].get("values", {}).get(cell["id"])
            if found is not None:
                tip = f"{cell['label']}\n{name} {number(found['mean'])}"
                if found["low"] is not None:
                    tip += f" (95 %: {number(found['low'])} to {number(found['high'])})"
                tip += f"\n{found['clips']} clips"
                points.append(_point(analysis, cell, found, tip))
        names = {"title": f"{name} by setting", "y_name": about[name]["unit"] or name}
        yield name, curve_chart(points, **names, **_x(analysis)) if points else ""


def _change_charts(analysis: Analysis) -> Iterator[tuple[str, str]]:
    """Paired changes from the baseline, a chart for each deciding metric."""
    cells = {cell["id"]: cell for cell in analysis["cells"]}
    for what in dict.fromkeys(change["what"] for change in analysis["changes"]):
        rows = [change for change in analysis["changes"] if change["what"] == what]
        factor = 100 if rows[0]["is_ratio"] else 1
        # The bar of a few prompts may reach so far that all marks would lie on one line.
        most = 10 * max(1.0, *(abs(row["change"]) for row in rows)) if factor == 100 else math.inf
        is_cut = any((row["high"] or 0.0) > most for row in rows)
        points = []
        for row in rows:
            # What the tip says, and the ends of the bar in the unit of the chart.
            sure = "clear" if row["is_clear"] else "cannot be told apart"
            tip = f"{cells[row['cell']]['label']}\n{row['metric']} {change_text(row)}\n"
            tip += f"{sure}, p {number(row['p'])}, adjusted {number(row['p_fdr'])}"
            ends = {"mean": row["change"], "low": row["low"], "high": row["high"]}
            ends = {k: None if end is None else min(end, most) * factor for k, end in ends.items()}
            weight = float(row["is_clear"])
            points.append(_point(analysis, cells[row["cell"]], ends, tip, weight=weight))
        base = cells[analysis["baseline"]]
        none = {"mean": 0.0, "low": None, "high": None}
        points.append(_point(analysis, base, none, f"{base['label']}\nthe baseline"))
        title = f"Change of {what} from the baseline"
        y_name = "change in %" if factor == 100 else "difference"
        y_name += f", bars cut at {number(most * factor)}" if is_cut else ""
        chart = curve_chart(points, title=title, y_name=y_name, **_x(analysis), zero=True)
        yield f"{what}: {rows[0]['metric']}", chart


def _front_chart(analysis: Analysis) -> str:
    if analysis["front"] is None:
        return ""
    names = analysis["front"]["flicker"], analysis["front"]["alignment"]
    motion = [name for name, about in analysis["metrics"].items() if about["role"] == "motion"]
    cells = [cell for cell in analysis["cells"] if "on_front" in cell]
    points = []
    for cell in cells:
        x, y = (cell["values"][name] for name in names)
        weight = cell["front_membership"]
        told = [f"{n} {number(cell['values'][n]['mean'])}" for n in (*names, *motion)]
        share = f"on the front in {weight:.0%} of resamples"
        point = _point(analysis, cell, y, "\n".join([cell["label"], *told, share]), weight=weight)
        label = number(cell["x"]) if analysis["axis"]["name"] else ""
        at = {"x": x["mean"], "x_low": x["low"], "x_high": x["high"]}
        points.append(replace(point, **at, label=label))
    front = [index for index, cell in enumerate(cells) if cell["on_front"]]
    title = "Flicker against alignment"
    return scatter_chart(points, front, title=title, x_name=names[0], y_name=names[1])


def _player(results: Results, players: Players, maps: Mapping[str, Any]) -> dict[str, Any]:
    """What the script of the page plays: cells, pairs, and strips by `cell/pair` number."""
    index = {cell.id: number for number, cell in enumerate(results.cells)}
    strips = {at: strip for at, strip in players.strips.items() if at[0] in index}
    return {
        "cells": [
            {"id": cell.id, "label": cell.label, "rows": maps.get(cell.id, {}).get("rows")}
            for cell in results.cells
        ],
        "baseline": index.get(results.baseline, 0),
        "pairs": [{"prompt": prompt, "seed": seed} for prompt, seed in players.pairs],
        "strips": {f"{index[cell]}/{pair}": strip for (cell, pair), strip in strips.items()},
    }
