"""The loop of a sweep: hands out jobs, judges what became of them, and keeps the books.

Knows neither Ray nor torch: jobs run behind the `Executor`, results are in the store. A unit that
is done is never made again, by whichever driver.
"""

import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from vidcfg.sweep.executor import Event, Executor
from vidcfg.sweep.jobs import Job
from vidcfg.sweep.plan import Plan, job_of
from vidcfg.sweep.store import Store

POLL_SECONDS = 2.0
MAX_LEVEL = 2
"""Out of memory: after a job of one unit has failed at this level, the unit has failed."""

AGAIN = "-again"
"""The name of a job that is handed out once more ends so."""


class ModelLoadError(RuntimeError):
    """The model cannot be loaded: no unit can be made."""


class SweepStopped(RuntimeError):
    """The sweep cannot go on; what is finished stays."""


@dataclass
class Books:
    """How far a sweep is. Units are counted once, whatever it took to make them.

    `there` are the keys of those that were there when it began; `reported` counts, for each job
    that runs, the units that its worker has finished.
    """

    total: int
    cached: int = 0
    done: int = 0
    failed: dict[str, Event] = field(default_factory=dict)
    running: dict[str, Job] = field(default_factory=dict)
    reported: Counter = field(default_factory=Counter)
    executed: int = 0
    planned: int = 0
    mismatches: list[str] = field(default_factory=list)
    attempts: Counter = field(default_factory=Counter)
    began: float = field(default_factory=time.monotonic)
    there: frozenset[str] = frozenset()

    @property
    def left(self) -> int:
        """Units that are neither there nor given up."""
        return self.total - self.cached - self.done - len(self.failed)

    @property
    def rate(self) -> float | None:
        """Units a second; None before a job has ended, whose units are finished together."""
        elapsed = time.monotonic() - self.began
        is_known = self.done > self.reported.total() and elapsed > 0
        return self.done / elapsed if is_known else None


def drive(
    plan: Plan,
    store: Store,
    executor: Executor,
    *,
    on_change: Callable[[Books], None] = lambda books: None,
    poll: float = POLL_SECONDS,
) -> Books:
    """Make every unit of a plan that is not in the store; `on_change` follows each event.

    A job whose worker was lost is handed out once more. A job that fails otherwise, or again, is
    cut in two, so that one bad unit takes no other with it; a unit alone is tried again
    `workers.max_retries` times, then noted under `failed/`. Jobs that ran out of memory are cut
    likewise, then run at a level that needs less.

    Raises:
        ModelLoadError: if the model cannot be loaded; nothing is tried twice.
        SweepStopped: if the store is full or cannot be written.
    """
    # What is left to do
    there = store.done_keys(plan.keys)
    books = Books(total=len(plan.units), cached=len(there), there=frozenset(there))
    for name in store.names("failed"):
        if name.removesuffix(".json") in there:
            store.remove(f"failed/{name}")
    todo = [key for key in plan.keys if key not in there]
    on_change(books)
    if not todo:
        return books

    # Hand out, wait, book, until nothing waits or runs
    executor.start()
    try:
        queue = deque(plan.jobs(todo))
        while queue or books.running:
            while queue and executor.free() > 0:
                job = queue.popleft()
                books.running[job.id] = job
                executor.submit(job)
            on_change(books)
            for event in executor.wait(poll):
                queue.extendleft(reversed(_settle(event, plan, store, books)))
                on_change(books)
    finally:
        executor.close()
    return books


def _settle(event: Event, plan: Plan, store: Store, books: Books) -> list[Job]:
    """Book one event; what it leaves to do."""
    # A unit of a job that goes on; it is "cached" where another driver on the store was first
    job = event.job
    if event.kind == "unit":
        statuses = Counter(result["status"] for result in event.results)
        books.done += statuses["done"]
        books.cached += statuses["cached"]
        books.reported[job.id] += statuses.total()
        return []

    # The job has ended: what stops the sweep, and what went well
    books.running.pop(job.id, None)
    reported = books.reported.pop(job.id, 0)
    if event.kind == "model":
        raise ModelLoadError(event.message)
    if event.kind == "done":
        _book_results(event, plan, store, books)
        return []
    if event.message.startswith("StoreError"):
        raise SweepStopped(event.message.removeprefix("StoreError: "))
    done = store.done_keys(list(job.units))
    books.done += len(done) - reported
    if not (left := tuple(key for key in job.units if key not in done)):
        return []

    # Several units are left: once more together, then in halves
    if event.kind == "lost" and len(left) > 1 and not job.id.endswith(AGAIN):
        return [replace(job, id=f"{job.id}{AGAIN}", units=left)]
    if len(left) > 1:
        middle = len(left) // 2
        return [job_of(half, level=job.level) for half in (left[:middle], left[middle:])]

    # One unit: with less memory, or again, or given up
    (key,) = left
    books.attempts[key] += 1
    if event.kind == "oom" and job.level < MAX_LEVEL:
        return [replace(job, id=f"{job.id}-{job.level + 1}", units=left, level=job.level + 1)]
    if event.kind != "oom" and books.attempts[key] <= plan.sweep.workers.max_retries:
        return [replace(job, id=f"{job.id}-r{books.attempts[key]}", units=left)]
    books.failed[key] = event
    facts = {"kind": event.kind, "message": event.message, "attempts": books.attempts[key]}
    whole = vars(plan.by_key[key]) | facts | {"log": f"logs/{key}.log"}
    store.write_json(f"failed/{key}.json", whole)
    return []


def _book_results(event: Event, plan: Plan, store: Store, books: Books) -> None:
    made = tuple(r["key"] for r in event.results if r["status"] == "done")
    facts = store.read_json(f"jobs/{event.job.id}.json") if made else None
    for result in event.results:
        store.remove(f"failed/{result['key']}.json")
    if facts is None or not set(made) <= set(facts["units"]):
        # Another driver at the same job has written its own.
        return

    # Evaluations, of jobs that were made whole
    books.executed += facts["executed"]
    if len(made) != len(event.job.units):
        return
    executed, planned = facts["executed"], plan.evaluations(made)
    books.planned += facts["planned"] if planned is None else planned.total
    if planned is None or executed == planned.total:
        return
    # Units together may share more than settings tell, where their rules do the same at first.
    at_most = planned.is_upper_bound or len(made) > 1
    if not (at_most and executed < planned.total):
        books.mismatches.append(
            f"job {event.job.id}: {executed} model evaluations were run, "
            f"{planned.total} were planned"
        )
