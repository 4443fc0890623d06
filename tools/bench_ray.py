"""Two Ray workers against one, side by side, on single-threaded renders of the mini model.

    python tools/bench_ray.py [units] [rounds]

For one and two workers in turn: start them, let each make a video, then time `units` videos. The
same with bare processes, no Ray between, says what the machine itself allows: two cores that share
other work give less than 2. The load average tells how busy the machine is.
"""

import multiprocessing
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

CONFIG = Path(__file__).parents[1] / "configs" / "uniform.yaml"


class MiniWorker:
    """Renders videos of the mini model; unit `30-7` has 30 steps and seed 7."""

    def __init__(self, spec: dict):
        self.spec = spec

    def load(self, job) -> None:
        from vidcfg.pipelines.load import load_pipeline
        from vidcfg.render.config import load_render_config

        config = load_render_config(str(CONFIG), ["output.dir=/nowhere"])
        self.pipe = load_pipeline(config.model)

    def run(self, job) -> Iterator[dict]:
        yield from map(self._unit, job.units)

    def _unit(self, unit: str) -> dict:
        import torch

        from vidcfg.pipelines.schedulers import make_scheduler
        from vidcfg.render.config import load_render_config, units_of
        from vidcfg.render.sampling import sample_units

        torch.set_num_threads(1)
        steps, seed = unit.split("-")
        overrides = [f"sampling.num_steps={steps}", "output.dir=/nowhere"]
        config = load_render_config(str(CONFIG), overrides, seeds=seed)
        self.pipe.scheduler = make_scheduler(self.pipe, config.sampling)
        begin = time.process_time()
        rendered = sample_units([config], self.pipe, units_of(config)[0]).videos[0]
        return {
            "unit": unit,
            "cpu": time.process_time() - begin,
            "evaluations": rendered.trace.total,
        }


def jobs_of(units: list[str]) -> list:
    from vidcfg.sweep.jobs import Job

    return [Job(id=f"{index}-{unit}", units=(unit,)) for index, unit in enumerate(units)]


def run_jobs(executor, units: list[str]) -> tuple[float, list]:
    """Wall seconds from the first submission to the last event, and the events."""
    jobs, events, begin = jobs_of(units), [], time.perf_counter()
    left = list(jobs)
    while len(events) < len(jobs):
        while left and executor.free() > 0:
            executor.submit(left.pop(0))
        found = [event for event in executor.wait(5) if event.kind != "unit"]
        bad = [event for event in found if event.kind != "done"]
        assert not bad, bad[0]
        events += found
    wall = time.perf_counter() - begin
    return wall, events


def with_ray(num_workers: int, units: list[str]) -> tuple[float, list]:
    """The same as run_jobs, on workers that are warm: each has made a video."""
    from vidcfg.sweep.ray_executor import RayExecutor

    workers = SimpleNamespace(
        num=num_workers, cpus_per_worker=1, gpus_per_worker=0, time_limit=None
    )
    executor = RayExecutor({}, workers, worker="bench_ray:MiniWorker")
    executor.start()
    try:
        while sum(place.state == "idle" for place in executor.places) < num_workers:
            run_jobs(executor, ["4-0"] * num_workers)
        run_jobs(executor, ["4-0"] * (2 * num_workers))
        return run_jobs(executor, units)
    finally:
        executor.close()


def bare_process(units: list[str], barrier, done) -> None:
    worker = MiniWorker({})
    worker.load(None)
    worker._unit("4-0")
    barrier.wait()
    for unit in units:
        worker._unit(unit)
    done.wait()


def with_processes(num_workers: int, units: list[str]) -> float:
    """Wall seconds of the same units dealt out to bare processes beforehand."""
    context = multiprocessing.get_context("spawn")
    barrier, done = context.Barrier(num_workers + 1), context.Barrier(num_workers + 1)
    processes = [
        context.Process(target=bare_process, args=(units[i::num_workers], barrier, done))
        for i in range(num_workers)
    ]
    for process in processes:
        process.start()
    barrier.wait()
    begin = time.perf_counter()
    done.wait()
    wall = time.perf_counter() - begin
    for process in processes:
        process.join()
    return wall


def start_ray():
    """Ray on this machine, with workers that find this file."""
    from vidcfg.sweep.ray_cluster import Need, join

    os.environ["OMP_NUM_THREADS"] = "1"
    # Ray's workers are nice (15) unless told otherwise, and would yield to all other work.
    os.environ.update(RAY_worker_niceness=str(os.nice(0)))
    os.environ["PYTHONPATH"] = os.pathsep.join(
        [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    )
    join(None, Need(cpus=1, gpus=0))


def main(num_units: int, rounds: int) -> None:
    import ray

    start_ray()
    units = [f"30-{seed}" for seed in range(num_units)]
    walls: dict[tuple[str, int], list[float]] = {}
    for _ in range(rounds):
        for count in (1, 2):
            wall, events = with_ray(count, units)
            walls.setdefault(("ray", count), []).append(wall)
            walls.setdefault(("bare", count), []).append(with_processes(count, units))
            cpu = sum(event.results[0]["cpu"] for event in events)
            print(
                f"{count} workers: {wall:6.2f} s with Ray, {walls['bare', count][-1]:6.2f} s bare,"
                f" {cpu:6.2f} s of CPU time, load average {os.getloadavg()[0]:.1f}",
                flush=True,
            )
    for name in ("ray", "bare"):
        one, two = min(walls[name, 1]), min(walls[name, 2])
        print(f"{name:5} {num_units} videos: {one:.2f} s -> {two:.2f} s, {one / two:.2f} x")
    ray.shutdown()


if __name__ == "__main__":
    main(*(int(word) for word in (sys.argv[1:] + ["12", "3"][len(sys.argv) - 1 :])))
