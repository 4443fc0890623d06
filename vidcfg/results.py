"""The one reader of what commands leave on disk: sweep stores, evaluated folders, baselines."""

import hashlib
import json
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from vidcfg.media.pictures import VIDEO_SUFFIXES
from vidcfg.metrics.record import ClipInfo, Record

PLAN_KIND = "vidcfg.sweep/1"
BASELINE_KIND = "vidcfg.regress/1"

UNREAD = ("features.npz", "sheet.png")
UNREAD_FOLDERS = ("attempts", "logs", "report", "damaged")
"""What is not copied of a store that is no local folder."""

AGAIN = "Remove it and run the command that wrote it again."
ANEW = "Record the baseline anew."


class ResultsError(ValueError):
    """Results that cannot be read or compared; the message names the place and what to do."""


class Key(NamedTuple):
    """What pairs a clip with its counterpart. Without a seed, `prompt` may be a file's name."""

    cell: str
    prompt: str
    seed: int = -1

    def __str__(self) -> str:
        seed = f", seed {self.seed}" if self.seed >= 0 else ""
        return f"{self.cell + ': ' if self.cell else ''}'{self.prompt}'{seed}"


@dataclass(frozen=True, eq=False)
class CellResult:
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
    """One finished video: records by metric name, its render record and that one's file.

    `key` names the unit of a sweep or the scored file, `strip` is a baseline's picture of the
    frames. `prompt` and `seed` are None where the files do not tell.
    """

    key: str
    cell: str
    prompt: str | None
    seed: int | None
    records: dict[str, Record]
    video: Path | None = None
    render: Mapping[str, Any] = field(default_factory=dict)
    render_file: Path | None = None
    strip: Path | None = None


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
    """Everything that a result set holds. `kind` is `sweep`, `evaluation` or `baseline`.

    `of_cells` are records of whole cells, `plan` is a sweep's plan or what a baseline's file says.
    `missing` are keys of planned units that are neither done nor failed; `problems` says in
    sentences which files were left aside. `baseline` is the id of the cell to compare with.
    """

    kind: str
    name: str
    cells: tuple[CellResult, ...]
    prompts: tuple[str, ...]
    units: tuple[UnitResult, ...]
    failed: tuple[Failure, ...]
    of_cells: Mapping[str, list[Record]] = field(default_factory=dict)
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


def read_json(path: Path, *, fix: str = AGAIN) -> Any:
    """A JSON file without NaN and infinities.

    Raises:
        ResultsError: it cannot be read, or is damaged.
    """
    text = _text(path, fix)
    try:
        return json.loads(text, parse_constant=_no_constant)
    except ValueError as error:
        raise ResultsError(f"{path} is damaged: {error}. {fix}") from error


def records_of(
    text: str, where: str | Path, *, fix: str = AGAIN, **defaults: Any
) -> Iterator[tuple[Record, dict[str, Any]]]:
    """The records of the text of a `records.jsonl`, each with its whole row.

    `defaults` stand where a row leaves a key out.

    Raises:
        ResultsError: naming the line that is damaged, or that is no record.
    """
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = {**defaults, **json.loads(line, parse_constant=_no_constant)}
            name, value = row["name"], row["value"]
            if type(name) is not str or type(value) not in (int, float, type(None)):
                raise ValueError(f"value {value!r} of {name!r} is no number")
            record = Record.from_dict(row)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            told = f"{where}:{number}: no record ({error}), a damaged line. {fix}"
            raise ResultsError(told) from error
        yield record, row


def _read_records(path: Path) -> list[Record]:
    return [record for record, _ in records_of(_text(path, AGAIN), path)]


