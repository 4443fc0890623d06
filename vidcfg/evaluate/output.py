"""Records to files and to the terminal."""

import json
import os
import uuid
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from vidcfg.evaluate.run import Evaluation

FILES = ("records.jsonl", "records.parquet", "table.txt")


def write_outputs(folder: str | Path, evaluation: Evaluation) -> list[Path]:
    """`records.jsonl`, `records.parquet`, `table.txt`, `features.npz`: each whole or not at all.

    Existing files of these names are replaced.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps(row, allow_nan=False) + "\n" for row in evaluation.rows)
    written = [_write(folder / FILES[0], lambda path: path.write_text(lines, encoding="utf-8"))]
    written.append(_write(folder / FILES[1], lambda path: _parquet(path, evaluation.rows)))
    text = table(evaluation) + "\n"
    written.append(_write(folder / FILES[2], lambda path: path.write_text(text, encoding="utf-8")))
    if any(evaluation.features.values()):
        save = lambda path: _features(path, evaluation.features)  # noqa: E731
        written.append(_write(folder / "features.npz", save))
    return written


def _write(path: Path, write) -> Path:
    temporary = path.with_name(f".tmp-{uuid.uuid4().hex[:12]}{path.suffix}")
    try:
        write(temporary)
        os.replace(temporary, path)
    finally:
        with suppress(OSError):
            temporary.unlink()
    return path


def _parquet(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Flat columns: one row a record, backend and clip spread, `extra` as JSON."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema(
        [(name, pa.string()) for name in ("subject", "path", "prompt")]
        + [("seed", pa.int64()), ("unit_key", pa.string()), ("name", pa.string())]
        + [("value", pa.float64()), ("n", pa.int64()), ("low", pa.float64())]
        + [("high", pa.float64()), ("unit", pa.string()), ("better", pa.string())]
        + [("status", pa.string()), ("skipped_reason", pa.string()), ("protocol", pa.string())]
        + [("backend", pa.string()), ("backend_sha256", pa.string())]
        + [("comparable_to_literature", pa.bool_()), ("num_frames", pa.int64())]
        + [("height", pa.int64()), ("width", pa.int64()), ("fps", pa.float64())]
        + [("lossless", pa.bool_()), ("codec", pa.string())]
        + [("trace", pa.list_(pa.float64())), ("extra", pa.string())]
    )
    pq.write_table(pa.Table.from_pylist([flat(row) for row in rows], schema=schema), path)


def flat(row: dict[str, Any]) -> dict[str, Any]:
    """A row without nesting."""
    low, high = row["interval"] or (None, None)
    backend = row["backend"] or {}
    clip = row["clip"] or {}
    plain = {key: v for key, v in row.items() if key not in ("interval", "backend", "clip")}
    return plain | {
        "low": low,
        "high": high,
        "backend": backend.get("name"),
        "backend_sha256": backend.get("sha256"),
        "extra": json.dumps(row["extra"], sort_keys=True),
        **{key: clip.get(key) for key in ("num_frames", "height", "width", "fps")},
        **{key: clip.get(key) for key in ("lossless", "codec")},
    }


def _features(path: Path, features: dict) -> None:
    import numpy as np

    arrays = {}
    for net, by_name in features.items():
        names = sorted(by_name)
        if names:
            arrays[f"{net}/names"] = np.array(names)
            arrays[f"{net}/features"] = np.stack([by_name[name] for name in names])
    with open(path, "wb") as file:
        np.savez(file, **arrays)


def table(evaluation: Evaluation) -> str:
    """The set's records as lines of text, then what could not be measured, and why."""
    lines = [f"{'metric':32}{'value':>12}  {'95 % interval':24}{'n':>6}  note"]
    missing: dict[str, list[str]] = {}
    for record in evaluation.records():
        if record.value is None:
            missing.setdefault(record.skipped_reason, []).append(record.name)
            continue
        interval = ""
        if record.interval is not None:
            interval = f"{record.interval[0]:.5g} .. {record.interval[1]:.5g}"
        value = f"{record.value:.5g}"
        lines.append(f"{record.name:32}{value:>12}  {interval:24}{record.n:>6}  {_note(record)}")
    for reason, names in missing.items():
        lines += ["", f"not measured: {', '.join(names)}", f"  {reason}"]
    failures = evaluation.failures
    if failures:
        lines += ["", f"not scored: {len(failures)}"]
        lines += [f"  {r.subject}: {r.skipped_reason}" for r in failures]
    lossy = {row["subject"] for row in evaluation.rows if _is_lossy(row)}
    if lossy:
        lines += [
            "",
            f"{len(lossy)} files are lossy: flicker below their codec's noise is hidden.",
        ]
    lines += [f"warning: {text}" for text in evaluation.warnings]
    return "\n".join(line.rstrip() for line in lines)


def _is_lossy(row: dict[str, Any]) -> bool:
    return row["path"] is not None and (row["clip"] or {}).get("lossless") is False


def _note(record) -> str:
    parts = []
    if "real_against_real" in record.extra:
        parts.append(f"real against real {record.extra['real_against_real']:.4g}")
    parts += [
        f"{record.extra[key]} {key}"
        for key in ("static", "invalid", "skipped", "failed")
        if record.extra.get(key)
    ]
    if "coverage" in record.extra:
        parts.append(f"coverage {record.extra['coverage']:.2f}")
    if "note" in record.extra:
        parts.append(record.extra["note"])
    return "; ".join(parts)
