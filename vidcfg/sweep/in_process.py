"""The executor of `workers.num: 0`: jobs run in this process, one at a time, without Ray."""

import contextlib
import gc
import signal
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

from vidcfg.sweep.executor import Event, Job
from vidcfg.sweep.faults import kind_of, one_line

NAME = "this process"


class _TookTooLong(BaseException):
    """Raised by the alarm clock. Not an Exception, so that no library swallows it."""


class InProcess:
    """Runs a job when it is waited for.

    `worker` has `.load()` and `.run(job)`. `time_limit` is in seconds for each unit of a job; it
    interrupts Python code of the main thread, and code of libraries once that returns.
    """

    num_workers = 1

    def __init__(self, worker: Any, *, time_limit: float | None = None):
        self.worker, self.time_limit = worker, time_limit
        self._waiting: list[Job] = []
        self._is_loaded = False

    def start(self) -> None:
        """Nothing to do: the model is loaded with the first job."""

    def free(self) -> int:
        return 0 if self._waiting else 1

    def submit(self, job: Job) -> None:
        self._waiting.append(job)

    def wait(self, timeout: float) -> list[Event]:
        if not self._waiting:
            return []
        job = self._waiting.pop(0)
        begin = time.perf_counter()
        if not self._is_loaded:
            try:
                self.worker.load()
                self._is_loaded = True
            except Exception as error:
                return [Event(job, NAME, "model", message=one_line(error))]
        results, kind, message = (), "done", ""
        limit = None if self.time_limit is None else self.time_limit * len(job.units)
        try:
            with _alarm(limit):
                results = tuple(self.worker.run(job))
        except _TookTooLong:
            kind = "timeout"
            message = f"took longer than {limit:g} s (workers.time_limit for {len(job.units)})"
        except Exception as error:
            kind, message = kind_of(error), one_line(error)
        if kind == "oom":
            _free_memory()
        seconds = time.perf_counter() - begin
        # A broken GPU context would fail every job that follows.
        kind = "model" if kind == "sticky" else kind
        return [Event(job, NAME, kind, results, message, seconds)]

    def close(self) -> None:
        self._waiting.clear()


@contextlib.contextmanager
def _alarm(seconds: float | None) -> Iterator[None]:
    """Raise _TookTooLong in the block after so many seconds; nothing where there are no alarms."""
    is_main = threading.current_thread() is threading.main_thread()
    if seconds is None or not is_main or not hasattr(signal, "setitimer"):
        yield
        return

    def ring(number: int, frame: Any) -> None:
        raise _TookTooLong

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _free_memory() -> None:
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
