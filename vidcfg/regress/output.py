"""A verdict as text, JSON, JUnit XML and HTML, and all files of a comparison."""

import json
import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from vidcfg import cli
from vidcfg.files import write_json, write_text
from vidcfg.progress import counted, folded
from vidcfg.regress.check import GateOutcome, Worst
from vidcfg.regress.clips import SIDE, ClipSet, strip_of
from vidcfg.regress.judge import FAIL, INCONCLUSIVE, SKIPPED, MetricResult
from vidcfg.report.formats import fill, written
from vidcfg.settings.strict_yaml import dump_yaml

KIND = "vidcfg.regress.result/1"

MAX_CASES = 8
"""Worst clips with players; further metrics are in the table alone."""


def table(outcome: GateOutcome, width: int | None = None) -> str:
    """All metrics, worst first, then what is behind those that do not pass.

    Rows that are wider than `width` take two lines each.
    """
    results, paired = outcome.judgement.metrics, outcome.paired
    lines = [
        f"{outcome.verdict}: {outcome.new.source} against {outcome.base.source}, "
        f"{counted(len(paired.new), 'clip')} of {counted(paired.num_prompts, 'prompt')}"
    ]
    for name, keys in (("missing", paired.missing), ("extra", paired.extra)):
        if keys:
            lines.append(f"left out, {name}: " + "; ".join(str(key) for key in keys))
    level = f"{100 - 200 * outcome.policy.alpha:.3g} % interval"
    heads = ("change", level, "margin", "tolerance", "p (Holm)", "detectable", "needs")
    rows = [_cells("verdict", "metric", *heads), *map(_row, results)]
    lines += ["", *folded(rows, width)]
    for result in results:
        if not result.exits_clean:
            lines += ["", f"{result.verdict} {result.name}: {result.reason}"]
            if result.name in outcome.worst:
                lines.append(f"  {outcome.worst[result.name]}")
    if any(result.change is not None and result.detectable is None for result in results):
        lines += ["", "detectable -: so few prompts cannot prove a change of this metric"]
    if any(result.tolerance_from == "repeats" for result in results):
        lines += ["", "*: what the baseline's repeats differ by without a cause"]
    return "\n".join(lines)


def _row(result: MetricResult) -> list[str]:
    if result.change is None:
        return _cells(result.verdict, result.name, "-", more=f"  {result.reason}")
    interval = f"{result.amount(result.low)} .. {result.amount(result.high)}"
    sizes = result.margin, result.tolerance, result.detectable
    margin, tolerance, detectable = (size_words(size, result.is_ratio) for size in sizes)
    # What the noise of repeats has widened is marked.
    tolerance += "*" * (result.tolerance_from == "repeats")
    numbers = [result.amount(result.change), interval, margin, tolerance]
    numbers += [f"{result.p_adjusted:.3g}", detectable, str(result.needed_clips or "-")]
    return _cells(result.verdict, result.name, *numbers)


def _cells(verdict: str, metric: str, change: str, *rest: str, more: str = "") -> list[str]:
    """A row of the table; in place of the `rest` it may have a text."""
    forms = ("  {:20}", "{:>8}", "{:>11}", "{:>10}", "{:>12}", "{:>8}")
    rest = [form.format(text) for form, text in zip(forms, rest)] or [""] * len(forms)
    return [f"{verdict:13}{metric:20}", f"{change:>9}", *rest, more]


def size_words(size: float | None, is_ratio: bool) -> str:
    """A size in words: `5.2%`, or `0.0412` where it is no ratio."""
    return "-" if size is None else written("{:.1%}" if is_ratio else "{:.3g}", size)


def write_outputs(folder: Path, outcome: GateOutcome, *, allow_inconclusive: bool = False) -> None:
    """index.html, result.json, junit.xml, and a configuration for every worst clip."""
    folder.mkdir(parents=True, exist_ok=True)
    commands = {}
    for result in outcome.judgement.metrics:
        worst = None if result.exits_clean else outcome.worst.get(result.name)
        if worst and (path := _write_config(folder / "worst" / result.name, worst)):
            commands[result.name] = f"python -m vidcfg.render {shlex.quote(str(path))}"
    write_json(folder / "result.json", _facts(outcome, commands))
    write_text(folder / "junit.xml", _junit(_cases(outcome, allow_inconclusive)))
    write_text(folder / "index.html", page(outcome, commands=commands))


