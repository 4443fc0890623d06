"""Records to files and to the terminal."""

import json
from collections import defaultdict
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from vidcfg.evaluate.run import Evaluation
from vidcfg.files import atomic_path, write_text
from vidcfg.metrics.metric import GROUPS, group_of
from vidcfg.metrics.record import Record
from vidcfg.progress import folded
from vidcfg.report.table import base_name

COLUMNS = (
    ("int64", "schema"),
    ("string", "subject path prompt"),
    ("int64", "seed"),
    ("string", "unit_key name"),
    ("double", "value"),
    ("int64", "n"),
    ("double", "low high"),
    ("string", "unit better status skipped_reason protocol backend backend_sha256"),
    ("bool", "comparable_to_literature"),
    ("int64", "num_frames height width"),
    ("double", "fps"),
    ("bool", "lossless"),
    ("string", "codec"),
    ("doubles", "trace"),
    ("string", "extra"),
)
"""Type and names of the columns of records.parquet, in their order."""


SEEN_FIRST = ("mc_flicker", "judder", "dynamic_degree", "align", "clip_score", "clipped_share")
"""Metrics that stand first in their groups, and alone in rows of videos."""

STANDS_OUT = 1.5
"""A clip stands out if it is so many times as bad as the median clip."""


def write_outputs(folder: Path, evaluation: Evaluation) -> list[Path]:
    """`records.jsonl`, `records.parquet`, `features.npz`: each whole or not at all.

    Existing files of these names are replaced. Without pyarrow there is no Parquet.
    """
    lines = [json.dumps(row, allow_nan=False) + "\n" for row in evaluation.rows]
    written = [write_text(folder / "records.jsonl", "".join(lines))]
    try:
        written.append(_write_parquet(folder / "records.parquet", evaluation.rows))
    except ModuleNotFoundError:
        # Files of an earlier run would tell of other videos.
        (folder / "records.parquet").unlink(missing_ok=True)
    # Features [N, D] by net, beside the names of their N videos.
    arrays = {}
    for net, by_name in evaluation.features.items():
        if names := sorted(by_name):
            arrays[f"{net}/names"] = np.array(names)
            arrays[f"{net}/features"] = np.stack([by_name[name] for name in names])
    if not arrays:
        (folder / "features.npz").unlink(missing_ok=True)
        return written
    written.append(folder / "features.npz")
    with atomic_path(written[-1], overwrite=True) as path:
        np.savez(path, **arrays)
    return written


