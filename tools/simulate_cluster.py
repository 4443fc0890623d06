"""How long a sweep takes on 8 to 1000 GPUs, without any: its own jobs on a model of a fleet.

    python tools/simulate_cluster.py runs/scales --gpus 8,64,1000 --pairs 512
    python tools/simulate_cluster.py --grid 8x4x4 --steps 50 --pairs 32 \\
        --seconds-per-evaluation 0.358 --load 60 --hours-between-failures 500
"""

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from fleet import Fleet, Outcome, run_fleet

from vidcfg.cli import run, shared
from vidcfg.settings.document import ConfigDocument
from vidcfg.sweep.config import SweepConfig
from vidcfg.sweep.plan import Plan, make_plan, plan_of, read_plan
from vidcfg.sweep.store import NoStoreError, Store

DETAILS = """\
A sweep cuts its work into jobs for the number of its workers: videos that share a trajectory are
made together unless GPUs would stand idle. Jobs and evaluations are those that `vidcfg sweep
--workers GPUS` runs, for several values of workers.batch, the most videos of a job. * marks the
one that ends first (among those within 2 % of it: the one with the fewest GPU hours).
"""

CLOSE = 1.02
"""Choices whose time is within this factor of the shortest count as equally fast."""

Records = list[tuple[int, int, float]]
"""What jobs took: evaluations, videos, seconds."""


@dataclass(frozen=True, kw_only=True)
class Costs:
    """Seconds of a job = seconds_per_evaluation * evaluations + seconds_per_unit * videos.

    `spread` is the relative standard deviation of recorded jobs around this formula.
    """

    seconds_per_evaluation: float
    seconds_per_unit: float = 0.0
    spread: float = 0.0

    def seconds(self, evaluations: float, units: int) -> float:
        return self.seconds_per_evaluation * evaluations + self.seconds_per_unit * units


@dataclass(frozen=True)
class Choice:
    """A value of workers.batch for a number of workers, and what it took."""

    gpus: int
    batch: int
    evaluations: int
    outcome: Outcome


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="simulate_cluster.py",
        description="Simulate a sweep on fleets of GPUs, without any.",
        epilog=DETAILS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = made.add_argument
    add("store", nargs="?", help="the store of a sweep that ran: its grid and recorded costs")
    add("--gpus", type=_counts, default=(8, 64, 256, 1000), help="such as 8,64,1000")
    add("--grid", type=_grid, metavar="AxBxC", help="scales x starts x stops, such as 8x4x4")
    add("--steps", type=_count, help="steps of the solver, with --grid (default: 50)")
    add("--pairs", type=_count, help="prompts times seeds (default: the store's, or 32)")
    add("--seconds-per-evaluation", type=_number, metavar="S", help="one model evaluation")
    add("--seconds-per-unit", type=_number, metavar="S", help="decoding and scoring one video")
    add("--load", type=_number, default=60.0, metavar="S", help="loading the model (default: 60)")
    add("--jitter", type=_number, help="relative spread of times (default: recorded, or 0.05)")
    add(
        "--hours-between-failures",
        type=_number,
        metavar="H",
        help="mean time to failure of one GPU (default: none fail)",
    )
    add("--restart", type=_number, default=30.0, metavar="S", help="to restart a failed worker")
    add("--seed", type=int, default=0, help="of the simulated jitter and failures")
    add("--all-cuts", action="store_true", help="list every batch, not only the best")
    add("--json", action="store_true", help="print JSON instead of a table")
    return shared(made)


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text}: use 1 or more")
    return value


def _counts(text: str) -> tuple[int, ...]:
    return tuple(_count(part) for part in text.split(","))


def _grid(text: str) -> tuple[int, int, int]:
    counts = tuple(_count(part) for part in text.split("x"))
    if len(counts) != 3:
        raise argparse.ArgumentTypeError(f"{text}: use scales x starts x stops, such as 8x4x4")
    return counts


def _number(text: str) -> float:
    value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text}: use a number from 0")
    return value


def main(argv: list[str] | None = None) -> int:
    """Run the command; the result is its exit code."""
    return run(parser(), _simulate, argv)