def write_error(folder: Path, error: Exception) -> None:
    """result.json and junit.xml of a comparison that could not be made."""
    is_known = isinstance(error, ValueError | RuntimeError | OSError)
    message = str(error) if is_known else f"{type(error).__name__}: {error}"
    code = cli.USAGE if isinstance(error, ValueError) else cli.ERROR
    folder.mkdir(parents=True, exist_ok=True)
    facts = {"kind": KIND, "verdict": "ERROR", "exit_code": code, "message": message}
    write_json(folder / "result.json", facts)
    write_text(folder / "junit.xml", _junit([("compare", "error", {"message": message}, None)]))
    (folder / "index.html").unlink(missing_ok=True)


def _write_config(folder: Path, worst: Worst) -> Path | None:
    """The render configuration of the worst clip alone; None if it has no record with one."""
    record = worst.new.render
    try:
        config = record["config"] | {"prompts": [record["prompt"]], "seeds": [record["seed"]]}
        config["output"] = config["output"] | {"dir": str(folder)}
    except (KeyError, TypeError):
        return None
    folder.parent.mkdir(exist_ok=True)
    return write_text(folder.with_name(f"{folder.name}.yaml"), dump_yaml(config))


def _facts(outcome: GateOutcome, commands: Mapping[str, str]) -> dict[str, Any]:
    # Metrics with their worst clips.
    metrics = []
    for result in outcome.judgement.metrics:
        row = {f.name: getattr(result, f.name) for f in fields(result) if f.name != "tested"}
        if worst := outcome.worst.get(result.name):
            key = worst.new.key
            row["worst"] = {
                **key._asdict(),
                "seed": key.seed if key.seed >= 0 else None,
                "frames": [list(span) for span in worst.frames],
                "block": worst.block and {"frame": worst.block_frame, "place": worst.block},
                "video": str(worst.new.video) if worst.new.video else None,
                "command": commands.get(result.name),
            }
        metrics.append(row)
    return {
        "kind": KIND,
        "verdict": outcome.verdict,
        "exit_code": outcome.judgement.exit_code,
        "new": outcome.new.source,
        "baseline": outcome.base.source,
        "clips": len(outcome.paired.new),
        "missing": [str(key) for key in outcome.paired.missing],
        "extra": [str(key) for key in outcome.paired.extra],
        "policy": outcome.policy.to_dict(),
        "metrics": metrics,
    }


Case = tuple[str, str | None, dict[str, str], str | None]
"""A JUnit case: name, tag of its outcome (None: passed), that tag's attributes and text."""


def _cases(outcome: GateOutcome, allow_inconclusive: bool) -> list[Case]:
    """One a metric. INCONCLUSIVE is a failure of that type; skipped if allowed and harmless."""
    tags = {SKIPPED: "skipped", FAIL: "failure", INCONCLUSIVE: "failure"}
    if allow_inconclusive and not outcome.judgement.is_unproven:
        tags[INCONCLUSIVE] = "skipped"
    cases = []
    for result in outcome.judgement.metrics:
        name, tag = result.name, tags.get(result.verdict)
        is_failure = tag == "failure"
        attributes = {"type": result.verdict.lower()} if is_failure else {}
        attributes["message"] = f"{result.verdict}: {result.reason}"
        text = str(outcome.worst[name]) if is_failure and name in outcome.worst else None
        cases.append((name, tag, attributes, text))
    return cases


def _junit(cases: Sequence[Case]) -> str:
    tags = [tag for _, tag, _, _ in cases]
    counted = {"failures": "failure", "errors": "error", "skipped": "skipped"}
    counts = {name: str(tags.count(tag)) for name, tag in counted.items()}
    head = {"name": "vidcfg.regress", "tests": str(len(cases)), **counts}
    suite = ElementTree.Element("testsuite", head)
    for name, tag, attributes, text in cases:
        named = {"classname": "vidcfg.regress", "name": _xml_text(name)}
        case = ElementTree.SubElement(suite, "testcase", named)
        if tag is not None:
            attributes = {key: _xml_text(value) for key, value in attributes.items()}
            ElementTree.SubElement(case, tag, attributes).text = text and _xml_text(text)
    ElementTree.indent(suite)
    text = ElementTree.tostring(suite, encoding="unicode")
    return f'<?xml version="1.0" encoding="utf-8"?>\n{text}\n'


def _xml_text(text: str) -> str:
    """Text without the control characters that XML cannot hold."""
    return "".join(
        c if c in "\n\t" or c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text
    )


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
    parts = {"commit": commit, "vidcfg": version}
    return ", ".join(f"{name} {value}" for name, value in parts.items() if value)


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
