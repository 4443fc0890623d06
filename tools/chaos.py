"""Break sweeps at random times, resume them, and tell what was lost.

    python tools/chaos.py [--rounds N] [--ray N] [--seed S]

Each round sweeps a tiny random model: `--rounds` in one process, `--ray` on two Ray workers. At a
random time one thing goes wrong: Ctrl-C (once, or twice) as a terminal sends it, SIGTERM or
SIGKILL of the driver, SIGKILL of a worker, of the raylet or of the GCS, or memory that ends where
it is (RLIMIT_AS, what `ulimit -v` sets, of a worker or of the process). Then the same sweep runs
again, and everything is compared with a sweep that nothing happened to. The exit code is 1 if
anything was lost, made twice or left behind. Linux only; drivers are forked, for importing torch
takes longer than a sweep.
"""

import argparse
import atexit
import contextlib
import json
import os
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "helpers"))

from tiny_sweep import save_tiny_model, starts, write_sweep

from vidcfg import cli
from vidcfg.progress import Progress
from vidcfg.report.analyse import analyse
from vidcfg.results import read_results
from vidcfg.sweep.store import Store

HERE = ("Ctrl-C", "Ctrl-C twice", "SIGTERM", "SIGKILL of the driver", "memory limit")
RAY = (*HERE, "SIGKILL of a worker", "SIGKILL of the raylet", "SIGKILL of the GCS")
NAMES = {"worker": "ray::Render", "raylet": "raylet/raylet", "GCS": "gcs_server"}
"""What the command lines of Ray's processes begin with, or hold."""

MARK = "VIDCFG_CHAOS"
ENOUGH = 240.0
GONE_SECONDS = 90.0
"""Processes of Ray see within this time that their driver is gone; agents of a Ray that was still
starting wait a minute for its GCS first.
"""

FAULTS = ("lost", "twice", "differ", "leftovers", "stay", "hung", "unfinished")
COLUMNS = ("rounds", "hit", *FAULTS)