def _simulate(arguments: argparse.Namespace) -> int:
    # The work and its costs
    if arguments.store:
        if arguments.grid or arguments.steps:
            raise ValueError("give a store, or --grid and --steps: the store has its own grid.")
        plan, records = read_store(arguments.store)
        plan = with_pairs(plan, arguments.pairs) if arguments.pairs else plan
    else:
        if not arguments.grid:
            raise ValueError("give the store of a sweep, or --grid such as 8x4x4.")
        num_steps, pairs = arguments.steps or 50, arguments.pairs or 32
        plan, records = interval_plan(*arguments.grid, num_steps=num_steps, pairs=pairs), []
    costs = _costs(arguments, records)

    # Every fleet with every batch
    choices = []
    for gpus in arguments.gpus:
        fleet = Fleet(
            gpus=gpus,
            load_seconds=arguments.load,
            jitter=costs.spread if arguments.jitter is None else arguments.jitter,
            hours_between_failures=arguments.hours_between_failures or None,
            restart_seconds=arguments.restart,
            seed=arguments.seed,
        )
        choices += compare(plan, costs, fleet)
    if arguments.json:
        print(json.dumps(_as_data(plan, costs, choices), indent=2))
    else:
        print(_table(plan, costs, choices, is_full=arguments.all_cuts))
    return 0


def read_store(url: str) -> tuple[Plan, Records]:
    """The plan of a sweep's store, and what its jobs took.

    Raises:
        NoStoreError: if there is no plan.
    """
    store = Store(url)
    made = store.read_json("plan.json")
    if made is None:
        raise NoStoreError(
            f"{url} has no plan.json, so it is not the store of a sweep. Give the folder named "
            "under store: in the sweep's file."
        )
    jobs = [store.read_json(f"jobs/{name}") for name in store.names("jobs")]
    return read_plan(made), [(job["executed"], len(job["units"]), job["seconds"]) for job in jobs]


