"""The loop that every trained stage runs: a budget, a log line a step, checkpoints, a stop
between steps.
"""

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass

from vidcfg.train.log import Log


@dataclass
class Clock:
    """How far a stage is. The budget is `max_steps` where that is set, else `minutes` of
    training time.
    """

    minutes: float
    max_steps: int | None = None
    step: int = 0
    seconds: float = 0.0

    @property
    def progress(self) -> float:
        """Share of the budget that is spent, 0..1."""
        if self.max_steps is not None:
            return min(1.0, self.step / self.max_steps)
        return min(1.0, self.seconds / (60 * self.minutes))


class Stop:
    """Turns the first Ctrl-C or SIGTERM into a request that the loop obeys after its step; the
    second one interrupts.

    A job started in the background ignores Ctrl-C and a scheduler sends SIGTERM, so both are
    caught.
    """

    def __init__(self):
        self.is_requested = False

    def listen(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._request)

    def _request(self, number, frame) -> None:
        if self.is_requested:
            raise KeyboardInterrupt
        self.is_requested = True


def run_loop(
    stage: str,
    clock: Clock,
    train_step: Callable[[int, float], dict[str, float]],
    *,
    save: Callable[[], None],
    log: Log,
    stop: Stop | None = None,
    checkpoint_minutes: float = 4.0,
) -> None:
    """Call `train_step(step, progress)` until the budget is spent; `save()` every so often, at
    the end and on a stop.

    Raises:
        KeyboardInterrupt: after saving, if a stop was asked for.
    """
    saved = clock.seconds
    while clock.progress < 1:
        started = time.monotonic()
        values = train_step(clock.step, clock.progress)
        clock.step += 1
        clock.seconds += time.monotonic() - started
        log.progress(stage, clock.progress, step=clock.step, **values, seconds=clock.seconds)
        if stop is not None and stop.is_requested:
            save()
            raise KeyboardInterrupt
        if clock.seconds - saved > 60 * checkpoint_minutes:
            saved = clock.seconds
            save()
    save()
