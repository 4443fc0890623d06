"""What every trained stage shares: a budget, a loop that stops between steps, log, checkpoints."""

import json
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vidcfg.files import atomic_path
from vidcfg.progress import Progress


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

    def shown(self) -> tuple[int, int]:
        """What is spent of the budget, and the budget: steps, or seconds."""
        if self.max_steps is not None:
            return self.step, self.max_steps
        return int(self.seconds), int(60 * self.minutes)


class Stop:
    """Within it the first Ctrl-C or SIGTERM is a request that loops obey after their step; the
    second one interrupts. `text` is what an interrupted command says.

    A job started in the background ignores Ctrl-C and a scheduler sends SIGTERM, so both are
    caught.
    """

    def __init__(self, text: str):
        self.text, self.is_requested = text, False

    def __enter__(self) -> "Stop":
        numbers = (signal.SIGINT, signal.SIGTERM)
        self._before = {number: signal.signal(number, self._request) for number in numbers}
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if kind is KeyboardInterrupt:
            raise KeyboardInterrupt(self.text) from None

    def _request(self, number, frame) -> None:
        if self.is_requested:
            raise KeyboardInterrupt
        self.is_requested = True


class Log:
    """JSON lines in a file: every note, and a row of a stage's values every so often."""

    def __init__(self, path: Path, *, every_seconds: float = 30.0):
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path, self.every, self._last = path, every_seconds, 0.0

    def note(self, text: str, **values) -> None:
        """A line that is printed too."""
        self._append({"note": text, **values})
        print("  ".join([text, *([words(values)] if values else [])]), flush=True)

    def row(self, stage: str, fraction: float, **values) -> None:
        """One training step, written if it is time or the last."""
        now = time.monotonic()
        if now - self._last >= self.every or fraction >= 1:
            self._last = now
            self._append({"stage": stage, "fraction": round(fraction, 4), **values})

    def _append(self, row: dict) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps({"time": round(time.time(), 1), **row}) + "\n")


def words(values: dict[str, Any]) -> str:
    shown = {k: f"{v:.4g}" if isinstance(v, float) else str(v) for k, v in values.items()}
    return "  ".join(f"{name} {value}" for name, value in shown.items())


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
    unit = "seconds" if clock.max_steps is None else "steps"
    with Progress(f"{unit} of {stage}") as progress:
        while clock.progress < 1:
            # one step on the clock
            started = time.monotonic()
            values = train_step(clock.step, clock.progress)
            clock.step += 1
            clock.seconds += time.monotonic() - started
            # told
            values = {"step": clock.step, **values, "seconds": clock.seconds}
            log.row(stage, clock.progress, **values)
            progress.update(*clock.shown(), note=words(values))
            # kept
            if stop is not None and stop.is_requested:
                save()
                raise KeyboardInterrupt
            if clock.seconds - saved > 60 * checkpoint_minutes:
                saved = clock.seconds
                save()
    save()


def descend(loss, weights: list, optimizer, *, rate: float) -> dict[str, float]:
    """One step down the gradient, its norm clipped to 1, at learning rate `rate`."""
    from torch.nn.utils import clip_grad_norm_

    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    clip_grad_norm_(weights, 1.0)
    optimizer.step()
    return {"loss": float(loss.detach())}


def save_state(path: Path, clock: Clock, **state) -> None:
    """Write by rename, so that an interruption leaves the checkpoint before it."""
    import torch

    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path, overwrite=True) as part:
        torch.save({**state, "step": clock.step, "seconds": clock.seconds}, part)


def run_model(
    stage: str,
    checkpoint: Path,
    model: Any,
    optimizer: Any,
    clock: Clock,
    train_step: Callable[[int, float], dict[str, float]],
    **how: Any,
) -> None:
    """`run_loop` of a stage with one model and one optimizer, from its checkpoint where there is
    one; `how` as for that.

    Raises:
        ValueError: the checkpoint is of another model.
    """
    import torch

    if checkpoint.is_file():
        state = torch.load(checkpoint, weights_only=True, map_location="cpu")
        try:
            model.load_state_dict(state["model"])
        except RuntimeError:
            what = f"{checkpoint} is of a model of other sizes"
            raise ValueError(f"{what}. Remove it, or write to another place.") from None
        optimizer.load_state_dict(state["optimizer"])
        clock.step, clock.seconds = state["step"], state["seconds"]

    def save() -> None:
        state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
        save_state(checkpoint, clock, **state)

    run_loop(stage, clock, train_step, save=save, **how)
