"""Results from disk: a sweep's store, or what `vidcfg evaluate` wrote."""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vidcfg.report.remote import is_url, local_copy

PLAN_KIND = "vidcfg.sweep/1"
VIDEO_SUFFIXES = (".mp4", ".mkv", ".webm", ".mov", ".gif", ".avi")

Row = Mapping[str, Any]
"""A record as `vidcfg.evaluate.run.row` writes it: plain types, one metric of one video."""


class ResultsError(ValueError):
    """Results that cannot be read; the message names the file and what to do."""


@dataclass(frozen=True, eq=False)
class Cell:
    """One combination of settings. `settings` holds what the grid varied, by dotted path.

    `surface` is a `Surface.to_dict()`, `guidance` the resolved section; None where unknown.
    """

    id: str
    label: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    surface: Mapping[str, Any] | None = None
    guidance: Mapping[str, Any] | None = None
    evaluations: int | None = None


@dataclass(frozen=True, eq=False)
class UnitResult:
    """One finished video. `rows` are its records by metric name, `record` is its render record.

    `prompt` and `seed` are None where the files do not tell.
    """

    key: str
    cell: str
    prompt: str | None
    seed: int | None
    rows: Mapping[str, Row]
    folder: Path
    video: Path | None
    record: Mapping[str, Any]


@dataclass(frozen=True)
class Failure:
    """A unit without a video. `kind` is error, oom, lost, timeout, model or, for a video that
    cannot be scored, read."""

    key: str
    cell: str
    prompt: str | None
    seed: int | None
    kind: str
    message: str
    attempts: int | None = None
    log: str | None = None


@dataclass(frozen=True, eq=False)
class Results:
    """Everything that a result set holds. `kind` is `sweep` or `evaluation`.

    `missing` are keys of planned units that are neither done nor failed; `problems` says in
    sentences which files were left aside. `baseline` is the id of the cell to compare with.
    """

    kind: str
    name: str
    cells: tuple[Cell, ...]
    prompts: tuple[str, ...]
    units: tuple[UnitResult, ...]
    failed: tuple[Failure, ...]
    set_rows: Mapping[str, list[Row]]
    plan: Mapping[str, Any] | None = None
    summary: Mapping[str, Any] | None = None
    root: Path = Path()
    missing: tuple[str, ...] = ()
    jobs: tuple[Mapping[str, Any], ...] = ()
    problems: tuple[str, ...] = ()

    @property
    def baseline(self) -> str | None:
        named = (self.plan or {}).get("baseline")
        return named if named is not None else (self.cells[0].id if self.cells else None)


def read_results(path: str | Path) -> Results:
    """The results in a sweep's store, in a folder of renders with `records.jsonl`, or in an
    output folder of `vidcfg evaluate`. A place such as `s3://bucket/store` is copied first.

    A unit of a store counts if its `DONE` file fits the files beside it; other units are missing,
    and `problems` names those that are damaged.

    Raises:
        ResultsError: the path does not exist, holds no results, or a file of it is damaged.
    """
    root = Path(_copied(path) if is_url(path) else path)
    if not root.exists():
        raise ResultsError(f"{root} does not exist. Name the store of a sweep.")
    if root.is_file() and root.name in ("plan.json", "records.jsonl"):
        root = root.parent
    if (root / "plan.json").is_file():
        return _read_store(root)
    if (root / "records.jsonl").is_file():
        return _read_evaluation(root)
    raise ResultsError(
        f"{root} holds neither plan.json (a sweep's store) nor records.jsonl. "
        f"Score its videos first: vidcfg evaluate {root} --out {root}"
    )


def _copied(url: str | Path) -> Path:
    try:
        return local_copy(str(url))
    except (OSError, ValueError) as error:
        raise ResultsError(f"{url} cannot be read: {error}") from error