@dataclass
class Driver:
    """One `vidcfg sweep`, in a process group of its own, as a shell starts it."""

    pid: int
    mark: str
    log: Path
    code: int | None = None

    def ended(self) -> bool:
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.code = os.waitstatus_to_exitcode(status) if pid else None
        return self.code is not None

    def wait(self, seconds: float) -> bool:
        return _until(self.ended, seconds)

    def others(self, part: str = "") -> list[int]:
        """Its processes but for the driver itself, whose command line has this part."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if int(folder.name) == self.pid or f"{MARK}={self.mark}\0" not in (
                    folder / "environ"
                ).read_text(errors="replace"):
                    continue
                is_dead = (folder / "stat").read_text().rpartition(")")[2].split()[0] == "Z"
                if not is_dead and part in (folder / "cmdline").read_text(errors="replace"):
                    found.append(int(folder.name))
        return found


def start(arguments: list[str], log: Path) -> Driver:
    """Fork a driver; its exit code is that of the command, exit handlers included."""
    mark = uuid.uuid4().hex
    pid = os.fork()
    if pid:
        # Both do it, for the group must be there before the first of them goes on.
        with contextlib.suppress(OSError):
            os.setpgid(pid, pid)
        return Driver(pid, mark, log)
    code = 70
    try:
        os.setpgid(0, 0)
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(output, 1)
        os.dup2(output, 2)
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
        # What this process has to clean up is not the child's.
        atexit._clear()
        atexit.register(cli._forget_ctrl_c)
        os.environ.update({MARK: mark, "RAY_worker_niceness": "0"})
        from vidcfg.sweep.__main__ import main

        code = main(arguments)
    except BaseException:
        traceback.print_exc()
    finally:
        atexit._run_exitfuncs()
        os._exit(code)


def _until(is_true: Callable[[], Any], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not is_true():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def strike(kind: str, driver: Driver, chance: random.Random) -> bool:
    """Let it go wrong; False where there was nothing left to hit."""
    if driver.ended():
        return False
    if kind.startswith("Ctrl-C"):
        os.killpg(driver.pid, signal.SIGINT)
        if kind == "Ctrl-C twice":
            time.sleep(chance.uniform(0.0, 1.0))
            if not driver.ended():
                os.killpg(driver.pid, signal.SIGINT)
        return True
    victims = [driver.pid]
    name = kind.rpartition(" ")[2]
    if kind == "memory limit" and driver.others(NAMES["raylet"]):
        name = "worker"
    if name in NAMES:
        # At the beginning there may be none yet.
        _until(lambda: driver.ended() or driver.others(NAMES[name]), ENOUGH)
        victims = driver.others(NAMES[name])
    with contextlib.suppress(IndexError, ProcessLookupError):
        victim = chance.choice(victims)
        if kind == "memory limit":
            pages = int(Path(f"/proc/{victim}/statm").read_text().split()[0])
            limit = pages * os.sysconf("SC_PAGE_SIZE") + chance.randrange(1 << 25)
            resource.prlimit(victim, resource.RLIMIT_AS, (limit, limit))
        else:
            os.kill(victim, signal.SIGTERM if kind == "SIGTERM" else signal.SIGKILL)
        return True
    return False


def state(store: Store) -> dict[str, bytes]:
    """The finished units of a store, each with its list of files and hashes."""
    keys = {name.removesuffix(".jsonl") for name in store.names("attempts")}
    return {key: store.read(f"{store.unit(key)}/DONE") for key in store.done_keys(keys)}


def essence(store: Store) -> str:
    """What must not depend on how often a sweep was broken: frames, and the report's numbers."""
    records = {key: store.read_json(f"{store.unit(key)}/record.json") for key in state(store)}
    frames = {key: record["video"]["frames_sha256"] for key, record in records.items()}
    report = analyse(read_results(store.root))
    for clock in ("cost", "status"):
        report.pop(clock)
    for cell in report["cells"]:
        cell.pop("seconds_per_video")
    return json.dumps([frames, report], sort_keys=True, default=str)


def made_twice(store: Store) -> int:
    """Units that were put into the store more than once."""
    count = 0
    for name in store.names("attempts"):
        lines = store.read(f"attempts/{name}").decode().splitlines()
        count += sum(json.loads(line)["what"] == "done" for line in lines) > 1
    return count


def leftovers(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.name.startswith(".tmp-")]


