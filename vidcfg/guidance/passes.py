"""How the rows of a step become model calls: one per branch, all at once, or in small pieces."""

import time
from dataclasses import dataclass, field

import torch

Row = tuple[str, int]

_MEASURED: dict[tuple, str] = {}
_WARM_UP = 2
"""Steps of `auto` that are not timed: the first call of each kind pays for allocation."""


def model_calls(
    rows: list[Row], *, batched: bool, batch_order: tuple[str, ...], micro_batch: int | None
) -> list[list[Row]]:
    """Cut `rows` (branch, sample) into model calls.

    Sequential: one call per branch, in the order in which the branches first appear. Batched: one
    call, branches in `batch_order`. `micro_batch` caps the rows of a call; with 1 a result does
    not depend on its batch neighbours, bit for bit.
    """
    names = list(dict.fromkeys(branch for branch, _ in rows))
    if batched:
        names.sort(key=batch_order.index)
        calls = [[row for name in names for row in rows if row[0] == name]]
    else:
        calls = [[row for row in rows if row[0] == name] for name in names]
    size = micro_batch or max(len(rows), 1)
    return [call[i : i + size] for call in calls for i in range(0, len(call), size)]


@dataclass
class PassTimer:
    """Chooses between sequential and batched passes by timing each on real steps.

    The choice is kept per (model, shape, device) for the life of the process. Steps that run one
    branch only are not timed, because both ways are then the same.
    """

    key: tuple
    seconds: dict[str, list[float]] = field(default_factory=lambda: {"batched": [], "sequential": []})

    def choose(self) -> str:
        """The way to run the next step."""
        if self.key in _MEASURED:
            return _MEASURED[self.key]
        behind = len(self.seconds["batched"]) <= len(self.seconds["sequential"])
        return "batched" if behind else "sequential"

    def record(self, mode: str, seconds: float) -> None:
        """Add the time of one step; after two timed steps of each the faster way is kept."""
        self.seconds[mode].append(seconds)
        timed = {mode: times[_WARM_UP - 1 :] for mode, times in self.seconds.items()}
        if self.key not in _MEASURED and all(len(times) >= 2 for times in timed.values()):
            _MEASURED[self.key] = min(timed, key=lambda mode: min(timed[mode]))


def clock(device: torch.device) -> float:
    """Seconds, after the device has finished what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
