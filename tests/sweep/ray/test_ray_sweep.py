"""Whole sweeps on Ray: real driver, store, worker and model, with faults put in."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter

import pytest
from ray_driving import wait_until

from vidcfg.sweep.__main__ import main
from vidcfg.sweep.driver import SweepStopped
from vidcfg.sweep.ray_executor import RayExecutor
from vidcfg.sweep.run import run_sweep
from vidcfg.sweep.store import Store


@pytest.fixture
def sweep(ray_here, plan, tmp_path):
    """`sweep(faults, *overrides)`: run the tiny sweep; the plan, the store and the outcome."""

    def run(faults, *overrides):
        made = plan("workers.num=2", "workers.batch=2", *overrides)
        by_index = {made.units[index].key: kind for index, kind in faults.items()}
        (tmp_path / "faults.json").write_text(json.dumps(by_index))
        store = Store(made.sweep.store)
        executor = RayExecutor(store.url, made.sweep.workers, worker="faulty_worker:FaultyWorker")
        return made, store, run_sweep(made, store, executor)

    return run


def attempts(store: Store, key: str) -> list[dict]:
    path = store.path(f"attempts/{key}.jsonl")
    return [json.loads(line) for line in open(path)] if os.path.exists(path) else []


def done_lines(store: Store, key: str) -> int:
    return sum(line["what"] == "done" for line in attempts(store, key))


def test_every_fault_costs_its_own_unit_at_most(sweep, plan, tmp_path):
    units = plan().units
    corrupt = tmp_path / "store" / "units" / units[3].key[:2] / units[3].key
    corrupt.mkdir(parents=True)
    (corrupt / "video.mkv").write_bytes(b"half a video")
    (corrupt / "DONE").write_text('{"video.mkv": {"size": 99, "sha256": "0"}}')
    faults = {0: "die", 5: "memory", 9: "fail", 13: "hang"}
    made, store, outcome = sweep(faults, "workers.time_limit=6.0", "workers.max_retries=1")
    bad = made.units[9].key
    assert list(outcome.books.failed) == [bad]
    assert store.names("failed") == [f"{bad}.json"]
    failure = store.read_json(f"failed/{bad}.json")
    assert (failure["kind"], failure["attempts"]) == ("error", 2)
    assert f"a prediction of {bad} holds NaN" in failure["message"]
    with open(store.path(failure["log"])) as log:
        assert "Traceback" in log.read()
    good = [unit.key for unit in made.units if unit.key != bad]
    assert store.done_keys(good) == set(good)
    assert {done_lines(store, key) for key in good} == {1}, "a unit was made twice"
    assert outcome.summary["finished"] is False
    assert "1 units failed" in outcome.problems[0]
    assert len(store.names("damaged")) == 1
    levels = [store.read_json(f"jobs/{name}")["level"] for name in store.names("jobs")]
    assert 1 in levels
    # A second run makes the unit that is missing, and that one alone.
    made, store, outcome = sweep({})
    assert outcome.problems == ()
    assert (outcome.books.done, outcome.books.cached) == (1, len(made.units) - 1)
    assert store.names("failed") == []


def test_a_full_store_stops_the_sweep_and_what_is_finished_stays(sweep, plan, tmp_path):
    units = plan().units
    with pytest.raises(SweepStopped, match="is full. Free some space"):
        sweep({len(units) - 1: "full"})
    store = Store(str(tmp_path / "store"))
    there = store.done_keys([unit.key for unit in units])
    assert units[-1].key not in there
    made, store, outcome = sweep({})
    assert outcome.books.cached == len(there)
    assert outcome.problems == ()
    assert {done_lines(store, unit.key) for unit in made.units} == {1}


def test_a_model_that_cannot_load_ends_the_command_in_one_line(
    ray_here, sweep_file, tiny_model, tmp_path, capsys
):
    import shutil

    broken = tmp_path / "broken"
    shutil.copytree(tiny_model, broken)
    (weights,) = (broken / "transformer").glob("*.safetensors")
    weights.write_bytes(b"not weights")
    argv = [str(sweep_file), "--workers", "2", "--no-report", "--quiet"]
    code = main([*argv, "--set", f"set={{model.checkpoint: {broken}}}"])
    error = capsys.readouterr().err
    assert code == 3
    last = error.splitlines()[-1]
    assert "Traceback" not in error
    assert str(broken) in last or "safetensors" in last or "header" in last.lower(), last


@pytest.mark.slow
def test_two_drivers_that_start_ray_at_the_same_moment_both_go_on(sweep_file, tmp_path):
    workers = ["--workers", "1", "--set", "workers.batch=2"]
    command = [sys.executable, "-m", "vidcfg.sweep", str(sweep_file), "--no-report", *workers]
    both = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    told = [driver.communicate(timeout=300)[1] for driver in both]
    assert [driver.returncode for driver in both] == [0, 0], told
    store = Store(str(tmp_path / "store"))
    keys = [unit["key"] for unit in store.read_json("plan.json")["units"]]
    assert store.done_keys(keys) == set(keys)
    assert store.names("damaged") == store.names("failed") == []
    assert max(done_lines(store, key) for key in keys) == 1


MINI = """\
schema: 1
name: killed
base:
  schema: 1
  name: killed
  model: {kind: mini}
  prompts: [a red circle moving left over a navy background]
  video: {num_frames: 17, height: 32, width: 32, fps: 8}
  sampling: {num_steps: 12, scheduler: flow_euler}
  guidance: {scale: 5.0}
  output: {dir: out, video: ffv1}
grid:
  guidance.scale: [1.0, 3.0, 6.0]
seeds: 0-5
metrics: [flicker]
workers: {num: 2, batch: 1}
store: STORE
"""


def test_killed_workers_and_drivers_repeat_no_finished_unit_of_the_mini_model(tmp_path):
    (tmp_path / "sweep.yaml").write_text(MINI.replace("STORE", str(tmp_path / "store")))
    store = Store(str(tmp_path / "store"))
    command = [sys.executable, "-m", "vidcfg.sweep", str(tmp_path / "sweep.yaml"), "--no-report"]

    def keys():
        return [name.removesuffix(".jsonl") for name in store.names("attempts")]

    def num_done():
        return len(store.done_keys(keys()))

    def at_work():
        """Processes that have begun a unit and not ended it."""
        last = [attempts(store, key)[-1] for key in keys() if attempts(store, key)]
        return [int(x["worker"].rpartition(":")[2]) for x in last if x["what"] == "start"]

    driver = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: num_done() >= 2 and at_work())
        victim = at_work()[0]
        os.kill(victim, signal.SIGKILL)
        seen = num_done()
        wait_until(lambda: num_done() >= seen + 3 and at_work())
    finally:
        driver.send_signal(signal.SIGKILL)
        driver.wait()
    wait_until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in at_work()), seconds=30)
    before = store.done_keys(keys())
    told = time.time()
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    units = [unit["key"] for unit in store.read_json("plan.json")["units"]]
    units += [unit["key"] for unit in store.read_json("plan.json")["check"]["units"]]
    assert store.done_keys(units) == set(units)
    # Every unit is made once; one that was put there by a worker that was killed before it could
    # say so is begun once.
    silent = [key for key in units if done_lines(store, key) == 0]
    assert set(silent) <= set(before)
    assert all([x["what"] for x in attempts(store, key)] == ["start"] for key in silent)
    told_done = Counter(done_lines(store, key) for key in units if key not in silent)
    assert told_done == {1: len(units) - len(silent)}
    again = [key for key in before if any(x["time"] > told for x in attempts(store, key))]
    assert again == []
    assert f"{len(before)} were there" in done.stdout
