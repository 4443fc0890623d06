"""Sets of measured clips: from a baseline, a store, an evaluation, or measured on the spot."""

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from vidcfg.metrics.record import Record

KIND = "vidcfg.regress/1"


class RegressError(ValueError):
    """Something that cannot be compared or read; the message says what to do."""


@dataclass(frozen=True, order=True)
class Key:
    """What pairs a clip with its counterpart. Without a seed, `prompt` may be a file's name."""

    cell: str
    prompt: str
    seed: int = -1

    def __str__(self) -> str:
        seed = f", seed {self.seed}" if self.seed >= 0 else ""
        return f"{self.cell + ': ' if self.cell else ''}'{self.prompt}'{seed}"


@dataclass(frozen=True, eq=False)
class Clip:
    """The records of one clip by metric, and its files: video, record, and strip of pictures."""

    key: Key
    records: Mapping[str, Record]
    video: Path | None = None
    record: Path | None = None
    strip: Path | None = None

    @property
    def info(self):
        """What is known about the video, None if no metric has it."""
        return next((r.clip for r in self.records.values() if r.clip is not None), None)


@dataclass(frozen=True, eq=False)
class ClipSet:
    """Clips by key, where they come from, and what the baseline file says beside them."""

    source: str
    clips: Mapping[Key, Clip]
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.clips)


def load_clips(
    path: str | Path, *, workers: int = 0, report: Callable[[int, int], None] = lambda a, b: None
) -> ClipSet:
    """The clips of a path: a baseline, a sweep store, an evaluated folder, or videos to measure.

    Raises:
        RegressError: the path does not exist, holds no clips, holds broken or doubled ones, or
            records that are not finite numbers.
    """
    path = Path(path)
    if not path.exists():
        raise RegressError(f"{path} does not exist. Name a folder of videos, a store, a baseline.")
    if (path / "baseline.json").is_file():
        return read_baseline(path)
    if (path / "plan.json").is_file() or (path / "records.jsonl").is_file():
        return read_store(path)
    from vidcfg.regress.measure import measure_folder

    return measure_folder(path, workers=workers, report=report)


def as_set(source: str, clips: Iterable[Clip], **facts: Any) -> ClipSet:
    """A set of clips with different keys.

    Raises:
        RegressError: if there are none, or two have the same key.
    """
    by_key: dict[Key, Clip] = {}
    for clip in clips:
        if clip.key in by_key:
            raise RegressError(
                f"{source}: two clips are {clip.key}. Each prompt and seed of a cell may be there "
                "once: remove one, or keep them in separate folders."
            )
        by_key[clip.key] = clip
    if not by_key:
        raise RegressError(f"{source}: there are no clips.")
    return ClipSet(source, dict(sorted(by_key.items())), facts)


def read_store(path: Path) -> ClipSet:
    """The clips of a sweep store or of an evaluation.

    Raises:
        RegressError: files are damaged, units have failed, records are missing.
    """
    from vidcfg.report.results import ResultsError, read_results

    try:
        results = read_results(path)
    except ResultsError as error:
        raise RegressError(str(error)) from error
    _check_complete(path, results)
    many = len({unit.cell for unit in results.units}) > 1
    clips = []
    for unit in results.units:
        cell = unit.cell if many else ""
        if results.kind == "evaluation":
            # The folder, as for videos that are measured on the spot.
            folder = Path(unit.key).parent
            cell = "" if folder.is_absolute() or folder == Path() else folder.as_posix()
            _check_fresh(unit.video, path / "records.jsonl")
        seed = -1 if unit.seed is None else unit.seed
        key = Key(cell, unit.prompt or Path(unit.key).stem, seed)
        records = _records(unit.rows.values(), where=f"{path}: {key}")
        clips.append(Clip(key, records, unit.video, _record_file(unit)))
    return as_set(str(path), clips, name=results.name)


def _check_complete(path: Path, results) -> None:
    """A unit that has failed, is damaged or not there is no evidence of quality."""
    if results.failed:
        named = "; ".join(f"{f.key}: {f.message}" for f in results.failed[:3])
        raise RegressError(f"{path}: {len(results.failed)} videos have failed ({named}).")
    if results.problems:
        raise RegressError(f"{path}: {results.problems[0]}")
    if results.missing:
        planned = len(results.missing) + len(results.units)
        raise RegressError(
            f"{path}: {len(results.missing)} of {planned} units are not rendered. "
            f"Finish the sweep first: vidcfg sweep resumes where it stopped."
        )


def _check_fresh(video: Path | None, records: Path) -> None:
    if video and video.is_file() and video.stat().st_mtime > records.stat().st_mtime + 1:
        raise RegressError(
            f"{video} is younger than {records}, which may be of another video. "
            f"Remove {records.name} to measure on the spot, or run vidcfg evaluate again."
        )


