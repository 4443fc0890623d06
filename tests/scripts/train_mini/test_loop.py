import json
import signal

import pytest
from train_mini.loop import Clock, Log, Stop, run_loop


def test_budget_counts_steps_where_they_are_set_and_time_otherwise():
    assert Clock(minutes=2.0, max_steps=8, step=2, seconds=119.0).progress == 0.25
    assert Clock(minutes=2.0, step=2, seconds=30.0).progress == 0.25
    assert Clock(minutes=2.0, seconds=500.0).progress == 1.0


def test_loop_runs_every_step_once_and_saves_at_the_end(tmp_path):
    steps, saves = [], []
    log = Log(tmp_path / "log.jsonl", every_seconds=0.0)
    clock = Clock(minutes=1.0, max_steps=3)

    def step(number, progress):
        steps.append(number)
        return {"loss": 1.0 / (number + 1)}

    run_loop("tiny", clock, step, save=lambda: saves.append(clock.step), log=log)
    assert steps == [0, 1, 2]
    assert saves == [3]
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert [row["fraction"] for row in rows] == [0.3333, 0.6667, 1.0]


def test_a_stop_saves_after_the_step_and_then_interrupts(tmp_path):
    stop, saves = Stop("stopped"), []
    clock = Clock(minutes=1.0, max_steps=5)

    def step(number, progress):
        stop.is_requested = number == 1
        return {}

    with pytest.raises(KeyboardInterrupt):
        run_loop(
            "tiny",
            clock,
            step,
            save=lambda: saves.append(clock.step),
            log=Log(tmp_path / "log.jsonl"),
            stop=stop,
        )
    assert saves == [2]


def test_a_step_that_fails_does_not_overwrite_the_checkpoint(tmp_path):
    saves = []

    def step(number, progress):
        raise RuntimeError("the loss is nan")

    with pytest.raises(RuntimeError, match="nan"):
        run_loop(
            "tiny",
            Clock(minutes=1.0, max_steps=5),
            step,
            save=lambda: saves.append(1),
            log=Log(tmp_path / "log.jsonl"),
        )
    assert saves == []


def test_the_second_interrupt_does_not_wait_and_the_first_handler_comes_back():
    before = signal.getsignal(signal.SIGINT)

    def run():
        with Stop("stopped; the same command goes on") as stop:
            signal.raise_signal(signal.SIGINT)
            assert stop.is_requested
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt, match="the same command goes on"):
        run()
    assert signal.getsignal(signal.SIGINT) is before
    # What follows the block is interrupted at once, with its own words.
    with pytest.raises(KeyboardInterrupt, match="^$"):
        signal.raise_signal(signal.SIGINT)
