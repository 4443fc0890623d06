"""A verdict as one HTML page that needs no other file."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vidcfg.media.video import MediaError
from vidcfg.regress.blame import Worst
from vidcfg.regress.check import Outcome
from vidcfg.regress.clips import Clip
from vidcfg.regress.gate import FAIL, INCONCLUSIVE, MetricResult, plain
from vidcfg.regress.output import worst_words
from vidcfg.regress.strips import Strip, read_strip, strip_of_video

MAX_CASES = 8
"""Worst clips with players; further metrics are in the table alone."""


def page(outcome: Outcome, *, commands: Mapping[str, str], recorded: str = "") -> str:
    """The page: verdict, all metrics as intervals against their margins, and the worst clips.

    `commands` has a command that makes the worst clip again, by metric. `recorded` tells how the
    baseline was made.
    """
    import jinja2

    folder = Path(__file__).with_name("templates")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder), autoescape=True, trim_blocks=True
    )
    cases = _cases(outcome, commands)
    return environment.get_template("regress.html.j2").render(
        verdict=outcome.verdict,
        new=outcome.new.source,
        base=outcome.base.source,
        recorded=recorded,
        clips=len(outcome.paired.keys),
        prompts=len({key.prompt for key in outcome.paired.keys}),
        left_out=[str(key) for key in (*outcome.paired.missing, *outcome.paired.extra)],
        alpha=outcome.policy.alpha,
        power=outcome.policy.power,
        rows=[_row(result) for result in outcome.judgement.metrics],
        cases=cases,
        data=json.dumps({case["id"]: case["player"] for case in cases}, allow_nan=False),
    )


def _row(result: MetricResult) -> dict[str, Any]:
    margin = result.amount(result.margin).lstrip("+") if result.margin is not None else ""
    return {
        "name": result.name,
        "verdict": result.verdict,
        "reason": result.reason,
        "change": result.amount(result.change),
        "margin": margin,
        "bad": {"up": "more", "down": "less", "either": "any change"}[result.bad],
        "p": "" if result.p_adjusted is None else f"{result.p_adjusted:.2g}",
        "detectable": result.amount(result.detectable).lstrip("+"),
        "needs": result.needed_clips or "",
        "plot": _plot(result),
    }


def _plot(result: MetricResult) -> dict[str, float] | None:
    """Positions from -1 to 1 of an interval, in which a third is the margin; ends are cut."""
    if result.change is None or result.low is None or result.high is None or not result.margin:
        return None

    def place(change: float) -> float:
        return round(max(-1.0, min(1.0, change / result.margin / 3)), 4)

    return {
        "low": place(result.low),
        "high": place(result.high),
        "point": place(result.change),
        "is_cut": abs(result.change) > 3 * result.margin,
    }


def _cases(outcome: Outcome, commands: Mapping[str, str]) -> list[dict[str, Any]]:
    cases, strips = [], {}
    for result in outcome.judgement.metrics:
        worst = outcome.worst.get(result.name)
        if result.verdict not in (FAIL, INCONCLUSIVE) or worst is None or len(cases) >= MAX_CASES:
            continue
        cases.append(
            {
                "id": f"case{len(cases)}",
                "name": result.name,
                "verdict": result.verdict,
                "words": worst_words(result, worst),
                "reason": result.reason,
                "command": commands.get(result.name, ""),
                "player": _player(worst, strips),
            }
        )
    return cases


def _player(worst: Worst, strips: dict[int, Strip | None]) -> dict[str, Any]:
    for clip in (worst.new, worst.base):
        if id(clip) not in strips:
            strips[id(clip)] = strip_of_clip(clip)
    new, base = strips[id(worst.new)], strips[id(worst.base)]
    info = worst.new.info
    return {
        "frames": info.num_frames if info else 0,
        "fps": plain(info.fps) if info and info.fps else 8,
        "new": _strip_data(new),
        "base": _strip_data(base),
        "worst": [list(span) for span in worst.frames],
        "spans": [list(span) for span in worst.spans_t],
        "new_trace": list(worst.new_t),
        "base_trace": list(worst.base_t),
    }


def _strip_data(strip: Strip | None) -> dict[str, Any] | None:
    if strip is None:
        return None
    size = {"width": strip.width, "height": strip.height, "columns": strip.columns}
    return {"url": strip.url, "frames": strip.num_frames, **size}


def strip_of_clip(clip: Clip) -> Strip | None:
    """The pictures of a clip: from its strip, else from its video; None without either."""
    info = clip.info
    if clip.strip is not None and info is not None and info.num_frames:
        return read_strip(clip.strip, info.num_frames)
    if clip.video is None or not clip.video.exists():
        return None
    try:
        return strip_of_video(clip.video, enlarge=_enlarge(clip.record))
    except MediaError:
        return None


def _enlarge(record: Path | None) -> int:
    try:
        factor = json.loads(record.read_text("utf-8"))["video"]["enlarge"] if record else 1
    except (OSError, ValueError, KeyError, TypeError):
        return 1
    return factor if isinstance(factor, int) and factor >= 1 else 1
