"""Run jobs on Ray: long-lived worker processes that load the model once, one job at a time each.

A worker that dies, hangs or can no longer use its GPU is replaced by a new one, on any machine of
the cluster; its job comes back as an event and is never run again from here. Workers are asked for
as jobs arrive, so that those which find no place are the demand that an autoscaler answers, and
work begins with the first that is ready.
"""

import contextlib
import logging
import math
import os
import pkgutil
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import ray
from ray import exceptions as lost

from vidcfg.sweep.executor import Event, kind_of, message_of, with_steps
from vidcfg.sweep.jobs import Job
from vidcfg.sweep.ray_cluster import ClusterError, Need, describe_cluster, join, places

logger = logging.getLogger("vidcfg")

WORKER = "vidcfg.sweep.worker:Worker"
MAX_DEATHS_WHILE_LOADING = 3
PLACEMENT_SECONDS = 1800.0
PATIENCE_SECONDS = 120.0
"""So long without any worker that has a place, and it is told."""

LOADING_SECONDS = 3600.0
LOOK_SECONDS = 1.0
RELEASE_SECONDS = 30.0
"""Without a submission for this long, workers that have nothing to do are let go."""

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OPENCV_FOR_THREADS_NUM")


class RenderActor:
    """What runs in a Ray worker process: one model, loaded once, and one job at a time.

    `worker` names a class as "module:Name"; it is made from `spec`, has `.load(job)`, for the job
    that it is probably `first` to run, and `.run(job)`, and tells its steps to what `.on_step` is
    set to. Relative paths are those of `folder`, where this machine has it. The constructor only
    keeps its arguments: an exception in it would cost the actor.
    """

    def __init__(self, worker: str, spec: Any, folder: str, first: Job, need: Need):
        self.name, self.spec, self.folder, self.first = worker, spec, folder, first
        self.threads, self.worker = max(1, int(need.cpus)), None
        # Before torch or OpenCV are imported: they read these once.
        for variable in _THREADS:
            os.environ[variable] = str(self.threads)
        if not need.gpus:
            os.environ["CUDA_VISIBLE_DEVICES"] = os.environ["HIP_VISIBLE_DEVICES"] = ""

    def place(self) -> str:
        """Node and process of this worker: an answer means that it has been placed."""
        return f"{ray.get_runtime_context().get_node_id()[:8]}:{os.getpid()}"

    def load(self) -> str | None:
        """Load the model; why it cannot be loaded, if so."""
        try:
            # Ray leaves it in the folder in which its machine was started.
            with contextlib.suppress(OSError):
                os.chdir(self.folder)
            worker = pkgutil.resolve_name(self.name)(self.spec)
            self._limit_threads()
            worker.load(self.first)
            self._limit_threads()
        except Exception as error:
            return message_of(error)
        self.worker = worker
        return None

    def run(self, job: Any) -> Iterator[dict[str, Any]]:
        """One job, as `with_steps` says it."""
        yield from with_steps(self.worker, job)

    def _limit_threads(self) -> None:
        """For libraries that were imported before their variables could be set."""
        if torch := sys.modules.get("torch"):
            torch.set_num_threads(self.threads)
        if cv2 := sys.modules.get("cv2"):
            cv2.setNumThreads(self.threads)


@dataclass(eq=False)
class _Place:
    """Room for one worker, and how far it is: empty, placing, loading, idle or busy.

    `answer` is awaited: a reference, or those of a job, whose units' `results` come one by one.
    `steps` is how far its run is, and of how many. `deaths` counts the workers in a row that died
    here before they had the model.
    """

    state: str = "empty"
    actor: Any = None
    answer: Any = None
    name: str = ""
    job: Job | None = None
    results: tuple[dict[str, Any], ...] = ()
    steps: tuple[int, int] = (0, 0)
    began: float = 0.0
    limit: float | int = math.inf
    deaths: int = 0


