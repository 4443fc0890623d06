"""The HTML page: charts and tables from the analysis, players from the clips."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vidcfg.report.charts import Point, curve_chart, legend_mark, number, scatter_chart
from vidcfg.report.clips import Clips
from vidcfg.report.heat import colour_bar, heat_maps
from vidcfg.report.results import Results
from vidcfg.report.values import shown_order
from vidcfg.report.words import change_text

TEMPLATES = Path(__file__).parent / "templates"
OPEN_CHARTS = 6
OPEN_COLUMNS = 7
ARROWS = {"lower": "↓ lower is better", "higher": "↑ higher is better", "none": ""}


def page(results: Results, analysis: Mapping[str, Any], clips: Clips) -> str:
    """The whole page as one file: no link, script, font or picture from anywhere else."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": number,
        "brief": lambda value: number(value, 3),
        "change": change_text,
        "json": _json,
    }
    heat = heat_maps(results.cells)
    return environment.get_template("page.html").render(
        a=analysis,
        cells={cell["id"]: cell for cell in analysis["cells"]},
        lines=[
            {"name": name, "mark": Markup(legend_mark(index))}
            for index, name in enumerate(analysis["axis"]["lines"])
        ],
        front_chart=Markup(_front_chart(analysis)),
        change_charts=[(name, Markup(chart)) for name, chart in _change_charts(analysis)],
        curves=[(name, Markup(chart)) for name, chart in _curves(analysis)],
        open_charts=OPEN_CHARTS,
        columns=_columns(analysis),
        changes=_changes_by_cell(analysis),
        heat=heat,
        bar=colour_bar(results.cells),
        clips=clips,
        player=_player(results, clips, heat),
        arrows=ARROWS,
        style=Markup((TEMPLATES / "page.css").read_text(encoding="utf-8")),
        script=Markup((TEMPLATES / "page.js").read_text(encoding="utf-8")),
    )


def _brief(value: float) -> str:
    return number(value, 3)


def _json(value: Any):
    """JSON that may stand inside a script element: no character can end it."""
    from markupsafe import Markup

    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def _columns(analysis: Mapping[str, Any]) -> list[str]:
    return list(analysis["metrics"])[:OPEN_COLUMNS]


