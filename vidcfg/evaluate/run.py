"""The whole evaluation: videos one by one or by several workers, then the set."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from vidcfg.evaluate.inputs import Item
from vidcfg.evaluate.reference import open_reference
from vidcfg.evaluate.score import Scored, cached_net, score_frames, score_video
from vidcfg.evaluate.sets import (
    absent_distances,
    batches,
    distance_records,
    features_of,
    mean_records,
)
from vidcfg.evaluate.settings import Settings
from vidcfg.metrics.catalogue import measured
from vidcfg.metrics.record import ClipInfo, Record
from vidcfg.mini.shapes import ATTRIBUTES


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Rows for every video and for the set, the videos' features by net, and warnings."""

    rows: list[dict[str, Any]]
    features: dict[str, dict[str, np.ndarray]]
    warnings: list[str]

    def records(self, subject: str = "set") -> list[Record]:
        """The records about a video, by its name, or about the set."""
        return [Record.from_dict(row) for row in self.rows if row["subject"] == subject]

    @property
    def failures(self) -> list[Record]:
        rows = [row for row in self.rows if row["status"] == "failed" and row["path"]]
        return [Record.from_dict(row) for row in rows]


def evaluate(
    items: Sequence[Item],
    settings: Settings,
    *,
    report: Callable[[Scored], None] = lambda scored: None,
) -> Evaluation:
    """Score videos and the set they form. `report` is called once a video, in order.

    The rows do not depend on the order of the items, the batch size (beyond float rounding inside
    a net) or the number of workers.
    """
    items = sorted(items, key=lambda item: str(item.path))
    pending: dict[str, list[tuple[Item, np.ndarray]]] = {name: [] for name in settings.nets}
    features: dict[str, dict[str, np.ndarray]] = {name: {} for name in settings.nets}
    records: dict[str, list[Record]] = {}
    infos: dict[str, Scored] = {}
    for scored in _score_all(items, settings):
        report(scored)
        records[scored.item.name] = list(scored.records)
        infos[scored.item.name] = replace(scored, clips={})
        for name, clip in scored.clips.items():
            pending[name].append((scored.item, clip))
            if len(pending[name]) >= settings.batch_size:
                _flush(name, pending[name], settings, features[name], records)
    for name, waiting in pending.items():
        _flush(name, waiting, settings, features[name], records)
    for name in settings.nets:
        _explain_missing(name, infos, records)
    everything = [record for rows in records.values() for record in rows]
    problems = {net: reason for s in infos.values() for net, reason in s.problems.items()}
    shapes = [(c.num_frames, c.height, c.width) for c in (s.clip for s in infos.values()) if c]
    of_set, warnings = set_records(
        everything, features, settings, shapes=shapes, problems=problems
    )
    warnings += [f"{r.subject}: {r.extra['note']}" for r in everything if "note" in r.extra]
    rows = [row(r, item) for item in items for r in records[item.name]]
    rows += [row(r) for r in of_set]
    return Evaluation(rows, features, warnings)


def evaluate_frames(
    frames: Iterable[np.ndarray], item: Item, settings: Settings, *, clip: ClipInfo
) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
    """The rows of one video given as frames [C, H, W], and its features by net.

    Raises:
        ValueError: if the frames cannot be measured.
    """
    scored = score_frames(frames, item, settings, clip=clip)
    records = {item.name: list(scored.records)}
    features: dict[str, dict[str, np.ndarray]] = {name: {} for name in settings.nets}
    for name, prepared in scored.clips.items():
        _flush(name, [(item, prepared)], settings, features[name], records)
    for name in settings.nets:
        _explain_missing(name, {item.name: scored}, records)
    vectors = {name: found[item.name] for name, found in features.items() if found}
    return [row(record, item) for record in records[item.name]], vectors


def set_records(
    records: Sequence[Record],
    features: dict[str, dict[str, np.ndarray]],
    settings: Settings,
    *,
    shapes: Sequence[tuple[int, int, int]],
    problems: dict[str, str] | None = None,
) -> tuple[list[Record], list[str]]:
    """Means over videos and distances to the reference, from the records of the videos.

    `features` holds the vector of every video by net, `shapes` (frames, height, width) of each
    video, `problems` the reason for a net that has no features.
    """
    averaged = mean_records([r for r in records if r.name != "read"])
    averaged += _accuracies(records)
    distances, warnings = _distances(settings, shapes, problems or {}, features)
    return [*averaged, *distances], warnings


