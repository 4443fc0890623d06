"""The worker of a sweep, with faults that a test names for single units."""

import errno
import json
import os
import signal
import time
from pathlib import Path

from vidcfg.sweep.worker import Worker


class OutOfMemoryError(RuntimeError):
    """Of the name and base of torch.OutOfMemoryError."""


class FaultyWorker(Worker):
    """`faults.json` beside the store maps unit keys to die, hang, memory, fail or full.

    die and hang happen once, memory at level 0, fail and full always.
    """

    @property
    def folder(self) -> Path:
        return Path(self.url).parent

    def _store_unit(self, key, *arguments):
        faults = json.loads((self.folder / "faults.json").read_text())
        job = arguments[-1]
        kind = faults.get(key)
        if kind in ("die", "hang") and self._first_time(key):
            if kind == "die":
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(10_000)
        if kind == "memory" and job.level == 0:
            raise OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        if kind == "fail":
            raise ArithmeticError(f"a prediction of {key} holds NaN")
        if kind != "full":
            return super()._store_unit(key, *arguments)
        rename, os.rename = os.rename, no_space
        try:
            return super()._store_unit(key, *arguments)
        finally:
            os.rename = rename

    def _first_time(self, key: str) -> bool:
        marker = self.folder / f"seen-{key}"
        if marker.exists():
            return False
        marker.touch()
        return True


def no_space(source, target) -> None:
    raise OSError(errno.ENOSPC, "No space left on device", str(target))
