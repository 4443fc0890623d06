"""What commands leave on disk, as it may be trusted: names that become paths, shapes of files.

Stores, records and baselines may be made by strangers. Nothing of them is used unchecked: each
name passes `inside`, each file one of the shapes below.
"""

import io
import json
import os
import zlib
from collections.abc import Iterator
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, Required
from zipfile import BadZipFile

import numpy as np
from pydantic import AfterValidator, Field, StringConstraints, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from vidcfg.metrics.record import ClipInfo, Record

PLAN_KIND = "vidcfg.sweep/1"
BASELINE_KIND = "vidcfg.regress/1"

AGAIN = "Remove it and run the command that wrote it again."

UNIT_KEY = r"^[0-9a-f]{64}$"
CELL_ID = r"^[a-z0-9.-]*[a-z0-9][a-z0-9.-]*$"
FILE_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
"""The grammar of names that become paths; none of them can be `..` or hold a separator."""

LARGEST = 1e15
"""No number of ours is larger, but for seeds."""


class ResultsError(ValueError):
    """Results that cannot be read or compared; the message names the place and what to do."""


def inside(folder: str | Path, name: str) -> Path:
    """`folder / name`, for a name that a store, a record or a baseline gives.

    Raises:
        ResultsError: if it would leave the folder: it is absolute, has a part `..`, or a link on
            the way leads out.
    """
    path, parts = Path(folder, name), PurePosixPath(name)
    is_plain = name.strip("./") and not parts.is_absolute() and ".." not in parts.parts
    if not is_plain or "\0" in name or not leads_into(folder, path):
        raise ResultsError(f"{folder} names {name!r}, which leads out of it. It is not read.")
    return path


def leads_into(folder: str | Path, path: str | Path) -> bool:
    """Whether a path, with all links followed, lies in a folder."""
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))


# Shapes. Keys that they do not name may hold anything, and nothing reads them.

UnitKey = Annotated[str, StringConstraints(pattern=UNIT_KEY)]
CellId = Annotated[str, StringConstraints(pattern=CELL_ID, max_length=120)]
FileName = Annotated[str, StringConstraints(pattern=FILE_NAME, max_length=120)]
Count = Annotated[int, Field(ge=0, le=1 << 50)]
Seed = Annotated[int, Field(ge=0, lt=1 << 64)]
Amount = Annotated[float, Field(ge=0)]


class PlannedUnit(TypedDict):
    key: UnitKey
    cell: CellId
    prompt: Count
    seed: Seed


def _even(table: list[list[float]]) -> list[list[float]]:
    if len(set(map(len, table))) > 1:
        raise ValueError("its rows have several lengths")
    return table


class StoredSurface(TypedDict, total=False):
    """`Surface.to_dict()`; of it reports read the strengths, evaluations the numbers of frames."""

    num_frames: Count
    num_latent_frames: Count
    strength: Annotated[list[list[float]], AfterValidator(_even)]


class PlannedCell(TypedDict, total=False):
    id: Required[CellId]
    label: str | None
    settings: dict[str, Any] | None
    surface: StoredSurface | None
    guidance: dict[str, Any] | None
    evaluations: Count | None
    render: dict[str, Any]


class PlannedPrompt(TypedDict, total=False):
    text: Required[str]


class PlannedCheck(TypedDict):
    cells: list[PlannedCell]
    units: list[PlannedUnit]
    pairs: list[Annotated[list[UnitKey], Field(min_length=2, max_length=2)]]


class PlanData(TypedDict, total=False):
    kind: Required[Literal["vidcfg.sweep/1"]]
    name: str | None
    baseline: CellId | None
    self_check: Annotated[list[CellId], Field(min_length=2, max_length=2)] | None
    cells: Required[Annotated[list[PlannedCell], Field(min_length=1)]]
    prompts: Required[list[str | PlannedPrompt]]
    seeds: list[Seed]
    units: Required[list[PlannedUnit]]
    check: PlannedCheck
    metrics: list[str]
    planned: dict[str, Count | None]
    config: dict[str, Any]


