"""What a render tells while it runs: bars on a terminal, plain lines elsewhere, or nothing."""

import sys
import time
from abc import ABC, abstractmethod

from vidcfg.render.units import Unit

SECONDS_BETWEEN_LINES = 10.0


class Progress(ABC):
    """Told about every video and step; a context manager around the whole render."""

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *error) -> None:
        return None

    @abstractmethod
    def start(self, unit: Unit, index: int, total: int) -> None:
        """Video `index` of `total` begins."""

    @abstractmethod
    def step(self, done: int, total: int) -> None:
        """The solver has made `done` of `total` steps of the video at work."""

    @abstractmethod
    def finish(self, unit: Unit, seconds: float) -> None:
        """The files of the video are in place."""


class Silent(Progress):
    """Tells nothing."""

    def start(self, unit: Unit, index: int, total: int) -> None:
        pass

    def step(self, done: int, total: int) -> None:
        pass

    def finish(self, unit: Unit, seconds: float) -> None:
        pass


class Lines(Progress):
    """One line per finished video, and one every ten seconds within a long one."""

    def __init__(self, stream=None):
        self.stream = stream or sys.stdout
        self.head, self.last = "", 0.0

    def start(self, unit: Unit, index: int, total: int) -> None:
        self.head, self.last = f"[{index + 1}/{total}]", time.monotonic()

    def step(self, done: int, total: int) -> None:
        if time.monotonic() - self.last >= SECONDS_BETWEEN_LINES:
            self.last = time.monotonic()
            self._say(f"{self.head} step {done}/{total}")

    def finish(self, unit: Unit, seconds: float) -> None:
        self._say(f"{self.head} {seconds:.1f} s  {unit.video}")

    def _say(self, text: str) -> None:
        print(text, file=self.stream, flush=True)


class Bars(Progress):
    """One bar over the videos and one over the steps of the video at work."""

    def __init__(self):
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )
        from rich.table import Column

        text = Column(no_wrap=True, overflow="ellipsis", max_width=44)
        self.bars = Progress(
            TextColumn("{task.description}", markup=False, table_column=text),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        self.videos = self.bars.add_task("videos", total=None)
        self.steps = self.bars.add_task("steps", total=None, visible=False)

    def __enter__(self) -> "Bars":
        self.bars.start()
        return self

    def __exit__(self, *error) -> None:
        self.bars.update(self.steps, visible=False)
        self.bars.stop()

    def start(self, unit: Unit, index: int, total: int) -> None:
        self.bars.update(self.videos, total=total)
        self.bars.reset(self.steps, description=unit.stem.name, total=None, visible=True)

    def step(self, done: int, total: int) -> None:
        self.bars.update(self.steps, completed=done, total=total)

    def finish(self, unit: Unit, seconds: float) -> None:
        self.bars.advance(self.videos)


def progress_for(stream, *, is_quiet: bool) -> Progress:
    """Bars if `stream` is a terminal, lines if not, nothing if quiet."""
    if is_quiet:
        return Silent()
    return Bars() if stream.isatty() else Lines(stream)
