"""The shapes of the files that commands leave, and the grammar of names that become paths.

Keys that a shape does not name may hold anything, and nothing reads them.
"""

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal, Required

from pydantic import AfterValidator, Field, StringConstraints
from typing_extensions import TypedDict

from vidcfg.metrics.record import LARGEST, ClipInfo, Record

PLAN_KIND = "vidcfg.sweep/1"
BASELINE_KIND = "vidcfg.regress/1"

UNIT_KEY = r"^[0-9a-f]{64}$"
CELL_ID = r"^[a-z0-9.-]*[a-z0-9][a-z0-9.-]*$"
FILE_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
"""The grammar of names that become paths; none of them can be `..` or hold a separator."""

UnitKey = Annotated[str, StringConstraints(pattern=UNIT_KEY)]
CellId = Annotated[str, StringConstraints(pattern=CELL_ID, max_length=120)]
FileName = Annotated[str, StringConstraints(pattern=FILE_NAME, max_length=120)]
Count = Annotated[int, Field(ge=0, le=1 << 50)]
Seed = Annotated[int, Field(ge=0, lt=1 << 64)]
Amount = Annotated[float, Field(ge=0, le=LARGEST)]


@dataclass(frozen=True)
class SweepUnit:
    """One video: a cell, a prompt by its number, and a seed."""

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
    units: list[SweepUnit]
    pairs: list[Annotated[list[UnitKey], Field(min_length=2, max_length=2)]]


class PlanData(TypedDict, total=False):
    kind: Required[Literal["vidcfg.sweep/1"]]
    name: str | None
    baseline: CellId | None
    self_check: Annotated[list[CellId], Field(min_length=2, max_length=2)] | None
    cells: Required[Annotated[list[PlannedCell], Field(min_length=1)]]
    prompts: Required[list[str | PlannedPrompt]]
    seeds: list[Seed]
    units: Required[list[SweepUnit]]
    check: PlannedCheck
    metrics: list[str]
    planned: dict[str, Count | None]
    sources: dict[str, dict[str, str | int | None]]
    config: dict[str, Any]


def _consistent(plan: dict[str, Any]) -> dict[str, Any]:
    check = plan.get("check") or {"cells": [], "units": []}
    ids = [cell["id"] for cell in [*plan["cells"], *check["cells"]]]
    if len(set(ids)) < len(ids):
        raise ValueError("two cells have one id")
    if plan.get("baseline") not in {None, *ids}:
        raise ValueError(f"the baseline {plan['baseline']} is none of its cells")
    units = [*plan["units"], *check["units"]]
    if len({unit.key for unit in units}) < len(units):
        raise ValueError("two units have one key")
    for unit in units:
        if unit.cell not in ids or unit.prompt >= len(plan["prompts"]):
            raise ValueError(f"the unit {unit.key[:12]} is of a cell or prompt that it lacks")
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
    kind: str | None
    pipeline: str | None
    checkpoint: str | None
    revision: str | None
    sha256: str | None


class RenderVideo(TypedDict, total=False):
    enlarge: Annotated[int, Field(ge=1, le=1024)]
    frames_sha256: str


class RenderPrompt(TypedDict, total=False):
    text: str


class RenderSettings(TypedDict, total=False):
    guidance: dict[str, Any] | None
    prompt: RenderPrompt | None


class RenderTrace(TypedDict, total=False):
    evaluations: dict[str, Count] | None


class RenderSources(TypedDict, total=False):
    numerics: int | str | None


class RenderFacts(TypedDict, total=False):
    """What reports read of the record of a unit's render."""

    name: str | None
    unit: str
    model: RenderModel | None
    versions: dict[str, str | None] | None
    sources: RenderSources | None
    seconds: Amount
    video: RenderVideo


class RenderFile(RenderFacts, total=False):
    """The record that a render leaves beside its video, or in a unit."""

    kind: Literal["vidcfg.render/1"]
    settings: RenderSettings
    surface: StoredSurface | None
    trace: RenderTrace | None
    seed: Seed
    files: dict[str, str] | None
    config: dict[str, Any]


class RowPlace(TypedDict, total=False):
    """What a row of records says beside the record: whose it is."""

    schema: int
    path: str | None
    content: str | None
    prompt: str | None
    seed: Annotated[int, Field(gt=-(1 << 64), lt=1 << 64)] | None
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
