"""The one reader of what commands leave on disk: sweep stores, evaluated folders, baselines."""

import os
import weakref
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from vidcfg.dataframes import ResultFrames, frames_of, frames_of_renders
from vidcfg.files import is_content
from vidcfg.media.pictures import VIDEO_SUFFIXES
from vidcfg.metrics.record import ClipInfo, Record
from vidcfg.places import copy_here, is_url
from vidcfg.stored.read import (
    AGAIN,
    GoneError,
    Once,
    ResultsError,
    inside,
    leads_into,
    measures_of,
    parse,
    records_of,
    render_of,
    text_of,
)
from vidcfg.stored.shapes import BaselineFile, shape_of
from vidcfg.stored.unit import DONE, read_unit

ANEW = "Record the baseline anew."


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


def _read(root: Path, name: str, shape: Any = None, *, fix: str = AGAIN) -> Any:
    """A JSON file inside of `root`, of the shape that its name, or `shape`, says."""
    path = inside(root, name)
    return parse(text_of(path, fix), path, shape or shape_of(name), fix=fix)


def _each(root: Path, folder: str) -> Iterator[tuple[str, Any]]:
    """Name and data of each JSON file of a folder of a store, where a sweep may be at work: what
    is not whole yet, or goes meanwhile, is left out."""
    for path in sorted((root / folder).glob("[!.]*.json")):
        with suppress(GoneError):
            yield path.stem, _read(root, f"{folder}/{path.name}")


def read_results(path: str | Path, *, traces: bool = True) -> Results:
    """The results in a sweep's store, in a folder of renders with `records.jsonl`, or in an
    output folder of `vidcfg evaluate`. Of a place such as `s3://bucket/store` a copy is read,
    which is removed with the results.

    A unit of a store counts if its `DONE` file fits the files beside it; other units are missing,
    and `problems` names those that are damaged. Nothing outside the place is read, but for videos
    with the content that was scored. Without `traces`, records of a store have none.

    Raises:
        ResultsError: the path does not exist, holds no results, or a file of it is damaged, of
            another shape, or outside.
    """
    if not is_url(path):
        return _read_folder(Path(str(path).removeprefix("file://")), traces)
    with ExitStack() as stack:
        results = _read_folder(copy_here(str(path), stack), traces)
        weakref.finalize(results, stack.pop_all().close)
    return results


def load(path: str | Path) -> ResultFrames:
    """The pandas frames `units` and `records` of a sweep's store, a scored folder, renders, or a
    baseline.

    Raises:
        ResultsError: as `read_results`, or a folder without any record of a render.
        ModuleNotFoundError: without pandas, which nothing else needs.
    """
    root, known = Path(path), ("plan.json", "records.jsonl")
    if (root / "baseline.json").is_file():
        return frames_of(read_baseline(root))
    if root.is_dir() and not any((root / name).is_file() for name in known):
        return frames_of_renders(root)
    return frames_of(read_results(path, traces=False))


def _read_folder(root: Path, traces: bool) -> Results:
    if not root.exists():
        raise ResultsError(f"{root} does not exist. Name the store of a sweep.")
    if root.is_file() and root.name in ("plan.json", "records.jsonl"):
        root = root.parent
    if (root / "plan.json").is_file():
        return _read_store(root, traces)
    if (root / "records.jsonl").is_file():
        return _read_evaluation(root)
    raise ResultsError(
        f"{root} holds neither plan.json (a sweep's store) nor records.jsonl. "
        f"Score its videos first: vidcfg evaluate {root} --out {root}"
    )


def _read_store(root: Path, traces: bool) -> Results:
    # The plan says what there should be: cells, and the place of every unit.
    plan = _read(root, "plan.json")
    cells = tuple(_planned_cell(entry) for entry in plan["cells"])
    texts = [str(p["text"] if isinstance(p, dict) else p) for p in plan["prompts"]]
    doubled = {text for text, num in Counter(texts).items() if num > 1}
    named = zip(texts, plan["prompts"])
    prompts = tuple(_with_image(text, p) if text in doubled else text for text, p in named)
    places = {u["key"]: (u["cell"], prompts[u["prompt"]], u["seed"]) for u in plan["units"]}

    # A failure of a unit that was done later is forgotten.
    problems: list[str] = []
    once = Once(traces=traces)
    found = {key: _unit(root, key, place, problems, once) for key, place in places.items()}
    failed = [f for f in _failures(root, places) if found[f.key] is None]
    explained = {failure.key for failure in failed}

    of_cells = {}
    for cell in cells:
        path = inside(root, f"cells/{cell.id}/records.jsonl")
        of_cells[cell.id] = measures_of(text_of(path), path) if path.is_file() else []
    return Results(
        kind="sweep",
        name=str(plan.get("name") or root.name),
        cells=cells,
        prompts=prompts,
        units=tuple(unit for unit in found.values() if unit is not None),
        failed=tuple(failed),
        of_cells=of_cells,
        plan=plan,
        summary=_read(root, "summary.json") if (root / "summary.json").is_file() else None,
        root=root,
        missing=tuple(k for k, unit in found.items() if unit is None and k not in explained),
        jobs=tuple(job for _, job in _each(root, "jobs")),
        problems=tuple(problems),
    )


def _with_image(text: str, prompt: Any) -> str:
    """What a prompt is called whose text others have too: with the image that it starts from."""
    image = prompt.get("image") if isinstance(prompt, dict) else None
    return f"{text} ({Path(image).name})" if isinstance(image, str) else text


def _planned_cell(entry: Mapping[str, Any]) -> CellResult:
    return CellResult(
        entry["id"],
        str(entry.get("label") or entry["id"]),
        dict(entry.get("settings") or {}),
        *(entry.get(name) for name in ("surface", "guidance", "evaluations")),
    )


