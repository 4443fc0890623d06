"""A cluster of several nodes on this machine: joining it, losing a node, growing."""

import os
import shutil
import signal
import subprocess
import sys

import psutil
import pytest
import ray
from ray.cluster_utils import Cluster
from ray_driving import jobs_of, lines, make_executor, run_all, wait_until, worker_path

from vidcfg.sweep import ray_cluster
from vidcfg.sweep.__main__ import main
from vidcfg.sweep.jobs import Job


@pytest.fixture
def cluster(monkeypatch):
    """A head that runs no work, to which tests add nodes of one CPU."""
    monkeypatch.setenv("PYTHONPATH", worker_path())
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    yield made
    ray.shutdown()
    made.shutdown()


def test_a_removed_node_costs_the_job_it_ran_and_a_new_node_is_used(cluster, tmp_path):
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    executor = make_executor(tmp_path, 3, address=cluster.address)
    executor.start()
    try:
        assert ray_cluster.describe_cluster() == "3 nodes with 2 CPUs and no GPU together"
        jobs = jobs_of("hang", "meet:2", *(f"ok:{i}" for i in range(6)))
        removed = []

        def remove_the_node_of_the_hanging_unit(event):
            if not removed:
                wait_until(lambda: "hang" in lines(tmp_path, "attempts.txt"))
                place = next(one for one in executor.places if one.job == jobs[0])
                name = place.name.partition(":")[0]
                node = next(node for node in nodes if node.node_id.startswith(name))
                cluster.remove_node(node, allow_graceful=False)
                removed.append(node)
                cluster.add_node(num_cpus=1)

        events = run_all(executor, jobs, on_event=remove_the_node_of_the_hanging_unit)
        kinds = {event.job.id: event.kind for event in events}
        assert kinds.pop("0-hang") == "lost"
        assert set(kinds.values()) == {"done"}
        # Two workers at work at once: one of them is on the node that came.
        two = [Job("x", ("meet:3",)), Job("y", ("meet:3",))]
        assert [event.kind for event in run_all(executor, two)] == ["done", "done"]
        assert len(lines(tmp_path, "attempts.txt")) == len(jobs) + len(two), "nothing ran twice"
    finally:
        executor.close()
    assert not ray.is_initialized()


DRIVER = """
import sys
from ray_driving import make_executor, jobs_of
folder, address = sys.argv[1], sys.argv[2] or None
executor = make_executor(folder, 2, address=address)
executor.start()
for job in jobs_of("hang", "hang"):
    executor.submit(job)
while True:
    executor.wait(1)
"""


def kill_driver_at_work(folder, address=""):
    """Start a driver, wait until both its workers are at work, kill it; the worker processes."""
    environment = {**os.environ, "PYTHONPATH": worker_path()}
    command = [sys.executable, "-c", DRIVER, str(folder), address]
    driver = subprocess.Popen(command, env=environment)
    try:
        wait_until(lambda: len(lines(folder, "attempts.txt")) == 2)
        started = psutil.Process(driver.pid).children(recursive=True)
        services = [one for one in started if one.name() in ("raylet", "gcs_server")]
        workers = [psutil.Process(int(pid)) for pid in lines(folder, "loads.txt")]
    finally:
        driver.send_signal(signal.SIGKILL)
        driver.wait()
    # Ray's agents for its dashboard end by themselves a minute later.
    return workers, services


def is_running(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_killed_driver_takes_its_workers_and_its_ray_along(tmp_path):
    workers, services = kill_driver_at_work(tmp_path)
    assert len(workers) == 2
    wait_until(lambda: not any(map(is_running, [*workers, *services])), seconds=30)


def test_a_killed_driver_of_a_cluster_takes_its_workers_along(cluster, tmp_path):
    cluster.add_node(num_cpus=2)
    workers, services = kill_driver_at_work(tmp_path, cluster.address)
    assert (len(workers), services) == (2, [])
    wait_until(lambda: not any(map(is_running, workers)), seconds=30)


def test_relative_paths_are_those_of_the_command_on_machines_that_run_elsewhere(
    cluster, sweep_file, tiny_model, tmp_path, monkeypatch
):
    """Nodes have the folder in which they were started."""
    cluster.add_node(num_cpus=1)
    shutil.copytree(tiny_model, tmp_path / "strong")
    shutil.copytree(tiny_model, tmp_path / "weak")
    monkeypatch.chdir(tmp_path)
    command = ["sweep.yaml", "--no-report", "--store", "runs/here", "--workers", "1"]
    method = "{kind: autoguidance, checkpoint: weak, subfolder: transformer}"
    for change in (
        "set={model.checkpoint: strong}",
        f"grid={{guidance.method: [cfg, {method}]}}",
        "seeds=3",
        "metrics=[flicker]",
    ):
        command += ["--set", change]
    assert main([*command, "--address", cluster.address]) == 0
    assert len(list((tmp_path / "runs" / "here" / "units").glob("*/*/DONE"))) == 6
