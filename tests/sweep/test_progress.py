"""What is told while a sweep runs."""

import io

import pytest

from vidcfg.progress import Progress, duration
from vidcfg.sweep.driver import Books
from vidcfg.sweep.executor import Event
from vidcfg.sweep.jobs import Job
from vidcfg.sweep.store import Store
from vidcfg.sweep.tell import Follow, note


@pytest.fixture
def books(monkeypatch):
    """40 of 100 were there, 24 done in 12 seconds, 2 failed, 5 running."""
    monkeypatch.setattr("vidcfg.sweep.driver.time.monotonic", lambda: 112.0)
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


LINE = "24 of 60 done, 5 running, 2 failed, 40 were there, 2.0 a second, 17 s left"


def test_one_line_has_all_counts_and_failures_are_told_once(books):
    stream = io.StringIO()
    with Progress("done", stream=stream) as progress:
        follow = Follow(progress, Store("memory://none"))
        follow(books)
        follow(books)
    assert stream.getvalue().splitlines() == [
        "failed k1: error: [bold]boom[/bold]",
        "failed k2: lost: ",
        LINE,
    ]


def test_no_time_is_promised_while_the_first_job_hands_in_its_videos(books):
    books.cached, books.done, books.failed, books.reported["a"] = 0, 1, {}, 1
    assert note(books) == "4 running, 0 failed"
    books.done = 6  # another job of five has ended
    assert note(books) == "4 running, 0 failed, 30.0 a minute, 3 min left"


def test_a_terminal_shows_the_same_counts_and_failures_as_plain_text(books, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    stream = Terminal()
    with Progress("done", stream=stream) as progress:
        Follow(progress, Store("memory://none"))(books)
    text = stream.getvalue()
    for word in ("done", "24/60", "5 running", "2 failed", "40 were there", "17 s left"):
        assert word in text
    assert "[bold]boom[/bold]" in text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(45, "45 s"), (720, "12 min"), (12240, "3.4 h"), (181440, "2.1 days")],
)
def test_durations_are_short(seconds, text):
    assert duration(float(seconds)) == text


def test_a_scale_that_many_jobs_have_is_noted_once(sweep, capsys):
    assert sweep("--quiet", "--set", "grid={guidance.scale: [40.0]}", "--set", "seeds=0-2") == 0
    assert capsys.readouterr().err.count("scale 40 is outside of what people use") == 1
