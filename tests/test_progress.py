"""How far a command is, as a terminal, a file and a quiet user see it."""

import contextlib
import io

import pytest

from vidcfg import progress
from vidcfg.progress import Progress, duration, folded


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass when a test says so."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])

    def wait(seconds):
        now[0] += seconds

    return wait


def test_lines_come_every_ten_seconds_and_at_the_end(clock):
    stream = io.StringIO()
    with Progress("videos", 3, stream=stream) as shown:
        shown.update(1)
        clock(11)
        shown.update(2, note="4 a minute")
        shown.update(3)
    assert stream.getvalue() == "2 of 3 videos, 4 a minute\n3 of 3 videos\n"


def test_what_was_done_is_told_when_the_work_ends_before_the_total(clock):
    stream = io.StringIO()
    with Progress("units", stream=stream) as shown:
        shown.update(2)
    with contextlib.suppress(RuntimeError), Progress("units", 9, stream=stream) as shown:
        shown.update(4)
        raise RuntimeError
    assert stream.getvalue() == "2 units\n4 of 9 units\n"


def test_long_items_have_lines_of_their_steps(clock):
    stream = io.StringIO()
    with Progress("videos", 2, stream=stream) as shown:
        shown.step(1, 30, what="a-kite-s0")
        clock(10)
        shown.step(9, 30, what="a-kite-s0")
        clock(10)
        shown.step(30, 30, what="a-kite-s0")
    assert stream.getvalue() == "0 of 2 videos, a-kite-s0: step 9/30\n"


def test_lines_of_the_count_tell_the_step_that_was_told_last(clock):
    stream = io.StringIO()
    with Progress("videos", 3, stream=stream) as shown:
        for done in (1, 2):
            shown.step(9 * done, 18, what="2 runs")
            clock(10)
            shown.update(done)
        shown.step(1, 18, what="2 runs")
        shown.update(3)
    lines = ["1 of 3 videos, 2 runs: step 9/18", "2 of 3 videos", "3 of 3 videos"]
    assert stream.getvalue().splitlines() == lines


def test_a_line_of_its_own_stands_for_the_count(clock):
    stream = io.StringIO()
    with Progress("videos", 2, stream=stream) as shown:
        shown.update(1, line="[1/2] out/a.mp4")
        shown.update(2, line="[2/2] out/b.mp4")
    assert stream.getvalue() == "[1/2] out/a.mp4\n[2/2] out/b.mp4\n"


@pytest.mark.parametrize("stream", [io.StringIO(), Terminal()])
def test_quiet_prints_nothing_but_what_is_said(clock, stream):
    with Progress("videos", 2, quiet=True, stream=stream) as shown:
        shown.step(1, 3, what="a")
        clock(60)
        shown.step(2, 3, what="a")
        shown.update(1, line="[1/2] a")
        shown.update(2)
        shown.say("a warning")
    assert stream.getvalue() == "a warning\n"


def terminal_of(monkeypatch, columns: int) -> Terminal:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", str(columns))
    return Terminal()


def test_terminals_have_bars_over_the_items_and_over_the_steps(monkeypatch):
    stream = terminal_of(monkeypatch, 160)
    with Progress("videos", 2, stream=stream) as shown:
        shown.step(7, 30, what="a-kite-s0")
        shown.update(1, note="3 a minute", line="[1/2] not on a terminal")
        count, steps = shown._bars.tasks
        assert (count.completed, count.total) == (1, 2)
        assert (steps.completed, steps.total, steps.visible) == (7, 30, True)
        shown._bars.refresh()
        shown.say("[bold] stays as it is")
        shown.step(30, 30, what="a-kite-s0")
        assert not steps.visible
    text = stream.getvalue()
    for words in ("videos", "a-kite-s0", "1/2", "7/30", "3 a minute", "[bold] stays as it is"):
        assert words in text
    assert "not on a terminal" not in text


def test_a_terminal_of_80_columns_shows_counts_times_and_notes_whole(monkeypatch):
    stream = terminal_of(monkeypatch, 80)
    with Progress("videos", 14, stream=stream) as shown:
        shown.step(8, 17, what="a green square moving up over a black background-0.mkv")
        shown.update(7, note="55.8 a minute, 8 s left")
        shown._bars.refresh()
    text = stream.getvalue()
    for words in ("7/14", "8/17", "55.8 a minute, 8 s left"):
        assert words in text
    assert "0:00:…" not in text


def test_bytes_are_shown_in_their_units(monkeypatch):
    stream = terminal_of(monkeypatch, 160)
    with Progress("i3d.pt", 50_000_000, stream=stream, is_bytes=True) as shown:
        shown.update(25_000_000)
    assert "25.0/50.0 MB" in stream.getvalue()


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(45, "45 s"), (720, "12 min"), (12_240, "3.4 h"), (181_440, "2.1 days")],
)
def test_durations_are_in_the_unit_that_a_reader_would_use(seconds, words):
    assert duration(seconds) == words


ROWS = [
    ["name  ", "     a", "     b", "  note"],
    ["group"],
    ["kite  ", "  1.25", "     2", "  up and up"],
]


@pytest.mark.parametrize("width", [None, 29])
def test_a_table_that_fits_has_a_line_for_each_row(width):
    lines = ["name       a     b  note", "group", "kite    1.25     2  up and up"]
    assert folded(ROWS, width) == lines


def test_columns_of_a_table_that_is_too_wide_are_as_wide_as_what_stands_in_them():
    lines = ["name      a  b  note", "group", "kite   1.25  2  up and up"]
    assert folded(ROWS, 25) == lines


def test_rows_that_are_too_wide_break_between_the_same_cells_and_lose_no_word():
    lines = ["name      a  b", "       note", "group", "kite   1.25  2", "       up and up"]
    assert folded(ROWS, 18) == lines


def test_rows_of_long_names_go_on_near_the_margin():
    rows = [["name", "  value", "  note"], ["a-long-name", "  1.25", "  up"]]
    lines = ["name", "      value", "      note", "a-long-name", "      1.25", "      up"]
    assert folded(rows, 16) == lines


def test_long_notes_break_between_words():
    lines = ["name      a", "       b", "       note", "group"]
    lines += ["kite   1.25", "       2", "       up", "       and", "       up"]
    assert folded(ROWS, 11) == lines
