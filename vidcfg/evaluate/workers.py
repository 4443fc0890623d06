"""Videos scored one after another: in this process, or by workers that run a little ahead."""

import signal
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from multiprocessing import get_context

from vidcfg.evaluate.inputs import Item
from vidcfg.evaluate.score import Scored, Step, score_video, unread
from vidcfg.evaluate.settings import Settings
from vidcfg.files import uninterrupted


def score_all(items: Iterable[Item], settings: Settings, *, step: Step) -> Iterator[Scored]:
    """Each video scored, in order. A video that ends its worker is one that cannot be read."""
    if not settings.workers:
        yield from (score_video(item, settings, step=step) for item in items)
        return
    coming = iter(items)
    is_broken = True
    while is_broken:
        is_broken = False
        waiting: deque[tuple[Item, Future]] = deque()
        with _pool(settings.workers) as pool:
            for item in islice(coming, 2 * settings.workers):
                waiting.append((item, _submit(pool, item, settings)))
            while waiting and not is_broken:
                # Results hold clips; those that were handed on are let go.
                item, future = waiting.popleft()
                try:
                    yield future.result()
                except BrokenProcessPool:
                    waiting.appendleft((item, future))
                    is_broken = True
                for item in islice(coming, 0 if is_broken else 1):
                    waiting.append((item, _submit(pool, item, settings)))
        # One of those under way ended a worker: each of them gets a worker of its own.
        yield from (_alone(item, settings) for item, _ in waiting)


def _alone(item: Item, settings: Settings) -> Scored:
    with _pool(1) as pool:
        try:
            return _submit(pool, item, settings).result()
        except BrokenProcessPool:
            return unread(item, f"{item.path} ended the process that read it.")


def _submit(pool: ProcessPoolExecutor, item: Item, settings: Settings) -> Future:
    # Workers start with Ctrl-C blocked: it is for this process, which then ends them.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        return pool.submit(score_video, item, settings)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """Worker processes, gone at the end of the block; after an error what is half done is not
    waited for."""
    # Forked processes inherit locks of decoder and OpenMP threads.
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"))
    with uninterrupted() as hold:
        try:
            yield pool
        except BaseException:
            hold()
            for process in list((pool._processes or {}).values()):
                process.terminate()
            raise
        finally:
            hold()
            pool.shutdown(cancel_futures=True)
