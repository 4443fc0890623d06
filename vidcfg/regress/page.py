"""A verdict as one HTML page that needs no other file."""

import json
import math
from collections.abc import Mapping
from typing import Any

from vidcfg.regress.check import GateOutcome, Worst
from vidcfg.regress.clips import ClipSet
from vidcfg.regress.judge import MetricResult
from vidcfg.regress.strip import SIDE, strip_of
from vidcfg.report.formats import fill

MAX_CASES = 8
"""Worst clips with players; further metrics are in the table alone."""


def page(outcome: GateOutcome, *, commands: Mapping[str, str]) -> str:
    """The page: verdict, all metrics as intervals against their margins, and the worst clips.

    `commands` has a command that makes the worst clip again, by metric.
    """
    results = outcome.judgement.metrics
    shown = [r for r in results if not r.exits_clean and r.name in outcome.worst][:MAX_CASES]
    players = {f"case{i}": _player(outcome.worst[r.name]) for i, r in enumerate(shown)}
    return fill(
        "regress.html.j2",
        outcome=outcome,
        paired=outcome.paired,
        recorded=_recorded(outcome.base),
        rows=results,
        plot=_plot,
        cases=shown,
        commands=commands,
        data=json.dumps(players, allow_nan=False),
    )


def _recorded(base: ClipSet) -> str:
    """How the baseline was made."""
    made = base.facts.get("made_by") or {}
    commit = str(made.get("commit") or "")[:12]
    version = (made.get("versions") or {}).get("vidcfg")
    parts = [f"commit {commit}" if commit else "", f"vidcfg {version}" if version else ""]
    return ", ".join(part for part in parts if part)


def _plot(result: MetricResult) -> dict[str, float] | None:
    """Positions from -1 to 1 of an interval, in which a third is the tolerance; ends are cut."""
    ends = {"low": result.low, "high": result.high, "point": result.change}
    if None in ends.values() or not result.tolerance:
        return None
    sizes = {name: end / result.tolerance for name, end in ends.items()}
    places = {name: round(max(-1.0, min(1.0, end / 3)), 4) for name, end in sizes.items()}
    return places | {"is_cut": abs(result.change) > 3 * result.tolerance}


def _player(worst: Worst) -> dict[str, Any]:
    """What the script of the page plays."""
    info = worst.new.info
    base = strip_of(worst.base)
    # The same size on both sides, so that their difference is that of the videos.
    new = strip_of(worst.new, side=max(base.width, base.height) if base else SIDE)
    block, size = worst.block, (info.height, info.width) * 2 if info else ()
    is_placed = block is not None and all(size)
    return {
        "frames": info.num_frames if info else 0,
        "fps": info.fps if info and info.fps and math.isfinite(info.fps) else 8,
        "new": new and new.for_page,
        "base": base and base.for_page,
        "box": [end / whole for end, whole in zip(block, size)] if is_placed else None,
        "box_frame": worst.block_frame,
        "worst": worst.frames,
        "spans": worst.spans_t,
        "new_trace": worst.new_t,
        "base_trace": worst.base_t,
    }
