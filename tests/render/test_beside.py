"""A video is written beside the sampling of the next one, with nothing lost and nothing half."""

import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor, wait

import pytest

import vidcfg.render.job as job
from vidcfg.media.video import MediaError
from vidcfg.progress import Progress

PROMPTS = ("red-circle-moving-left-over-a-navy", "blue-square-growing-over-a-teal")
STEMS = [f"a-{words}-background-s{seed}" for words in PROMPTS for seed in (3, 4)]
LIMIT = 20
"""Seconds after which what a test waits for will not come."""


def files_of(stems):
    return sorted(
        ["surface.png", *(f"{s}{end}" for s in stems for end in (".mkv", ".png", ".json"))]
    )


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def encoding(monkeypatch):
    """`encoding(before)`: the n-th video (from 1) is encoded after `before(n)`."""

    def replace(before):
        encode, numbers = job.encode_video, iter(range(1, 99))

        def replaced(*arguments, **options):
            before(next(numbers))
            return encode(*arguments, **options)

        monkeypatch.setattr(job, "encode_video", replaced)

    return replace


def test_the_next_video_is_sampled_before_the_former_is_encoded_and_no_further_one(
    render, tmp_path, encoding, monkeypatch
):
    """The first is encoded once the run waits for it: the second is sampled, the third not."""
    sample = job.sample_units
    begun, seen, waits = [], [], threading.Event()

    def sampled(*arguments, **options):
        begun.append(arguments)
        return sample(*arguments, **options)

    def waited(futures):
        waits.set()
        return wait(futures)

    def before(number):
        if number == 1:
            assert waits.wait(LIMIT)
            seen.append(len(begun))

    monkeypatch.setattr(job, "sample_units", sampled)
    monkeypatch.setattr(job, "wait", waited)
    encoding(before)
    assert render() == 0
    assert (seen, len(begun)) == ([2], 4)
    assert names(tmp_path / "out") == files_of(STEMS)


@pytest.mark.parametrize("number", [1, 2, 4])
def test_an_encoder_that_fails_is_one_line_and_leaves_the_videos_before_it(
    render, tmp_path, encoding, capsys, number
):
    def before(now):
        if now == number:
            raise MediaError("ffv1 cannot encode these frames: broken")

    encoding(before)
    assert render() == 2
    told = capsys.readouterr()
    assert told.err == "vidcfg render: ffv1 cannot encode these frames: broken\n"
    assert names(tmp_path / "out") == files_of(STEMS[: number - 1])
    lines = [line.split()[0] for line in told.out.splitlines()[1:]]
    assert lines == [f"[{done}/4]" for done in range(1, number)]


@pytest.fixture
def futures(monkeypatch):
    """What is begun in the thread, in order."""
    found = []

    class Pool(ThreadPoolExecutor):
        def submit(self, *arguments):
            found.append(super().submit(*arguments))
            return found[-1]

    monkeypatch.setattr(job, "ThreadPoolExecutor", Pool)
    return found


def test_a_file_that_cannot_be_written_ends_the_run_at_the_next_step_of_the_solver(
    render, encoding, futures, monkeypatch, capsys
):
    sample, steps = job.sample_units, []

    def sampled(*arguments, **options):
        wait(futures, LIMIT)
        return sample(*arguments, **options)

    def before(number):
        raise MediaError("broken")

    monkeypatch.setattr(job, "sample_units", sampled)
    monkeypatch.setattr(Progress, "step", lambda self, done, total, what: steps.append(done))
    encoding(before)
    assert render() == 2
    assert steps == [1, 2, 3]
    assert "broken" in capsys.readouterr().err


@pytest.mark.parametrize("seeds", ["3-4", "3"])
def test_ctrl_c_while_a_video_is_encoded_waits_for_its_last_file(
    render, tmp_path, encoding, capsys, seeds
):
    """The last one, for which the run waits already."""
    last = 4 if seeds == "3-4" else 2

    def before(number):
        if number == last:
            os.kill(os.getpid(), signal.SIGINT)

    encoding(before)
    assert render("--seed", seeds) == 130
    assert f"{last} of {last} videos are finished" in capsys.readouterr().err
    assert names(tmp_path / "out") == files_of(STEMS if last == 4 else STEMS[::2])


def test_ctrl_c_while_the_next_video_is_sampled_keeps_the_one_that_is_encoded(
    render, tmp_path, encoding, monkeypatch, capsys
):
    steps, interrupted = [], threading.Event()

    def step(self, done, total, *, what):
        steps.append(done)
        if len(steps) == 5:
            interrupted.set()
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Progress, "step", step)
    encoding(lambda number: interrupted.wait(LIMIT))
    assert render() == 130
    assert "1 of 4 videos are finished" in capsys.readouterr().err
    assert names(tmp_path / "out") == files_of(STEMS[:1])


def test_a_second_ctrl_c_does_not_wait_and_leaves_no_half_file(
    render, tmp_path, encoding, futures, monkeypatch, capsys
):
    released = threading.Event()

    def interrupted(waited_for):
        raise KeyboardInterrupt

    monkeypatch.setattr(job, "wait", interrupted)
    encoding(lambda number: released.wait(LIMIT))
    assert render("--seed", "3") == 130
    assert "0 of 2 videos are finished" in capsys.readouterr().err
    assert names(tmp_path / "out") == ["surface.png"]
    released.set()
    wait(futures, LIMIT)
    assert names(tmp_path / "out") == files_of(STEMS[:1])
