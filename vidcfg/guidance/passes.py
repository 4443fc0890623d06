"""How the rows of a step become model calls: one per branch, all at once, or in small pieces."""

import time
from dataclasses import dataclass

import torch

Row = tuple[str, int]

_SECONDS: dict[tuple, dict[str, list[float]]] = {}
_WARM_UP = 1
_TIMED = 2


def model_calls(
    rows: list[Row],
    *,
    batched: bool,
    batch_order: tuple[str, ...],
    micro_batch: int | None,
    isolated: frozenset[str] = frozenset(),
) -> list[list[Row]]:
    """Cut `rows` (branch, sample) into model calls.

    Sequential: one call per branch, in the order in which the branches first appear. Batched: one
    call, branches in `batch_order`. Each `isolated` branch follows in a call of its own, in either
    way. `micro_batch` caps the rows of a call (None: no cap); with 1 a
    result does not depend on its batch neighbours, bit for bit.
    """
    present = list(dict.fromkeys(branch for branch, _ in rows))
    names = [name for name in present if name not in isolated]
    if batched:
        names.sort(key=batch_order.index)
        calls = [[row for name in names for row in rows if row[0] == name]]
    else:
        calls = [[row for row in rows if row[0] == name] for name in names]
    calls += [[row for row in rows if row[0] == name] for name in present if name in isolated]
    size = micro_batch or max(len(rows), 1)
    return [call[i : i + size] for call in calls for i in range(0, len(call), size)]


@dataclass(frozen=True)
class PassTimer:
    """Chooses between sequential and batched passes by timing each on real steps.

    Steps with equal `rows` (how many rows each branch has) are compared with each other alone.
    Each way runs three such steps in turn, batched first; the first of each is not counted, as it
    pays for allocation. The faster way is then kept per (key, rows) for the life of the process.
    Steps that run one branch only are the same both ways and are not timed.
    """

    key: tuple

    def choose(self, rows: tuple[int, ...] = ()) -> str:
        """The way to run the next step."""
        times = self._times(rows)
        if all(len(seconds) >= _WARM_UP + _TIMED for seconds in times.values()):
            return min(times, key=lambda mode: min(times[mode][_WARM_UP:]))
        return "batched" if len(times["batched"]) <= len(times["sequential"]) else "sequential"

    def record(self, mode: str, seconds: float, rows: tuple[int, ...] = ()) -> None:
        """Add the time of one step; steps after the choice has been made change nothing."""
        times = self._times(rows)[mode]
        if len(times) < _WARM_UP + _TIMED:
            times.append(seconds)

    def _times(self, rows: tuple[int, ...]) -> dict[str, list[float]]:
        return _SECONDS.setdefault((self.key, rows), {"batched": [], "sequential": []})


def clock(device: torch.device) -> float:
    """Seconds, after the device has finished what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
