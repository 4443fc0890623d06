"""The sweep simulator against closed forms, bounds of scheduling theory and known tree counts."""

import json
import math

import pytest

from vidcfg.sweep.simulate import best, compare, main
from vidcfg.sweep.simulate_cost import Costs, Work, fit_costs, read_store, work_of_plan
from vidcfg.sweep.simulate_fleet import Fleet, run_fleet
from vidcfg.sweep.simulate_work import (
    OFF,
    Cell,
    cut,
    guided_step,
    interval_grid,
    shared_evaluations,
)

IDEAL = {"dispatch_seconds": 0.0, "created_per_second": 1e12}
"""A fleet with these is ready at once and costs nothing to direct."""


@pytest.mark.parametrize(
    ("grid", "alone", "shared"),
    # Counts of an independent enumeration of prefixes, 50 steps.
    [((8, 1, 1), 800, 786), ((8, 1, 4), 2720, 1242), ((8, 4, 4), 9920, 4500)],
)
def test_shared_evaluations_are_the_count_of_distinct_prefixes(grid, alone, shared):
    cells = interval_grid(*grid, num_steps=50)
    assert sum(cell.evaluations for cell in cells) == alone
    assert shared_evaluations(cells) == shared


def prefixes(cells):
    """The same count from its definition: one set of branches for every distinct past."""
    needed = {}
    for cell in cells:
        past = (cell.root,)
        for k, step in enumerate(cell.steps):
            needed.setdefault((k, past), set()).update(step.branches)
            past = (*past, step.effect)
    return sum(len(branches) for branches in needed.values())


def test_cells_of_different_roots_share_nothing():
    steps = (OFF, guided_step(3.0), guided_step(3.0))
    one, other = Cell("a", steps, root="euler"), Cell("b", steps, root="heun")
    assert shared_evaluations([one, other]) == 2 * one.evaluations == 10
    assert shared_evaluations([one, Cell("c", steps, root="euler")]) == one.evaluations


@pytest.mark.parametrize("num_tasks", [1, 2, 3, 7, 8, 31, 59, 60, 61])
def test_a_cut_keeps_every_cell_once_and_counts_what_each_part_shares(num_tasks):
    cells = interval_grid(5, 3, 4, num_steps=13)
    groups = cut(cells, num_tasks)
    assert sorted(cell.name for group in groups for cell in group.cells) == sorted(
        cell.name for cell in cells
    )
    assert len(groups) <= num_tasks
    for group in groups:
        assert group.evaluations == prefixes(group.cells)
    costs = [group.evaluations for group in groups]
    assert costs == sorted(costs, reverse=True)


def test_more_parts_share_less_and_shorten_the_longest():
    cells = interval_grid(8, 4, 4, num_steps=50)
    found = [cut(cells, 2**i) for i in range(8)]
    totals = [sum(group.evaluations for group in groups) for groups in found]
    longest = [groups[0].evaluations for groups in found]
    assert totals == sorted(totals)
    assert longest == sorted(longest, reverse=True)
    assert (totals[0], totals[-1]) == (4500, 9920)
    # Eight parts of 4,500 evaluations: an even cut would be 563 each.
    assert longest[3] <= 1.15 * 4500 / 8
    assert totals[3] <= 1.06 * 4500


@pytest.mark.parametrize(("tasks", "gpus"), [(12, 4), (13, 4), (3, 8), (1, 1), (1000, 64)])
def test_equal_tasks_take_whole_rounds(tasks, gpus):
    outcome = run_fleet([7.5] * tasks, Fleet(gpus=gpus, **IDEAL))
    assert outcome.seconds == pytest.approx(math.ceil(tasks / gpus) * 7.5, rel=1e-9)
    assert outcome.used_gpu_seconds == pytest.approx(7.5 * tasks)
    assert outcome.utilisation == pytest.approx(tasks / (math.ceil(tasks / gpus) * gpus))


def test_longest_first_stays_within_grahams_bound():
    tasks = [1 + (37 * i) % 101 for i in range(300)]
    for gpus in (2, 7, 19, 150):
        outcome = run_fleet(tasks, Fleet(gpus=gpus, **IDEAL))
        optimum = max(sum(tasks) / gpus, max(tasks))
        assert optimum * (1 - 1e-9) <= outcome.seconds
        # List scheduling never ends later than the mean load and one longest task.
        assert outcome.seconds <= sum(tasks) / gpus + (1 - 1 / gpus) * max(tasks) + 1e-6


