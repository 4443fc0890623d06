"""A row of the table of speed: a peer, ours, what both must agree in, and how they are timed.

A file beside this one has a docstring, which says what is compared, and `rows()`, which makes the
inputs and returns its rows; `rows(device)` where it can run on a GPU. The names of files are what
`python tools/bench` takes; none may be that of a library, which it would hide.
"""

import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_BUSY = 20_000_000
"""Cycles of a GPU, some 10 ms, in which the CPU launches what is timed."""
LIBRARIES = ("numpy", "scipy", "torch", "opencv-python-headless", "av", "diffusers", "lpips")


@dataclass(frozen=True, eq=False)
class Row:
    """Two ways to the same result.

    `peer` holds no line of vidcfg; None where nobody else does it. `check()` runs before anything
    is timed: it asserts that both make the same, and says how nearly. `goal` is the ratio of the
    peer's time to ours that is to be reached. A `device` of "cuda" has its own clock. Where
    others work beside this thread, `on_clock` takes the time on the clock as the row's.
    """

    name: str
    peer: Callable[[], object] | None
    ours: Callable[[], object]
    check: Callable[[], str]
    note: str = ""
    goal: float | None = None
    rounds: int = 15
    device: str = "cpu"
    on_clock: bool = False


@dataclass(frozen=True)
class Timing:
    """Seconds of processor time of this process and those that it waited for, or of the GPU's
    work, and on the clock."""

    own: float
    wall: float

    def __str__(self) -> str:
        return f"{self.own:.3g} s" if self.own >= 1 else f"{1e3 * self.own:.3g} ms"


def timed(row: Row) -> dict[str, Timing]:
    """The least times of `peer` and `ours`, run in turns, the first of each round by turns too."""
    sides = {"ours": row.ours} | ({"peer": row.peer} if row.peer else {})
    found: dict[str, list[Timing]] = {name: [] for name in sides}
    take = _on_gpu if row.device == "cuda" else _on_cpu
    for number in range(row.rounds):
        for name in sorted(sides, reverse=number % 2 == 0):
            found[name].append(take(sides[name]))
    least = {name: min(t.wall for t in times) for name, times in found.items()}
    return {
        name: Timing(least[name] if row.on_clock else min(t.own for t in times), least[name])
        for name, times in found.items()
    }


def _on_cpu(run: Callable[[], object]) -> Timing:
    cpu, wall = _processor_time(), time.perf_counter()
    run()
    return Timing(_processor_time() - cpu, time.perf_counter() - wall)


def _processor_time() -> float:
    children = os.times()
    return time.process_time() + children.children_user + children.children_system


def _on_gpu(run: Callable[[], object]) -> Timing:
    """All on the clock; the GPU's own work of a short run, kept waiting until all is launched."""
    own, wall = _between_events(run)
    return Timing(own if wall > 0.1 else _between_events(run, _BUSY)[0], wall)


def _between_events(run: Callable[[], object], busy: int = 0) -> tuple[float, float]:
    """Seconds of the GPU and of the clock; the GPU first spins for so many cycles."""
    import torch

    began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    wall = time.perf_counter()
    if busy:
        torch.cuda._sleep(busy)
    began.record()
    run()
    ended.record()
    torch.cuda.synchronize()
    return began.elapsed_time(ended) / 1e3, time.perf_counter() - wall


def measured(row: Row) -> list[str]:
    """The cells of a row: name, times, ratios, what must be reached, agreement, note."""
    agreement = row.check()
    times = timed(row)
    ours, peer = times["ours"], times.get("peer")
    ratios = ["–", "–"]
    if peer:
        ratios = [f"{peer.own / ours.own:.2f} x", f"{peer.wall / ours.wall:.2f} x"]
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


def machine(device: str) -> str:
    """Processor or GPU, copy bandwidth and versions, in one line."""
    if device == "cuda":
        import torch

        copied = f"{torch.cuda.get_device_name()}, copying at {device_bandwidth():.0f} GB/s"
    else:
        facts = Path("/proc/cpuinfo").read_text("utf-8") if Path("/proc/cpuinfo").exists() else ""
        models = [line.partition(": ")[2] for line in facts.splitlines() if "model name" in line]
        processor = models[0] if models else platform.processor() or platform.machine()
        copied = f"{processor}, one thread, copying at {copy_bandwidth():.1f} GB/s"
    versions = ", ".join(f"{name} {found}" for name in LIBRARIES if (found := _version(name)))
    return f"{copied}; Python {platform.python_version()}, {versions}"


def _version(library: str) -> str | None:
    try:
        return version(library)
    except PackageNotFoundError:
        return None


def device_bandwidth() -> float:
    """Bytes read and written a second by the GPU that copies 1 GB, in GB/s."""
    import torch

    source = torch.ones(1 << 28, device="cuda")
    target = torch.empty_like(source)
    best = min(_on_gpu(lambda: target.copy_(source)).own for _ in range(5))
    return 2 * source.nbytes / best / 1e9