def _changes_by_cell(analysis: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    made: dict[str, dict[str, Any]] = {}
    for change in analysis["changes"]:
        made.setdefault(change["cell"], {})[change["what"]] = change
    return made


def _tip(cell: Mapping[str, Any], name: str, found: Mapping[str, Any]) -> str:
    interval = ""
    if found["low"] is not None:
        interval = f" (95 %: {number(found['low'])} to {number(found['high'])})"
    return f"{cell['label']}\n{name} {number(found['mean'])}{interval}\n{found['clips']} clips"


def _curves(analysis: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Charts of every metric, those of single videos and of sets, in the order of importance."""
    singles = {
        name: {cell["id"]: cell["values"][name] for cell in analysis["cells"] if cell["values"]}
        for name in analysis["metrics"]
    }
    sets = {name: entry["values"] for name, entry in analysis["sets"].items()}
    about = analysis["metrics"] | analysis["sets"]
    names = sorted([*singles, *sets], key=shown_order)
    return [(name, _curve(analysis, name, (singles | sets)[name], about[name])) for name in names]


def _curve(analysis: Mapping[str, Any], name: str, values: Mapping, about: Mapping) -> str:
    lines = analysis["axis"]["lines"]
    points = [
        Point(
            cell["x"],
            values[cell["id"]]["mean"],
            lines.index(cell["line"]),
            _tip(cell, name, values[cell["id"]]),
            low=values[cell["id"]]["low"],
            high=values[cell["id"]]["high"],
            is_marked=cell["id"] == analysis["baseline"],
        )
        for cell in analysis["cells"]
        if cell["id"] in values
    ]
    if not points:
        return ""
    return curve_chart(
        points, title=f"{name} by setting", **_x(analysis), y_name=about["unit"] or name
    )


def _x(analysis: Mapping[str, Any]) -> dict[str, Any]:
    if analysis["axis"]["name"] is not None:
        return {"x_name": analysis["axis"]["name"]}
    return {"x_name": "cell", "x_labels": {c["x"]: c["label"] for c in analysis["cells"]}}


def _change_charts(analysis: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Paired changes from the baseline, a chart for each deciding metric."""
    cells = {cell["id"]: cell for cell in analysis["cells"]}
    made = []
    for what in dict.fromkeys(change["what"] for change in analysis["changes"]):
        rows = [change for change in analysis["changes"] if change["what"] == what]
        factor = 100 if rows[0]["is_ratio"] else 1
        points = [_change_point(analysis, cells[row["cell"]], row, factor) for row in rows]
        base = cells[analysis["baseline"]]
        line = analysis["axis"]["lines"].index(base["line"])
        tip = f"{base['label']}\nthe baseline"
        points.append(Point(base["x"], 0.0, line, tip, is_marked=True))
        unit = "change in %" if factor == 100 else "difference"
        title = f"Change of {what} from the baseline"
        chart = curve_chart(points, title=title, **_x(analysis), y_name=unit, zero=True)
        made.append((f"{what}: {rows[0]['metric']}", chart))
    return made


def _change_point(analysis, cell: Mapping[str, Any], row: Mapping[str, Any], factor: int) -> Point:
    sure = "clear" if row["is_clear"] else "cannot be told apart"
    tip = f"{cell['label']}\n{row['metric']} {change_text(row)}\n"
    tip += f"{sure}, p {number(row['p'])}, adjusted {number(row['p_fdr'])}"
    low, high = (None if row[end] is None else row[end] * factor for end in ("low", "high"))
    line = analysis["axis"]["lines"].index(cell["line"])
    weight = 1.0 if row["is_clear"] else 0.0
    y = row["change"] * factor
    return Point(cell["x"], y, line, tip, low=low, high=high, weight=weight)


def _front_chart(analysis: Mapping[str, Any]) -> str:
    if analysis["front"] is None:
        return ""
    names = analysis["front"]["flicker"], analysis["front"]["alignment"]
    cells = [cell for cell in analysis["cells"] if "on_front" in cell]
    points = []
    for cell in cells:
        x, y = (cell["values"][name] for name in names)
        motion = [
            f"{name} {number(cell['values'][name]['mean'])}"
            for name, about in analysis["metrics"].items()
            if about["role"] == "motion"
        ]
        share = f"on the front in {cell['front_membership']:.0%} of resamples"
        values = [f"{name} {number(v['mean'])}" for name, v in zip(names, (x, y))]
        points.append(
            Point(
                x["mean"],
                y["mean"],
                analysis["axis"]["lines"].index(cell["line"]),
                "\n".join([cell["label"], *values, *motion, share]),
                low=y["low"],
                high=y["high"],
                x_low=x["low"],
                x_high=x["high"],
                weight=cell["front_membership"],
                label=number(cell["x"]) if analysis["axis"]["name"] else "",
                is_marked=cell["id"] == analysis["baseline"],
            )
        )
    front = [index for index, cell in enumerate(cells) if cell["on_front"]]
    return scatter_chart(
        points, front, title="Flicker against alignment", x_name=names[0], y_name=names[1]
    )


def _player(results: Results, clips: Clips, heat: Mapping[str, Any]) -> dict[str, Any]:
    index = {cell.id: number for number, cell in enumerate(results.cells)}
    shown: Sequence = [(cell, pair) for cell, pair in clips.strips if cell in index]
    return {
        "cells": [
            {"id": cell.id, "label": cell.label, "rows": heat.get(cell.id, {}).get("rows")}
            for cell in results.cells
        ],
        "baseline": index.get(results.baseline, 0),
        "pairs": [{"prompt": prompt, "seed": seed} for prompt, seed in clips.pairs],
        "strips": {f"{index[cell]}/{pair}": clips.strips[cell, pair] for cell, pair in shown},
    }