def read_json(path: Path) -> Any:
    """A JSON file without NaN and infinities.

    Raises:
        ResultsError: it cannot be read, or is damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_constant)
    except (OSError, ValueError) as error:
        raise ResultsError(f"{path} cannot be read: {error}. {_FIX}") from error


_FIX = "Remove it and run the command that wrote it again."


def _no_constant(text: str) -> None:
    raise ValueError(f"{text} is no JSON number")


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a `records.jsonl`.

    Raises:
        ResultsError: naming the line that is damaged, or that is no record.
    """
    rows = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise ResultsError(f"{path} cannot be read: {error}. {_FIX}") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line, parse_constant=_no_constant)
            name, value = row["name"], row["value"]
            if not isinstance(name, str) or not _is_number_or_none(value):
                raise ValueError(f"value {value!r} of {name!r} is no number")
        except (ValueError, KeyError, TypeError) as error:
            raise ResultsError(f"{path}:{number}: no record ({error}). {_FIX}") from error
        rows.append(row)
    return rows


def _is_number_or_none(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value is None or (is_number and math.isfinite(value))


def _read_store(root: Path) -> Results:
    plan = read_json(root / "plan.json")
    if not isinstance(plan, dict) or plan.get("kind") != PLAN_KIND:
        kind = plan.get("kind") if isinstance(plan, dict) else type(plan).__name__
        raise ResultsError(
            f"{root / 'plan.json'} is of kind {kind!r}, this version reads {PLAN_KIND!r}."
        )
    try:
        cells = tuple(_cell(entry) for entry in plan["cells"])
        prompts = tuple(_prompt_text(prompt) for prompt in plan["prompts"])
        places = {u["key"]: (u["cell"], prompts[u["prompt"]], u["seed"]) for u in plan["units"]}
    except (KeyError, IndexError, TypeError) as error:
        raise ResultsError(f"{root / 'plan.json'} lacks {error}. Plan the sweep anew.") from error
    problems: list[str] = []
    units, missing = [], []
    failed = {f.key: f for f in _failures(root, places)}
    for key, place in places.items():
        unit = _unit(root, key, place, problems)
        if unit is not None:
            units.append(unit)
            failed.pop(key, None)
        elif key not in failed:
            missing.append(key)
    set_rows = {}
    for cell in cells:
        path = root / "cells" / cell.id / "records.jsonl"
        set_rows[cell.id] = read_rows(path) if path.is_file() else []
    summary = root / "summary.json"
    return Results(
        kind="sweep",
        name=str(plan.get("name") or root.name),
        cells=cells,
        prompts=prompts,
        units=tuple(units),
        failed=tuple(failed.values()),
        set_rows=set_rows,
        plan=plan,
        summary=read_json(summary) if summary.is_file() else None,
        root=root,
        missing=tuple(missing),
        jobs=tuple(read_json(path) for path in sorted((root / "jobs").glob("*.json"))),
        problems=tuple(problems),
    )


def _cell(entry: Mapping[str, Any]) -> Cell:
    return Cell(
        id=entry["id"],
        label=str(entry.get("label") or entry["id"]),
        settings=dict(entry.get("settings") or {}),
        surface=entry.get("surface"),
        guidance=entry.get("guidance"),
        evaluations=entry.get("evaluations"),
    )


def _prompt_text(prompt: Any) -> str:
    return str(prompt["text"] if isinstance(prompt, dict) else prompt)


def _failures(root: Path, places: Mapping[str, tuple]) -> Iterable[Failure]:
    for path in sorted((root / "failed").glob("*.json")):
        entry = read_json(path)
        key = str(entry.get("key", path.stem))
        if key not in places:
            continue
        cell, prompt, seed = places[key]
        yield Failure(
            key,
            cell,
            prompt,
            seed,
            kind=str(entry.get("kind", "error")),
            message=str(entry.get("message", "")),
            attempts=entry.get("attempts"),
            log=entry.get("log"),
        )


def _unit(root: Path, key: str, place: tuple, problems: list[str]) -> UnitResult | None:
    folder = root / "units" / key[:2] / key
    if not (folder / "DONE").is_file():
        return None
    fault = _damage(folder)
    if fault:
        problems.append(f"{folder} is left aside: {fault}. Run the sweep again to repair it.")
        return None
    cell, prompt, seed = place
    return UnitResult(
        key,
        cell,
        prompt,
        seed,
        rows=_by_name(read_rows(folder / "records.jsonl")),
        folder=folder,
        video=_video_in(folder),
        record=read_json(folder / "record.json") if (folder / "record.json").is_file() else {},
    )


def _damage(folder: Path) -> str:
    """What is wrong with a finished unit: sizes of all files, contents of the small ones."""
    try:
        listed = json.loads((folder / "DONE").read_text(encoding="utf-8"))
        for name, facts in listed.items():
            path = folder / name
            if not path.is_file():
                return f"{name} is missing"
            if path.stat().st_size != facts["size"]:
                return f"{name} has another size than DONE says"
            if path.suffix in (".json", ".jsonl"):
                digest = hashlib.sha256(path.read_bytes()).hexdigest()
                if digest != facts.get("sha256", digest):
                    return f"{name} has another content than DONE says"
        return "" if (folder / "records.jsonl").is_file() else "records.jsonl is missing"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"DONE cannot be read ({error})"


def _by_name(rows: Iterable[dict[str, Any]]) -> dict[str, Row]:
    return {row["name"]: row for row in rows}


def _video_in(folder: Path) -> Path | None:
    found = [p for p in sorted(folder.glob("video.*")) if p.suffix.lower() in VIDEO_SUFFIXES]
    return found[0] if found else None


def _read_evaluation(root: Path) -> Results:
    by_subject: dict[str, list[dict[str, Any]]] = {}
    set_rows = []
    for row in read_rows(root / "records.jsonl"):
        if row.get("path") is None:
            set_rows.append(row)
        else:
            by_subject.setdefault(str(row.get("subject")), []).append(row)
    units, failed, cells = [], [], {}
    for subject, rows in by_subject.items():
        path = _video_path(root, subject, rows[0]["path"])
        record = _record_beside(path)
        cell = _cell_of_render(subject, record)
        cells.setdefault(cell.id, cell)
        prompt, seed = rows[0].get("prompt"), rows[0].get("seed")
        broken = [row for row in rows if row.get("status") == "failed"]
        if broken:
            reason = str(broken[0].get("skipped_reason"))
            failed.append(Failure(subject, cell.id, prompt, seed, "read", reason))
            continue
        folder = path.parent if path is not None else root
        by_name = _by_name(rows)
        units.append(UnitResult(subject, cell.id, prompt, seed, by_name, folder, path, record))
    if not by_subject:
        raise ResultsError(f"{root / 'records.jsonl'} has no video. Evaluate a folder of videos.")
    only = next(iter(cells)) if len(cells) == 1 else None
    return Results(
        kind="evaluation",
        name=root.resolve().name,
        cells=tuple(cells.values()),
        prompts=tuple(dict.fromkeys(u.prompt for u in units if u.prompt is not None)),
        units=tuple(units),
        failed=tuple(failed),
        set_rows={only: set_rows} if only is not None else {},
        root=root,
    )


def _video_path(root: Path, subject: str, written: str) -> Path | None:
    """The video where it was scored or, if the folder was moved, under the results."""
    for path in (Path(written), root / subject):
        if path.exists():
            return path
    return None


def _record_beside(path: Path | None) -> dict[str, Any]:
    beside = path.with_suffix(".json") if path is not None else None
    if beside is None or not beside.is_file():
        return {}
    record = read_json(beside)
    return record if isinstance(record, dict) else {}


def _cell_of_render(subject: str, record: Mapping[str, Any]) -> Cell:
    """Videos of one folder and one render configuration form a cell."""
    folder = Path(subject).parent
    parts = [] if folder.is_absolute() else [p for p in folder.parts if p not in (".", "..")]
    named = "/".join([*parts, *([str(record["name"])] if record.get("name") else [])])
    return Cell(
        id=named or "all",
        label=named or "all",
        surface=record.get("surface"),
        guidance=(record.get("settings") or {}).get("guidance"),
    )
