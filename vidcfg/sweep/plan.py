"""What a sweep will do: its units, the jobs that make them, and their model evaluations."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from vidcfg.evaluate.inputs import real_items
from vidcfg.evaluate.settings import WEIGHT_FREE, Settings
from vidcfg.files import digest, remembered_sha256
from vidcfg.guidance.plan import RunPlan, SampleRows, plan_run
from vidcfg.guidance.setting import Guidance
from vidcfg.metrics.metric import foreign_metrics
from vidcfg.metrics.weight_files import find_weights
from vidcfg.render.checks import check_before_loading
from vidcfg.render.config import Prompt, RenderConfig
from vidcfg.render.forecast import forecast_of
from vidcfg.render.identity import (
    Sources,
    canonical,
    cell_digest,
    prompt_sources,
    sources_of,
    surface_of,
    unit_key,
)
from vidcfg.settings.document import ConfigDocument, validate
from vidcfg.stored.read import ResultsError
from vidcfg.stored.shapes import PLAN_KIND, SweepUnit
from vidcfg.sweep.cells import Cell, anchored, baseline_of, cells_of, row_of, runs_of
from vidcfg.sweep.config import SweepConfig
from vidcfg.sweep.jobs import Job, Units, best_cut

SELF_CHECK = "self-check"
"""Cells of this name (with a number) are no part of the grid."""


@dataclass(frozen=True, eq=False)
class Plan:
    """The units of a sweep in order, its cells, and what is known of their cost.

    `check_cells` are two cells whose videos must be equal, bit for bit; `check_pairs` the keys of
    these videos. Where the grid has no such cells they are `hidden`: made, but no part of it.
    `sources` are those of cells by their ids, of prompts by their numbers, and of what measures
    (`weights`), as far as they were known when it was planned.
    """

    sweep: SweepConfig
    cells: tuple[Cell, ...]
    hidden: tuple[Cell, ...]
    baseline: str
    units: tuple[SweepUnit, ...]
    check_pairs: tuple[tuple[str, str], ...]
    check_cells: tuple[str, str]
    sources: Mapping[str, Sources]
    # Plans that were asked for and their totals, by the kinds of their units.
    _plans: dict[tuple, tuple[RunPlan | None, int]] = field(init=False, default_factory=dict)

    @cached_property
    def by_key(self) -> dict[str, SweepUnit]:
        return {unit.key: unit for unit in self.units}

    @property
    def keys(self) -> list[str]:
        return [unit.key for unit in self.units]

    @cached_property
    def grid_units(self) -> tuple[SweepUnit, ...]:
        """The units of the grid, without those of hidden cells."""
        hidden = {cell.id for cell in self.hidden}
        return tuple(unit for unit in self.units if unit.cell not in hidden)

    @cached_property
    def cell_of(self) -> dict[str, Cell]:
        return {cell.id: cell for cell in (*self.cells, *self.hidden)}

    @property
    def prompts(self) -> tuple[Prompt, ...]:
        return self.cells[0].config.prompts

    @property
    def metrics(self) -> tuple[str, ...]:
        """Families of metrics: as written, else all that need no weights."""
        if self.sweep.metrics is not None:
            return self.sweep.metrics
        is_mini = self.cells[0].config.model.kind == "mini"
        return (*WEIGHT_FREE, "mini") if is_mini else WEIGHT_FREE

    def settings(self, **how: Any) -> Settings:
        """What is measured, as `vidcfg.evaluate` takes it."""
        sweep = self.sweep
        return Settings(self.metrics, reference=sweep.reference, paths=sweep.weights, **how)

    def sources_of(self, unit: SweepUnit) -> Sources | None:
        """What a unit is made of; None where the plan does not tell."""
        of_cell = self.sources.get(unit.cell)
        return of_cell and {**of_cell, **self.sources.get(f"prompt {unit.prompt}", {})}

    def config_of(self, unit: SweepUnit) -> RenderConfig:
        """The render of one unit: one prompt, one seed."""
        config = self.cell_of[unit.cell].config
        own = {"prompts": (config.prompts[unit.prompt],), "seeds": (unit.seed,)}
        return config.model_copy(update=own)

    # What units cost

    @cached_property
    def _kinds(self) -> dict[str, tuple]:
        """Units of one kind cost the same: of a cell, and which of their texts are equal."""
        texts = [(p.negative == p.text, not p.negative) for p in self.prompts]
        return {unit.key: (unit.cell, *texts[unit.prompt]) for unit in self.units}

    @cached_property
    def _rows(self) -> dict[tuple, tuple[SampleRows, dict[str, Any]] | None]:
        """Each kind in a plan of evaluations, by `row_of`."""
        units = {self._kinds[unit.key]: unit for unit in self.units}
        return {kind: row_of(self.config_of(unit)) for kind, unit in units.items()}

    def evaluations(self, keys: Units) -> RunPlan | None:
        """The model evaluations of units of one prompt and seed that are made together; None
        where the model must tell."""
        return self._planned(keys)[0]

    def cost(self, keys: Units) -> int:
        """Their model evaluations; the number of units where these are not known."""
        return self._planned(keys)[1]

    def _planned(self, keys: Units) -> tuple[RunPlan | None, int]:
        kinds = tuple(self._kinds[key] for key in keys)
        if kinds not in self._plans:
            rows, plan = [self._rows[kind] for kind in kinds], None
            if None not in rows:
                # One start for all: units that are made together are of one seed.
                samples, texts = zip(*rows)
                config = self.config_of(self.by_key[keys[0]])
                how = {"texts": texts, "share": config.guidance.share}
                calls = forecast_of(config).facts.calls
                plan = plan_run(SampleRows.joined(samples), evaluations_per_step=calls, **how)
            self._plans[kinds] = plan, len(keys) if plan is None else plan.total
        return self._plans[kinds]

    @cached_property
    def alone(self) -> dict[str, int | None]:
        """The model evaluations of a video of each cell; None where the model must tell."""
        first = {unit.cell: unit.key for unit in reversed(self.units)}
        plans = {cell: self.evaluations((key,)) for cell, key in first.items()}
        return {cell: plan and plan.total for cell, plan in plans.items()}

    @cached_property
    def counts(self) -> dict[str, int | None]:
        """Evaluations of the grid: two per step, each unit alone, and whole groups shared."""
        keys = [unit.key for unit in self.grid_units]
        alone = [self.evaluations((key,)) for key in keys]
        if None in alone:
            return {"naive": None, "separate": None, "shared": None}
        return {
            "naive": sum(plan.naive for plan in alone),
            "separate": sum(self.cost((key,)) for key in keys),
            "shared": sum(self.cost(group) for group in self.groups(keys)),
        }

    # Units that are made together

    def groups(self, keys: list[str]) -> list[Units]:
        """Units that can be made together, in the order in which their settings part."""
        groups: dict[tuple, list[str]] = {}
        for key in keys:
            unit = self.by_key[key]
            # Units that share an evaluation are equal by themselves: one of them is made alone.
            is_alone = key == self.check_pairs[0][1]
            run = (is_alone, self._runs[unit.cell], unit.prompt, unit.seed)
            groups.setdefault(run, []).append(key)
        paths, kinds = self._paths, self._kinds
        return [
            tuple(sorted(group, key=lambda key: (*paths[kinds[key]], key)))
            for group in groups.values()
        ]

    @cached_property
    def _runs(self) -> dict[str, str]:
        """The run that each cell can be a part of; hidden cells are made by themselves."""
        return runs_of(self.cells) | {cell.id: cell.id for cell in self.hidden}

    @cached_property
    def _paths(self) -> dict[tuple, tuple]:
        """Strengths step by step: in this order, neighbours have the longest common past."""
        return {
            kind: (str(row[0].rules[0].method), *row[0].strength_BKF[0].flat) if row else kind[:1]
            for kind, row in self._rows.items()
        }

    def jobs(
        self, keys: list[str], *, num_workers: int | None = None, batch: int | None = None
    ) -> list[Job]:
        """The jobs that make these units, by `best_cut`, as the sweep or other workers would."""
        workers = self.sweep.workers
        models = {id: canonical(cell.config.model.to_dict()) for id, cell in self.cell_of.items()}
        pieces = best_cut(
            self.groups(keys),
            self.cost,
            num_workers=num_workers or workers.num or 1,
            most=batch or workers.batch,
            model=lambda piece: models[self.by_key[piece[0]].cell],
        )
        return [job_of(piece) for piece in pieces]

    def to_dict(self) -> dict[str, Any]:
        """`plan.json`: what workers, reports and a later run of the same sweep read."""
        grid = {unit.key for unit in self.grid_units}
        return {
            "kind": PLAN_KIND,
            "name": self.sweep.name,
            "baseline": self.baseline,
            "self_check": None if self.hidden else list(self.check_cells),
            "cells": [self._cell_dict(cell) for cell in self.cells],
            "prompts": [anchored(prompt.to_dict(), "image") for prompt in self.prompts],
            "seeds": list(self.cells[0].config.seeds),
            "units": [vars(unit) for unit in self.grid_units],
            "check": {
                "cells": [self._cell_dict(cell) for cell in self.hidden],
                "units": [vars(unit) for unit in self.units if unit.key not in grid],
                "pairs": [list(pair) for pair in self.check_pairs],
            },
            "metrics": list(self.metrics),
            "planned": self.counts,
            "sources": self.sources,
            "config": self.sweep.to_dict(),
        }

    def _cell_dict(self, cell: Cell) -> dict[str, Any]:
        render = cell.config.to_dict()
        own = {name: value for name, value in render.items() if name not in ("prompts", "seeds")}
        return {
            "id": cell.id,
            "label": cell.label,
            "settings": cell.settings,
            "guidance": render["guidance"],
            "surface": surface_of(cell.config),
            "evaluations": self.alone.get(cell.id),
            "render": own | {"model": anchored(own["model"], "checkpoint")},
        }


def job_of(units: Units, *, level: int = 0) -> Job:
    """The job that makes these units: equal units, equal name."""
    return Job(digest("".join(units))[:16], units, level)


def read_plan(made: dict[str, Any]) -> Plan:
    """The plan of a `plan.json`, as workers and tools need it.

    Raises:
        ConfigError: if its settings are none of this version.
        ResultsError: if it lacks what workers need.
    """
    needed = ["prompts", "seeds", "cells", "units", "check", "config", "baseline", "self_check"]
    lacks = [name for name in needed if name not in made]
    for number, entry in enumerate([] if lacks else [*made["cells"], *made["check"]["cells"]]):
        given = [name for name in ("label", "settings", "render") if entry.get(name) is None]
        lacks += [f"cells.{number}.{name}" for name in given]
    if lacks:
        raise ResultsError(f"plan.json lacks {', '.join(lacks)}. Plan the sweep anew.")

    def checked(data: dict[str, Any], kind: Any) -> Any:
        return validate(ConfigDocument("plan.json", data, {}), kind)

    def cell(entry: dict[str, Any]) -> Cell:
        render = entry["render"] | {"prompts": made["prompts"], "seeds": made["seeds"]}
        own = (entry[name] for name in ("id", "label", "settings"))
        return Cell(*own, checked(render, RenderConfig))

    check = made["check"]
    hidden = tuple(map(cell, check["cells"]))
    units = (*made["units"], *check["units"])
    return Plan(
        sweep=checked(made["config"], SweepConfig),
        cells=tuple(map(cell, made["cells"])),
        hidden=hidden,
        baseline=made["baseline"],
        units=tuple(SweepUnit(u["key"], u["cell"], u["prompt"], u["seed"]) for u in units),
        check_pairs=tuple(map(tuple, check["pairs"])),
        check_cells=tuple(made["self_check"] or (one.id for one in hidden)),
        sources=made.get("sources", {}),
    )


def make_plan(sweep: SweepConfig, document: ConfigDocument) -> Plan:
    """The plan of a sweep, which a document holds.

    Raises:
        ConfigError: if a cell is wrong.
        ValueError: if settings do not fit the model, as far as its files tell, or two cells or
            prompts would give the same videos.
    """
    cells = cells_of(sweep, document)
    for cell in cells:
        try:
            check_before_loading(cell.config)
        except ValueError as error:
            raise ValueError(f"cell {cell.label}: {error}") from None
    plan = plan_of(sweep, cells)
    _check_metrics(plan, document)
    nets = {name: remembered_sha256(path) for name, path in sweep.weights.items()}
    measures = {"weights": nets, "metrics": foreign_metrics(plan.metrics)}
    return replace(plan, sources={**plan.sources, **measures})


def plan_of(sweep: SweepConfig, cells: tuple[Cell, ...]) -> Plan:
    """The plan of cells that have been checked."""
    # A unit for each cell, prompt and seed; a cell of the self-check may be one of the grid
    checked, hidden = _check_cells(cells)
    known: dict[tuple, str | None] = {}
    texts = enumerate(cells[0].config.prompts)
    sources = {f"prompt {i}": prompt_sources(prompt, known) for i, prompt in texts}
    units: dict[str, SweepUnit] = {}
    at: dict[tuple, str] = {}
    for cell in (*cells, *hidden):
        config = cell.config
        sources[cell.id] = sources_of(config, known)
        common = cell_digest(config, sources[cell.id])
        most = 1 if cell in hidden else None
        for number, prompt in enumerate(config.prompts[:most]):
            for seed in config.seeds[:most]:
                key = unit_key(common, prompt, seed, known)
                at[cell.id, number, seed] = key
                unit = units.setdefault(key, SweepUnit(key, cell.id, number, seed))
                if most is None and (unit.cell, unit.prompt) != (cell.id, number):
                    other = next(one.label for one in cells if one.id == unit.cell)
                    twins = f"the cells '{other}' and '{cell.label}'"
                    if unit.cell == cell.id:
                        twins = f"prompts.{unit.prompt} and prompts.{number}"
                    raise ValueError(f"{twins} name files of equal content. Delete one of them.")

    # Which pairs of units the self-check compares
    first, second = checked
    pairs = tuple((key, at[second, *where]) for (cell, *where), key in at.items() if cell == first)
    baseline = baseline_of(sweep, cells)
    made = tuple(units.values())
    return Plan(sweep, cells, hidden, baseline, made, pairs, checked, sources)


def _check_metrics(plan: Plan, document: ConfigDocument) -> None:
    """Raise ConfigError for metrics, references and weights that there are not."""
    paths = plan.sweep.weights
    checks = {
        "weights": lambda: [find_weights(name, paths=paths) for name in paths],
        "metrics": plan.settings,
        "reference": lambda: real_items(plan.sweep.reference),
    }
    for name, check in checks.items():
        try:
            check()
        except ValueError as error:
            raise document.error((name,), f"{name}: {error}") from None


def _check_cells(cells: tuple[Cell, ...]) -> tuple[tuple[str, str], tuple[Cell, ...]]:
    """Two cells with guidance off that differ in frame weights, from the grid or made for it."""
    # Cells that are off, and equal but for their frame weights
    off: dict[str, list[Cell]] = {}
    for cell in cells:
        guidance = cell.config.guidance
        if guidance.is_off and guidance.kind == "cfg":
            rest = cell.config.to_dict()
            rest["guidance"].pop("frames")
            off.setdefault(canonical(rest), []).append(cell)
    for same in off.values():
        modes = [cell.config.guidance.frames for cell in same]
        if len({frames.kind for frames in modes}) > 1:
            second = next(c for c, frames in zip(same, modes) if frames != modes[0])
            return (same[0].id, second.id), ()

    # None in the grid: two that are made for it; one frame has no weights to differ in
    config = cells[0].config
    is_image, level = config.video.num_frames == 1, {"kind": "linear", "start": 1.0, "end": 1.0}
    uneven = {"scale": level} if is_image else {"frames": {"kind": "decay", "end": 0.0}}
    kept = {name: getattr(config.guidance, name) for name in ("passes", "micro_batch", "share")}
    made = []
    for number, own in enumerate(({}, uneven), start=1):
        guidance = Guidance(**{"scale": 1.0, **kept, **own})
        name = f"{SELF_CHECK}-{number}"
        made.append(Cell(name, name, {}, config.model_copy(update={"guidance": guidance})))
    return (made[0].id, made[1].id), tuple(made)
