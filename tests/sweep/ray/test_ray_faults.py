"""Workers die, hang, run out of memory or cannot load: what their jobs come back as."""

import os
import signal
import time
from types import SimpleNamespace

import pytest
import ray
from ray import exceptions as lost
from ray_driving import jobs_of, lines, run_all, wait_until

from vidcfg.sweep import ray_executor
from vidcfg.sweep.executor import kind_of, message_of
from vidcfg.sweep.jobs import Job

pytestmark = pytest.mark.usefixtures("ray_here")


def by_id(events):
    found = {event.job.id: event for event in events}
    assert len(found) == len(events), "a job has two events"
    return found


def test_a_killed_worker_loses_its_job_alone_and_is_replaced(executor_of, tmp_path):
    executor = executor_of(2)
    jobs = jobs_of("hang", *(f"ok:{i}" for i in range(8)))
    killed = []

    def kill_the_hanging_one(event):
        if not killed:
            wait_until(lambda: "hang" in lines(tmp_path, "attempts.txt"))
            place = next(one for one in executor.places if one.job == jobs[0])
            os.kill(int(place.name.partition(":")[2]), signal.SIGKILL)
            killed.append(place.name)

    events = by_id(run_all(executor, jobs, on_event=kill_the_hanging_one))
    assert events["0-hang"].kind == "lost"
    assert events["0-hang"].worker == killed[0]
    assert "ActorDiedError" in events["0-hang"].message
    assert {event.kind for id, event in events.items() if id != "0-hang"} == {"done"}
    attempts = lines(tmp_path, "attempts.txt")
    assert sorted(attempts) == sorted(job.units[0] for job in jobs), "nothing ran twice"
    (again, *_) = run_all(executor, [Job("again", ("meet:3",)), Job("beside", ("ok:8",))])
    assert again.kind == "done"
    assert executor.num_workers == 2


def test_a_unit_that_kills_its_process_leaves_the_others_unharmed(executor_of, tmp_path):
    executor = executor_of(1)
    names = ["die:1", *(f"ok:{i}" for i in range(4))]
    events = by_id(run_all(executor, jobs_of(*names)))
    assert {id: event.kind for id, event in events.items()} == {
        "0-die:1": "lost",
        **{f"{i + 1}-ok:{i}": "done" for i in range(4)},
    }
    (again,) = run_all(executor, [Job("again", ("die:1",))])
    assert again.kind == "done"
    assert lines(tmp_path, "attempts.txt").count("die:1") == 2


def test_a_unit_that_always_fails_is_an_error_with_its_words(executor_of, tmp_path):
    executor = executor_of(1)
    events = run_all(executor, jobs_of("ok:a", "fail:seven", "ok:b"))
    assert [event.kind for event in events] == ["done", "error", "done"]
    assert events[1].message == "KeyError: 'unit seven always fails'"
    assert len({event.worker for event in events}) == 1, "the worker stays"
    assert len(lines(tmp_path, "loads.txt")) == 1


def test_out_of_memory_asks_for_the_next_level_and_keeps_the_worker(executor_of, tmp_path):
    executor = executor_of(1)
    (first,) = run_all(executor, [Job("m", ("memory:1",))])
    assert first.kind == "oom"
    assert "Tried to allocate 2.00 GiB" in first.message
    (second,) = run_all(executor, [Job("m", ("memory:1",), level=1)])
    assert (second.kind, second.results[0]["level"]) == ("done", 1)
    assert second.worker == first.worker
    assert len(lines(tmp_path, "loads.txt")) == 1


def test_a_process_that_lost_its_gpu_is_replaced(executor_of, tmp_path):
    executor = executor_of(1)
    (first,) = run_all(executor, jobs_of("sticky:x"))
    assert first.kind == "lost"
    assert "illegal memory access" in first.message
    (second,) = run_all(executor, jobs_of("sticky:x"))
    assert second.kind == "done"
    assert second.worker != first.worker
    assert len(lines(tmp_path, "loads.txt")) == 2