def _write_parquet(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    """One row a record, without nesting."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = {kind: pa.type_for_alias(kind) for kind, _ in COLUMNS if kind != "doubles"}
    kinds["doubles"] = pa.list_(pa.float64())
    schema = pa.schema([(name, kinds[kind]) for kind, names in COLUMNS for name in names.split()])
    flat = pa.Table.from_pylist([_flat(row) for row in rows], schema=schema)
    with atomic_path(path, overwrite=True) as unfinished:
        pq.write_table(flat, unfinished)
    return path


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    low, high = row["interval"] or (None, None)
    backend = row["backend"] or {}
    named = {"backend": backend.get("name"), "backend_sha256": backend.get("sha256")}
    extra = json.dumps(row["extra"], sort_keys=True)
    return row | (row["clip"] or {}) | named | {"low": low, "high": high, "extra": extra}


def table(evaluation: Evaluation, sets: Sequence[str], *, is_brief: bool, fit: int | None) -> str:
    """The records of sets as lines of text by group, then what was not measured, and why.

    If `is_brief`, of metrics that were measured only those of SEEN_FIRST, if there are any. Rows
    that are wider than `fit` take several lines each.
    """
    # What was measured: a line a metric and protocol, a column a set.
    found: dict[tuple[str, str], dict[str, Record]] = defaultdict(dict)
    missing: dict[str, dict[str, None]] = defaultdict(dict)
    for name in sets:
        for record in evaluation.records(name):
            if record.value is None:
                missing[record.skipped_reason][record.name] = None
            else:
                found[record.name, record.protocol][name] = record
    brief = [key for key in found if base_name(key[0]) in SEEN_FIRST]
    shown = brief if is_brief and brief else found
    heads = ["value, 95 % interval"] if len(sets) == 1 else sets
    width = max([30, *(len(_value(r)) for key in shown for r in found[key].values())])
    columns = [f"  {name[-30:]:{width}}" for name in heads]
    rows = [[" " * 30, *columns, f"  {'unit':10}", f" {'better':7}", f"{'n':>5}", "  note"]]
    ordered = sorted(shown, key=lambda key: (_shown_order(key[0]), key))
    for group, keys in groupby(ordered, key=lambda key: group_of(key[0])):
        rows.append([group])
        rows += [_row(key[0], [found[key].get(name) for name in sets], width) for key in keys]
    lines = folded(rows, fit)
    # What was not.
    for reason, names in missing.items():
        lines += ["", f"not measured: {', '.join(names)}", f"  {reason}"]
    if failures := evaluation.failures:
        lines += ["", f"not scored: {len(failures)}"]
        lines += [f"  {r.subject}: {r.skipped_reason}" for r in failures]
    # What is not one shot.
    cuts = {r["subject"]: r["extra"]["cuts"] for r in evaluation.rows if "cuts" in r["extra"]}
    if cuts:
        lines += ["", f"cut: {len(cuts)}, whose flicker and motion are those of their shots"]
        lines += [f"  {name}: at frame {', '.join(map(str, at))}" for name, at in cuts.items()]
    # What to be careful with.
    marked = [r for r in evaluation.of_videos if (r["clip"] or {}).get("lossless") is False]
    if lossy := {row["subject"] for row in marked}:
        text = f"{len(lossy)} files are lossy: flicker below their codec's noise is hidden."
        lines += ["", text]
    lines += [f"warning: {text}" for text in evaluation.warnings]
    return "\n".join(line.rstrip() for line in [*lines, "", *outstanding(evaluation)])


def _shown_order(name: str) -> tuple[int, int, str]:
    base = base_name(name)
    rank = SEEN_FIRST.index(base) if base in SEEN_FIRST else len(SEEN_FIRST)
    return GROUPS.index(group_of(name)), rank, name


def _row(name: str, records: Sequence[Record | None], width: int) -> list[str]:
    shown = [f"  {_value(record):{width}}" for record in records]
    first = next(record for record in records if record)
    better = {"none": "-"}.get(first.better, first.better)
    notes = list(dict.fromkeys(_note(record) for record in records if record))
    count = "/".join(dict.fromkeys(str(record.n) for record in records if record))
    facts = f"  {first.unit:10}", f" {better:7}", f"{count:>5}"
    return [f"  {name:28}", *shown, *facts, f"  {' | '.join(filter(None, notes))}"]


def _value(record: Record | None) -> str:
    if record is None:
        return "-"
    low, high = record.interval or (None, None)
    interval = "" if low is None else f" ({low:.4g} to {high:.4g})"
    return f"{record.value:.4g}{interval}"


def per_video(evaluation: Evaluation, fit: int | None) -> str:
    """A line a video: its facts and the first metrics of the groups; several if it is wider than
    `fit`."""
    # Values by video; columns are what any of them has.
    values: dict[str, dict[str, Any]] = {}
    clips: dict[str, dict[str, Any]] = {}
    for row in evaluation.of_videos:
        values.setdefault(row["subject"], {})[row["name"]] = row["value"]
        clips.setdefault(row["subject"], {}).update(row["clip"] or {})
    names = {name for found in values.values() for name in found if name != "read"}
    first = sorted(names, key=_shown_order)
    names = [name for name in first if base_name(name) in SEEN_FIRST] or first[:4]
    # As wide as they have to be.
    width = max(map(len, values), default=0)
    facts = f"  {'frames':>6} {'size':>10}"
    rows = [[f"{'video':{width}}", facts, *(f"  {name:>14}" for name in names)]]
    for subject, found in values.items():
        clip = clips[subject]
        size = f"{clip['width']}x{clip['height']}" if clip else "-"
        cells = [found.get(name) for name in names]
        shown = [f"  {'-' if value is None else f'{value:.4g}':>14}" for value in cells]
        facts = f"  {clip.get('num_frames', '-'):>6} {size:>10}"
        rows.append([f"{subject:{width}}", facts, *shown])
    return "\n".join(folded(rows, fit))


def outstanding(evaluation: Evaluation) -> list[str]:
    """A line that says which clips are worst in flicker (or what else was measured first) and
    where; none if no metric of single videos has a direction."""
    rows = [row for row in evaluation.of_videos if row["value"] is not None]
    names = {row["name"] for row in rows if row["better"] != "none"}
    if not names:
        return []
    name = min(names, key=_shown_order)
    rows = [row for row in rows if row["name"] == name]
    is_up = rows[0]["better"] == "higher"
    rows.sort(key=lambda row: (row["value"] if is_up else -row["value"], row["subject"]))
    # How far the worst stands from the middle, in a unit with a true zero.
    middle = float(np.median([row["value"] for row in rows]))
    far = [r for r in rows if not is_up and middle > 0 and r["value"] >= STANDS_OUT * middle]
    worst = "; ".join(_worst(row, middle if far else 0.0) for row in (far or rows)[:3])
    still = sum(row["status"] == "static" for row in rows)
    more = f" {still} clips are still, which is no merit." if still else ""
    if far:
        return [f"Stands out in {name}: {worst}.{more}"]
    if len(rows) == 1:
        return [f"{name}: {worst}.{more}"]
    return [f"No clip stands out in {name}; the worst are {worst}.{more}"]


def _worst(row: dict[str, Any], middle: float) -> str:
    """`clip_3.mkv 0.041 (2.3 times the median), most in frame 4, rows 16-24, columns 40-48`."""
    times = f" ({row['value'] / middle:.2g} times the median)" if middle else ""
    place = row["extra"].get("worst") or {}
    where = ""
    if place:
        top, left, bottom, right = place["block"]
        where = f", most in frame {place['frame']}, rows {top}-{bottom}, columns {left}-{right}"
    return f"{row['subject']} {row['value']:.4g}{times}{where}"


def _note(record: Record) -> str:
    extra, parts = record.extra, []
    if "real_against_real" in extra:
        parts.append(f"real against real {extra['real_against_real']:.4g}")
    counts = ("static", "invalid", "skipped", "failed")
    parts += [f"{extra[key]} {key}" for key in counts if extra.get(key)]
    if "coverage" in extra:
        parts.append(f"coverage {extra['coverage']:.2f}")
    return "; ".join(parts + ([extra["note"]] if "note" in extra else []))