def _record_file(unit) -> Path | None:
    beside = [unit.video.with_suffix(".json")] if unit.video else []
    beside.append(Path(unit.folder) / "record.json")
    return next((path for path in beside if path.is_file()), None)


def _records(rows: Iterable[Mapping[str, Any]], *, where: str) -> dict[str, Record]:
    made = {}
    for row in rows:
        try:
            record = Record.from_dict(dict(row))
        except (TypeError, ValueError) as error:
            raise RegressError(f"{where}: a record cannot be used: {error}") from error
        if record.status == "failed":
            raise RegressError(f"{where}: {record.skipped_reason}")
        made[record.name] = record
    if not made:
        raise RegressError(f"{where}: there are no records.")
    return made


def write_baseline(
    folder: str | Path,
    clips: ClipSet,
    *,
    metrics: Sequence[str] | None = None,
    facts: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> Path:
    """`baseline.json` and `records.jsonl`; `metrics` limits what is kept. Strips stay as they are.

    Traces are rounded to five digits: they name frames, no verdict depends on them.

    Raises:
        RegressError: a baseline is there and may not be replaced.
    """
    folder = Path(folder)
    if (folder / "baseline.json").exists() and not overwrite:
        raise RegressError(f"{folder} holds a baseline. Use --overwrite to renew it.")
    folder.mkdir(parents=True, exist_ok=True)
    lines, listed = [], []
    for key, clip in clips.clips.items():
        place = {"cell": key.cell, "prompt": key.prompt, "seed": key.seed}
        strip = {"strip": clip.strip.name} if clip.strip else {}
        info = {"video": asdict(clip.info)} if clip.info else {}
        listed.append(place | info | strip)
        for name, record in clip.records.items():
            if metrics is None or name in metrics:
                lines.append(json.dumps(place | _brief(record), allow_nan=False))
    head = {"kind": KIND, **dict(facts or {}), "clips": listed}
    _write(folder / "records.jsonl", "\n".join(lines) + "\n")
    _write(folder / "baseline.json", json.dumps(head, indent=1, ensure_ascii=False) + "\n")
    return folder


def _brief(record: Record) -> dict[str, Any]:
    row = record.to_dict()
    if row["trace"] is not None:
        row["trace"] = [None if x is None else float(f"{x:.5g}") for x in row["trace"]]
    defaults = {"better": "none", "status": "ok", "unit": "", "comparable_to_literature": False}
    return {
        key: value
        for key, value in row.items()
        if key not in ("subject", "clip")
        and value is not None
        and value != {}
        and (key not in defaults or value != defaults[key])
    }


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(f".tmp-{os.getpid()}-{path.name}")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def read_baseline(folder: str | Path) -> ClipSet:
    """A baseline as `write_baseline` leaves it.

    Raises:
        RegressError: files are missing, damaged, or of another kind.
    """
    folder = Path(folder)
    head = _json(folder / "baseline.json")
    if not isinstance(head, dict) or head.get("kind") != KIND:
        raise RegressError(f"{folder}: baseline.json is not of the kind {KIND}. Record it anew.")
    rows: dict[Key, list[dict]] = {}
    path = folder / "records.jsonl"
    for number, line in enumerate(_text(path).splitlines(), 1):
        try:
            row = json.loads(line)
            key = Key(row.pop("cell"), row.pop("prompt"), row.pop("seed"))
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise RegressError(f"{path}:{number}: damaged line ({error}). Record anew.") from error
        rows.setdefault(key, []).append({"value": None, "n": 0, **row})
    clips = []
    for entry in head.get("clips") or []:
        try:
            key = Key(entry["cell"], entry["prompt"], entry["seed"])
        except (KeyError, TypeError) as error:
            raise RegressError(
                f"{folder}: damaged baseline.json ({error}). Record anew."
            ) from None
        if key not in rows:
            raise RegressError(f"{path} has no records of {key}. Record the baseline anew.")
        strip = folder / "videos" / entry["strip"] if entry.get("strip") else None
        found = [row | {"clip": entry.get("video")} for row in rows.pop(key)]
        records = _records(found, where=f"{path}: {key}")
        clips.append(Clip(key, records, strip=strip if strip and strip.is_file() else None))
    if rows:
        raise RegressError(f"{path} has records of {next(iter(rows))}, which baseline.json lacks.")
    return as_set(str(folder), clips, **{k: v for k, v in head.items() if k != "clips"})


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RegressError(f"{path} cannot be read: {error}. Record the baseline anew.") from error


def _json(path: Path) -> Any:
    try:
        return json.loads(_text(path))
    except ValueError as error:
        raise RegressError(f"{path} is damaged: {error}. Record the baseline anew.") from error
