"""What is told while a sweep runs."""

import io

import pytest

from vidcfg.sweep.driver import Books
from vidcfg.sweep.executor import Event, Job
from vidcfg.sweep.progress import PlainProgress, Quiet, duration, progress_for, table, words


@pytest.fixture
def books(monkeypatch):
    """40 of 100 were there, 24 done in 12 seconds, 2 failed, 5 running."""
    monkeypatch.setattr("time.monotonic", lambda: 112.0)
    bad = Job("b", ("k1",))
    return Books(
        total=100,
        cached=40,
        done=24,
        failed={
            "k1": Event(bad, "w", "error", message="[bold]boom[/bold]"),
            "k2": Event(bad, "w", "lost"),
        },
        running={"a": Job("a", ("x", "y", "z", "u", "v"))},
        began=100.0,
    )


def test_one_line_has_all_counts(books):
    assert words(books) == (
        "24 of 60 done, 5 running, 2 failed, 40 were there, 2.0 a second, 17 s left"
    )


def test_the_table_shows_the_same_counts_and_failures_as_plain_text(books):
    from rich.console import Console

    console = Console(file=io.StringIO(), width=120)
    console.print(table(books))
    text = console.file.getvalue()
    for word in ("done", "24", "running", "5", "failed", "were there", "40", "left", "34", "17 s"):
        assert word in text
    assert "[bold]boom[/bold]" in text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(45, "45 s"), (720, "12 min"), (12240, "3.4 h"), (181440, "2.1 days")],
)
def test_durations_are_short(seconds, text):
    assert duration(float(seconds)) == text


def test_without_a_terminal_there_are_plain_lines(books):
    stream = io.StringIO()
    with progress_for(stream, is_quiet=False) as progress:
        assert isinstance(progress, PlainProgress)
        progress(books)
    assert stream.getvalue() == words(books) + "\n"
    assert isinstance(progress_for(stream, is_quiet=True), Quiet)
