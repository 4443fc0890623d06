"""From units to cells: means, distances, the self-check, and the summary of a sweep.

Reads the store alone, so it can be run again at any time. While units are missing, cells are
compared on the prompts and seeds that all of them have.
"""

import io
import json
from collections.abc import Iterable
from typing import Any

import numpy as np

from vidcfg.sweep.store import Store


def complete_pairs(plan: dict[str, Any], done: set[str]) -> set[tuple[int, int]]:
    """The (prompt, seed) that every cell of the plan has."""
    by_cell: dict[str, set[tuple[int, int]]] = {cell["id"]: set() for cell in plan["cells"]}
    for unit in plan["units"]:
        if unit["key"] in done:
            by_cell[unit["cell"]].add((unit["prompt"], unit["seed"]))
    return set.intersection(*by_cell.values())


def write_cells(store: Store, plan: dict[str, Any], done: set[str]) -> list[str]:
    """Write `cells/<id>/records.jsonl` for every cell; warnings, if any.

    With no prompt and seed that all cells have, nothing is written.
    """
    from vidcfg.evaluate.run import row, set_records
    from vidcfg.evaluate.settings import Settings
    from vidcfg.metrics.record import Record

    settings = Settings(families=tuple(plan["metrics"]), reference=plan["config"]["reference"])
    wanted = complete_pairs(plan, done)
    distances = Distances(settings)
    for cell in plan["cells"] if wanted else ():
        keys = [
            unit["key"]
            for unit in plan["units"]
            if unit["cell"] == cell["id"] and (unit["prompt"], unit["seed"]) in wanted
        ]
        records = [Record.from_dict(r) for key in keys for r in unit_rows(store, key)]
        means, _ = set_records(records, {}, Settings(), shapes=[])
        video = cell["render"]["video"]
        shape = (video["num_frames"], video["height"], video["width"])
        of_set = means + distances.of(_features(store, keys, settings.nets), [shape] * len(keys))
        lines = [json.dumps(row(record), allow_nan=False) for record in of_set]
        store.write(f"cells/{cell['id']}/records.jsonl", "\n".join(lines) + "\n")
    return list(dict.fromkeys(distances.warnings))


class Distances:
    """Distances to the reference of a sweep, whose own features are made once."""

    def __init__(self, settings: Any):
        self.settings = settings
        self.warnings: list[str] = []
        self._known: dict[tuple, Any] = {}

    def of(self, features: dict[str, dict[str, np.ndarray]], shapes: list[tuple]) -> list[Any]:
        """The records of one cell from the features of its videos, by net and key."""
        from vidcfg.evaluate.score import cached_net
        from vidcfg.evaluate.sets import absent_distances, distances
        from vidcfg.metrics.weight_files import MissingWeightsError

        made = []
        for name in self.settings.nets:
            if self.settings.reference is None:
                if name != "mini":
                    made += absent_distances(name, "the sweep has no reference")
                continue
            try:
                net = cached_net(name, self.settings)
            except MissingWeightsError as error:
                made += absent_distances(name, str(error))
                continue
            found = features.get(name, {})
            if not found:
                made += absent_distances(name, "no video has enough frames")
                continue
            generated = np.stack([found[key] for key in sorted(found)])
            made += distances(net, generated, self._reference(net, shapes))
        return made

    def _reference(self, net: Any, shapes: list[tuple]) -> Any:
        from vidcfg.evaluate.reference import open_reference
        from vidcfg.evaluate.sets import reference_features

        # Drawn clips have the shapes of the videos; how many videos there are does not change
        # them unless there are very many.
        known = (net.name, len(shapes), *sorted(set(shapes)))
        if known not in self._known:
            reference = open_reference(self.settings.reference, shapes=shapes)
            size = self.settings.batch_size
            self._known[known] = reference_features(net, reference, batch_size=size)
            self.warnings += [f"reference: {problem}" for problem in reference.problems]
        return self._known[known]


def unit_rows(store: Store, key: str) -> list[dict[str, Any]]:
    """The rows of one unit."""
    text = store.fs.cat_file(store.path(f"{store.unit(key)}/records.jsonl"))
    return [json.loads(line) for line in text.splitlines() if line]


def _features(
    store: Store, keys: Iterable[str], nets: tuple[str, ...]
) -> dict[str, dict[str, np.ndarray]]:
    found: dict[str, dict[str, np.ndarray]] = {net: {} for net in nets}
    for key in keys:
        name = f"{store.unit(key)}/features.npz"
        if nets and store.exists(name):
            with np.load(io.BytesIO(store.fs.cat_file(store.path(name)))) as arrays:
                for net in arrays.files:
                    found.setdefault(net, {})[key] = arrays[net]
    return found


def self_check(store: Store, plan: dict[str, Any], done: set[str]) -> dict[str, Any]:
    """Whether the pairs of units that must be equal are, by the hash of their frames.

    `equal` is None while no pair is complete.
    """
    pairs = [pair for pair in plan["check"]["pairs"] if set(pair) <= done]
    unequal = [pair for pair in pairs if len({_frames_of(store, key) for key in pair}) > 1]
    return {
        "cells": plan["self_check"],
        "pairs": len(pairs),
        "equal": not unequal if pairs else None,
        "unequal": unequal,
    }


def _frames_of(store: Store, key: str) -> str:
    record = store.read_json(f"{store.unit(key)}/record.json")
    return record["video"]["frames_sha256"]
