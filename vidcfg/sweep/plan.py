"""What a sweep will do: units, the jobs that make them together, and the exact number of
model evaluations.

Units of one prompt and seed that differ in guidance alone start from the same noise and share
every evaluation until their settings part. A job is such a group, or a piece of one where
workers would stand idle.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from vidcfg.guidance.plan import RunPlan, RunRow, plan_run
from vidcfg.guidance.setting import Guidance
from vidcfg.render.config import Prompt, RenderConfig
from vidcfg.render.forecast import forecast_of
from vidcfg.settings.document import ConfigDocument
from vidcfg.sweep.cells import Cell, baseline_of, cells_of
from vidcfg.sweep.config import SweepConfig
from vidcfg.sweep.executor import Job
from vidcfg.sweep.identity import (
    anchored,
    canonical,
    cell_digest,
    digest,
    identity_of,
    row_of,
    run_of,
    surface_of,
    unit_key,
)

KIND = "vidcfg.sweep/1"
JOBS_PER_WORKER = 3
"""Groups are cut until there are so many jobs for each worker, or nothing is left to cut."""

SELF_CHECK = "self-check"
"""Cells of this name (with a number) are no part of the grid."""


@dataclass(frozen=True)
class SweepUnit:
    """One video: a cell, a prompt and a seed."""

    key: str
    cell: str
    prompt: int
    seed: int


@dataclass(frozen=True, eq=False)
class Plan:
    """The units of a sweep in order, its cells, and what is known of their cost.

    `check_cells` are two cells whose videos must be equal, bit for bit; `check_pairs` the keys of
    these videos. Where the grid has no such cells they are `hidden`: made, but no part of it.
    """

    sweep: SweepConfig
    cells: tuple[Cell, ...]
    hidden: tuple[Cell, ...]
    baseline: str
    units: tuple[SweepUnit, ...]
    check_pairs: tuple[tuple[str, str], ...]
    check_cells: tuple[str, str]

    @cached_property
    def by_key(self) -> dict[str, SweepUnit]:
        return {unit.key: unit for unit in self.units}

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

    def config_of(self, unit: SweepUnit) -> RenderConfig:
        """The render of one unit: one prompt, one seed."""
        config = self.cell_of[unit.cell].config
        return config.model_copy(
            update={"prompts": (config.prompts[unit.prompt],), "seeds": (unit.seed,)}
        )

    @cached_property
    def _rows(self) -> dict[str, RunRow | None]:
        """The row of each unit in a plan of evaluations; None where the model must tell."""
        made: dict[tuple[str, int], RunRow | None] = {}
        rows = {}
        for unit in self.units:
            known = (unit.cell, unit.prompt)
            if known not in made:
                made[known] = row_of(self.config_of(unit))
            row = made[known]
            rows[unit.key] = None if row is None else replace(row, start=unit.seed)
        return rows

    def evaluations(self, keys: tuple[str, ...]) -> RunPlan | None:
        """The model evaluations of units that are made together; None where not known yet."""
        units = [self.by_key[key] for key in keys]
        known = tuple((unit.cell, unit.prompt, unit.seed - units[0].seed) for unit in units)
        if known not in self._plans:
            rows = [self._rows[key] for key in keys]
            if None in rows or not rows:
                return None
            config = self.config_of(units[0])
            calls = forecast_of(config).facts.calls
            share = config.guidance.share
            self._plans[known] = plan_run(rows, share=share, evaluations_per_step=calls)
        return self._plans[known]

    @cached_property
    def _plans(self) -> dict[tuple, RunPlan]:
        """Plans that were asked for: the same units of another seed cost the same."""
        return {}

    def groups(self, keys: list[str]) -> list[tuple[str, ...]]:
        """Units that can be made together, in the order in which their settings part."""
        groups: dict[str, list[str]] = {}
        for key in keys:
            groups.setdefault(self._group_key(self.by_key[key]), []).append(key)
        return [tuple(sorted(group, key=self._path)) for group in groups.values()]

    def _group_key(self, unit: SweepUnit) -> str:
        # Units that share an evaluation are equal by themselves: one of them is made alone.
        is_alone = unit.key == self.check_pairs[0][1]
        return canonical([is_alone, self._cell_groups[unit.cell], unit.prompt, unit.seed])

    @cached_property
    def _cell_groups(self) -> dict[str, Any]:
        """What the cells of one run must have in common; hidden cells are made by themselves."""
        grid = {cell.id: run_of(cell) for cell in self.cells}
        return grid | {cell.id: cell.id for cell in self.hidden}

    def _path(self, key: str) -> tuple:
        row = self._rows[key]
        if row is None:
            return (self.by_key[key].cell,)
        return (str(row.method), *row.strength_KF.ravel().tolist(), key)

    def jobs(self, keys: list[str], *, num_workers: int) -> list[Job]:
        """The jobs that make these units, the costliest first.

        Groups are cut where they are larger than `workers.batch`, and the costliest are halved
        while there are fewer than three jobs for each worker: some evaluations are then made
        twice, and no worker waits for another.
        """
        pieces: list[tuple[str, ...]] = []
        size = self.sweep.workers.batch
        for group in self.groups(keys):
            count = -(-len(group) // size)
            pieces += [group[i * len(group) // count : (i + 1) * len(group) // count]
                       for i in range(count)]  # fmt: skip
        costs = {piece: self._cost(piece) for piece in pieces}
        wanted = JOBS_PER_WORKER * num_workers if num_workers > 1 else 1
        while len(costs) < wanted:
            piece = max(costs, key=lambda p: (len(p) > 1, costs[p]))
            if len(piece) == 1:
                break
            costs.pop(piece)
            middle = len(piece) // 2
            costs |= {half: self._cost(half) for half in (piece[:middle], piece[middle:])}
        order = sorted(costs, key=lambda p: (self._model(p), -costs[p], p))
        return [Job(id=digest("".join(piece))[:16], units=piece) for piece in order]

    def _model(self, keys: tuple[str, ...]) -> str:
        """Jobs of one model follow each other, so that workers seldom change it."""
        return canonical(self.cell_of[self.by_key[keys[0]].cell].config.model.to_dict())

    def _cost(self, keys: tuple[str, ...]) -> int:
        plan = self.evaluations(keys)
        return len(keys) if plan is None else plan.total

    @cached_property
    def counts(self) -> dict[str, int | None]:
        """Evaluations of the grid: two per step, each unit alone, and whole groups shared."""
        keys = [unit.key for unit in self.grid_units]
        alone = [self.evaluations((key,)) for key in keys]
        if None in alone:
            return {"naive": None, "separate": None, "shared": None}
        shared = [self.evaluations(group) for group in self.groups(keys)]
        return {
            "naive": sum(plan.naive for plan in alone),
            "separate": sum(plan.total for plan in alone),
            "shared": sum(plan.total for plan in shared),
        }

    def to_dict(self) -> dict[str, Any]:
        """`plan.json`: what workers, reports and a later run of the same sweep read."""
        hidden = {cell.id for cell in self.hidden}
        return {
            "kind": KIND,
            "name": self.sweep.name,
            "baseline": self.baseline,
            "self_check": None if self.hidden else list(self.check_cells),
            "cells": [self._cell_dict(cell) for cell in self.cells],
            "prompts": [anchored(prompt.to_dict(), "image") for prompt in self.prompts],
            "seeds": list(self.cells[0].config.seeds),
            "units": [vars(unit) for unit in self.units if unit.cell not in hidden],
            "check": {
                "cells": [self._cell_dict(cell) for cell in self.hidden],
                "units": [vars(unit) for unit in self.units if unit.cell in hidden],
                "pairs": [list(pair) for pair in self.check_pairs],
            },
            "metrics": list(metrics_of(self.sweep, self.cells[0].config)),
            "planned": self.counts,
            "config": self.sweep.to_dict(),
        }

    def _cell_dict(self, cell: Cell) -> dict[str, Any]:
        render = cell.config.to_dict()
        own = {name: value for name, value in render.items() if name not in ("prompts", "seeds")}
        unit = next((unit for unit in self.units if unit.cell == cell.id), None)
        plan = None if unit is None else self.evaluations((unit.key,))
        return {
            "id": cell.id,
            "label": cell.label,
            "settings": cell.settings,
            "guidance": render["guidance"],
            "surface": surface_of(cell.config),
            "evaluations": None if plan is None else plan.total,
            "render": own | {"model": anchored(own["model"], "checkpoint")},
        }


def make_plan(sweep: SweepConfig, *, document: ConfigDocument | None = None) -> Plan:
    """The plan of a sweep.

    Raises:
        ConfigError: if a cell is wrong.
        ValueError: if settings do not fit the model, as far as its files tell.
    """
    from vidcfg.render.checks import check_before_loading

    cells = cells_of(sweep, document=document)
    _check_metrics(sweep, cells[0].config, document)
    for cell in cells:
        try:
            check_before_loading(cell.config)
        except ValueError as error:
            raise ValueError(f"cell {cell.label}: {error}") from None
    checked, hidden = _check_cells(cells)
    models: dict[str, Any] = {}
    units: dict[str, SweepUnit] = {}
    at: dict[tuple, str] = {}
    for cell in (*cells, *hidden):
        config = cell.config
        identity = models.setdefault(canonical(config.model.to_dict()), identity_of(config))
        common = cell_digest(config, identity, surface_of(config))
        prompts = range(len(config.prompts)) if cell not in hidden else range(1)
        seeds = config.seeds if cell not in hidden else config.seeds[:1]
        for prompt in prompts:
            for seed in seeds:
                key = unit_key(common, config.prompts[prompt], seed)
                at[cell.id, prompt, seed] = key
                # A cell of the self-check may be one of the grid.
                units.setdefault(key, SweepUnit(key, cell.id, prompt, seed))
    first, second = checked
    pairs = tuple((key, at[second, *where]) for (cell, *where), key in at.items() if cell == first)
    return Plan(
        sweep, cells, hidden, baseline_of(sweep, cells), tuple(units.values()), pairs, checked
    )


def _check_metrics(
    sweep: SweepConfig, config: RenderConfig, document: ConfigDocument | None
) -> None:
    """Raise ConfigError for metrics and references that there are not."""
    from vidcfg.evaluate.settings import Settings

    document = document or ConfigDocument("sweep", {}, {})
    try:
        Settings(families=metrics_of(sweep, config))
    except ValueError as error:
        raise document.error("metrics", f"metrics: {error}") from None
    if sweep.reference not in (None, "mini") and not Path(sweep.reference).exists():
        message = f"reference is {sweep.reference}, which does not exist. Give a folder, or mini."
        raise document.error("reference", message)


def _check_cells(cells: tuple[Cell, ...]) -> tuple[tuple[str, str], tuple[Cell, ...]]:
    """Two cells with guidance off that differ in frame weights, from the grid or made for it."""
    off: dict[str, list[Cell]] = {}
    for cell in cells:
        guidance = cell.config.guidance
        if guidance.is_off and guidance.kind == "cfg":
            rest = cell.config.to_dict()
            rest["guidance"].pop("frames")
            off.setdefault(canonical(rest), []).append(cell)
    for same in off.values():
        if len({cell.config.guidance.frames.kind for cell in same}) > 1:
            second = next(
                c for c in same if c.config.guidance.frames != same[0].config.guidance.frames
            )
            return (same[0].id, second.id), ()
    made = []
    for number, frames in enumerate(("uniform", {"kind": "decay", "end": 0.0}), start=1):
        config = cells[0].config
        if config.video.num_frames == 1:
            half = {"kind": "knots", "points": [[0.0, 0.5], [1.0, 0.5]]}
            frames = "uniform" if number == 1 else half
        guidance = config.guidance
        guidance = Guidance(
            scale=guidance.off_value,
            frames=frames,
            passes=guidance.passes,
            micro_batch=guidance.micro_batch,
            share=guidance.share,
        )
        name = f"{SELF_CHECK}-{number}"
        made.append(Cell(name, name, {}, config.model_copy(update={"guidance": guidance})))
    return (made[0].id, made[1].id), tuple(made)


def metrics_of(sweep: SweepConfig, config: RenderConfig) -> tuple[str, ...]:
    """The families of metrics of a sweep: as written, else all that need no weights."""
    from vidcfg.evaluate.settings import WEIGHT_FREE

    if sweep.metrics is not None:
        return sweep.metrics
    return (*WEIGHT_FREE, "mini") if config.model.kind == "mini" else WEIGHT_FREE
