"""Jobs on real Ray worker processes, with a worker that has no model."""

import logging
import os
import signal
import sys
import time

import pytest
import ray
from ray_driving import jobs_of, lines, run_all

from vidcfg import cli
from vidcfg.sweep.jobs import Job
from vidcfg.sweep.ray_cluster import ClusterError, Need, join

pytestmark = pytest.mark.usefixtures("ray_here")


def test_every_job_comes_back_once_and_models_are_loaded_once_per_worker(executor_of, tmp_path):
    names = ["meet:2", *(f"ok:{i}" for i in range(22))]
    jobs = jobs_of(*names)
    executor = executor_of(2)
    events = run_all(executor, jobs)
    assert sorted(event.job.id for event in events) == sorted(job.id for job in jobs)
    assert {event.kind for event in events} == {"done"}
    assert {event.results[0]["key"] for event in events} == set(names)
    assert {event.results[0]["loads"] for event in events} == {1}
    assert set(lines(tmp_path, "firsts.txt")) == set(names[:2])
    assert len(lines(tmp_path, "loads.txt")) == 2
    assert sorted(lines(tmp_path, "ended.txt")) == sorted(names)
    assert executor.free() == executor.num_workers == 2


def test_units_of_a_job_run_in_one_process_in_order(executor_of, tmp_path):
    job = Job(id="three", units=("ok:a", "ok:b", "ok:c"))
    executor, events = executor_of(2), []
    executor.submit(job)
    while not events or events[-1].kind == "unit":
        events += executor.wait(5)
    *units, event = events
    assert event.results == tuple(result for unit in units for result in unit.results)
    assert [result["key"] for result in event.results] == ["ok:a", "ok:b", "ok:c"]
    assert len({result["pid"] for result in event.results}) == 1
    assert event.job == job
    assert event.seconds > 0


def test_steps_are_told_while_a_job_runs_those_of_several_together(executor_of):
    executor, told = executor_of(2), []
    executor.on_step = lambda done, total, *, what: told.append((done, total, what))
    events = run_all(executor, [Job("a", ("meet:2", "steps:3")), Job("b", ("meet:2-", "steps:5"))])
    assert [event.kind for event in events] == ["done", "done"]
    assert {result["key"] for event in events for result in event.results} == {
        *("meet:2", "steps:3", "meet:2-", "steps:5")
    }
    # Of the steps within a second the first alone.
    first, both = told
    assert first in ((1, 6, "a kite"), (1, 10, "a kite"))
    assert both == (2, 16, "2 runs")


def test_workers_are_created_only_for_jobs(executor_of, tmp_path):
    executor = executor_of(2)
    assert executor.free() == 2
    assert [place.state for place in executor.places] == ["empty", "empty"]
    run_all(executor, jobs_of("ok:a"))
    assert [place.state for place in executor.places] == ["idle", "empty"]
    run_all(executor, jobs_of("ok:b"))
    assert len(lines(tmp_path, "loads.txt")) == 1


def test_work_begins_with_the_first_worker_though_others_find_no_place(executor_of):
    executor = executor_of(2, cpus=2)
    executor.num_workers = 3
    executor.places = [type(executor.places[0])() for _ in range(3)]
    events = run_all(executor, jobs_of("ok:a", "ok:b", "ok:c", "ok:d"))
    assert {event.kind for event in events} == {"done"}
    assert len({event.worker for event in events}) == 1
    assert [place.state for place in executor.places].count("idle") == 1


def test_without_events_wait_returns_after_its_time(executor_of):
    executor = executor_of(1)
    assert executor.wait(30) == []
    executor.submit(Job(id="a", units=("hang",)))
    begin = time.monotonic()
    assert executor.wait(1.5) == []
    assert time.monotonic() - begin >= 1.5


