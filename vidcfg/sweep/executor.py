"""What the driver and whoever runs its jobs say to each other."""

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable


@dataclass(frozen=True)
class Job:
    """Units that are made together, by their keys: they may share a trajectory.

    `level` counts how often the job ran out of memory; each level needs less, and changes nothing
    in the result.
    """

    id: str
    units: tuple[str, ...]
    level: int = 0


@dataclass(frozen=True)
class Event:
    """What became of a job.

    `kind` is done, error (its own exception), oom (out of memory), lost (the worker or its machine
    died), timeout, or model (the model cannot be loaded: no worker will ever run). `results` has
    one small dict for each unit of a job that is done.
    """

    job: Job
    worker: str
    kind: str
    results: tuple[dict[str, Any], ...] = ()
    message: str = ""
    seconds: float = 0.0


@runtime_checkable
class Executor(Protocol):
    """Runs jobs. Every submitted job comes back as one event, except after a `model` event."""

    num_workers: int

    def start(self) -> None:
        """Make ready to take jobs."""

    def free(self) -> int:
        """How many jobs can be submitted at once."""

    def submit(self, job: Job) -> None:
        """Hand in a job."""

    def wait(self, timeout: float) -> list[Event]:
        """The events since the last call, after at most `timeout` seconds."""

    def close(self) -> None:
        """Stop, leaving nothing behind."""
