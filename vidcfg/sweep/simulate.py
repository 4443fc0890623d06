"""`python -m vidcfg.sweep simulate`: how long a sweep takes on 8 to 1000 GPUs, and how to cut it.

Imports neither Ray nor torch, and needs no GPU.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from vidcfg.sweep.simulate_cost import Costs, Work, fit_costs, read_store
from vidcfg.sweep.simulate_fleet import Fleet, Outcome, run_fleet
from vidcfg.sweep.simulate_work import Group, cut, interval_grid

EPILOG = """\
A sweep can hand out one task per video, the whole tree of shared trajectories of a prompt and
seed, or that tree cut into a number of tasks. Sharing halves the work or better; a tree that is
cut too little leaves GPUs idle. The table says what each choice takes; * marks the choice that
ends first (among those within 2 % of it: the one with the fewest GPU hours).

examples:
  python -m vidcfg.sweep simulate runs/scales --gpus 8,64,1000 --pairs 512
  python -m vidcfg.sweep simulate --grid 8x4x4 --steps 50 --pairs 32 \\
      --seconds-per-evaluation 0.358 --load 60 --hours-between-failures 500
"""

CLOSE = 1.02
"""Choices whose time is within this factor of the shortest count as equally fast."""


@dataclass(frozen=True)
class Choice:
    """One way to hand out the work, and what it took."""

    gpus: int
    strategy: str
    evaluations: float | int
    outcome: Outcome


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m vidcfg.sweep simulate",
        description="Simulate a sweep on fleets of GPUs, without any.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = made.add_argument
    add("store", nargs="?", help="the store of a sweep that ran: its grid and recorded costs")
    add("--gpus", type=_counts, default=(8, 64, 256, 1000), help="such as 8,64,1000")
    add("--grid", type=_grid, metavar="AxBxC", help="scales x starts x stops, such as 8x4x4")
    add("--steps", type=_count, help="steps of the solver, with --grid (default: 50)")
    add("--pairs", type=_count, help="prompts times seeds (default: the store's, or 32)")
    add("--seconds-per-evaluation", type=_seconds, metavar="S", help="one model evaluation")
    add("--seconds-per-unit", type=_seconds, metavar="S", help="decoding and scoring one video")
    add("--load", type=_seconds, default=60.0, metavar="S", help="loading the model (default: 60)")
    add("--jitter", type=_seconds, help="relative spread of times (default: recorded, or 0.05)")
    add(
        "--hours-between-failures",
        type=_seconds,
        metavar="H",
        help="mean time to failure of one GPU (default: none fail)",
    )
    add("--restart", type=_seconds, default=30.0, metavar="S", help="to restart a failed worker")
    add("--seed", type=int, default=0, help="of the simulated jitter and failures")
    add("--all-cuts", action="store_true", help="list every cut, not only the best")
    add("--json", action="store_true", help="print JSON instead of a table")
    return made


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


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text}: use a number from 0")
    return value


def main(argv: list[str] | None = None) -> int:
    """Run the command; the result is its exit code: 0, or 2 for options that cannot be used."""
    arguments = parser().parse_args(sys.argv[1:] if argv is None else argv)
    try:
        work, costs = _work_and_costs(arguments)
        choices = [
            choice
            for gpus in arguments.gpus
            for choice in compare(work, costs, _fleet(arguments, gpus, costs))
        ]
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    if arguments.json:
        print(json.dumps(_as_data(work, costs, choices), indent=2))
    else:
        print(_table(work, costs, choices, is_full=arguments.all_cuts))
    return 0


def _work_and_costs(arguments: argparse.Namespace) -> tuple[Work, Costs]:
    if arguments.store:
        if arguments.grid or arguments.steps:
            raise ValueError("give a store, or --grid and --steps: the store has its own grid.")
        work, jobs = read_store(arguments.store)
    else:
        work, jobs = _typed_in(arguments), []
    if arguments.pairs:
        work = replace(work, pairs=arguments.pairs)
    return work, _costs(arguments, jobs)


def _costs(arguments: argparse.Namespace, jobs: list[tuple[int, int, float | int]]) -> Costs:
    """Recorded costs, where no cost is typed in."""
    per_evaluation, per_unit = arguments.seconds_per_evaluation, arguments.seconds_per_unit
    if per_evaluation is not None:
        return Costs(
            seconds_per_evaluation=per_evaluation, seconds_per_unit=per_unit or 0.0, spread=0.05
        )
    if not arguments.store:
        raise ValueError("give --seconds-per-evaluation, or the store of a sweep that ran.")
    found = fit_costs(jobs)
    return found if per_unit is None else replace(found, seconds_per_unit=per_unit)


def _typed_in(arguments: argparse.Namespace) -> Work:
    if not arguments.grid:
        raise ValueError("give the store of a sweep, or --grid such as 8x4x4.")
    scales, starts, stops = arguments.grid
    num_steps = arguments.steps or 50
    cells = interval_grid(scales, starts, stops, num_steps=num_steps)
    name = f"{scales} scales x {starts} starts x {stops} stops, {num_steps} steps"
    return Work(name=name, cells=tuple(cells), pairs=32)


def _fleet(arguments: argparse.Namespace, gpus: int, costs: Costs) -> Fleet:
    return Fleet(
        gpus=gpus,
        load_seconds=arguments.load,
        jitter=costs.spread if arguments.jitter is None else arguments.jitter,
        hours_between_failures=arguments.hours_between_failures or None,
        restart_seconds=arguments.restart,
        seed=arguments.seed,
    )


def compare(work: Work, costs: Costs, fleet: Fleet) -> list[Choice]:
    """Every way to hand out the work on one fleet: per cell, whole tree, and all cuts between."""
    cells = work.cells
    alone = [Group((cell,), cell.evaluations) for cell in cells]
    sizes = [2**i for i in range(1, 32) if 2**i < len(cells)]
    plans = {"one task per video": alone, "whole tree": cut(cells, 1)}
    plans |= {f"tree cut in {size}": cut(cells, size) for size in sizes}
    return [_choice(name, groups, work, costs, fleet) for name, groups in plans.items()]


def _choice(name: str, groups: Sequence[Group], work: Work, costs: Costs, fleet: Fleet) -> Choice:
    evaluations = [group.evaluations * work.evaluations_per_node for group in groups]
    seconds = [
        costs.seconds(count, len(group.cells))
        for count, group in zip(evaluations, groups, strict=True)
    ]
    outcome = run_fleet(seconds * work.pairs, fleet)
    return Choice(fleet.gpus, name, sum(evaluations) * work.pairs, outcome)


def best(choices: Sequence[Choice]) -> Choice:
    """The choice that ends first; among those within 2 % of it, the one that uses the fewest
    GPU hours."""
    shortest = min(choice.outcome.seconds for choice in choices)
    close = [choice for choice in choices if choice.outcome.seconds <= CLOSE * shortest]
    return min(close, key=lambda choice: choice.outcome.used_gpu_seconds)


def _table(work: Work, costs: Costs, choices: list[Choice], *, is_full: bool) -> str:
    videos = len(work.cells) * work.pairs
    lines = [
        f"{work.name}: {len(work.cells)} cells x {work.pairs} pairs of prompt and seed = "
        f"{videos} videos",
        f"{costs.seconds_per_evaluation:.4g} s per evaluation, {costs.seconds_per_unit:.4g} s "
        f"per video, spread {100 * costs.spread:.0f} %",
        "",
        f"{'GPUs':>5}   {'work handed out':<20}{'tasks':>7}{'evaluations':>13}{'hours':>9}"
        f"{'GPU-h used':>12}{'GPU-h rented':>14}{'in use':>8}{'failures':>10}",
    ]
    for gpus in dict.fromkeys(choice.gpus for choice in choices):
        here = [choice for choice in choices if choice.gpus == gpus]
        marked = best(here)
        cuts = here[2:]
        shown = here if is_full else here[:2] + ([best(cuts)] if cuts else [])
        lines += [_row(choice, is_best=choice is marked) for choice in shown]
        if marked not in shown:
            lines.append(_row(marked, is_best=True))
    return "\n".join(lines)


def _row(choice: Choice, *, is_best: bool) -> str:
    outcome = choice.outcome
    return (
        f"{choice.gpus:>5} {'*' if is_best else ' '} {choice.strategy:<20}{outcome.tasks:>7}"
        f"{choice.evaluations:>13,.0f}{outcome.hours:>9.3f}{outcome.used_gpu_hours:>12.1f}"
        f"{outcome.rented_gpu_hours:>14.1f}{100 * outcome.utilisation:>7.0f}%"
        f"{outcome.failures:>10}"
    )


def _as_data(work: Work, costs: Costs, choices: list[Choice]) -> dict:
    found = {
        gpus: best([choice for choice in choices if choice.gpus == gpus])
        for gpus in {choice.gpus for choice in choices}
    }
    rows = [
        {
            "gpus": choice.gpus,
            "strategy": choice.strategy,
            "tasks": choice.outcome.tasks,
            "evaluations": choice.evaluations,
            "hours": choice.outcome.hours,
            "used_gpu_hours": choice.outcome.used_gpu_hours,
            "rented_gpu_hours": choice.outcome.rented_gpu_hours,
            "utilisation": choice.outcome.utilisation,
            "failures": choice.outcome.failures,
            "is_best": choice is found[choice.gpus],
        }
        for choice in choices
    ]
    return {
        "name": work.name,
        "cells": len(work.cells),
        "pairs": work.pairs,
        "costs": asdict(costs),
        "choices": rows,
    }


if __name__ == "__main__":
    sys.exit(main())
