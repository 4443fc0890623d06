"""A worker without a model, whose units are named after what happens to them."""

import os
import signal
import time
from pathlib import Path


class OutOfMemoryError(RuntimeError):
    """Of the name and base of torch.OutOfMemoryError, whose import takes long."""


class QuickWorker:
    """Made from a dict: `folder` (where attempts are written down) and `load` (what loading does).

    A unit is `word` or `word:argument`; the words are the methods below. Every start of a unit is
    a line of `attempts.txt`, every end a line of `ended.txt`; `firsts.txt` has the first units of
    the jobs that workers loaded for.
    """

    def __init__(self, spec: dict):
        self.folder, self.how = Path(spec["folder"]), spec.get("load", "well")
        self.loads = 0

    def load(self, job) -> None:
        self._write("loads.txt", str(os.getpid()))
        self._write("firsts.txt", job.units[0])
        if self.how == "fails":
            raise FileNotFoundError("the checkpoint /models/none is not there")
        if self.how == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.how == "fails later" and self._lines("loads.txt")[0] != str(os.getpid()):
            raise OSError("no space left on this machine")
        self.loads += 1

    def run(self, job):
        for unit in job.units:
            yield self._unit(unit, job)

    def _unit(self, unit: str, job) -> dict:
        self._write("attempts.txt", unit)
        word, _, argument = unit.partition(":")
        extra = getattr(self, f"_{word}")(argument, job) or {}
        self._write("ended.txt", unit)
        return {"key": unit, "pid": os.getpid(), "loads": self.loads, **extra}

    def _write(self, name: str, line: str) -> None:
        with open(self.folder / name, "a") as file:
            file.write(line + "\n")

    def _lines(self, name: str) -> list[str]:
        return (self.folder / name).read_text().splitlines()

    def _first_time(self, name: str) -> bool:
        marker = self.folder / f"seen-{name}"
        if marker.exists():
            return False
        marker.touch()
        return True

    def _ok(self, argument: str, job) -> None:
        pass

    def _sleep(self, argument: str, job) -> None:
        time.sleep(float(argument))

    def _steps(self, argument: str, job) -> None:
        """So many steps in a run of twice as many, each told; then another run is waited for."""
        for step in range(int(argument)):
            self.on_step(step + 1, 2 * int(argument), what="a kite")
        end = time.monotonic() + 60
        while "\n".join(self._lines("attempts.txt")).count("steps") < 2 and time.monotonic() < end:
            time.sleep(0.02)
        time.sleep(1.0)

    def _meet(self, argument: str, job) -> None:
        """Wait until as many workers have begun to load as the argument says."""
        count, end = int(argument.partition("-")[0]), time.monotonic() + 60
        while len(self._lines("loads.txt")) < count and time.monotonic() < end:
            time.sleep(0.02)

    def _fail(self, argument: str, job) -> None:
        raise KeyError(f"unit {argument} always fails")

    def _memory(self, argument: str, job) -> dict:
        """Fits from the given fallback level on."""
        if job.level < int(argument):
            raise OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return {"level": job.level}

    def _sticky(self, argument: str, job) -> None:
        if self._first_time(f"sticky-{argument}"):
            raise RuntimeError("CUDA error: an illegal memory access was encountered")

    def _die(self, argument: str, job) -> None:
        if self._first_time(f"die-{argument}"):
            os.kill(os.getpid(), signal.SIGKILL)

    def _hang(self, argument: str, job) -> None:
        time.sleep(10_000)

    def _process(self, argument: str, job) -> dict:
        import cv2
        import torch

        names = ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES")
        return {
            "environment": {name: os.environ.get(name) for name in names},
            "threads": {"torch": torch.get_num_threads(), "cv2": cv2.getNumThreads()},
            "gpus": torch.cuda.device_count(),
        }