def row(record: Record, item: Item | None = None) -> dict[str, Any]:
    """A record as a row, with the file, prompt and seed that it belongs to (None for the set)."""
    facts = {"path": str(item.path) if item else None}
    facts |= {key: getattr(item, key, None) for key in ("prompt", "seed", "unit_key")}
    return facts | record.to_dict()


def _score_all(items: Sequence[Item], settings: Settings) -> Iterator[Scored]:
    if settings.workers == 1 or len(items) < 2:
        for item in items:
            yield score_video(item, settings)
        return
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    # Forked processes inherit locks of decoder and OpenMP threads.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(settings.workers, mp_context=context) as pool:
        window = 2 * settings.workers
        waiting = [pool.submit(score_video, item, settings) for item in items[:window]]
        for index in range(len(items)):
            if index + window < len(items):
                waiting.append(pool.submit(score_video, items[index + window], settings))
            yield waiting[index].result()
            # Results hold clips; those that were handed on are let go.
            waiting[index] = None


def _flush(name, waiting, settings, features, records) -> None:
    if not waiting:
        return
    net = cached_net(name, settings)
    made = features_of(net, (clip for _, clip in waiting), batch_size=settings.batch_size)
    for (item, _), vector in zip(waiting, made):
        features[item.name] = vector
    if name == "mini":
        _add_alignment(net, waiting, settings, records)
    waiting.clear()


def _add_alignment(net, waiting, settings, records) -> None:
    start = 0
    for batch in batches((clip for _, clip in waiting), settings.batch_size):
        items = [item for item, _ in waiting[start : start + len(batch)]]
        start += len(batch)
        for item, found in zip(items, net.alignment_records(batch, [i.prompt for i in items])):
            known = [r.clip for r in records[item.name] if r.clip]
            clip = known[0] if known else None
            records[item.name] += [replace(r, subject=item.name, clip=clip) for r in found]


def _explain_missing(name: str, infos: dict[str, Scored], records) -> None:
    """Videos without a clip for the mini scorer say why in their own rows."""
    if name != "mini":
        return
    for subject, scored in infos.items():
        if name in scored.problems:
            reason = scored.problems[name]
            for metric in ("align[mini]", "attribute_accuracy[mini]"):
                null = measured(metric, None, n=0, reason=reason, status="skipped")
                records[subject].append(replace(null, subject=subject))


def _accuracies(records: Sequence[Record]) -> list[Record]:
    """Accuracy per attribute over the set, from the videos' own right and wrong ones."""
    judged = [r for r in records if r.name == "attribute_accuracy[mini]" and r.value is not None]
    names = sorted({key for r in judged for key in r.extra} & set(ATTRIBUTES))
    made = []
    for name in names:
        right = [r.extra[name] for r in judged if name in r.extra]
        made.append(
            measured(
                f"accuracy[mini:{name}]",
                float(np.mean(right)),
                n=len(right),
                protocol=judged[0].protocol,
                backend=judged[0].backend,
            )
        )
    return made


def _distances(settings, shapes, problems, features) -> tuple[list[Record], list[str]]:
    made: list[Record] = []
    warnings: list[str] = []
    for name in settings.nets:
        found = features.get(name, {})
        reason = problems.get(name)
        if settings.reference is None:
            if name != "mini":
                made += absent_distances(name, "no reference was given; use --reference")
            continue
        if not found:
            made += absent_distances(name, reason or "no video could be read")
            continue
        reference = open_reference(settings.reference, shapes=shapes)
        generated = np.stack([found[key] for key in sorted(found)])
        net = cached_net(name, settings)
        made += distance_records(net, generated, reference, batch_size=settings.batch_size)
        warnings += [f"reference: {problem}" for problem in reference.problems]
        warnings += [reason] if reason else []
    return made, warnings
