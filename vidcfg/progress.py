"""How far a command is: bars on a terminal, plain lines elsewhere, nothing where asked for."""

import os
import re
import sys
import time
from collections.abc import Sequence
from itertools import pairwise, zip_longest
from typing import Any

SECONDS_BETWEEN_LINES = 10.0


def printable(text: str, keep: str = "") -> str:
    """With control characters, and bytes of a name that are no UTF-8, written as their escapes.

    A terminal would obey them; tables, JSON and Parquet could not hold them. Characters that turn
    the direction of text count as such; those of `keep` stay.
    """
    special = r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
    return re.sub(special, lambda c: c[0] if c[0] in keep else ascii(c[0])[1:-1], text)


def one_line(error: BaseException, length: int | None = 300) -> str:
    """What an error says, on one line of at most that length; its kind where it says nothing."""
    return " ".join(str(error).split())[:length] or type(error).__name__


def listed(items: Sequence[object], at_most: int, between: str = ", ") -> str:
    """`a, b and 3 more`."""
    more = f" and {len(items) - at_most} more" if len(items) > at_most else ""
    return between.join(map(str, items[:at_most])) + more


def counted(amount: int, what: str) -> str:
    """`1 prompt`, `2 prompts`."""
    return f"{amount} {what}{'s' * (amount != 1)}"


def terminal_width() -> int | None:
    """How many columns standard output shows; None for a file or a pipe, which take any line."""
    import shutil

    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def folded(rows: Sequence[Sequence[str]], width: int | None) -> list[str]:
    """A line for each row of cells or, where one would be wider than `width`, several.

    Before that, columns are made as narrow as what stands in them, two spaces apart. All rows are
    then broken between the same cells. What follows stands below the second cell, or
    4 columns in where the first cell takes half of the width; a last cell that is wider still is
    broken between words.
    """
    lines = ["".join(row).rstrip() for row in rows]
    if width is None or max(map(len, lines)) <= width:
        return lines
    import textwrap

    columns = [_narrowed(cells) for cells in zip_longest(*rows, fillvalue="")]
    sizes, rows = [len(cells[0]) for cells in columns], list(zip(*columns))
    lines = ["".join(row).rstrip() for row in rows]
    if max(map(len, lines)) <= width:
        return lines

    # Where lines begin: with the first cell, and with each that the one before has no room for.
    indent = sizes[0] if sizes[0] <= width // 2 else 4
    starts, end = [0], sizes[0]
    for index, size in enumerate(sizes[1:], start=1):
        if end + size > width:
            starts.append(index)
            end = indent
        end += size
    lines = []
    for row in rows:
        for start, stop in pairwise([*starts, len(sizes)]):
            text = " " * (indent if start else 0) + "".join(row[start:stop]).rstrip()
            options = {"break_long_words": False, "break_on_hyphens": False}
            lines += textwrap.wrap(text, width, subsequent_indent=" " * (indent + 2), **options)
    return lines


def _narrowed(cells: Sequence[str]) -> list[str]:
    """The cells of a column, all as wide as the longest without the spaces that all could spare;
    two in front are kept."""
    told = [cell.rstrip() for cell in cells]
    spare = min((len(cell) - len(cell.lstrip()) for cell in told if cell), default=0)
    told = [cell[max(spare - 2, 0) :] for cell in told]
    size = max(map(len, told))
    return [cell.ljust(size) for cell in told]