def test_the_classic_worst_case_of_longest_first():
    # Graham 1969: 5,5,4,4,3,3,3 on three machines; longest first takes 11, the optimum 9.
    assert run_fleet([5, 5, 4, 4, 3, 3, 3], Fleet(gpus=3, **IDEAL)).seconds == pytest.approx(11)


def test_loading_delays_the_start_and_uses_no_work_time():
    quick = run_fleet([10.0] * 8, Fleet(gpus=4, **IDEAL))
    slow = run_fleet([10.0] * 8, Fleet(gpus=4, load_seconds=33.0, **IDEAL))
    assert slow.seconds == pytest.approx(quick.seconds + 33.0)
    assert slow.used_gpu_seconds == quick.used_gpu_seconds


def test_a_driver_hands_out_tasks_one_after_the_other():
    fleet = Fleet(gpus=100, dispatch_seconds=0.5, created_per_second=1e12)
    outcome = run_fleet([10.0] * 100, fleet)
    assert outcome.seconds == pytest.approx(100 * 0.5 + 10.0)


def test_jitter_keeps_the_mean_and_the_seed_decides():
    fleet = Fleet(gpus=50, jitter=0.05, seed=3, **IDEAL)
    outcome = run_fleet([20.0] * 5000, fleet)
    # 5,000 draws of 5 %: the standard error of the mean is 0.07 %, four of them 0.3 %.
    assert outcome.used_gpu_seconds == pytest.approx(5000 * 20.0, rel=3e-3)
    assert outcome == run_fleet([20.0] * 5000, fleet)
    assert outcome != run_fleet([20.0] * 5000, Fleet(gpus=50, jitter=0.05, seed=4, **IDEAL))


def test_failed_tasks_are_done_again_and_the_loss_is_counted():
    fleet = Fleet(gpus=10, hours_between_failures=0.5, restart_seconds=5, load_seconds=2, **IDEAL)
    outcome = run_fleet([600.0] * 400, fleet)
    assert outcome.used_gpu_seconds == pytest.approx(400 * 600.0)
    # An attempt of t fails with 1 - exp(-t/m): 28 % here, so 400 * (e^(t/m) - 1) failures: 158,
    # give or take four times the square root of about as many.
    assert outcome.failures == pytest.approx(400 * (math.exp(600 / 1800) - 1), abs=50)
    # Memoryless: work and loss together are m (e^(t/m) - 1) per task.
    expected = 400 * 1800 * (math.exp(600 / 1800) - 1)
    assert outcome.used_gpu_seconds + outcome.lost_gpu_seconds == pytest.approx(expected, rel=0.1)


def test_tasks_that_cannot_survive_are_an_error_and_not_an_endless_loop():
    with pytest.raises(ValueError, match="Cut the work into smaller tasks"):
        run_fleet([36000.0] * 3, Fleet(gpus=3, hours_between_failures=0.1, **IDEAL))


def test_costs_are_recovered_from_records():
    jobs = [(e, u, 0.2 * e + 1.5 * u) for e, u in [(100, 1), (340, 4), (900, 8), (60, 2)]]
    found = fit_costs(jobs)
    assert found.seconds_per_evaluation == pytest.approx(0.2)
    assert found.seconds_per_unit == pytest.approx(1.5)
    assert found.spread == pytest.approx(0, abs=1e-9)


def test_records_that_cannot_tell_costs_apart_charge_evaluations():
    found = fit_costs([(50, 2, 10.0), (100, 4, 20.0), (50, 2, 12.0)])
    assert found.seconds_per_unit == 0
    assert found.seconds_per_evaluation == pytest.approx(
        (50 * 10 + 100 * 20 + 50 * 12) / (50**2 + 100**2 + 50**2)
    )
    assert found.spread > 0


def test_costs_are_never_negative():
    found = fit_costs([(100, 1, 10.0), (200, 9, 12.0), (300, 20, 11.0)])
    assert found.seconds_per_evaluation >= 0
    assert found.seconds_per_unit >= 0


