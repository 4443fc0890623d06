"""Drivers that are killed, interrupted, or two at a time: real processes on one store."""

import os
import signal
import sys
import time
from multiprocessing import get_context
from pathlib import Path

import pytest
from tiny_sweep import starts

from vidcfg.sweep.__main__ import main
from vidcfg.sweep.store import Store

ENOUGH = 120.0
METRICS = "metrics=[flicker]"


@pytest.fixture
def start(sweep_file, tmp_path):
    """`start() -> process` of the command, forked: importing torch anew takes longer than a sweep.

    Its output goes to log-0.txt, log-1.txt, ...
    """
    processes = []

    def go(*arguments):
        log = tmp_path / f"log-{len(processes)}.txt"
        command = [str(sweep_file), "--no-report", "--set", METRICS, *arguments]
        process = get_context("fork").Process(target=_run, args=(log, command))
        process.start()
        processes.append(process)
        return process

    import cv2
    import torch

    # Threads do not survive a fork.
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    yield go
    for process in processes:
        process.kill()
        process.join()


def _run(log: Path, command: list[str]) -> None:
    with open(log, "w") as file:
        sys.stdout = sys.stderr = file
        code = main(command)
    sys.exit(code)


def exit_code(process) -> int:
    process.join(ENOUGH)
    return process.exitcode


@pytest.fixture
def store(tmp_path):
    return Store(str(tmp_path / "store"))


def done_keys(store) -> set[str]:
    plan = store.read_json("plan.json")
    return set() if plan is None else store.done_keys([u["key"] for u in plan["units"]])


def wait_for(is_true, process) -> None:
    end = time.monotonic() + ENOUGH
    while not is_true():
        assert process.is_alive(), "the sweep ended before it could be stopped"
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_killed_driver_resumes_without_repeating_a_unit(start, store, sweep_file):
    process = start("--set", "seeds=0-5")
    wait_for(lambda: len(done_keys(store)) >= 5, process)
    process.kill()
    process.join()
    finished = done_keys(store)
    assert main([str(sweep_file), "--no-report", "--set", METRICS, "--set", "seeds=0-5"]) == 0
    plan = store.read_json("plan.json")
    assert len(finished) < len(plan["units"]) == 48
    assert done_keys(store) == {unit["key"] for unit in plan["units"]}
    begun = starts(store)
    assert all(begun[key] == 1 for key in finished)
    # What was under way is the one job, of one prompt and seed, that was being made.
    again = [unit for unit in plan["units"] if begun[unit["key"]] > 1]
    assert len({(unit["prompt"], unit["seed"]) for unit in again}) <= 1


def test_an_interrupted_sweep_says_how_to_continue(start, store, tmp_path):
    process = start("--set", "seeds=0-5")
    wait_for(lambda: len(done_keys(store)) >= 1, process)
    os.kill(process.pid, signal.SIGINT)
    assert exit_code(process) == 130
    assert "Continue with: python -m vidcfg.sweep" in (tmp_path / "log-0.txt").read_text()
    assert store.read_json("summary.json")["finished"] is False
    assert not [n for n in store.names("units") if n.startswith(".tmp-")]


def test_two_drivers_on_one_store_end_with_every_unit_whole(start, store):
    first, second = start(), start()
    assert (exit_code(first), exit_code(second)) == (0, 0)
    plan = store.read_json("plan.json")
    assert len(done_keys(store)) == len(plan["units"]) == 16
    assert store.names("damaged") == []
    assert store.read_json("summary.json")["finished"] is True
    folders = (Path(store.root) / "units").glob("*/*")
    assert {path.name for path in folders} == {unit["key"] for unit in plan["units"]}