def test_a_hanging_unit_is_killed_at_its_time_limit_and_others_go_on(executor_of, tmp_path):
    executor = executor_of(2, time_limit=2.0)
    events = by_id(run_all(executor, jobs_of("hang", *(f"ok:{i}" for i in range(5)))))
    assert events["0-hang"].kind == "timeout"
    assert "took longer than 2 s" in events["0-hang"].message
    assert {event.kind for id, event in events.items() if id != "0-hang"} == {"done"}
    pid = int(events["0-hang"].worker.partition(":")[2])
    wait_until(lambda: not os.path.exists(f"/proc/{pid}"))


def test_the_time_limit_of_a_job_counts_its_units(executor_of):
    executor = executor_of(1, time_limit=1.0)
    (event,) = run_all(executor, [Job("four", ("sleep:0.5", "sleep:0.5", "sleep:0.5", "ok:x"))])
    assert event.kind == "done"


def test_a_model_that_cannot_load_is_reported_once_and_nothing_runs(executor_of, tmp_path):
    executor = executor_of(2, load="fails")
    executor.submit(Job("a", ("ok:a",)))
    executor.submit(Job("b", ("ok:b",)))
    events = executor.wait(60)
    while not events:
        events = executor.wait(60)
    (event,) = events
    assert (event.kind, event.job.id) == ("model", "a")
    assert event.message == "FileNotFoundError: the checkpoint /models/none is not there"
    assert executor.free() == 0
    assert executor.wait(1) == []
    assert lines(tmp_path, "attempts.txt") == []


def test_a_worker_that_dies_while_loading_is_tried_three_times(executor_of, tmp_path):
    executor = executor_of(1, load="dies")
    (event,) = run_all(executor, jobs_of("ok:a"))
    assert event.kind == "model"
    assert "3 workers in a row died" in event.message
    assert len(lines(tmp_path, "loads.txt")) == 3


def test_a_machine_that_cannot_load_is_left_out_while_others_work(executor_of, tmp_path):
    executor = executor_of(2, load="fails later")
    events = run_all(executor, jobs_of("meet:2", *(f"sleep:0.{i + 2}" for i in range(6))))
    assert {event.kind for event in events} == {"done"}
    assert len(lines(tmp_path, "loads.txt")) == 2
    assert len(executor.places) == 1


def test_the_last_place_that_cannot_load_ends_the_run(executor_of, tmp_path):
    executor = executor_of(1, load="fails later")
    events = run_all(executor, jobs_of("die:x", "ok:a"))
    assert [event.kind for event in events] == ["lost", "model"]
    assert "no space left" in events[1].message


def test_no_place_within_the_limit_says_what_the_cluster_has(executor_of, monkeypatch):
    monkeypatch.setattr(ray_executor, "PLACEMENT_SECONDS", 1.0)
    executor = executor_of(1, cpus=64)
    executor.submit(Job("a", ("ok:a",)))
    with pytest.raises(ray_executor.ClusterError, match="the cluster has 1 node with"):
        executor.wait(30)


def test_a_wait_for_places_that_are_lost_is_told_and_goes_on(executor_of, monkeypatch, caplog):
    """As after the machines of all workers have gone: nothing is at work any more."""
    monkeypatch.setattr(ray_executor, "PLACEMENT_SECONDS", 0.2)
    monkeypatch.setattr(ray_executor, "PATIENCE_SECONDS", 0.1)
    executor = executor_of(1, cpus=64)
    executor.has_loaded = True
    executor.submit(Job("a", ("ok:a",)))
    assert executor.wait(2.5) == executor.wait(1.5) == []
    told = [line for line in caplog.messages if "no worker is at work" in line]
    assert len(told) == 1
    assert "each needs 64 CPUs, and the cluster has 1 node with" in told[0]