def test_few_gpus_share_all_and_many_gpus_share_less():
    work = Work(name="w", cells=tuple(interval_grid(8, 4, 4, num_steps=50)), pairs=32)
    costs = Costs(seconds_per_evaluation=0.358)
    few = best(compare(work, costs, Fleet(gpus=8, load_seconds=60)))
    many = best(compare(work, costs, Fleet(gpus=1000, load_seconds=60)))
    assert few.outcome.tasks < many.outcome.tasks
    alone = compare(work, costs, Fleet(gpus=8, load_seconds=60))[0]
    # 8 GPUs stay busy with shared work, so the time falls as the evaluations do: 9920 / 4500.
    assert alone.outcome.seconds / few.outcome.seconds > 2.0


PLAN = {
    "name": "tiny",
    "prompts": [{"text": "a"}, {"text": "b"}, {"text": "c"}],
    "seeds": [0, 1],
    "cells": [
        {
            "id": f"s{scale}",
            "settings": {"guidance.scale": scale},
            "guidance": {"method": {"kind": "cfg"}, "scale": scale, "rescale": {"amount": 0.0}},
            "surface": {"latent_strength": [[1.0, 1.0], [scale, 1.0], [scale, scale]]},
            "evaluations": 5,
        }
        for scale in (2.0, 3.0, 4.0)
    ],
}


@pytest.fixture
def store(tmp_path):
    (tmp_path / "jobs").mkdir()
    (tmp_path / "plan.json").write_text(json.dumps(PLAN))
    for index in range(6):
        job = {"units": ["x"] * 3, "planned": 12, "executed": 12, "seconds": 6.0, "worker": "w"}
        (tmp_path / "jobs" / f"{index}.json").write_text(json.dumps(job))
    return tmp_path


def test_a_store_gives_grid_pairs_and_costs(store):
    work, jobs = read_store(str(store))
    assert (len(work.cells), work.pairs, work.evaluations_per_node) == (3, 6, 1.0)
    # One shared step alone, one shared pair, then a pair for each of three scales.
    assert shared_evaluations(work.cells) == 1 + 2 + 3 * 2
    assert jobs == [(12, 3, 6.0)] * 6


def test_cells_of_another_rule_or_solver_are_other_trajectories():
    changed = json.loads(json.dumps(PLAN))
    changed["cells"][1]["guidance"]["rescale"]["amount"] = 0.7
    changed["cells"][1]["surface"] = changed["cells"][0]["surface"]
    # Equal strengths under another rule divide after the first guided step.
    assert shared_evaluations(work_of_plan(changed).cells[:2]) == 1 + 2 + 2 * 2
    changed["cells"][1]["settings"]["sampling.scheduler"] = "heun"
    assert shared_evaluations(work_of_plan(changed).cells[:2]) == 2 * 5


def test_the_command_prints_a_row_per_choice_and_marks_the_best(store, capsys):
    assert main([str(store), "--gpus", "2,6", "--load", "0", "--pairs", "60"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "3 cells x 60 pairs of prompt and seed = 180 videos" in lines[0]
    rows = [line for line in lines if "one task" in line or "tree" in line]
    assert len(rows) == 6
    assert sum(" * " in row for row in rows) == 2
    # 60 whole trees of 9 evaluations at half a second, on 2 GPUs: 135 s.
    whole = next(row for row in rows if "whole tree" in row).split()
    assert float(whole[whole.index("540") + 1]) == pytest.approx(135 / 3600, abs=6e-4)


def test_the_command_prints_json_that_agrees_with_its_parts(store, capsys):
    assert main([str(store), "--gpus", "3", "--json", "--load", "1"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["costs"]["seconds_per_evaluation"] == pytest.approx(0.5)
    assert [row["is_best"] for row in found["choices"]].count(True) == 1
    assert {row["tasks"] for row in found["choices"]} == {6, 12, 18}


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "--grid"),
        (["--grid", "2x1x1"], "--seconds-per-evaluation"),
        (["nowhere"], "no plan.json"),
        (["nowhere", "--steps", "9"], "has its own grid"),
    ],
)
def test_what_cannot_be_simulated_is_said_in_one_line(argv, message, capsys, tmp_path):
    argv = [str(tmp_path / word) if word == "nowhere" else word for word in argv]
    assert main(argv) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
