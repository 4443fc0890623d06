"""A discrete-event model of a sweep on a fleet of GPUs: who works on what, when, and who dies.

One worker per GPU. Workers are created one after the other, load the model, and pull the next
task whenever they are free, the most expensive first. A worker that fails loses the task it was
at; the task goes back to the head of the queue, and the worker is there again after it has been
restarted and has loaded the model.
"""

import heapq
import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

CREATED_PER_SECOND = 551.0
"""Actors that one Ray driver creates per second (Ray release benchmark, 10,000 actors)."""

DISPATCH_SECONDS = 1 / 2759
"""The driver's time per task (Ray release benchmark, n:n actor calls with an argument)."""


@dataclass(frozen=True, kw_only=True)
class Fleet:
    """Machines and what slows them.

    `load_seconds` is the time until a worker has its model, `jitter` the relative standard
    deviation of task and load times (never below a fifth of the mean), `hours_between_failures`
    the mean time to failure of one worker (None: never), `restart_seconds` what passes before a
    failed worker begins to load again.
    """

    gpus: int
    load_seconds: float | int = 0.0
    jitter: float | int = 0.0
    hours_between_failures: float | int | None = None
    restart_seconds: float | int = 30.0
    dispatch_seconds: float | int = DISPATCH_SECONDS
    created_per_second: float | int = CREATED_PER_SECOND
    seed: int = 0


@dataclass(frozen=True)
class Outcome:
    """What a simulated sweep took. `used` counts work that was kept, `lost` work that died."""

    gpus: int
    tasks: int
    seconds: float
    used_gpu_seconds: float
    lost_gpu_seconds: float
    failures: int

    @property
    def hours(self) -> float:
        return self.seconds / 3600

    @property
    def used_gpu_hours(self) -> float:
        return self.used_gpu_seconds / 3600

    @property
    def rented_gpu_hours(self) -> float:
        """All GPUs from the start to the end of the sweep."""
        return self.gpus * self.hours

    @property
    def utilisation(self) -> float:
        return self.used_gpu_seconds / (self.gpus * self.seconds) if self.seconds else 0.0


def run_fleet(task_seconds: Sequence[float | int], fleet: Fleet) -> Outcome:
    """Play a sweep of independent tasks on a fleet; a pure function of its arguments.

    With n equal tasks of t seconds on m workers, no jitter, failures, load or dispatch time, the
    sweep takes ceil(n / m) * t seconds.

    Raises:
        ValueError: if there is no GPU, a task takes no time or less, or tasks are so long that
            workers fail over a hundred times per task.
    """
    if fleet.gpus < 1:
        raise ValueError(f"gpus is {fleet.gpus}. Use 1 or more.")
    if any(seconds <= 0 for seconds in task_seconds):
        raise ValueError("a task takes 0 seconds or less. Give every task its time in seconds.")
    return _Play(task_seconds, fleet).run()


class _Play:
    """The state of one simulation."""

    def __init__(self, task_seconds: Sequence[float | int], fleet: Fleet):
        self.fleet, self.random = fleet, random.Random(fleet.seed)
        self.queue = deque(sorted(map(float, task_seconds), reverse=True))
        self.total = self.left = len(self.queue)
        self.events: list[tuple[float, int, str, float, float]] = []
        self.order = self.idle = self.failures = 0
        self.driver_free = self.used = self.lost = self.end = 0.0

    def run(self) -> Outcome:
        # A worker that never gets a task changes nothing, so only as many as tasks are created.
        for index in range(min(self.fleet.gpus, self.total)):
            created = (index + 1) / self.fleet.created_per_second
            self._at(created + self._load(), "ready")
        while self.left:
            now, _, kind, seconds, mean = heapq.heappop(self.events)
            if kind == "done":
                self.left -= 1
                self.used += seconds
                self.end = now
            elif kind == "failed":
                self._fail(now, seconds, mean)
                continue
            self.idle += 1
            self._hand_out(now)
        return Outcome(self.fleet.gpus, self.total, self.end, self.used, self.lost, self.failures)

    def _at(self, when: float, kind: str, seconds: float = 0.0, mean: float = 0.0) -> None:
        self.order += 1
        heapq.heappush(self.events, (when, self.order, kind, seconds, mean))

    def _fail(self, now: float, seconds: float, mean: float) -> None:
        self.failures += 1
        if self.failures > 100 * self.total:
            raise ValueError(
                f"after {self.failures} failures {self.left} of {self.total} tasks are left: a "
                f"task of {mean / 3600:.2g} h rarely survives workers that fail every "
                f"{self.fleet.hours_between_failures:g} h. Cut the work into smaller tasks."
            )
        self.lost += seconds
        self.queue.appendleft(mean)
        self._at(now + self.fleet.restart_seconds + self._load(), "ready")
        self._hand_out(now)

    def _hand_out(self, now: float) -> None:
        while self.queue and self.idle:
            self.idle -= 1
            mean = self.queue.popleft()
            seconds = mean * self._jitter()
            self.driver_free = begin = max(now, self.driver_free) + self.fleet.dispatch_seconds
            survives = self._time_to_failure()
            if survives < seconds:
                self._at(begin + survives, "failed", survives, mean)
            else:
                self._at(begin + seconds, "done", seconds, mean)

    def _load(self) -> float:
        return self.fleet.load_seconds * self._jitter()

    def _jitter(self) -> float:
        if not self.fleet.jitter:
            return 1.0
        return max(0.2, self.random.gauss(1.0, self.fleet.jitter))

    def _time_to_failure(self) -> float:
        if self.fleet.hours_between_failures is None:
            return float("inf")
        return self.random.expovariate(1 / (3600 * self.fleet.hours_between_failures))