def _text(path: Path, fix: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise ResultsError(f"{path} cannot be read: {error}. {fix}") from error


def _no_constant(text: str) -> None:
    raise ValueError(f"{text} is no JSON number, values have to be finite")


def read_results(path: str | Path) -> Results:
    """The results in a sweep's store, in a folder of renders with `records.jsonl`, or in an
    output folder of `vidcfg evaluate`. A place such as `s3://bucket/store` is copied first.

    A unit of a store counts if its `DONE` file fits the files beside it; other units are missing,
    and `problems` names those that are damaged.

    Raises:
        ResultsError: the path does not exist, holds no results, or a file of it is damaged.
    """
    root = _copied(str(path)) if is_url(path) else Path(path)
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


def is_url(place: str | Path) -> bool:
    return "://" in str(place)


def _copied(url: str) -> Path:
    """A temporary folder with what is read of a store; a `file://` URL is not copied."""
    import fsspec

    try:
        system, root = fsspec.core.url_to_fs(url)
        if url.startswith("file://"):
            return Path(root)
        folder = Path(tempfile.mkdtemp(prefix="vidcfg-store-"))
        for name in system.find(root):
            inner = Path(name.removeprefix(root).lstrip("/"))
            if inner.name not in UNREAD and inner.parts[0] not in UNREAD_FOLDERS:
                (folder / inner).parent.mkdir(parents=True, exist_ok=True)
                system.get_file(name, str(folder / inner))
    except (ImportError, OSError, ValueError) as error:
        raise ResultsError(f"{url} cannot be read: {error}") from error
    return folder


def _read_store(root: Path) -> Results:
    # The plan says what there should be: cells, and the place of every unit.
    plan = read_json(root / "plan.json")
    kind = plan.get("kind") if isinstance(plan, dict) else type(plan).__name__
    if kind != PLAN_KIND:
        raise ResultsError(
            f"{root / 'plan.json'} is of kind {kind!r}, this version reads {PLAN_KIND!r}."
        )
    try:
        cells = tuple(_planned_cell(entry) for entry in plan["cells"])
        prompts = tuple(str(p["text"] if isinstance(p, dict) else p) for p in plan["prompts"])
        places = {u["key"]: (u["cell"], prompts[u["prompt"]], u["seed"]) for u in plan["units"]}
    except (KeyError, IndexError, TypeError) as error:
        raise ResultsError(f"{root / 'plan.json'} lacks {error}. Plan the sweep anew.") from error

    # A failure of a unit that was done later is forgotten.
    problems: list[str] = []
    found = {key: _unit(root, key, place, problems) for key, place in places.items()}
    failed = [f for f in _failures(root, places) if found[f.key] is None]
    explained = {failure.key for failure in failed}

    of_cells = {cell.id: root / "cells" / cell.id / "records.jsonl" for cell in cells}
    summary = root / "summary.json"
    return Results(
        kind="sweep",
        name=str(plan.get("name") or root.name),
        cells=cells,
        prompts=prompts,
        units=tuple(unit for unit in found.values() if unit is not None),
        failed=tuple(failed),
        of_cells={k: _read_records(p) if p.is_file() else [] for k, p in of_cells.items()},
        plan=plan,
        summary=read_json(summary) if summary.is_file() else None,
        root=root,
        missing=tuple(k for k, unit in found.items() if unit is None and k not in explained),
        jobs=tuple(read_json(path) for path in sorted((root / "jobs").glob("*.json"))),
        problems=tuple(problems),
    )


def _planned_cell(entry: Mapping[str, Any]) -> CellResult:
    return CellResult(
        entry["id"],
        str(entry.get("label") or entry["id"]),
        dict(entry.get("settings") or {}),
        *(entry.get(name) for name in ("surface", "guidance", "evaluations")),
    )


def _failures(root: Path, places: Mapping[str, tuple]) -> Iterator[Failure]:
    for path in sorted((root / "failed").glob("*.json")):
        entry = read_json(path)
        key = str(entry.get("key", path.stem))
        if key in places:
            told = str(entry.get("kind", "error")), str(entry.get("message", ""))
            yield Failure(key, *places[key], *told, entry.get("attempts"), entry.get("log"))


def _unit(root: Path, key: str, place: tuple, problems: list[str]) -> UnitResult | None:
    folder = root / "units" / key[:2] / key
    if not (folder / "DONE").is_file():
        return None
    fault = _damage(folder)
    if fault:
        problems.append(f"{folder} is left aside: {fault}. Run the sweep again to repair it.")
        return None
    records = {record.name: record for record in _read_records(folder / "records.jsonl")}
    videos = [p for p in sorted(folder.glob("video.*")) if p.suffix.lower() in VIDEO_SUFFIXES]
    file = folder / "record.json"
    render = {"render": read_json(file), "render_file": file} if file.is_file() else {}
    return UnitResult(key, *place, records, video=videos[0] if videos else None, **render)


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


def _read_evaluation(root: Path) -> Results:
    # Rows of a video have a path, rows of the set have none.
    path = root / "records.jsonl"
    of_set, by_subject = [], {}
    for record, row in records_of(_text(path, AGAIN), path):
        if row.get("path") is None:
            of_set.append(record)
        else:
            by_subject.setdefault(record.subject, (row, {}))[1][record.name] = record
    if not by_subject:
        raise ResultsError(f"{path} has no video. Evaluate a folder of videos.")
    units, failed, cells = [], [], {}
    for subject, (row, records) in by_subject.items():
        # The video lies where it was scored or, if the folder was moved, under the results.
        videos = [place for place in (Path(row["path"]), root / subject) if place.exists()]
        video = videos[0] if videos else None
        beside = [video.with_suffix(".json")] if video else []
        render = read_json(beside[0]) if beside and beside[0].is_file() else {}
        render = render if isinstance(render, dict) else {}
        cell = _cell_of_render(subject, render)
        cells.setdefault(cell.id, cell)
        place = (subject, cell.id, row.get("prompt"), row.get("seed"))
        broken = [record for record in records.values() if record.status == "failed"]
        if broken:
            failed.append(Failure(*place, "read", str(broken[0].skipped_reason)))
            continue
        beside.append((video.parent if video else root) / "record.json")
        file = next((path for path in beside if path.is_file()), None)
        units.append(UnitResult(*place, records, video, render, file))
    return Results(
        kind="evaluation",
        name=root.resolve().name,
        cells=tuple(cells.values()),
        prompts=tuple(dict.fromkeys(u.prompt for u in units if u.prompt is not None)),
        units=tuple(units),
        failed=tuple(failed),
        of_cells={next(iter(cells)): of_set} if len(cells) == 1 else {},
        root=root,
    )


def _cell_of_render(subject: str, render: Mapping[str, Any]) -> CellResult:
    """Videos of one folder and one render configuration form a cell."""
    folder = Path(subject).parent
    parts = [] if folder.is_absolute() else [p for p in folder.parts if p not in (".", "..")]
    named = "/".join([*parts, *([str(render["name"])] if render.get("name") else [])]) or "all"
    guidance = (render.get("settings") or {}).get("guidance")
    return CellResult(named, named, surface=render.get("surface"), guidance=guidance)


def read_baseline(folder: str | Path) -> Results:
    """A baseline as `vidcfg regress record` leaves it; its units have no video and no cells.

    Raises:
        ResultsError: files are missing, damaged, or of another kind.
    """
    folder = Path(folder)
    head = read_json(folder / "baseline.json", fix=ANEW)
    if not isinstance(head, dict) or head.get("kind") != BASELINE_KIND:
        raise ResultsError(
            f"{folder}: baseline.json is not of the kind {BASELINE_KIND}. Record it anew."
        )
    path = folder / "records.jsonl"
    rows: dict[Key, list[Record]] = {}
    units = []
    try:
        for record, row in records_of(_text(path, ANEW), path, fix=ANEW, value=None, n=0):
            rows.setdefault(_key_of(row), []).append(record)
        for entry in head.get("clips") or []:
            key = _key_of(entry)
            if key not in rows:
                raise ResultsError(f"{path} has no records of {key}. {ANEW}")
            # Facts of a video are written once, not in each of its records.
            info = ClipInfo(**entry["video"]) if entry.get("video") else None
            records = {record.name: replace(record, clip=info) for record in rows.pop(key)}
            strip = folder / "videos" / entry["strip"] if entry.get("strip") else None
            strip = strip if strip and strip.is_file() else None
            units.append(UnitResult(str(key), *key, records, strip=strip))
    except (KeyError, TypeError) as error:
        text = f"{folder}: damaged baseline.json or records.jsonl ({error}). {ANEW}"
        raise ResultsError(text) from None
    if rows:
        raise ResultsError(f"{path} has records of {next(iter(rows))}, which baseline.json lacks.")
    return Results("baseline", str(folder), (), (), tuple(units), (), plan=head, root=folder)


def _key_of(entry: Mapping[str, Any]) -> Key:
    return Key(entry["cell"], entry["prompt"], entry["seed"])
