"""Records to files and to the terminal."""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from vidcfg.evaluate.run import Evaluation
from vidcfg.files import atomic_path, write_text
from vidcfg.metrics.record import Record

COLUMNS = (
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


def write_outputs(folder: Path, evaluation: Evaluation) -> list[Path]:
    """`records.jsonl`, `records.parquet`, `table.txt`, `features.npz`: each whole or not at all.

    Existing files of these names are replaced.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    lines = [json.dumps(row, allow_nan=False) + "\n" for row in evaluation.rows]
    written = [write_text(folder / "records.jsonl", "".join(lines)), folder / "records.parquet"]
    # One row a record, without nesting.
    kinds = {kind: pa.type_for_alias(kind) for kind, _ in COLUMNS if kind != "doubles"}
    kinds["doubles"] = pa.list_(pa.float64())
    schema = pa.schema([(name, kinds[kind]) for kind, names in COLUMNS for name in names.split()])
    rows = pa.Table.from_pylist([_flat(row) for row in evaluation.rows], schema=schema)
    with atomic_path(written[-1], overwrite=True) as path:
        pq.write_table(rows, path)
    written.append(write_text(folder / "table.txt", table(evaluation) + "\n"))
    # Features [N, D] by net, beside the names of their N videos.
    arrays = {}
    for net, by_name in evaluation.features.items():
        if names := sorted(by_name):
            arrays[f"{net}/names"] = np.array(names)
            arrays[f"{net}/features"] = np.stack([by_name[name] for name in names])
    if arrays:
        written.append(folder / "features.npz")
        with atomic_path(written[-1], overwrite=True) as path:
            np.savez(path, **arrays)
    return written


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    low, high = row["interval"] or (None, None)
    backend = row["backend"] or {}
    named = {"backend": backend.get("name"), "backend_sha256": backend.get("sha256")}
    extra = json.dumps(row["extra"], sort_keys=True)
    return row | (row["clip"] or {}) | named | {"low": low, "high": high, "extra": extra}


def table(evaluation: Evaluation) -> str:
    """The set's records as lines of text, then what could not be measured, and why."""
    # What was measured.
    lines = [f"{'metric':32}{'value':>12}  {'95 % interval':24}{'n':>6}  note"]
    missing: dict[str, list[str]] = defaultdict(list)
    for record in evaluation.records():
        if record.value is None:
            missing[record.skipped_reason].append(record.name)
            continue
        interval = " .. ".join(f"{end:.5g}" for end in record.interval or ())
        value = f"{record.value:.5g}"
        lines.append(f"{record.name:32}{value:>12}  {interval:24}{record.n:>6}  {_note(record)}")
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
    lossy = {
        row["subject"]
        for row in evaluation.rows
        if row["path"] is not None and (row["clip"] or {}).get("lossless") is False
    }
    if lossy:
        text = f"{len(lossy)} files are lossy: flicker below their codec's noise is hidden."
        lines += ["", text]
    lines += [f"warning: {text}" for text in evaluation.warnings]
    return "\n".join(line.rstrip() for line in lines)


def _note(record: Record) -> str:
    extra, parts = record.extra, []
    if "real_against_real" in extra:
        parts.append(f"real against real {extra['real_against_real']:.4g}")
    counts = ("static", "invalid", "skipped", "failed")
    parts += [f"{extra[key]} {key}" for key in counts if extra.get(key)]
    if "coverage" in extra:
        parts.append(f"coverage {extra['coverage']:.2f}")
    return "; ".join(parts + ([extra["note"]] if "note" in extra else []))
