"""Who runs jobs: what it says to the driver, how errors are judged, and this process as one."""

import contextlib
import gc
import queue
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from vidcfg.plugins import raised_in
from vidcfg.progress import one_line
from vidcfg.sweep.jobs import Job

MEMORY = ("out of memory", "can't allocate memory", "can't start new thread")
"""Texts of errors after which a job that needs less may still succeed."""

STICKY = (
    "cuda error",
    "device-side assert",
    "cublas_status_execution_failed",
    "cublas_status_not_initialized",
    "cudnn_status_execution_failed",
    "uncorrectable ecc",
    "hip error",
)
"""Texts of errors after which the process cannot use its GPU again."""

MAX_MESSAGE = 600

STEP_SECONDS = 1.0
"""Between two steps that a worker in another process tells."""


@dataclass(frozen=True)
class Event:
    """What became of a job, or of one unit of it.

    `kind` is unit (one unit is finished, the job goes on), done, error (its own exception), oom
    (out of memory), lost (the worker or its machine died), timeout, or model (the model cannot be
    loaded: no worker will ever run). `results` has one small dict for that unit, or for each unit
    of a job that is done.
    """

    job: Job
    worker: str
    kind: str
    results: tuple[dict[str, Any], ...] = ()
    message: str = ""
    seconds: float = 0.0


@runtime_checkable
class Executor(Protocol):
    """Runs jobs. Every submitted job comes back as one event that ends it, after those of its
    units; except after a `model` event.

    `free` is how many jobs can be submitted at once; `wait` gives the events since the last call,
    after at most `timeout` seconds; `close` leaves nothing behind.
    """

    def start(self) -> None: ...
    def free(self) -> int: ...
    def submit(self, job: Job) -> None: ...
    def wait(self, timeout: float) -> list[Event]: ...
    def close(self) -> None: ...


def carry_out(worker: Any, job: Job) -> Iterator[dict[str, Any]]:
    """Run a job: the result of each unit as it is finished, and last the kind, message and seconds
    of the whole; no Exception comes out of it.

    Of the kinds of an event it says done, oom or error, and `sticky` where this process can no
    longer use its GPU.
    """
    begin = time.perf_counter()
    kind, message = "done", ""
    try:
        yield from worker.run(job)
    except Exception as error:
        kind, message = kind_of(error), message_of(error)
    if kind == "oom":
        # Here the error is gone, and with it the frames that held the tensors.
        gc.collect()
        if (torch := sys.modules.get("torch")) and torch.cuda.is_available():
            torch.cuda.empty_cache()
    yield {"kind": kind, "message": message, "seconds": time.perf_counter() - begin}


def with_steps(worker: Any, job: Job) -> Iterator[dict[str, Any]]:
    """`carry_out`, and between its results `step` of `steps` and `what` takes them, about one a
    second and the last of each run.

    Steps come in the midst of a call, by `worker.on_step`, so the job runs in its own thread.
    """
    found: queue.SimpleQueue = queue.SimpleQueue()
    told = -STEP_SECONDS

    def on_step(done: int, total: int, *, what: str) -> None:
        nonlocal told
        now = time.monotonic()
        if done == total or now - told >= STEP_SECONDS:
            told = now
            found.put({"step": done, "steps": total, "what": what})

    def work() -> None:
        try:
            for result in carry_out(worker, job):
                found.put(result)
        except BaseException as error:
            found.put(error)

    worker.on_step = on_step
    # Not waited for when the process ends: it may be at something that takes hours.
    threading.Thread(target=work, daemon=True).start()
    while True:
        result = found.get()
        if isinstance(result, BaseException):
            raise result
        yield result
        if "kind" in result:
            return


def kind_of(error: BaseException) -> str:
    """`oom`, `sticky` or `error`, by the exception and those that it was raised from.

    `oom`: host or GPU memory ran out, and a job that needs less may still succeed in the same
    process. `sticky`: CUDA is unusable in this process, which must be replaced. `error`: all else.
    """
    chain = list(_chain(error))
    # By name: torch.OutOfMemoryError and ray.exceptions.OutOfMemoryError, without their import.
    names = {base.__name__ for one in chain for base in type(one).__mro__}
    text = "\n".join(str(one).lower() for one in chain if isinstance(one, RuntimeError))
    if names & {"OutOfMemoryError", "MemoryError"} or any(mark in text for mark in MEMORY):
        return "oom"
    return "sticky" if any(mark in text for mark in STICKY) else "error"


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error and what it was raised from, without going round in circles."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def message_of(error: BaseException) -> str:
    """`Type: text` on one line, at most 600 characters."""
    kind, text = type(error).__name__, one_line(error, None)
    message = (text if text == kind else f"{kind}: {text}") + raised_in(error)
    return message if len(message) <= MAX_MESSAGE else f"{message[: MAX_MESSAGE - 3]}..."


class _TookTooLong(BaseException):
    """Raised by the alarm clock. Not an Exception, so that no library swallows it."""


class InProcess:
    """The executor of `workers.num: 0`: a job runs in this process, unit by unit, when it is
    waited for.

    `worker` has `.load(job)` and `.run(job)`. `time_limit` is in seconds for each unit of a job;
    it interrupts Python code of the main thread, and code of libraries once that returns.
    """

    def __init__(self, worker: Any, *, time_limit: float | None = None):
        self.worker, self.time_limit = worker, time_limit
        self._has_model = False
        self._job: Job | None = None
        self._steps: Any = None
        self._results: list[dict[str, Any]] = []
        self._end: float | None = None

    def start(self) -> None:
        """Nothing to do: the model is loaded with the first job."""

    def free(self) -> int:
        return 0 if self._job else 1

    def submit(self, job: Job) -> None:
        self._job = job

    def wait(self, timeout: float) -> list[Event]:
        if (job := self._job) is None:
            return []

        # Begin, with the model if it is the first job
        limit = None if self.time_limit is None else self.time_limit * len(job.units)
        if self._steps is None:
            try:
                if not self._has_model:
                    self.worker.load(job)
                self._has_model = True
            except Exception as error:
                return [Event(job, "this process", "model", message=message_of(error))]
            self._steps, self._results = carry_out(self.worker, job), []
            self._end = None if limit is None else time.monotonic() + limit

        # To the end of the next unit
        try:
            with _alarm(self._end):
                found = next(self._steps)
        except _TookTooLong:
            message = f"took longer than {limit:g} s (workers.time_limit for {len(job.units)})"
            found = {"kind": "timeout", "message": message, "seconds": limit}
        if "kind" not in found:
            self._results.append(found)
            return [Event(job, "this process", "unit", (found,))]
        if found["kind"] == "sticky":
            # A broken GPU context would fail every job that follows.
            found["kind"] = "model"
        self.close()
        return [Event(job, "this process", results=tuple(self._results), **found)]

    def close(self) -> None:
        if self._steps is not None:
            self._steps.close()
        self._job = self._steps = None


@contextlib.contextmanager
def _alarm(end: float | None) -> Iterator[None]:
    """Raise _TookTooLong in the block once it is `end`; nothing where there are no alarms."""
    is_main = threading.current_thread() is threading.main_thread()
    if end is None or not is_main or not hasattr(signal, "setitimer"):
        yield
        return

    def ring(number: int, frame: Any) -> None:
        raise _TookTooLong

    before = signal.signal(signal.SIGALRM, ring)
    # An alarm in no time would be none.
    signal.setitimer(signal.ITIMER_REAL, max(end - time.monotonic(), 1e-3))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