class RayExecutor:
    """The executor of `workers.num` >= 1.

    Args:
        spec: what a worker is made from; small and picklable.
        workers: the `workers` of a sweep.
        address: of a Ray cluster ("auto": the one that this machine belongs to); None starts Ray
            on this machine and ends it with `close`.
        worker: "module:Name" of a class made from `spec`, with `.load(job)` and `.run(job)`.
        on_step: is told (done, total, what=...) about once a second: steps of all runs together.

    `num_workers` is `workers.num`, or fewer where this machine alone cannot hold as many.
    """

    def __init__(
        self,
        spec: Any,
        workers: Any,
        address: str | None = None,
        *,
        worker: str = WORKER,
        on_step: Callable[..., None] | None = None,
    ):
        self.spec, self.worker, self.on_step = spec, worker, on_step
        self.address = None if address == "local" else address
        self.need = Need(cpus=workers.cpus_per_worker, gpus=workers.gpus_per_worker)
        self.time_limit, self.num_workers = workers.time_limit, workers.num
        self.places: list[_Place] = []
        self.waiting: deque[Job] = deque()
        self.kind: Any = None
        self.owns_ray = self.has_loaded = self.has_told = False
        self.last_placed = self.last_submit = 0.0

    def start(self) -> None:
        """Join Ray. Workers are created, and load the model, when jobs are submitted.

        Raises:
            ClusterError: if there is no cluster, or no worker can ever fit.
        """
        self.owns_ray = join(self.address, self.need)
        room = places(self.need)
        if self.address is None and room < self.num_workers:
            logger.warning(
                f"workers.num is {self.num_workers}, but {describe_cluster()} holds {room} of "
                f"{self.need}: {room} run at a time."
            )
            self.num_workers = max(room, 1)
        elif not room:
            logger.warning(
                f"no machine of the cluster can hold a worker of {self.need} (it has "
                f"{describe_cluster()}); waiting {PLACEMENT_SECONDS:g} s for it to grow."
            )
        # A process that died cannot be trusted to a restart by Ray: it would come back without
        # its model. Here a worker that dies is replaced, and its successor waits for a place.
        self.kind = ray.remote(RenderActor).options(
            num_cpus=self.need.cpus,
            num_gpus=self.need.gpus,
            max_restarts=0,
            max_task_retries=0,
            max_concurrency=1,
        )
        self.places = [_Place() for _ in range(self.num_workers)]
        self.last_placed = time.monotonic()

    def free(self) -> int:
        """Jobs that can be submitted at once: workers, there or still to come, without a job."""
        busy = sum(place.state == "busy" for place in self.places)
        return len(self.places) - busy - len(self.waiting)

    def submit(self, job: Job) -> None:
        """Hand in a job; the first worker that is ready takes it, in order of submission."""
        assert self.free() > 0, "submit only as many jobs as free() says"
        self.waiting.append(job)
        self.last_submit = time.monotonic()
        self._staff()

    def wait(self, timeout: float | int) -> list[Event]:
        """Events that happened, as soon as there are any, or none after `timeout` seconds.

        Raises:
            ClusterError: if no worker finds a place in half an hour, or our own Ray has died.
        """
        end = time.monotonic() + timeout
        while True:
            limits = [place.limit for place in self.places]
            events = self._collect(min([end, time.monotonic() + LOOK_SECONDS, *limits]))
            events += self._expire()
            self._staff()
            self._release()
            self._check_placement()
            if events or time.monotonic() >= end or not self._answers():
                return events

    def close(self) -> None:
        """End all workers, and Ray if it was started for them. Safe to call twice."""
        self.waiting.clear()
        if ray.is_initialized():
            for place in self.places:
                self._dismiss(place)
            if self.owns_ray:
                ray.shutdown()
        self.owns_ray = False

    # Workers come and go

    def _staff(self) -> None:
        """Give waiting jobs to idle workers, and ask for a worker for every job beyond them."""
        for place in self.places:
            if self.waiting and place.state == "idle":
                place.job = self.waiting.popleft()
                limit = (self.time_limit or math.inf) * len(place.job.units)
                run = place.actor.run.options(num_returns="streaming")
                self._ask(place, "busy", run.remote(place.job), limit=limit)
        coming = sum(place.state in ("placing", "loading") for place in self.places)
        empty = [place for place in self.places if place.state == "empty"]
        for place, job in zip(empty, [*self.waiting][coming:]):
            place.actor = self.kind.remote(self.worker, self.spec, os.getcwd(), job, self.need)
            self._ask(place, "placing", place.actor.place.remote())

    def _ask(
        self, place: _Place, state: str, answer: Any, *, limit: float | int = math.inf
    ) -> None:
        """The worker at this place is at something, which may take `limit` seconds."""
        place.state, place.answer, place.began = state, answer, time.monotonic()
        place.limit, place.results, place.steps = place.began + limit, (), (0, 0)

    def _dismiss(self, place: _Place) -> None:
        """Kill the worker, whatever it is at, and leave its place empty."""
        if place.actor is not None:
            ray.kill(place.actor, no_restart=True)
        place.actor = place.job = None
        self._ask(place, "empty", None)

    def _release(self) -> None:
        """Let go of workers that no job is left for, so that a cluster can shrink at the end."""
        is_over = not self.waiting and time.monotonic() - self.last_submit >= RELEASE_SECONDS
        for place in self.places if is_over and self.address is not None else ():
            if place.state in ("idle", "placing"):
                self._dismiss(place)

    def _check_placement(self) -> None:
        is_placing = any(place.state == "placing" for place in self.places)
        if is_placing and self.owns_ray and self.address is None and not places(self.need):
            why = "Ray has died on this machine (its raylet ended, perhaps for lack of memory)"
            raise ClusterError(f"{why}. Run the same command again: what is finished stays.")
        if not is_placing or any(place.state not in ("empty", "placing") for place in self.places):
            self.last_placed, self.has_told = time.monotonic(), False
        waited = time.monotonic() - self.last_placed
        if waited > PLACEMENT_SECONDS and not self.has_loaded:
            raise ClusterError(
                f"no worker found a place in {PLACEMENT_SECONDS:g} s: it needs {self.need}, and "
                f"the cluster has {describe_cluster()}. Use smaller workers.cpus_per_worker and "
                "workers.gpus_per_worker, or wait until other jobs of the cluster end."
            )
        if waited > PATIENCE_SECONDS and not self.has_told:
            self.has_told = True
            logger.warning(
                f"no worker is at work: each needs {self.need}, and the cluster has "
                f"{describe_cluster()}. Waiting for a place; Ctrl-C ends it, and what is finished "
                "stays."
            )

    # Answers come in

    def _answers(self) -> dict[Any, _Place]:
        return {place.answer: place for place in self.places if place.answer is not None}

    def _collect(self, end: float | int) -> list[Event]:
        """Wait for the first answer until `end`, then take all that are there."""
        if not (answers := self._answers()):
            return []
        pause = max(0.0, end - time.monotonic())
        for num, timeout in ((1, pause), (len(answers), 0)):
            done, _ = ray.wait(list(answers), num_returns=num, timeout=timeout, fetch_local=False)
        return [event for answer in done for event in self._take(answers[answer])]

    def _take(self, place: _Place) -> list[Event]:
        """What the answer of a worker leads to."""
        # The call itself may have failed, and the worker with it
        if place.state == "empty":
            return []
        answer, place.answer = place.answer, None
        try:
            found = ray.get(next(answer) if place.state == "busy" else answer)
        except lost.RayError as error:
            if place.state == "busy":
                return [self._finish(place, *_fate(error), message=message_of(error))]
            return self._died_before_ready(place, message_of(error))

        # It is placed, has the model, or has run its job
        if place.state == "placing":
            place.name = found
            self._ask(place, "loading", place.actor.load.remote(), limit=LOADING_SECONDS)
            return []
        if place.state == "loading":
            if found is not None:
                return self._cannot_load(place, found)
            self._ask(place, "idle", None)
            place.deaths, self.has_loaded = 0, True
            return []
        if "step" in found:
            place.answer, place.steps = answer, (found["step"], found["steps"])
            self._tell_steps(found["what"])
            return []
        if "kind" not in found:
            place.answer, place.results = answer, (*place.results, found)
            return [Event(place.job, place.name, "unit", (found,))]
        return [self._finish(place, found.pop("kind"), **found)]

    def _tell_steps(self, what: str) -> None:
        """The steps of `what`, or of all runs where there are several."""
        if self.on_step:
            runs = [place.steps for place in self.places if place.steps[1]]
            done, total = map(sum, zip(*runs))
            self.on_step(done, total, what=what if len(runs) == 1 else f"{len(runs)} runs")

    def _died_before_ready(self, place: _Place, message: str) -> list[Event]:
        place.deaths += 1
        self._dismiss(place)
        if place.deaths < MAX_DEATHS_WHILE_LOADING:
            return []
        return self._cannot_load(
            place, f"{place.deaths} workers in a row died while they loaded it. {message}"
        )

    def _cannot_load(self, place: _Place, message: str) -> list[Event]:
        """Left out where another one has the model or loads it; fatal at the last place."""
        name, others = place.name, [one for one in self.places if one is not place]
        self._dismiss(place)
        if not self.waiting:
            return []
        if others and (self.has_loaded or any(one.state == "loading" for one in others)):
            logger.warning(f"worker {name} cannot load the model and is left out: {message}")
            self.places.remove(place)
            return []
        job = self.waiting[0]
        for one in self.places:
            self._dismiss(one)
        self.places.clear()
        self.waiting.clear()
        return [Event(job, name, "model", message=message)]

    def _finish(self, place: _Place, kind: str, is_alive: bool = True, **facts: Any) -> Event:
        """The event of the job at this place; its worker stays if it is alive, with its GPU."""
        facts.setdefault("seconds", time.monotonic() - place.began)
        has_gpu = kind != "sticky"
        event = Event(place.job, place.name, kind if has_gpu else "lost", place.results, **facts)
        if is_alive and has_gpu:
            place.job = None
            self._ask(place, "idle", None)
        else:
            self._dismiss(place)
        return event

    def _expire(self) -> list[Event]:
        events = []
        for place in [one for one in self.places if time.monotonic() >= one.limit]:
            if place.state == "loading":
                events += self._died_before_ready(place, f"no model in {LOADING_SECONDS:g} s")
                continue
            count, limit = len(place.job.units), self.time_limit
            message = f"took longer than {limit * count:g} s (workers.time_limit "
            message += f"{limit:g} s for each of {count} units)"
            events.append(self._finish(place, "timeout", False, message=message))
        return events


def _fate(error: Exception) -> tuple[str, bool]:
    """For a call that brought no value back: the kind of event, and whether the worker lives."""
    if isinstance(error, lost.RayTaskError):
        # The job could not even be read, or its result not be sent.
        return kind_of(error.cause), True
    # Ray kills workers when the memory of their machine runs out, and says so.
    text = str(error).lower()
    is_memory = isinstance(error, lost.OutOfMemoryError) or "running low on memory" in text
    return ("oom" if is_memory else "lost"), False