def put(text: str, stream: Any = None, end: str = "\n") -> None:
    """Print at once. A reader such as `head` that has closed the pipe gets no more, which changes
    neither the work nor its exit code.
    """
    stream = stream or sys.stdout
    try:
        print(text, end=end, file=stream, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


class Progress:
    """A bar over what is counted, and one over the steps of the item at work.

        with Progress("videos", total=8) as progress:
            progress.step(3, 30, what="a-red-circle-s0")
            progress.update(1, note="3.1 a minute")

    On a stream that is no terminal a line with both is printed at most every ten seconds, and one
    at the end of the count. `quiet` prints nothing but what `say` is told.

    Args:
        what: plural name of what is counted.
        total: how many there are; None where it is not known yet.
        stream: standard error by default, so that results can be piped.
        is_bytes: whether the count is bytes.
    """

    def __init__(
        self,
        what: str,
        total: int | None = None,
        *,
        quiet: bool = False,
        stream: Any = None,
        is_bytes: bool = False,
    ):
        self.what, self.total, self.done, self.note = what, total, 0, ""
        self._step = ""
        self.stream = stream or sys.stderr
        self.is_quiet, self.is_bytes = quiet, is_bytes
        self._bars: Any = None
        self._last = time.monotonic()
        self._printed: int | None = None

    def __enter__(self) -> "Progress":
        if not self.is_quiet and self.stream.isatty():
            self._bars = _bars(self.stream, is_bytes=self.is_bytes)
            self._count = self._bars.add_task(self.what, total=self.total, note="")
            self._steps = self._bars.add_task("", total=None, visible=False, note="")
            self._bars.start()
        return self

    def __exit__(self, *error: Any) -> None:
        if self._bars is not None:
            self._bars.update(self._steps, visible=False)
            self._bars.stop()
        elif self.done and self._printed != self.done:
            self._line()

    def update(
        self, done: int, total: int | None = None, *, note: str = "", line: str = ""
    ) -> None:
        """`done` of `total` are finished; `note` stands behind the count.

        A `line` is printed at once, in place of the count, where there are no bars.
        """
        note = printable(note)
        self.done, self.note = done, note
        self.total = self.total if total is None else total
        if self._bars is not None:
            self._bars.update(self._count, completed=done, total=self.total, note=note)
        elif line and not self.is_quiet:
            self._last, self._printed = time.monotonic(), done
            self.say(line)
        elif (done == self.total and self._printed != done) or self._is_time():
            self._line()

    def step(self, done: int, total: int, *, what: str) -> None:
        """The item at work, `what`, has made `done` of `total` steps."""
        what = printable(what)
        self._step = f", {what}: step {done}/{total}" if done < total else ""
        if self._bars is not None:
            self._bars.update(
                self._steps, description=what, completed=done, total=total, visible=done < total
            )
        elif done < total and self._is_time():
            self._line()

    def say(self, text: str) -> None:
        """Print a line that stays, above the bars."""
        text = printable(text, keep="\n\t")
        if self._bars is not None:
            self._bars.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            put(text, self.stream)

    def _is_time(self) -> bool:
        return time.monotonic() - self._last >= SECONDS_BETWEEN_LINES

    def _line(self) -> None:
        self._last = time.monotonic()
        if self.is_quiet:
            return
        self._printed = self.done
        of = "" if self.total is None else f" of {self.total}"
        note = f", {self.note}" if self.note else ""
        step = self._step if self.done != self.total else ""
        put(f"{self.done}{of} {self.what}{note}{step}", self.stream)


def _bars(stream: Any, *, is_bytes: bool) -> Any:
    from rich import progress
    from rich.console import Console
    from rich.table import Column

    console = Console(file=stream)
    is_wide = console.width >= 110
    text = Column(no_wrap=True, overflow="ellipsis", max_width=44 if is_wide else 22)
    return progress.Progress(
        progress.TextColumn("{task.description}", markup=False, table_column=text),
        progress.BarColumn(bar_width=24 if is_wide else 8),
        progress.DownloadColumn() if is_bytes else progress.MofNCompleteColumn(),
        progress.TimeElapsedColumn(),
        progress.TimeRemainingColumn(),
        # On a narrow terminal the note wraps, and the counts stay whole.
        progress.TextColumn("{task.fields[note]}", markup=False, table_column=Column()),
        console=console,
    )


def duration(seconds: float | int) -> str:
    """`45 s`, `12 min`, `3.4 h`, `2.1 days`."""
    for limit, unit, form in ((90, "s", ".0f"), (5400, "min", ".0f"), (172_800, "h", ".1f")):
        if seconds < limit:
            return f"{seconds / {'s': 1, 'min': 60, 'h': 3600}[unit]:{form}} {unit}"
    return f"{seconds / 86_400:.1f} days"
