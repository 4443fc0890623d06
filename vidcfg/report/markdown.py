"""The same numbers as a Markdown file."""

from collections.abc import Mapping
from typing import Any

from vidcfg.report.charts import number
from vidcfg.report.words import change_text

COLUMNS = 6


def markdown(analysis: Mapping[str, Any]) -> str:
    """Sentences, then a table with a row for each cell."""
    lines = [f"# {_plain(analysis['name'])}", ""]
    lines += [f"> {_plain(notice)}" for notice in analysis["notices"]]
    lines += [""] if analysis["notices"] else []
    lines += [f"- **{e['title']}.** {_plain(e['text'])}" for e in analysis["summary"]]
    names = list(analysis["metrics"])[:COLUMNS]
    roles = [
        w for w in ("flicker", "alignment") if any(c["what"] == w for c in analysis["changes"])
    ]
    head = ["cell", "videos", *names]
    head += [f"{role} beside baseline" for role in roles]
    head += ["on the front"] if analysis["front"] else []
    lines += ["", _row(head), _row(["---"] * len(head))]
    changes = {(c["cell"], c["what"]): c for c in analysis["changes"]}
    for cell in analysis["cells"]:
        row = [_plain(cell["label"]), str(cell["videos"])]
        row += [_value(cell["values"].get(name)) for name in names]
        row += [_change(cell, changes.get((cell["id"], role)), analysis) for role in roles]
        if analysis["front"]:
            share = cell.get("front_membership")
            row.append("" if share is None else f"{share:.0%}")
        lines.append(_row(row))
    status = analysis["status"]
    lines += ["", f"Means with 95 % intervals, prompts resampled; n = {status['compared_pairs']}"]
    lines[-1] += f" clips of {status['prompts']} prompts. ? = cannot be told apart."
    return "\n".join(lines) + "\n"


def _row(entries) -> str:
    return "| " + " | ".join(entries) + " |"


def _value(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return ""
    if found["low"] is None:
        return number(found["mean"])
    return f"{number(found['mean'])} ({number(found['low'])} to {number(found['high'])})"


def _change(cell, change: Mapping[str, Any] | None, analysis) -> str:
    if change is None:
        return "baseline" if cell["id"] == analysis["baseline"] else ""
    return change_text(change) + ("" if change["is_clear"] else " ?")


def _plain(text: str) -> str:
    """Text that stays text in a Markdown table."""
    text = " ".join(text.split())
    for character in "\\`*_{}[]<>|#!":
        text = text.replace(character, "\\" + character)
    return text
