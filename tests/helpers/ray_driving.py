"""Executors of quick workers, driven as a sweep drives them."""

import os
import time
from pathlib import Path
from types import SimpleNamespace

from vidcfg.sweep.jobs import Job
from vidcfg.sweep.ray_executor import RayExecutor

ENOUGH = 90.0
HELPERS = str(Path(__file__).parent)


def worker_path() -> str:
    """PYTHONPATH with which worker processes find ray_workers."""
    return os.pathsep.join([HELPERS, *filter(None, [os.environ.get("PYTHONPATH")])])


def make_executor(
    folder, num=2, *, cpus=1, gpus=0, time_limit=None, load="well", address=None
) -> RayExecutor:
    """An executor of quick workers that write to `folder`, not started."""
    workers = SimpleNamespace(
        num=num, cpus_per_worker=cpus, gpus_per_worker=gpus, time_limit=time_limit
    )
    spec = {"folder": str(folder), "load": load}
    return RayExecutor(spec, workers, address, worker="ray_workers:QuickWorker")


def run_all(executor, jobs, *, on_event=lambda event: None):
    """Keep the executor full until all jobs have ended, or the model cannot load: those events."""
    jobs, events = list(jobs), []
    end, expected = time.monotonic() + ENOUGH, len(jobs)
    while len(events) < expected:
        assert time.monotonic() < end, f"only {len(events)} of {expected} events"
        while jobs and executor.free() > 0:
            executor.submit(jobs.pop(0))
        for event in executor.wait(5):
            if event.kind == "unit":
                continue
            events.append(event)
            on_event(event)
            if event.kind == "model":
                return events
    return events


def wait_until(is_true, *, seconds=ENOUGH):
    """Poll until a condition holds."""
    end = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.05)


def jobs_of(*names):
    """One job of one unit for every name."""
    return [Job(id=f"{i}-{name}", units=(name,)) for i, name in enumerate(names)]


def lines(folder, name) -> list[str]:
    path = folder / name
    return path.read_text().splitlines() if path.exists() else []
