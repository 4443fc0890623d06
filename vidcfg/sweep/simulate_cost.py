"""What a simulated sweep is made of: cells, pairs and costs, typed in or read from a store."""

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vidcfg.sweep.simulate_work import OFF, Cell, Step, guided_step

SURFACE_SETTINGS = ("scale", "frames", "windows", "reduce")
"""Settings of guidance that act through the strengths alone."""


@dataclass(frozen=True, kw_only=True)
class Costs:
    """Seconds of a task = seconds_per_evaluation * evaluations + seconds_per_unit * videos.

    `spread` is the relative standard deviation of recorded tasks around this formula.
    """

    seconds_per_evaluation: float | int
    seconds_per_unit: float | int = 0.0
    spread: float = 0.0

    def seconds(self, evaluations: float | int, units: int) -> float:
        return self.seconds_per_evaluation * evaluations + self.seconds_per_unit * units


@dataclass(frozen=True, kw_only=True)
class Work:
    """Cells that every one of `pairs` (prompt, seed) goes through.

    `evaluations_per_node` is 1, or more where the solver evaluates a step more than once.
    """

    name: str
    cells: tuple[Cell, ...]
    pairs: int
    evaluations_per_node: float | int = 1.0


def fit_costs(jobs: Sequence[tuple[int, int, float | int]]) -> Costs:
    """The costs that fit recorded (evaluations, videos, seconds) best, by least squares, none
    below 0. Where the records cannot tell the two apart, all is charged to evaluations.

    Raises:
        ValueError: if no job has evaluations.
    """
    jobs = [job for job in jobs if job[0] > 0]
    if not jobs:
        raise ValueError(
            "no recorded job has model evaluations. Give --seconds-per-evaluation, or run some "
            "units of the sweep first."
        )
    ee, eu, uu = (sum(a * b for a, b in pairs) for pairs in _products(jobs))
    et, ut = (sum(job[i] * job[2] for job in jobs) for i in (0, 1))
    determinant = ee * uu - eu * eu
    per_evaluation, per_unit = et / ee, 0.0
    if determinant > 1e-9 * ee * uu:
        both = (et * uu - ut * eu) / determinant, (ut * ee - et * eu) / determinant
        if min(both) >= 0:
            per_evaluation, per_unit = both
        elif both[0] < 0:
            per_evaluation, per_unit = 0.0, ut / uu
    fitted = Costs(seconds_per_evaluation=per_evaluation, seconds_per_unit=per_unit)
    ratios = [seconds / fitted.seconds(e, u) for e, u, seconds in jobs]
    spread = statistics.pstdev(ratios) if len(ratios) > 1 else 0.0
    return Costs(seconds_per_evaluation=per_evaluation, seconds_per_unit=per_unit, spread=spread)


def _products(jobs: Sequence[tuple[int, int, float | int]]):
    for i, j in ((0, 0), (0, 1), (1, 1)):
        yield [(job[i], job[j]) for job in jobs]


def work_of_plan(plan: dict[str, Any]) -> Work:
    """The cells of a sweep's plan.json as paths through the tree that they share.

    Raises:
        ValueError: if the plan lacks what this needs.
    """
    try:
        cells = tuple(_cell(cell) for cell in plan["cells"])
        alone = sum(cell["evaluations"] for cell in plan["cells"])
        pairs = len(plan["prompts"]) * len(plan["seeds"])
    except (KeyError, TypeError) as error:
        raise ValueError(f"plan.json cannot be simulated: {error!r} is missing or odd.") from None
    own = sum(cell.evaluations for cell in cells)
    if not own:
        raise ValueError("plan.json has no cell with a surface. Use --grid instead.")
    return Work(
        name=plan.get("name", "sweep"),
        cells=cells,
        pairs=pairs,
        evaluations_per_node=alone / own,
    )


def _cell(cell: dict[str, Any]) -> Cell:
    rule = {k: v for k, v in cell["guidance"].items() if k not in SURFACE_SETTINGS}
    outside = {k: v for k, v in cell["settings"].items() if k.split(".")[0] != "guidance"}
    rule_key = json.dumps(rule, sort_keys=True)
    strengths = (cell["surface"] or {}).get("latent_strength", [])
    steps = tuple(_step(row, rule_key) for row in strengths)
    return Cell(cell["id"], steps, json.dumps([outside, len(steps)], sort_keys=True))


def _step(strength_F: list[float], rule_key: str) -> Step:
    if all(value == 1 for value in strength_F):
        return OFF
    if all(value == 0 for value in strength_F):
        return Step((tuple(strength_F), rule_key), frozenset({"uncond"}))
    return guided_step((tuple(strength_F), rule_key))


def read_store(store: str) -> tuple[Work, list[tuple[int, int, float | int]]]:
    """The work of a sweep's store and its recorded jobs (evaluations, videos, seconds).

    Raises:
        ValueError: if there is no plan at `store`.
    """
    import fsspec

    files, root = fsspec.core.url_to_fs(store)
    try:
        plan = json.loads(files.cat_file(f"{root}/plan.json"))
    except FileNotFoundError:
        raise ValueError(
            f"{store} has no plan.json, so it is not the store of a sweep. Give the folder named "
            "under store: in the sweep's file."
        ) from None
    except json.JSONDecodeError as error:
        raise ValueError(f"{store}/plan.json cannot be read: {error}") from None
    jobs = []
    for path in sorted(files.glob(f"{root}/jobs/*.json")):
        job = json.loads(files.cat_file(path))
        jobs.append((job["executed"], len(job["units"]), job["seconds"]))
    return work_of_plan(plan), jobs