def _consistent(plan: dict[str, Any]) -> dict[str, Any]:
    check = plan.get("check") or {"cells": [], "units": []}
    ids = [cell["id"] for cell in [*plan["cells"], *check["cells"]]]
    if len(set(ids)) < len(ids):
        raise ValueError("two cells have one id")
    if plan.get("baseline") not in {None, *ids}:
        raise ValueError(f"the baseline {plan['baseline']} is none of its cells")
    units = [*plan["units"], *check["units"]]
    if len({unit["key"] for unit in units}) < len(units):
        raise ValueError("two units have one key")
    for unit in units:
        if unit["cell"] not in ids or unit["prompt"] >= len(plan["prompts"]):
            raise ValueError(f"the unit {unit['key'][:12]} is of a cell or prompt that it lacks")
    return plan


PlanFile = Annotated[PlanData, AfterValidator(_consistent)]


class JobFile(TypedDict, total=False):
    units: Required[Annotated[list[str], Field(min_length=1)]]
    planned: Count
    executed: Required[Count]
    seconds: Required[Amount]


class FailureFile(TypedDict, total=False):
    key: UnitKey
    kind: str
    message: str
    attempts: Count | None
    log: str | None


class SelfCheck(TypedDict, total=False):
    cells: list[CellId] | None
    equal: Required[bool | None]
    pairs: Required[Count]
    unequal: list[list[str]]


class SummaryFile(TypedDict, total=False):
    wall_s: Amount | None
    workers: Count | None
    self_check: SelfCheck | None
    finished: bool


class StoredFile(TypedDict):
    size: Count
    sha256: str


DoneFile = dict[FileName, StoredFile]
"""What a finished unit is made of."""


class RenderModel(TypedDict, total=False):
    sha256: str | None


class RenderVideo(TypedDict, total=False):
    enlarge: Annotated[int, Field(ge=1, le=1024)]
    frames_sha256: str


class RenderSettings(TypedDict, total=False):
    guidance: dict[str, Any] | None


class RenderFile(TypedDict, total=False):
    """The record that a render leaves beside its video, or in a unit."""

    kind: Literal["vidcfg.render/1"]
    name: str | None
    model: RenderModel | None
    versions: dict[str, str | None] | None
    seconds: Amount
    video: RenderVideo
    settings: RenderSettings
    surface: StoredSurface | None
    config: dict[str, Any]


class RowPlace(TypedDict, total=False):
    """What a row of records says beside the record: whose it is."""

    path: str | None
    content: str | None
    prompt: str | None
    seed: int | None
    cell: str


class BaselineClip(TypedDict, total=False):
    cell: Required[str]
    prompt: Required[str]
    seed: Required[int]
    video: ClipInfo | None
    strip: FileName | None


class SavedNoise(TypedDict):
    sd: Amount
    n: Annotated[int, Field(ge=1, le=1 << 50)]


class MadeBy(TypedDict, total=False):
    commit: str | None
    versions: dict[str, str | None] | None


class BaselineFile(TypedDict, total=False):
    kind: Required[Literal["vidcfg.regress/1"]]
    made_by: MadeBy | None
    noise: dict[str, SavedNoise] | None
    clips: Required[list[BaselineClip]]


class KeptLine(TypedDict):
    """A line of `scored.jsonl`: features are a type and numbers by net."""

    schema: int
    key: str
    clip: ClipInfo
    problems: dict[str, str]
    features: dict[str, tuple[Literal["float16", "float32", "float64"], list[float]]]
    records: list[Record]


FILES: dict[str, Any] = {
    "plan.json": PlanFile,
    "summary.json": SummaryFile,
    "jobs/*.json": JobFile,
    "failed/*.json": FailureFile,
    "units/*/DONE": DoneFile,
    "units/*/record.json": RenderFile,
}
"""The shape of every JSON file of a store, by its name there."""