def _failures(root: Path, places: Mapping[str, tuple]) -> Iterator[Failure]:
    for name, entry in _each(root, "failed"):
        key = entry.get("key", name)
        if key in places:
            told = entry.get("kind", "error"), entry.get("message", "")
            yield Failure(key, *places[key], *told, entry.get("attempts"), entry.get("log"))


def _unit(
    root: Path, key: str, place: tuple, problems: list[str], once: Once
) -> UnitResult | None:
    folder = inside(root, f"units/{key[:2]}/{key}")
    if not (folder / DONE).is_file():
        return None
    try:
        found = read_unit(str(folder))
    except (OSError, ResultsError) as fault:
        told = str(fault).removesuffix(f" {AGAIN}").rstrip(".")
        problems.append(f"{folder} is left aside: {told}. Run the sweep again to repair it.")
        return None
    records = {r.name: once.slim(r) for r in found.records}
    videos = sorted(name for name in found.names if name.startswith("video."))
    shown = (folder / v for v in videos if Path(v).suffix.lower() in VIDEO_SUFFIXES)
    render = {name: once(value) for name, value in found.render.items()}
    return UnitResult(key, *place, records, next(shown, None), render, folder / "record.json")


def _read_evaluation(root: Path) -> Results:
    # Rows of a video have a path, rows of the set have none.
    path = inside(root, "records.jsonl")
    of_set, by_subject = [], {}
    for record, row in records_of(text_of(path, AGAIN), path):
        if row.get("path") is None:
            of_set.append(record)
        else:
            by_subject.setdefault(record.subject, (row, {}))[1][record.name] = record
    if not by_subject:
        raise ResultsError(f"{path} has no video. Evaluate a folder of videos.")
    units, failed, cells, problems = [], [], {}, []
    for subject, (row, records) in by_subject.items():
        video = _video_of(root, subject, row, problems)
        beside = _beside(video or root / "video")
        render = render_of(beside[0]) if beside[0] else {}
        cell = _cell_of_render(subject, render)
        cells.setdefault(cell.id, cell)
        place = (subject, cell.id, row.get("prompt"), row.get("seed"))
        if broken := [record for record in records.values() if record.status == "failed"]:
            failed.append(Failure(*place, "read", str(broken[0].skipped_reason)))
        else:
            units.append(UnitResult(*place, records, video, render, beside[0] or beside[1]))
    count = Counter((unit.cell, unit.prompt, unit.seed) for unit in units)
    doubled = {prompt for (_, prompt, _), num in count.items() if prompt and num > 1}
    for index, unit in enumerate(units):
        if unit.prompt in doubled:
            prompt = (unit.render.get("settings") or {}).get("prompt")
            units[index] = replace(unit, prompt=_with_image(unit.prompt, prompt))
    return Results(
        kind="evaluation",
        name=root.resolve().name,
        cells=tuple(cells.values()),
        prompts=tuple(dict.fromkeys(u.prompt for u in units if u.prompt is not None)),
        units=tuple(units),
        failed=tuple(failed),
        of_cells={next(iter(cells)): of_set} if len(cells) == 1 else {},
        root=root,
        problems=tuple(problems),
    )


def _video_of(
    root: Path, subject: str, row: Mapping[str, Any], problems: list[str]
) -> Path | None:
    """The video of a row: where it was scored or, if the folder was moved, under the results.

    Outside of the results' folder only a file with the very content that was scored counts: who
    wrote the row has it already.
    """
    for place in (row["path"], os.path.join(root, subject)):
        if "\0" in place or not os.path.exists(place):
            continue
        if leads_into(root, place) or (row.get("content") and is_content(place, row["content"])):
            return Path(place)
        if row.get("content"):
            problems.append(f"{place} is not read: it is not the video that {subject} was")
    return None


def _beside(video: Path) -> tuple[Path | None, Path | None]:
    """The record of a video's own name and `record.json`, where they are in its folder."""
    folder = os.path.realpath(video.parent)
    names = video.with_suffix(".json"), video.with_name("record.json")
    first, second = (p if p.is_file() and leads_into(folder, p) else None for p in names)
    return first, second


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
    head = _read(folder, "baseline.json", BaselineFile, fix=ANEW)
    path = inside(folder, "records.jsonl")
    rows: dict[Key, list[Record]] = {}
    units = []
    for record, row in records_of(text_of(path, ANEW), path, fix=ANEW, value=None, n=0):
        if not {"cell", "prompt", "seed"} <= row.keys():
            raise ResultsError(f"{path} has a row without cell, prompt or seed. {ANEW}")
        rows.setdefault(_key_of(row), []).append(record)
    for entry in head["clips"]:
        key = _key_of(entry)
        if key not in rows:
            raise ResultsError(f"{path} has no records of {key}. {ANEW}")
        # Facts of a video are written once, not in each of its records.
        info = ClipInfo.from_dict(entry["video"]) if entry.get("video") else None
        records = {record.name: replace(record, clip=info) for record in rows.pop(key)}
        strip = inside(folder, f"videos/{entry['strip']}") if entry.get("strip") else None
        strip = strip if strip and strip.is_file() else None
        units.append(UnitResult(str(key), *key, records, strip=strip))
    if rows:
        raise ResultsError(f"{path} has records of {next(iter(rows))}, which baseline.json lacks.")
    return Results("baseline", str(folder), (), (), tuple(units), (), plan=head, root=folder)


def _key_of(entry: Mapping[str, Any]) -> Key:
    return Key(entry["cell"], entry["prompt"], entry["seed"])
