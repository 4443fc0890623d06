"""The sweep simulator against closed forms, bounds of scheduling theory and known tree counts."""

import json
import math
import shlex
from functools import cache
from pathlib import Path

import pytest
from fleet import Fleet, run_fleet
from simulate_cluster import (
    Costs,
    best,
    compare,
    fit_costs,
    interval_plan,
    main,
    parser,
    read_store,
    with_pairs,
)

from vidcfg.sweep.__main__ import main as sweep

grid_plan = cache(interval_plan)

IDEAL = {"dispatch_seconds": 0.0, "created_per_second": 1e12}
"""A fleet with these is ready at once and costs nothing to direct."""


@pytest.mark.parametrize(
    ("grid", "alone", "shared"),
    # Counts of an independent enumeration of prefixes, 50 steps; tests/guidance/test_plan.py has
    # the published 8 x 4 x 4.
    [((8, 1, 1), 800, 786), ((8, 1, 4), 2720, 1242)],
)
def test_shared_evaluations_are_the_count_of_distinct_prefixes(grid, alone, shared):
    counts = grid_plan(*grid, num_steps=50, pairs=1).counts
    assert (counts["separate"], counts["shared"]) == (alone, shared)


def prefixes(schedules):
    """The same count from its definition: one set of branches for every distinct past."""
    needed = {}
    for values in schedules:
        for k, value in enumerate(values):
            branches = {"cond"} if value == 1 else {"cond", "uncond"}
            needed.setdefault(tuple(values[:k]), set()).update(branches)
    return sum(len(branches) for branches in needed.values())


@pytest.mark.parametrize("num_workers", [1, 2, 3, 7, 8, 31, 59, 60, 61])
def test_a_cut_keeps_every_cell_once_and_counts_what_each_part_shares(num_workers):
    plan = grid_plan(5, 3, 4, num_steps=13, pairs=1)
    keys = [unit.key for unit in plan.grid_units]
    jobs = plan.jobs(keys, num_workers=num_workers, batch=60)
    assert sorted(key for job in jobs for key in job.units) == sorted(keys)
    values = {cell.id: cell.settings["guidance.scale"] for cell in plan.cells}
    costs = [plan.cost(job.units) for job in jobs]
    for job, cost in zip(jobs, costs, strict=True):
        assert cost == prefixes([values[plan.by_key[key].cell] for key in job.units])
    assert costs == sorted(costs, reverse=True)


def test_more_workers_share_less_and_shorten_the_longest():
    plan = grid_plan(5, 3, 4, num_steps=13, pairs=1)
    keys = [unit.key for unit in plan.grid_units]
    found = [plan.jobs(keys, num_workers=2**i, batch=128) for i in range(7)]
    costs = [[plan.cost(job.units) for job in jobs] for jobs in found]
    totals, longest = [sum(one) for one in costs], [one[0] for one in costs]
    assert totals == sorted(totals)
    assert longest == sorted(longest, reverse=True)
    # For 64 workers no job takes longer than the longest video; shorter ones still share.
    whole = plan.counts["shared"]
    assert (totals[0], longest[-1]) == (whole, 26)
    assert totals[-1] < plan.counts["separate"]
    # Four parts: near an even cut, and little of what all share is done twice.
    assert longest[2] <= 1.15 * whole / 4
    assert totals[2] <= 1.1 * whole


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
    plan = grid_plan(5, 3, 4, num_steps=13, pairs=4)
    costs = Costs(seconds_per_evaluation=0.358 * 4)
    choices = compare(plan, costs, Fleet(gpus=1, load_seconds=60))
    few = best(choices)
    many = best(compare(plan, costs, Fleet(gpus=60, load_seconds=60)))
    assert few.outcome.tasks < many.outcome.tasks
    alone = next(choice for choice in choices if choice.batch == 1)
    # One GPU stays busy with shared work, so the time falls as the evaluations do.
    fall = plan.counts["separate"] / plan.counts["shared"]
    assert 1.5 < 0.9 * fall < alone.outcome.seconds / few.outcome.seconds <= fall


@pytest.fixture
def run(plan, tmp_path):
    """`run(*overrides)`: a sweep in this process whose work is cut as its plan says."""
    from vidcfg.sweep.executor import InProcess
    from vidcfg.sweep.run import run_sweep
    from vidcfg.sweep.store import Store
    from vidcfg.sweep.worker import Worker

    def go(*overrides):
        made = plan(*overrides)
        store = Store(made.sweep.store)
        return run_sweep(made, store, InProcess(Worker(store.url)))

    return go


