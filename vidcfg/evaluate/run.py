"""The whole evaluation: videos one by one or by several workers, then the set."""

import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from multiprocessing import get_context, parent_process
from typing import Any

import numpy as np

from vidcfg.evaluate.inputs import Item
from vidcfg.evaluate.kept import Kept
from vidcfg.evaluate.reference import Distances
from vidcfg.evaluate.score import Scored, Step, cached_net, score_frames, score_video, unread
from vidcfg.evaluate.sets import set_means
from vidcfg.evaluate.settings import Settings
from vidcfg.files import content_of, uninterrupted
from vidcfg.metrics.catalogue import measured
from vidcfg.metrics.metric import skipped
from vidcfg.metrics.record import SCHEMA, ClipInfo, Record
from vidcfg.progress import printable

Features = dict[str, dict[str, np.ndarray]]
"""Vectors by net and video."""


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Rows for every video and for the set, the videos' features by net, and warnings."""

    rows: list[dict[str, Any]]
    features: Features
    warnings: list[str]

    def records(self, subject: str = "set") -> list[Record]:
        """The records about a video, by its name, or about the set."""
        return [Record.from_dict(row) for row in self.rows if row["subject"] == subject]

    @property
    def of_videos(self) -> list[dict[str, Any]]:
        """The rows of single videos; those of a set have no path."""
        return [row for row in self.rows if row["path"] is not None]

    @property
    def failures(self) -> list[Record]:
        return [Record.from_dict(row) for row in self.of_videos if row["status"] == "failed"]


def evaluate(
    items: Sequence[Item],
    settings: Settings,
    *,
    kept: Kept | None = None,
    report: Callable[[Scored, bool], None] = lambda scored, is_kept: None,
    step: Step = lambda done, total, what: None,
) -> Evaluation:
    """Score videos and the set they form. `report` is called once a video, in order, with
    whether it was kept.

    What `kept` holds is not scored again; what is scored is added to it. `step` is told of every
    frame that this process measures.

    The rows do not depend on the order of the items, the batch size (beyond float rounding inside
    a net), the number of workers, or on what was kept.
    """
    # The videos: those that are kept are taken, those that are not are scored.
    items = sorted(items, key=lambda item: str(item.path))
    found: dict[str, Scored] = {}

    def fresh() -> Iterator[Item]:
        for item in items:
            if scored := kept and kept.find(item):
                found[item.name] = scored
                report(scored, True)
            else:
                yield item

    with closing(score_all(fresh(), settings, step=step)) as videos:
        for scored in videos:
            found[scored.item.name] = whole = _through_nets(scored, settings)
            if kept:
                kept.add(whole)
            report(whole, False)
    # The set.
    everything = [record for item in items for record in found[item.name].records]
    clips = {name: scored.clip for name, scored in found.items()}
    shapes = {name: (c.num_frames, c.height, c.width) for name, c in clips.items() if c}
    # Of several reasons, that of the last video by name.
    by_name = [scored for _, scored in sorted(found.items())]
    problems = {net: why for scored in by_name for net, why in scored.problems.items()}
    features = {
        net: {name: s.vectors[net] for name, s in found.items() if net in s.vectors}
        for net in settings.nets
    }
    of_set = set_means(everything, {item.name: item.prompt for item in items})
    none = {"no_reference": "no reference was given; use --reference"}
    to_real = Distances(settings, **none, no_features="no video could be read")
    of_set += to_real.of(features, shapes, problems)
    warnings = to_real.warnings
    warnings += [f"{r.subject}: {r.extra['note']}" for r in everything if "note" in r.extra]
    # What reading a file found is on each of its records.
    odd = {r.subject: r.extra["reading"] for r in everything if "reading" in r.extra}
    warnings += [f"{name}: {text}" for name, text in odd.items()]
    rows = []
    for item in items:
        content = kept.contents[item.name] if kept else content_of(item.path)
        rows += [row(r, item, content=content) for r in found[item.name].records]
    return Evaluation(rows + [row(r) for r in of_set], features, warnings)


def evaluate_frames(
    frames: Iterable[np.ndarray], item: Item, settings: Settings, *, clip: ClipInfo
) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
    """The rows of one video given as frames [C, H, W], and its features by net.

    Raises:
        ValueError: if the frames cannot be measured.
    """
    scored = _through_nets(score_frames(frames, item, settings, clip=clip), settings)
    return [row(r, item) for r in scored.records], scored.vectors


def row(record: Record, item: Item | None = None, *, content: str | None = None) -> dict[str, Any]:
    """A record as a row, with the file, prompt and seed that it belongs to (None for the set).

    By the `content` of the file a report knows it again outside the results' folder.
    """
    facts = {"schema": SCHEMA, "path": printable(item.place) if item else None}
    facts |= {key: getattr(item, key, None) for key in ("prompt", "seed", "unit_key")}
    facts |= {"content": content} if content else {}
    return facts | record.to_dict()


def _through_nets(scored: Scored, settings: Settings) -> Scored:
    """A video with its features by the nets, in place of its clips.

    The mini net also tells how well it fits its prompt or, without a clip, why it cannot.
    """
    item, records, vectors = scored.item, list(scored.records), {}
    if reason := scored.problems.get("mini"):
        names = ("align[mini]", "attribute_accuracy[mini]")
        records += [measured(name, subject=item.name, **skipped(reason)) for name in names]
    for name, clip in scored.clips.items():
        vectors[name], judged = cached_net(name, settings).judge(clip, item.text)
        records += [replace(r, subject=item.name, clip=scored.clip) for r in judged]
    return replace(scored, records=records, clips={}, vectors=vectors)


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
            while waiting:
                # Results hold clips; those that were handed on are let go.
                item, future = waiting.popleft()
                try:
                    yield future.result()
                except BrokenProcessPool:
                    waiting.appendleft((item, future))
                    is_broken = True
                    break
                for item in islice(coming, 1):
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
    except BrokenProcessPool as error:  # a worker has ended meanwhile: told as of those under way
        failed: Future = Future()
        failed.set_exception(error)
        return failed
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """Worker processes, gone at the end of the block; after an error what is half done is not
    waited for."""
    # Forked processes inherit locks of decoder and OpenMP threads.
    pool = ProcessPoolExecutor(workers, get_context("spawn"), initializer=end_with_parent)
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


def end_with_parent() -> None:
    """A worker whose parent is killed ends too: it would wait for work, and keep its memory."""

    def wait() -> None:
        parent_process().join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
