"""How far a sweep is: a live table on a terminal, plain lines elsewhere."""

import time
from typing import Any

from vidcfg.sweep.driver import Books

LINE_SECONDS = 10.0


def words(books: Books) -> str:
    """One line: `96 of 576 done, 12 running, 0 failed, 3.1 a second, 2 min left`."""
    running = sum(len(job.units) for job in books.running.values())
    parts = [
        f"{books.done} of {books.total - books.cached} done",
        f"{running} running",
        f"{len(books.failed)} failed",
    ]
    if books.cached:
        parts.append(f"{books.cached} were there")
    if books.rate:
        parts.append(_rate(books.rate))
        if books.left:
            parts.append(f"{duration(books.seconds_left)} left")
    return ", ".join(parts)


def _rate(rate: float) -> str:
    return f"{rate:.1f} a second" if rate >= 1 else f"{60 * rate:.1f} a minute"


def duration(seconds: float) -> str:
    """`45 s`, `12 min`, `3.4 h`, `2.1 days`."""
    for limit, unit, form in ((90, "s", ".0f"), (5400, "min", ".0f"), (172_800, "h", ".1f")):
        if seconds < limit:
            return f"{seconds / {'s': 1, 'min': 60, 'h': 3600}[unit]:{form}} {unit}"
    return f"{seconds / 86_400:.1f} days"


class PlainProgress:
    """A line every ten seconds, and at the end."""

    def __init__(self, stream: Any):
        self.stream, self._last = stream, time.monotonic()
        self._books: Books | None = None

    def __enter__(self) -> "PlainProgress":
        return self

    def __exit__(self, *exc: Any) -> None:
        if self._books is not None:
            print(words(self._books), file=self.stream, flush=True)

    def __call__(self, books: Books) -> None:
        self._books = books
        if time.monotonic() - self._last >= LINE_SECONDS:
            self._last = time.monotonic()
            print(words(books), file=self.stream, flush=True)


class LiveProgress:
    """A table of counts, rate and time left, a bar below it, and the latest failures."""

    def __init__(self) -> None:
        from rich.live import Live

        self._live = Live(refresh_per_second=4)

    def __enter__(self) -> "LiveProgress":
        self._live.__enter__()
        return self

    def __exit__(self, *exc: Any) -> None:
        self._live.__exit__(*exc)

    def __call__(self, books: Books) -> None:
        self._live.update(table(books))


MOST_FAILURES = 5


def table(books: Books) -> Any:
    """What `LiveProgress` shows, for rich to draw."""
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=None, pad_edge=False)
    row = {
        "done": str(books.done),
        "running": str(sum(len(job.units) for job in books.running.values())),
        "failed": str(len(books.failed)),
        "were there": str(books.cached),
        "left": str(books.left),
        "rate": _rate(books.rate) if books.rate else "-",
        "time left": duration(books.seconds_left) if books.rate else "-",
    }
    for name in row:
        shown.add_column(name, justify="right")
    shown.add_row(*row.values())
    lines = [
        # A message may hold anything: it is text, not markup.
        Text(f"failed {key[:12]}: {event.kind}: {event.message}", overflow="ellipsis")
        for key, event in list(books.failed.items())[-MOST_FAILURES:]
    ]
    bar = ProgressBar(total=books.total, completed=books.total - books.left, width=60)
    return Group(shown, bar, *lines)


class Quiet:
    """Says nothing."""

    def __enter__(self) -> "Quiet":
        return self

    def __exit__(self, *exc: Any) -> None:
        pass

    def __call__(self, books: Books) -> None:
        pass


def progress_for(stream: Any, *, is_quiet: bool) -> Any:
    """What fits the stream."""
    if is_quiet:
        return Quiet()
    return LiveProgress() if stream.isatty() else PlainProgress(stream)