@pytest.mark.parametrize("num_workers", [0, 3, 12])
def test_what_is_simulated_is_what_the_dry_run_says_and_the_sweep_runs(
    run, plan, sweep_file, tmp_path, num_workers, capsys
):
    workers = f"workers.num={num_workers}"
    made = plan(workers)
    jobs = made.jobs(made.keys)
    planned = sum(made.cost(job.units) for job in jobs)
    assert sweep([str(sweep_file), "--set", workers, "--dry-run"]) == 0
    assert (
        f"{planned} in {len(jobs)} jobs for {num_workers or 1} worker" in capsys.readouterr().out
    )
    outcome = run(workers)
    assert outcome.summary["executed"] == outcome.summary["planned"] == planned
    assert len(list((tmp_path / "store" / "jobs").iterdir())) == len(jobs)
    gpus = str(num_workers or 1)
    assert main([str(tmp_path / "store"), "--gpus", gpus, "--json", "--all-cuts"]) == 0
    rows = json.loads(capsys.readouterr().out)["choices"]
    (own,) = (row for row in rows if row["batch"] == 32)
    assert (own["jobs"], own["evaluations"]) == (len(jobs), planned)


@pytest.fixture
def store(plan, tmp_path):
    """The store of a sweep of three scales, whose jobs took half a second an evaluation."""
    from vidcfg.sweep.run import put_plan
    from vidcfg.sweep.store import Store

    made = Store(str(tmp_path / "store"))
    put_plan(made, plan("grid={guidance.scale: [2.0, 3.0, 4.0]}"))
    for index in range(6):
        job = {"units": ["x"] * 3, "planned": 12, "executed": 12, "seconds": 6.0, "worker": "w"}
        made.write_json(f"jobs/{index}.json", job)
    return made.root


def test_a_store_gives_grid_pairs_and_costs(store):
    plan, records = read_store(store)
    assert (len(plan.cells), len(plan.grid_units)) == (3, 3 * 4)
    # One shared pair, then two pairs for each of three scales.
    assert plan.counts["shared"] == 4 * (2 + 3 * 4)
    assert records == [(12, 3, 6.0)] * 6
    more = with_pairs(plan, 9)
    assert {(unit.prompt, unit.seed) for unit in more.grid_units} == {
        (prompt, seed) for prompt in (0, 1) for seed in range(5)
    }


def test_cells_of_another_rule_or_solver_are_other_trajectories(plan):
    # Equal strengths under another rule divide after the first guided step.
    made = plan("grid={guidance.rescale: [0.0, 0.7]}", "seeds=3", "prompts=[a red star]")
    assert made.counts["shared"] == 2 + 2 * 4
    made = plan("grid={sampling.scheduler: [flow_euler, unipc]}", "seeds=3", "prompts=[a star]")
    assert made.counts["shared"] == made.counts["separate"] == 2 * 6


def test_the_command_prints_a_row_per_choice_and_marks_the_best(store, capsys):
    assert main([store, "--gpus", "2,6", "--load", "0", "--pairs", "60", "--jitter", "0"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "3 cells x 60 pairs of prompt and seed = 180 videos" in lines[0]
    rows = [line.split() for line in lines[4:]]
    assert {row[0] for row in rows} == {"2", "6"}
    assert sum("*" in row for row in rows) == 2
    # 60 whole groups of 14 evaluations at half a second and two videos of 3, on 2 GPUs: 211.5 s.
    whole = next(row for row in rows if row[0] == "2" and "32" in row)
    assert whole[whole.index("32") + 2] == "846"
    assert float(whole[whole.index("846") + 1]) == pytest.approx(211.5 / 3600, abs=6e-4)


def test_the_command_prints_json_that_agrees_with_its_parts(store, capsys):
    assert main([store, "--gpus", "3", "--json", "--load", "1"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["costs"]["seconds_per_evaluation"] == pytest.approx(0.5)
    assert [row["is_best"] for row in found["choices"]].count(True) == 1
    assert (found["cells"], found["pairs"]) == (3, 4)


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


def test_commands_of_the_documentation_are_taken_by_the_parser():
    text = (Path(__file__).parents[2] / "docs" / "cluster.md").read_text().replace("\\\n", " ")
    found = [
        line for line in text.splitlines() if line.startswith("python tools/simulate_cluster")
    ]
    assert len(found) >= 2
    for line in found:
        parser().parse_args(shlex.split(line)[2:])
