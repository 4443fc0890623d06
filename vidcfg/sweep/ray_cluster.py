"""Join a Ray cluster, or start Ray on this machine; say in one line what is wrong."""

import logging
import os
import signal
import socket
import threading
from dataclasses import dataclass
from typing import Any

import ray

from vidcfg.progress import one_line

OBJECT_STORE_BYTES = 80 * 2**20
"""Results are small and travel with their replies; Ray's least size is enough."""


class ClusterError(RuntimeError):
    """There is no cluster to work on, or it cannot hold a worker. One line, with the fix."""


@dataclass(frozen=True)
class Need:
    """What one worker occupies."""

    cpus: float | int
    gpus: float | int

    def __str__(self) -> str:
        return _amounts({"CPU": self.cpus, "GPU": self.gpus}, is_need=True)

    def fitting(self, resources: dict[str, Any]) -> int:
        """How many workers a machine with these resources holds at once."""
        by_cpus = int(resources.get("CPU", 0) / self.cpus + 1e-9)
        if self.gpus >= 1:
            return min(by_cpus, int(resources.get("GPU", 0) / self.gpus + 1e-9))
        if self.gpus:
            return min(by_cpus, int(resources.get("GPU", 0)) * int(1 / self.gpus + 1e-9))
        return by_cpus


def join(address: str | None, need: Need) -> bool:
    """Connect this process to Ray; the result says whether Ray was started here, for us alone.

    A process that is connected stays as it is. Without an address, Ray is started on this machine
    and ends with this process.

    Raises:
        ClusterError: if there is no cluster at the address, it refuses us, or this machine cannot
            hold a single worker.
    """
    if ray.is_initialized():
        return False
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if address is None:
        _start_here(need)
        return True
    _check_address(address)
    try:
        _init(address=address)
    except Exception as error:
        raise _not_joined(address, error) from None
    return True


def _init(**options: Any) -> None:
    """`ray.init` that says little, and leaves the handler of SIGTERM of this process.

    Raises:
        KeyboardInterrupt: SIGTERM came meanwhile.
    """
    is_main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGTERM) if is_main else None
    try:
        ray.init(log_to_driver=False, logging_level=logging.ERROR, **options)
    except SystemExit as end:
        # What Ray's handler raises. It would end the process with 15, and say nothing.
        if end.code == signal.SIGTERM:
            raise KeyboardInterrupt from None
        raise
    finally:
        # Without one of ours, that of Ray is better than none: it lets Ray end in order.
        if callable(before):
            signal.signal(signal.SIGTERM, before)


def _start_here(need: Need) -> None:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    if need.cpus > cores:
        raise ClusterError(
            f"a worker needs {need}, but this machine has {cores} CPUs. Use "
            f"workers.cpus_per_worker: {cores} or less."
        )
    # On a busy machine its processes may be too slow for each other, once.
    for is_last in (False, True):
        try:
            _init(
                address="local",
                num_cpus=cores,
                include_dashboard=False,
                object_store_memory=OBJECT_STORE_BYTES,
            )
            break
        except Exception as error:
            ray.shutdown()
            if is_last:
                text = one_line(error).rstrip(".")
                raise ClusterError(
                    f"Ray did not start on this machine, tried twice: {text}. Try again when it "
                    "is less busy, or use --workers 0 to run in this process."
                ) from None
    have = ray.cluster_resources()
    if not need.fitting(have):
        ray.shutdown()
        raise ClusterError(
            f"a worker needs {need}, but this machine has {_amounts(have)}. Use "
            f"workers.gpus_per_worker: {'0' if not have.get('GPU') else '1'} or give --address "
            "of a cluster that has more."
        )


def _check_address(address: str) -> None:
    """Find the mistakes that Ray would take minutes over."""
    if address.startswith("ray://"):
        raise ClusterError(
            f"--address {address} is Ray Client, which is not supported. Run the command on a "
            "node of the cluster with --address auto, or hand it in with `ray job submit`."
        )
    host, _, port = address.rpartition(":")
    if address == "auto" or not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except OSError as error:
        raise _not_joined(address, error) from None


def _not_joined(address: str, error: Exception) -> ClusterError:
    text = one_line(error, None)
    if isinstance(error, OSError) or "Failed to connect to GCS" in text:
        return ClusterError(
            f"no Ray cluster at --address {address}. Start one with `ray start --head`, give "
            "HOST:6379 of its head node, or leave --address out to use this machine alone."
        )
    if "auth" in text.lower() and "token" in text.lower():
        return ClusterError(
            f"the cluster at --address {address} wants its token: copy ~/.ray/auth_token of its "
            f"head node to this machine. ({text[:200]})"
        )
    return ClusterError(f"cannot join the Ray cluster at --address {address}: {text[:400]}")


def places(need: Need) -> int:
    """How many workers the machines of the cluster hold at once, busy or not."""
    return sum(map(need.fitting, _machines()))


def describe_cluster() -> str:
    """What the cluster has, in words: `2 nodes with 16 CPUs, 1 GPU together`."""
    machines = _machines()
    have = {name: sum(one.get(name, 0) for one in machines) for name in ("CPU", "GPU")}
    if len(machines) == 1:
        return f"1 node with {_amounts(have)}"
    return f"{len(machines)} nodes with {_amounts(have)} together"


def _machines() -> list[dict[str, float]]:
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def _amounts(resources: dict[str, Any], *, is_need: bool = False) -> str:
    cpus, gpus = resources.get("CPU", 0), resources.get("GPU", 0)
    words = [f"{cpus:g} CPU{'s' * (cpus != 1)}"]
    if gpus or not is_need:
        words.append(f"{gpus:g} GPU{'s' * (gpus != 1)}" if gpus else "no GPU")
    return " and ".join(words)
