"""What runs inside a Ray worker process: one model, loaded once, and one job at a time."""

import gc
import importlib
import os
import sys
import time
from typing import Any

from vidcfg.sweep.faults import kind_of, one_line

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "OPENCV_FOR_THREADS_NUM",
)


class RenderActor:
    """Wraps a worker class, so that what goes wrong comes back as a value that says what it is.

    `worker` names the class as "module:Name"; it is made from `spec` and has `.load()` and
    `.run(job)`. The constructor only keeps its arguments: an exception in it would cost the actor.
    """

    def __init__(self, worker: str, spec: Any, *, threads: int, has_gpu: bool):
        self.name, self.spec, self.threads = worker, spec, threads
        self.worker: Any = None
        # Before torch or OpenCV are imported: they read these once.
        for variable in THREAD_VARIABLES:
            os.environ[variable] = str(threads)
        if not has_gpu:
            os.environ["CUDA_VISIBLE_DEVICES"] = os.environ["HIP_VISIBLE_DEVICES"] = ""

    def place(self) -> dict[str, Any]:
        """Where this worker is: an answer means that it has been placed."""
        import ray

        context = ray.get_runtime_context()
        return {
            "pid": os.getpid(),
            "node": context.get_node_id()[:8],
            "gpus": ray.get_gpu_ids(),
        }

    def ready(self) -> dict[str, Any]:
        """Load the model: {"ok": True, "seconds"} or {"ok": False, "message"}."""
        begin = time.perf_counter()
        try:
            module, _, name = self.name.partition(":")
            worker = getattr(importlib.import_module(module), name)(self.spec)
            _limit_threads(self.threads)
            worker.load()
            _limit_threads(self.threads)
        except Exception as error:
            return {"ok": False, "message": one_line(error)}
        self.worker = worker
        return {"ok": True, "seconds": time.perf_counter() - begin}

    def run(self, job: Any) -> dict[str, Any]:
        """One job: {"kind", "results", "message", "seconds"}; never raises an Exception."""
        begin = time.perf_counter()
        results, kind, message = (), "done", ""
        try:
            results = tuple(self.worker.run(job))
        except Exception as error:
            kind, message = kind_of(error), one_line(error)
        if kind == "oom":
            # Here the error is gone, and with it the frames that held the tensors.
            _free_memory()
        return {
            "kind": kind,
            "results": results,
            "message": message,
            "seconds": time.perf_counter() - begin,
        }


def _limit_threads(threads: int) -> None:
    """For libraries that were imported before their variables could be set."""
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(threads)
    if cv2 := sys.modules.get("cv2"):
        cv2.setNumThreads(threads)


def _free_memory() -> None:
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