def shape_of(name: str) -> Any:
    """The shape of a file of a store."""
    return next((shape for form, shape in FILES.items() if fnmatchcase(name, form)), Any)


def parse(text: str | bytes, where: str | Path, shape: Any = Any, *, fix: str = AGAIN) -> Any:
    """The data of a JSON text of that shape.

    Raises:
        ResultsError: it is no JSON, holds a number that is not finite or above LARGEST, or has
            another shape; the message names the file and the first field that is wrong.
    """
    try:
        data = json.loads(text, parse_constant=_no_number, parse_float=_float, parse_int=_integer)
        # As JSON: there lists stand for tuples and mappings for dataclasses, strictly.
        _adapter(shape).validate_json(text, strict=True)
    except ValidationError as error:
        raise ResultsError(f"{where}: {_first_of(error)}. {fix}") from None
    except RecursionError:
        raise ResultsError(f"{where} is damaged: it is nested too deeply. {fix}") from None
    except ValueError as error:
        raise ResultsError(f"{where} is damaged: {error}. {fix}") from None
    return data


def text_of(path: Path, fix: str = AGAIN) -> str:
    """The text of a file.

    Raises:
        ResultsError: it cannot be read as UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise ResultsError(f"{path} cannot be read: {error}. {fix}") from error


def render_of(path: Path) -> dict[str, Any]:
    """The record of a render; nothing where the file beside a video is something else.

    Raises:
        ResultsError: it is a record, or might be one, and is damaged.
    """
    text = text_of(path)
    data = parse(text, path)
    if not isinstance(data, dict):
        return {}
    try:
        return parse(text, path, RenderFile)
    except ResultsError:
        if str(data.get("kind")).startswith("vidcfg."):
            raise
        return {}


@cache
def _adapter(shape: Any) -> TypeAdapter:
    return TypeAdapter(shape)


def _first_of(error: ValidationError) -> str:
    found = error.errors(include_url=False)[0]
    field = ".".join(map(str, found["loc"])) or "the whole"
    told = found["msg"].removeprefix("Value error, ").removeprefix("Input ").rstrip(".")
    if found["type"] == "value_error":
        return f"{field}: {told}"
    if found["type"] == "missing":
        return f"{field} is missing"
    return f"{field} is {json.dumps(found['input'], default=str)[:60]}: {told}"


def _no_number(text: str) -> None:
    raise ValueError(f"{text[:40]} is no number here, values have to be finite and below 1e15")


def _float(text: str) -> float:
    return value if abs(value := float(text)) <= LARGEST else _no_number(text)


def _integer(text: str) -> int:
    # Seeds have up to 64 bits; longer numbers are not even converted.
    return value if len(text) <= 20 and abs(value := int(text)) < 1 << 64 else _no_number(text)


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
            row = {**defaults, **parse(line, "the row", RowPlace, fix="")}
            yield Record.from_dict(row), row
        except ValidationError as error:
            why = _first_of(error)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            why = str(error).strip()
        else:
            continue
        raise ResultsError(f"{where}:{number}: no record ({why}), a damaged line. {fix}")


def arrays_of(data: bytes, where: str | Path) -> dict[str, np.ndarray]:
    """The vectors [D] of a `features.npz`, by the name of the net.

    Raises:
        ResultsError: it is damaged, or holds something else than finite numbers.
    """
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            found = {name: arrays[name] for name in arrays.files}
    except (
        OSError,
        ValueError,
        EOFError,
        KeyError,
        AttributeError,
        BadZipFile,
        zlib.error,
    ) as why:
        raise ResultsError(f"{where} is damaged: {why}. {AGAIN}") from None
    for name, vector in found.items():
        if vector.ndim != 1 or vector.dtype.kind != "f" or not np.isfinite(vector).all():
            raise ResultsError(f"{where}: {name} is no vector of finite numbers. {AGAIN}")
    return found