def with_pairs(plan: Plan, pairs: int) -> Plan:
    """The plan with as many seeds as it takes to have so many pairs of prompt and seed."""
    seeds = tuple(range(-(-pairs // len(plan.prompts))))
    cells = tuple(
        replace(cell, config=cell.config.model_copy(update={"seeds": seeds}))
        for cell in plan.cells
    )
    return plan_of(plan.sweep, cells)


def interval_plan(
    num_scales: int, num_starts: int, num_stops: int, *, num_steps: int, pairs: int
) -> Plan:
    """A sweep of `scales x starts x stops`: guided from the start to the stop, off elsewhere.

    Starts are spread over 0 to 0.3 of the steps (0 alone where there is one), stops over 0.4 to 1
    (1 alone where there is one), rounded to whole steps.
    """
    starts = [round(num_steps * 0.3 * i / max(num_starts - 1, 1)) for i in range(num_starts)]
    stops = [round(num_steps * (1 - 0.6 * i / max(num_stops - 1, 1))) for i in range(num_stops)]
    values = [
        [2.0 + scale if start <= k < stop else 1.0 for k in range(num_steps)]
        for scale in range(num_scales)
        for start in starts
        for stop in reversed(stops)
    ]
    name = f"{num_scales} scales, {num_starts} starts, {num_stops} stops, {num_steps} steps"
    base = {
        "schema": 1,
        "name": "simulated",
        "model": {"kind": "mini"},
        "prompts": ["a red circle moving left over a navy background"],
        "video": {"num_frames": 5, "height": 32, "width": 32, "fps": 8},
        "sampling": {"num_steps": num_steps, "scheduler": "flow_euler"},
        "guidance": {"scale": 1.0},
        "output": {"dir": "out"},
    }
    sweep = SweepConfig(
        schema=1,
        name="simulated",
        base=base,
        grid={"guidance.scale": values},
        seeds=list(range(pairs)),
        store="runs/simulated",
    )
    plan = make_plan(sweep, ConfigDocument("simulated", {}, {}))
    return replace(plan, sweep=sweep.model_copy(update={"name": name}))


def _costs(arguments: argparse.Namespace, records: Records) -> Costs:
    """Recorded costs, where no cost is typed in."""
    per_evaluation, per_unit = arguments.seconds_per_evaluation, arguments.seconds_per_unit
    if per_evaluation is not None:
        return Costs(
            seconds_per_evaluation=per_evaluation, seconds_per_unit=per_unit or 0.0, spread=0.05
        )
    if not arguments.store:
        raise ValueError("give --seconds-per-evaluation, or the store of a sweep that ran.")
    found = fit_costs(records)
    return found if per_unit is None else replace(found, seconds_per_unit=per_unit)


def fit_costs(records: Records) -> Costs:
    """The costs that fit recorded jobs best, by least squares, none below 0. Where the records
    cannot tell the two apart, all is charged to evaluations.

    Raises:
        ValueError: if no job has evaluations.
    """
    from numpy import array
    from scipy.optimize import nnls

    records = [record for record in records if record[0] > 0]
    if not records:
        raise ValueError(
            "no recorded job has model evaluations. Give --seconds-per-evaluation, or run some "
            "units of the sweep first."
        )
    evaluations, units, seconds = array(records, dtype=float).T
    ee, eu, uu = evaluations @ evaluations, evaluations @ units, units @ units
    if ee * uu - eu * eu > 1e-9 * ee * uu:
        per_evaluation, per_unit = nnls(array([evaluations, units]).T, seconds)[0]
    else:
        per_evaluation, per_unit = evaluations @ seconds / ee, 0.0
    ratios = seconds / (per_evaluation * evaluations + per_unit * units)
    return Costs(
        seconds_per_evaluation=float(per_evaluation),
        seconds_per_unit=float(per_unit),
        spread=statistics.pstdev(ratios.tolist()),
    )


def compare(plan: Plan, costs: Costs, fleet: Fleet) -> list[Choice]:
    """The sweep on one fleet with workers.batch as it is, and with other powers of 2 from 1 up to
    all cells where they change anything."""
    own = plan.sweep.workers.batch
    batches = [own, *(2**i for i in range(13) if 2**i < 2 * len(plan.cells) and 2**i != own)]
    found: dict[tuple, Choice] = {}
    for batch in batches:
        choice = _choice(plan, batch, costs, fleet)
        found.setdefault((choice.outcome.tasks, choice.evaluations), choice)
    return sorted(found.values(), key=lambda choice: choice.batch)


def _choice(plan: Plan, batch: int, costs: Costs, fleet: Fleet) -> Choice:
    jobs = plan.jobs(plan.keys, num_workers=fleet.gpus, batch=batch)
    evaluations = [plan.cost(job.units) for job in jobs]
    seconds = [costs.seconds(count, len(job.units)) for count, job in zip(evaluations, jobs)]
    return Choice(fleet.gpus, batch, sum(evaluations), run_fleet(seconds, fleet))


def best(choices: Sequence[Choice]) -> Choice:
    """The choice that ends first; among those within 2 % of it, the one that uses the fewest
    GPU hours."""
    shortest = min(choice.outcome.seconds for choice in choices)
    close = [choice for choice in choices if choice.outcome.seconds <= CLOSE * shortest]
    return min(close, key=lambda choice: choice.outcome.used_gpu_seconds)


def _table(plan: Plan, costs: Costs, choices: list[Choice], *, is_full: bool) -> str:
    pairs = len({(unit.prompt, unit.seed) for unit in plan.grid_units})
    own = plan.sweep.workers.batch
    lines = [
        f"{plan.sweep.name}: {len(plan.cells)} cells x {pairs} pairs of prompt and seed = "
        f"{len(plan.cells) * pairs} videos",
        f"{costs.seconds_per_evaluation:.4g} s per evaluation, {costs.seconds_per_unit:.4g} s "
        f"per video, spread {100 * costs.spread:.0f} %",
        "",
        f"{'GPUs':>5}   {'workers.batch':<14}{'jobs':>7}{'evaluations':>13}{'hours':>9}"
        f"{'GPU-h used':>12}{'GPU-h rented':>14}{'in use':>8}{'failures':>10}",
    ]
    for gpus in dict.fromkeys(choice.gpus for choice in choices):
        here = [choice for choice in choices if choice.gpus == gpus]
        marked = best(here)
        shown = [c for c in here if is_full or c is marked or c.batch in (1, own)]
        lines += [_row(choice, is_best=choice is marked) for choice in shown]
    return "\n".join(lines)


def _row(choice: Choice, *, is_best: bool) -> str:
    outcome = choice.outcome
    return (
        f"{choice.gpus:>5} {'*' if is_best else ' '} {choice.batch:<14}{outcome.tasks:>7}"
        f"{choice.evaluations:>13,}{outcome.hours:>9.3f}{outcome.used_gpu_hours:>12.1f}"
        f"{outcome.rented_gpu_hours:>14.1f}{100 * outcome.utilisation:>7.0f}%"
        f"{outcome.failures:>10}"
    )


def _as_data(plan: Plan, costs: Costs, choices: list[Choice]) -> dict:
    found = [
        best([choice for choice in choices if choice.gpus == gpus])
        for gpus in {choice.gpus for choice in choices}
    ]
    rows = [
        {
            "gpus": choice.gpus,
            "batch": choice.batch,
            "jobs": choice.outcome.tasks,
            "evaluations": choice.evaluations,
            "hours": choice.outcome.hours,
            "used_gpu_hours": choice.outcome.used_gpu_hours,
            "rented_gpu_hours": choice.outcome.rented_gpu_hours,
            "utilisation": choice.outcome.utilisation,
            "failures": choice.outcome.failures,
            "is_best": choice in found,
        }
        for choice in choices
    ]
    pairs = len({(unit.prompt, unit.seed) for unit in plan.grid_units})
    cells = len(plan.cells)
    name = plan.sweep.name
    return {"name": name, "cells": cells, "pairs": pairs, "costs": asdict(costs), "choices": rows}


if __name__ == "__main__":
    sys.exit(main())
