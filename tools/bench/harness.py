"""A row of the table of speed: a peer, ours, what both must agree in, and how they are timed.

A file beside this one has a docstring, which says what is compared, and `rows()`, which makes the
inputs and returns its rows. The names of files are what `python tools/bench` takes; none may be
that of a library, which it would hide.
"""

import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

LIBRARIES = ("numpy", "scipy", "torch", "opencv-python-headless", "av", "diffusers", "lpips")


@dataclass(frozen=True, eq=False)
class Row:
    """Two ways to the same result.

    `peer` holds no line of vidcfg; None where nobody else does it. `check()` runs before anything
    is timed: it asserts that both make the same, and says how nearly. `goal` is the ratio of the
    peer's time to ours that is to be reached.
    """

    name: str
    peer: Callable[[], object] | None
    ours: Callable[[], object]
    check: Callable[[], str]
    note: str = ""
    goal: float | None = None
    rounds: int = 15


@dataclass(frozen=True)
class Timing:
    """Seconds of processor time of this process, and on the clock; the least of all rounds."""

    cpu: float
    wall: float

    def __str__(self) -> str:
        return f"{self.cpu:.3g} s" if self.cpu >= 1 else f"{1e3 * self.cpu:.3g} ms"


def timed(row: Row) -> dict[str, Timing]:
    """The least times of `peer` and `ours`, run in turns, the first of each round by turns too."""
    sides = {"ours": row.ours} | ({"peer": row.peer} if row.peer else {})
    found: dict[str, list[Timing]] = {name: [] for name in sides}
    for number in range(row.rounds):
        for name in sorted(sides, reverse=number % 2 == 0):
            cpu, wall = time.process_time(), time.perf_counter()
            sides[name]()
            found[name].append(Timing(time.process_time() - cpu, time.perf_counter() - wall))
    return {
        name: Timing(min(t.cpu for t in times), min(t.wall for t in times))
        for name, times in found.items()
    }


def measured(row: Row) -> list[str]:
    """The cells of a row: name, times, ratios, what must be reached, agreement, note."""
    agreement = row.check()
    times = timed(row)
    ours, peer = times["ours"], times.get("peer")
    ratios = ["–", "–"]
    if peer:
        ratios = [f"{peer.cpu / ours.cpu:.2f} x", f"{peer.wall / ours.wall:.2f} x"]
    goal = f"{row.goal:g} x" if row.goal else "–"
    return [row.name, str(peer or "–"), str(ours), *ratios, goal, agreement, row.note]


HEADS = ("row", "peer", "ours", "ratio", "on the clock", "to reach", "agreement", "note")


def table(rows: list[list[str]]) -> str:
    """A table in Markdown."""
    lines = [HEADS, ["---"] * len(HEADS), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def copy_bandwidth() -> float:
    """Bytes read and written a second by one thread that copies 64 MB, in GB/s."""
    import numpy as np

    source = np.ones(1 << 24, dtype=np.float32)
    target = np.empty_like(source)
    best = float("inf")
    for _ in range(10):
        began = time.thread_time()
        np.copyto(target, source)
        best = min(best, time.thread_time() - began)
    return 2 * source.nbytes / best / 1e9


def machine() -> str:
    """Processor, copy bandwidth and versions, in one line."""
    facts = Path("/proc/cpuinfo").read_text("utf-8") if Path("/proc/cpuinfo").exists() else ""
    models = [line.partition(": ")[2] for line in facts.splitlines() if "model name" in line]
    processor = models[0] if models else platform.processor() or platform.machine()
    versions = ", ".join(f"{name} {version(name)}" for name in LIBRARIES)
    return (
        f"{processor}, one thread, copying at {copy_bandwidth():.1f} GB/s; "
        f"Python {platform.python_version()}, {versions}"
    )
