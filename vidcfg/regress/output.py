"""A verdict as text, JSON and JUnit XML."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from vidcfg.regress.blame import Worst
from vidcfg.regress.check import Outcome
from vidcfg.regress.gate import FAIL, INCONCLUSIVE, SKIPPED, MetricResult, plain

ERROR = "ERROR"


def table(outcome: Outcome) -> str:
    """All metrics, worst first, then what is behind those that do not pass."""
    judgement, paired = outcome.judgement, outcome.paired
    prompts = len({key.prompt for key in paired.keys})
    lines = [
        f"{judgement.verdict}: {outcome.new.source} against {outcome.base.source}, "
        f"{len(paired.keys)} clips of {prompts} prompts"
    ]
    for name, keys in (("missing", paired.missing), ("extra", paired.extra)):
        if keys:
            lines.append(f"left out, {name}: " + "; ".join(str(key) for key in keys))
    lines += ["", f"{'verdict':13}{'metric':20}{'change':>9}  {'90 % interval':20}"]
    lines[-1] += f"{'margin':>9}{'p (Holm)':>10}{'detectable':>12}{'needs':>8}"
    lines += [_line(result) for result in judgement.metrics]
    for result in judgement.metrics:
        if result.verdict in (FAIL, INCONCLUSIVE):
            lines += ["", f"{result.verdict} {result.name}: {result.reason}"]
            worst = outcome.worst.get(result.name)
            if worst is not None:
                lines.append("  " + worst_words(result, worst))
    return "\n".join(line.rstrip() for line in lines)


def _line(result: MetricResult) -> str:
    if result.change is None:
        return f"{result.verdict:13}{result.name:20}{'-':>9}  {result.reason}"
    interval = f"{result.amount(result.low)} .. {result.amount(result.high)}"
    margin, detectable = (
        "-" if v is None else f"{v:.1%}" if result.is_ratio else f"{v:.3g}"
        for v in (result.margin, result.detectable)
    )
    needs = f"{result.needed_clips}" if result.needed_clips else "-"
    return (
        f"{result.verdict:13}{result.name:20}{result.amount(result.change):>9}  {interval:20}"
        f"{margin:>9}{result.p_adjusted:>10.3g}{detectable:>12}{needs:>8}"
    )


def worst_words(result: MetricResult, worst: Worst) -> str:
    """`worst in 'a red circle', seed 0: 0.0051 -> 0.0103, frames 5-6`."""
    values = []
    for clip in (worst.base, worst.new):
        record = clip.records.get(result.name)
        missing = record is None or record.value is None
        values.append("not measurable" if missing else f"{record.value:.4g}")
    where = f", {worst.where}" if worst.where else ""
    return f"worst in {worst.key}: {values[0]} -> {values[1]}{where}"


def result_dict(outcome: Outcome, commands: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Everything as plain data."""
    judgement = outcome.judgement
    metrics = []
    for result in judgement.metrics:
        row = {key: plain(value) for key, value in asdict(result).items() if key != "worse"}
        worst = outcome.worst.get(result.name)
        if worst is not None:
            row["worst"] = {
                "cell": worst.key.cell,
                "prompt": worst.key.prompt,
                "seed": worst.key.seed if worst.key.seed >= 0 else None,
                "frames": [list(span) for span in worst.frames],
                "video": str(worst.new.video) if worst.new.video else None,
                "command": (commands or {}).get(result.name),
            }
        metrics.append(row)
    return {
        "kind": "vidcfg.regress.result/1",
        "verdict": judgement.verdict,
        "exit_code": judgement.exit_code,
        "new": outcome.new.source,
        "baseline": outcome.base.source,
        "clips": len(outcome.paired.keys),
        "missing": [str(key) for key in outcome.paired.missing],
        "extra": [str(key) for key in outcome.paired.extra],
        "policy": outcome.policy.to_dict(),
        "metrics": metrics,
    }


def junit(outcome: Outcome, *, allow_inconclusive: bool = False) -> str:
    """One test case a metric. INCONCLUSIVE is a failure of that type, or skipped if allowed."""
    suite = ElementTree.Element("testsuite", name="vidcfg.regress")
    counts = {"tests": 0, "failures": 0, "errors": 0, "skipped": 0}
    for result in outcome.judgement.metrics:
        counts["tests"] += 1
        case = ElementTree.SubElement(
            suite, "testcase", classname="vidcfg.regress", name=result.name
        )
        text = f"{result.verdict}: {result.reason}"
        is_soft = result.verdict == INCONCLUSIVE and allow_inconclusive
        if result.verdict == SKIPPED or is_soft:
            counts["skipped"] += 1
            ElementTree.SubElement(case, "skipped", message=_xml_text(text))
        elif result.verdict in (FAIL, INCONCLUSIVE):
            counts["failures"] += 1
            kind = result.verdict.lower()
            failure = ElementTree.SubElement(case, "failure", type=kind, message=_xml_text(text))
            worst = outcome.worst.get(result.name)
            failure.text = _xml_text(worst_words(result, worst)) if worst else None
    suite.attrib.update({key: str(value) for key, value in counts.items()})
    return _xml(suite)


def error_junit(message: str) -> str:
    """One test case that could not be run."""
    counts = {"tests": "1", "failures": "0", "errors": "1", "skipped": "0"}
    suite = ElementTree.Element("testsuite", {"name": "vidcfg.regress", **counts})
    case = ElementTree.SubElement(suite, "testcase", classname="vidcfg.regress", name="compare")
    ElementTree.SubElement(case, "error", message=_xml_text(message))
    return _xml(suite)


def _xml(suite: ElementTree.Element) -> str:
    ElementTree.indent(suite)
    head = '<?xml version="1.0" encoding="utf-8"?>\n'
    return head + ElementTree.tostring(suite, encoding="unicode") + "\n"


def _xml_text(text: str) -> str:
    """Text without the control characters that XML cannot hold."""
    return "".join(
        c if c in "\n\t" or c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text
    )


def write_error(folder: Path, message: str) -> None:
    """result.json and junit.xml of a comparison that could not be made."""
    folder.mkdir(parents=True, exist_ok=True)
    facts = {"kind": "vidcfg.regress.result/1", "verdict": ERROR, "exit_code": 3}
    write_text(folder / "result.json", json.dumps({**facts, "message": message}, indent=1) + "\n")
    write_text(folder / "junit.xml", error_junit(message))
    (folder / "index.html").unlink(missing_ok=True)


def write_text(path: Path, text: str) -> Path:
    """The file whole or not at all; one of that name is replaced."""
    temporary = path.with_name(f".tmp-{os.getpid()}-{path.name}")
    try:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path