def test_a_ray_of_our_own_that_has_died_is_not_waited_for(executor_of, monkeypatch):
    executor = executor_of(1, cpus=64)
    executor.submit(Job("a", ("ok:a",)))
    assert executor.wait(0.1) == []
    # As after a SIGKILL of its raylet: no machine is left.
    monkeypatch.setattr(executor, "owns_ray", True)
    monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": False}])
    with pytest.raises(
        ray_executor.ClusterError, match=r"has died on .* Run the same command again"
    ):
        executor.wait(30)


def task_error(cause):
    return lost.RayTaskError("run", "traceback", cause).as_instanceof_cause()


@pytest.mark.parametrize(
    ("error", "kind", "is_alive"),
    [
        (lost.ActorDiedError(), "lost", False),
        (lost.ActorUnavailableError("socket closed", None), "lost", False),
        (lost.WorkerCrashedError(), "lost", False),
        (lost.NodeDiedError("node"), "lost", False),
        (
            lost.OutOfMemoryError("Task was killed due to the node running low on memory."),
            "oom",
            0,
        ),
        (task_error(ValueError("odd")), "error", True),
        (task_error(MemoryError()), "oom", True),
        (task_error(RuntimeError("CUDA error: uncorrectable ECC error")), "sticky", True),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
def test_the_kind_of_an_event_follows_the_class_of_the_error(error, kind, is_alive):
    assert ray_executor._fate(error) == (kind, bool(is_alive))


def chained(inner, outer):
    try:
        try:
            raise inner
        except Exception as error:
            raise outer from error
    except Exception as error:
        return error


def kinds():
    import torch

    yield torch.OutOfMemoryError("CUDA out of memory"), "oom"
    yield MemoryError(), "oom"
    yield RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to"), "oom"
    yield RuntimeError("CUDA error: out of memory"), "oom"
    yield RuntimeError("can't start new thread"), "oom"
    yield chained(torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("decoding")), "oom"
    yield RuntimeError("CUDA error: device-side assert triggered"), "sticky"
    yield RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), "sticky"
    yield ValueError("out of memory is a fine prompt"), "error"
    yield RuntimeError("shapes differ"), "error"
    yield OSError(28, "No space left on device"), "error"


def test_errors_are_sorted_by_what_they_mean_for_the_process():
    assert [kind_of(error) for error, _ in kinds()] == [kind for _, kind in kinds()]


def test_a_message_is_one_line_of_bounded_length():
    message = message_of(ValueError("a\n  b\tc" + "d" * 5000))
    assert message.startswith("ValueError: a b cd")
    assert len(message) == 600
    assert message_of(KeyboardInterrupt()) == "KeyboardInterrupt"


def test_workers_without_work_are_let_go_on_a_cluster(executor_of, monkeypatch):
    monkeypatch.setattr(ray_executor, "RELEASE_SECONDS", 0.5)
    executor = executor_of(2)
    executor.address = "auto"
    executor.submit(Job("a", ("meet:2",)))
    executor.submit(Job("b", ("sleep:3",)))
    wait = SimpleNamespace(end=time.monotonic() + 60, events=[])
    while len(wait.events) < 2 and time.monotonic() < wait.end:
        wait.events += [event for event in executor.wait(0.3) if event.kind != "unit"]
        if len(wait.events) == 1:
            states = sorted(place.state for place in executor.places)
    assert states == ["busy", "empty"]
    assert [event.kind for event in wait.events] == ["done", "done"]
    (again,) = run_all(executor, jobs_of("ok:again"))
    assert again.kind == "done"


def test_results_leave_nothing_in_the_object_store(executor_of):
    executor = executor_of(1)
    run_all(executor, jobs_of(*(f"ok:{i}" for i in range(30))))
    assert ray.available_resources().get("object_store_memory") == ray.cluster_resources().get(
        "object_store_memory"
    )
    assert all(place.answer is None for place in executor.places)