class Chaos:
    """Rounds on one tiny model. `say` is told what went wrong, with the seed of the round."""

    def __init__(self, folder: Path, say: Callable[[str], None] = print):
        self.folder, self.say = folder, say
        save_tiny_model(folder / "model")
        self.usual: dict[bool, float] = {}
        self.expected = ""

    def prepare(self, *, on_ray: bool) -> None:
        """A sweep that nothing happens to: how long it takes, and what comes out."""
        begin = time.monotonic()
        driver, store = self._start(f"usual-{on_ray}", on_ray=on_ray)
        if not driver.wait(2 * ENOUGH) or driver.code:
            raise RuntimeError(f"the sweep itself fails: {driver.log.read_text()[-2000:]}")
        self.usual[on_ray] = time.monotonic() - begin
        found = essence(store)
        assert self.expected in ("", found), "two sweeps that nothing happened to differ"
        self.expected = found

    def round(self, kind: str, seed: str, *, on_ray: bool) -> Counter:
        """Break a sweep, resume it, compare."""
        # Broken at a random time
        chance, counts = random.Random(seed), Counter(rounds=1)
        if on_ray not in self.usual:
            self.prepare(on_ray=on_ray)
        driver, store = self._start(seed, on_ray=on_ray)
        _until(driver.ended, chance.uniform(0.0, 0.9 * self.usual[on_ray]))
        counts["hit"] += strike(kind, driver, chance)
        counts["hung"] += not driver.wait(ENOUGH)
        counts["stay"] += self._stay(driver)
        before, begun = state(store), starts(store)

        # The same command again
        again, _ = self._start(seed, on_ray=on_ray)
        counts["hung"] += not again.wait(ENOUGH)
        counts["stay"] += self._stay(again)
        counts["unfinished"] += again.code != 0

        # Compared
        after = state(store)
        counts["lost"] += sum(after.get(key) != done for key, done in before.items())
        once_more = starts(store) - begun
        counts["twice"] += max(made_twice(store), sum(key in before for key in once_more))
        counts["leftovers"] += len(leftovers(self.folder / seed))
        counts["differ"] += again.code == 0 and essence(store) != self.expected
        if any(counts[name] for name in FAULTS):
            told = {name: counts[name] for name in FAULTS if counts[name]}
            log = driver.log.read_text()[-3000:]
            self.say(f"{seed}: {told}, exit codes {driver.code} and {again.code}\n{log}")
        return counts

    def _start(self, name: str, *, on_ray: bool) -> tuple[Driver, Store]:
        folder = self.folder / name
        if not folder.exists():
            folder.mkdir()
            write_sweep(folder, self.folder / "model")
        command = [str(folder / "sweep.yaml"), "--no-report"]
        workers = f"workers={{num: {2 * on_ray}, batch: 2, max_retries: 1}}"
        for change in (workers, "seeds=3", "metrics=[flicker]"):
            command += ["--set", change]
        return start(command, folder / "log.txt"), Store(str(folder / "store"))

    def _stay(self, driver: Driver) -> int:
        """Processes that are still there a while after their driver; they are ended."""
        _until(lambda: not driver.others(), GONE_SECONDS)
        left = [*driver.others(), *([] if driver.ended() else [driver.pid])]
        for pid in left:
            with contextlib.suppress(OSError):
                self.say(f"stays: {Path(f'/proc/{pid}/cmdline').read_text()[:120]}")
                os.kill(pid, signal.SIGKILL)
        driver.wait(ENOUGH)
        return len(left)


def table(counts: dict[str, Counter]) -> str:
    """Markdown: a row a kind, and their sum."""
    whole = counts | {"together": sum(counts.values(), Counter())}
    rows = [f"| {' | '.join(['what', *COLUMNS])} |", "|---" * (1 + len(COLUMNS)) + "|"]
    for kind, found in whole.items():
        rows.append(f"| {' | '.join([kind, *(str(found[name]) for name in COLUMNS)])} |")
    return "\n".join(rows)


def quiet_threads() -> None:
    """Load what every driver needs, without threads: these do not survive a fork."""
    import cv2
    import torch

    import vidcfg.evaluate.run
    import vidcfg.pipelines.load  # noqa: F401

    cv2.setNumThreads(0)
    torch.set_num_threads(1)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=10, help="in one process (10)")
    parser.add_argument("--ray", type=int, default=2, help="on two Ray workers (2)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(argv)

    quiet_threads()
    # The rounds, kind by kind in turn
    plan = [(HERE[i % len(HERE)], False, i) for i in range(options.rounds)]
    plan += [(RAY[i % len(RAY)], True, i) for i in range(options.ray)]
    counts: dict[str, Counter] = {}
    with tempfile.TemporaryDirectory() as folder, Progress("rounds", len(plan)) as progress:
        chaos = Chaos(Path(folder), progress.say)
        # Ctrl-C here ends it with the rounds that are done.
        with contextlib.suppress(KeyboardInterrupt):
            for done, (kind, on_ray, number) in enumerate(plan, start=1):
                seed = f"{options.seed}-{'ray' if on_ray else 'here'}-{number}"
                found = chaos.round(kind, seed, on_ray=on_ray)
                place = "Ray" if on_ray else "one process"
                counts.setdefault(f"{kind}, {place}", Counter()).update(found)
                progress.update(done)
    print(table(counts))
    return int(any(found[name] for found in counts.values() for name in FAULTS))


if __name__ == "__main__":
    sys.exit(main())