def test_workers_have_their_threads_and_no_gpu_unless_asked_for(executor_of):
    executor = executor_of(1, cpus=1)
    (event,) = run_all(executor, jobs_of("process"))
    executor.close()
    found = event.results[0]
    assert found["environment"] == {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    assert found["threads"] == {"torch": 1, "cv2": 1}
    assert found["gpus"] == 0
    (event,) = run_all(executor_of(1, cpus=2), jobs_of("process"))
    assert event.results[0]["environment"]["OMP_NUM_THREADS"] == "2"


def test_more_workers_than_the_machine_holds_are_said_and_cut(executor_of, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("vidcfg"), "propagate", True)
    cores = len(os.sched_getaffinity(0))
    executor = executor_of(cores + 5)
    assert executor.num_workers == cores
    assert f"workers.num is {cores + 5}" in caplog.text
    assert f"1 node with {cores} CPU" in caplog.text


def test_closing_ends_the_workers_and_twice_is_harmless(executor_of, tmp_path):
    executor = executor_of(1)
    (event,) = run_all(executor, jobs_of("ok:a"))
    executor.submit(Job(id="b", units=("hang",)))
    executor.wait(0.5)
    executor.close()
    executor.close()
    pid, end = event.results[0]["pid"], time.monotonic() + 20
    while os.path.exists(f"/proc/{pid}") and time.monotonic() < end:
        time.sleep(0.1)
    assert not os.path.exists(f"/proc/{pid}")
    assert ray.is_initialized(), "an executor ends no Ray that it did not start"


def test_a_job_that_cannot_be_sent_is_its_own_error(executor_of):
    executor = executor_of(1)
    events = run_all(executor, jobs_of("no_such_word", "ok:after"))
    assert [event.kind for event in events] == ["error", "done"]
    assert "AttributeError" in events[0].message
    assert events[0].worker == events[1].worker


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("127.0.0.1:1", "no Ray cluster at --address 127.0.0.1:1"),
        ("ray://127.0.0.1:10001", "Ray Client, which is not supported"),
    ],
)
def test_an_address_without_a_cluster_is_one_line(address, message, monkeypatch):
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(ClusterError, match=message) as caught:
        join(address, Need(cpus=1, gpus=0))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("failures", [1, 2])
def test_ray_that_does_not_start_is_tried_once_more(failures, monkeypatch):
    asked, ended = [], []

    def init(**options):
        asked.append(options)
        if len(asked) <= failures:
            raise Exception("The current node timed out\nduring startup.")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "shutdown", lambda: ended.append(1))
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 2.0})
    if failures == 1:
        assert join(None, Need(cpus=1, gpus=0))
    else:
        with pytest.raises(ClusterError, match="tried twice: The current node timed out during"):
            join(None, Need(cpus=1, gpus=0))
    assert len(asked) == 2
    assert asked[0] == asked[1]
    assert len(ended) == failures


@pytest.mark.parametrize("when", ["while Ray starts", "later"])
def test_sigterm_is_ours_though_ray_has_a_handler_of_its_own(when, monkeypatch, capsys):
    def init(**options):
        # The beginning of what it does.
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(number))
        if when != "later":
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 2.0})

    def todo(arguments):
        join(None, Need(cpus=1, gpus=0))
        signal.raise_signal(signal.SIGTERM)

    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        assert cli.run(cli.parser("demo", ""), todo, []) == 130
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    assert capsys.readouterr().err == "vidcfg demo: interrupted\n"


def test_a_worker_beyond_this_machine_is_one_line_with_what_there_is(monkeypatch):
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(ClusterError, match="a worker needs 4096 CPUs, but this machine has"):
        join(None, Need(cpus=4096, gpus=0))


@pytest.mark.parametrize(
    ("need", "resources", "count"),
    [
        ((1, 0), {"CPU": 3.0}, 3),
        ((2, 1), {"CPU": 16.0, "GPU": 4.0}, 4),
        ((2, 1), {"CPU": 5.0, "GPU": 4.0}, 2),
        ((1, 1), {"CPU": 16.0}, 0),
        ((1, 0.5), {"CPU": 16.0, "GPU": 2.0}, 4),
        # Ray never splits a worker's share over two GPUs.
        ((1, 0.4), {"CPU": 16.0, "GPU": 2.0}, 4),
        ((0.5, 0), {"CPU": 2.0}, 4),
    ],
)
def test_how_many_workers_a_machine_holds(need, resources, count):
    assert Need(cpus=need[0], gpus=need[1]).fitting(resources) == count
