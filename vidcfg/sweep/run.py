"""A whole sweep: plan, driver, then the cells' own rows, the self-check and the summary."""

import contextlib
import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from vidcfg.evaluate.reference import Distances
from vidcfg.evaluate.run import row
from vidcfg.evaluate.sets import set_means
from vidcfg.render.identity import what_changed
from vidcfg.render.record import versions
from vidcfg.stored.read import arrays_of, measures_of
from vidcfg.sweep.driver import Books, SweepStopped, drive
from vidcfg.sweep.executor import Executor, InProcess
from vidcfg.sweep.plan import Plan
from vidcfg.sweep.store import NoStoreError, Store, StoreError
from vidcfg.sweep.tell import made_by
from vidcfg.sweep.worker import ANOTHER_PLAN, Worker

PARTS = {"units", "attempts", "logs", "jobs", "failed", "cells", "damaged", "report"}
PARTS |= {"summary.json"}
"""What a store holds beside its plan."""


@dataclass(frozen=True, eq=False)
class SweepOutcome:
    """What a sweep came to. `problems` are sentences; without any the sweep has succeeded."""

    books: Books
    summary: dict[str, Any]
    problems: tuple[str, ...]
    warnings: tuple[str, ...]


def put_plan(store: Store, plan: Plan, *, replace: bool = False) -> str:
    """Write `plan.json`, or extend the one that is there: more cells, prompts or seeds keep all
    that is done.

    With `replace` the plan may leave out units that are done, or measure something else; they
    stay in the store, and the result says so. What was said of other cells is removed.

    Raises:
        NoStoreError: if the store holds another sweep, or something else, and what to type.
    """
    made = json.loads(json.dumps(plan.to_dict()))
    # The names before the plan: another driver may write it at any time.
    others = [name for name in store.names("") if name not in PARTS]
    known = store.read_json("plan.json")
    if known is None and others:
        raise NoStoreError(
            f"the store {store.url} holds other files. Name an empty folder, or one of a sweep."
        )
    why = _conflict(store, known, made) if known is not None else ""
    if why and not replace:
        raise NoStoreError(
            f"the store {store.url} holds {why}. Use --store with another folder, or "
            f"--replace-plan to go on here: files stay, and what is left out is not read."
        )
    # Cells of one id may have been others, or others of them compared: they are told at the end.
    if known is None or _told_of(known) != _told_of(made):
        of_cells = (f"cells/{id}/records.jsonl" for id in store.names("cells"))
        for name in ("summary.json", *of_cells):
            store.remove(name)
    if known != made:
        store.write_json("plan.json", made)
    return why and f"left aside: {why}"


def _told_of(plan: dict[str, Any]) -> tuple[Any, ...]:
    """What the summary and the records of cells are made from."""
    names = ("cells", "prompts", "units", "check", "metrics", "sources")
    return (*map(plan.get, names), plan.get("config", {}).get("reference"))


def _conflict(store: Store, known: dict[str, Any], made: dict[str, Any]) -> str:
    """Why a plan is no extension of the one in the store; empty if it is.

    Raises:
        NoStoreError: if its videos were measured with other weights, or other code of a metric
            that is not ours, whatever else there is.
    """
    mine = {unit["key"] for unit in made["units"]}
    for what, word in (("weights", "weights"), ("metrics", "code")):
        old, new = (one.get("sources", {}).get(what) for one in (known, made))
        if old is None or new is None:
            continue
        # A metric that one of both has not is one that some videos lack.
        either = old | new if what == "weights" else old.keys() & new
        names = sorted(name for name in either if old.get(name) != new.get(name))
        if not names or not store.done_keys(mine):
            continue
        raise NoStoreError(
            f"the store {store.url} holds videos measured with other {word}: "
            f"{', '.join(names)}. Values of both cannot be compared: use --store with another "
            "folder, or measure what is there with vidcfg evaluate."
        )
    if known.get("name") != made["name"]:
        return f"the sweep '{known.get('name')}', and this one is '{made['name']}'"
    others = {unit["key"]: unit["cell"] for unit in known["units"] if unit["key"] not in mine}
    if done := store.done_keys(others):
        cell = next(cell for key, cell in others.items() if key in done)
        old, new = known.get("sources", {}).get(cell), made["sources"].get(cell)
        changed = what_changed(old, new) if new else ""
        why = f": {changed}" if changed else ""
        return (
            f"{len(done)} finished videos that this sweep leaves out or would make otherwise "
            f"(one of the cell {cell}{why})"
        )
    if known.get("metrics") != made["metrics"] and store.done_keys(mine):
        old, new = (", ".join(one.get("metrics", ())) for one in (known, made))
        return f"videos measured by {old}, and this sweep measures {new}"
    return ""


def make_executor(
    plan: Plan,
    store: Store,
    *,
    address: str | None = None,
    on_step: Callable[..., None] | None = None,
) -> Executor:
    """This process for `workers.num: 0`, else Ray; `on_step` follows the steps of runs."""
    workers = plan.sweep.workers
    if workers.num == 0:
        return InProcess(Worker(store.url, on_step=on_step), time_limit=workers.time_limit)
    from vidcfg.sweep.ray_executor import RayExecutor

    # Where another machine has not this folder, it must not take one of its own for the store.
    place = store.root if store.is_local else store.url
    return RayExecutor(place, workers, address, on_step=on_step)


def run_sweep(
    plan: Plan,
    store: Store,
    executor: Executor,
    *,
    on_change: Callable[[Books], None] = lambda books: None,
    replace_plan: bool = False,
) -> SweepOutcome:
    """Make what is missing, then the sets and the summary.

    Raises:
        ModelLoadError, SweepStopped, NoStoreError: see `drive` and `put_plan`.
        KeyboardInterrupt: what is finished stays; the summary says that the sweep is not.
    """
    # The units
    left_aside, damaged = put_plan(store, plan, replace=replace_plan), store.names("damaged")
    store.remove_leftovers()
    begin = time.monotonic()
    try:
        books = drive(plan, store, executor, on_change=on_change)
    except StoreError as error:
        raise SweepStopped(str(error)) from error
    except (KeyboardInterrupt, RuntimeError) as error:
        with contextlib.suppress(StoreError):
            done, why = store.done_keys(plan.keys), str(error) or type(error).__name__
            _write_summary(store, {"done": len(done), "finished": False, "stopped": why})
        raise

    # What is there, and reads back
    if (planned := store.read_json("plan.json")) is None:
        raise SweepStopped(
            f"{store.url} has no plan.json any more: it was removed while the sweep ran. Run the "
            "same command again: what is still there is kept."
        )
    done = store.done_keys(plan.keys)
    gone = [key for key in plan.keys if key not in done and key not in books.failed]
    set_aside = [name for name in store.names("damaged") if name not in damaged]

    # What they say together
    warnings = write_cells(store, plan, done)
    warnings += [left_aside] if left_aside else []
    warnings += [f"set aside as {store.path('damaged')}/{name}" for name in set_aside]
    check = self_check(store, plan, done)
    problems = list(books.mismatches)
    if not {unit["key"] for unit in planned["units"]} >= {unit.key for unit in plan.grid_units}:
        problems.append(ANOTHER_PLAN.format(store.url))
    if books.failed:
        problems.append(f"{len(books.failed)} units failed: see failed/ in {store.url}")
    if gone:
        problems.append(
            f"{len(gone)} units that were made or were there do not read back (one of them "
            f"{store.path(store.unit(gone[0]))}). Run the same command again to make them."
        )
    if check["equal"] is False:
        first, second = plan.check_cells
        problems.append(
            f"self-check: the cells {first} and {second} have guidance off and should be equal, "
            f"but {len(check['unequal'])} of {check['pairs']} pairs differ"
        )
    summary = {
        "done": len(done),
        "failed": len(books.failed),
        "cached": books.cached,
        "planned": books.planned,
        "executed": books.executed,
        "wall_s": round(time.monotonic() - begin, 3),
        "workers": plan.sweep.workers.num,
        "self_check": check,
        "mismatches": books.mismatches,
        "set_aside": set_aside,
        "units_made_by": made_by(store, done),
        "finished": len(done) == len(plan.units),
    }
    _write_summary(store, summary)
    return SweepOutcome(books, summary, tuple(problems), tuple(warnings))


def _write_summary(store: Store, summary: dict[str, Any]) -> None:
    store.write_json("summary.json", summary | {"versions": versions()})


def self_check(store: Store, plan: Plan, done: set[str]) -> dict[str, Any]:
    """Whether the pairs of units that must be equal are, by the hash of their frames.

    `equal` is None while no pair is complete.
    """
    pairs = [pair for pair in plan.check_pairs if done.issuperset(pair)]
    videos = {key: store.render_of(key).get("video", {}) for pair in pairs for key in pair}
    sha256 = {key: video.get("frames_sha256") for key, video in videos.items()}
    unequal = [(one, other) for one, other in pairs if sha256[one] != sha256[other]]
    return {
        "cells": None if plan.hidden else plan.check_cells,
        "pairs": len(pairs),
        "equal": not unequal if pairs else None,
        "unequal": unequal,
    }


def complete_pairs(plan: Plan, done: set[str]) -> set[tuple[int, int]]:
    """The (prompt, seed) that every cell of the plan has."""
    by_cell: dict[str, set[tuple[int, int]]] = {cell.id: set() for cell in plan.cells}
    for unit in plan.grid_units:
        if unit.key in done:
            by_cell[unit.cell].add((unit.prompt, unit.seed))
    return set.intersection(*by_cell.values())


def write_cells(store: Store, plan: Plan, done: set[str]) -> list[str]:
    """Write `cells/<id>/records.jsonl` for every cell: means and distances; warnings, if any.

    While units are missing, cells are compared on the prompts and seeds that all of them have;
    where there are none, nothing is written.
    """
    settings = plan.settings()
    wanted = complete_pairs(plan, done)
    none = {"no_reference": "the sweep has no reference"}
    distances = Distances(settings, **none, no_features="no video has enough frames")
    made: dict[str, str] = {}
    units: dict[str, list[Any]] = {cell.id: [] for cell in plan.cells}
    for unit in plan.grid_units:
        if (unit.prompt, unit.seed) in wanted:
            units[unit.cell].append(unit)
    for cell in plan.cells if wanted else ():
        keys, records, prompts = [unit.key for unit in units[cell.id]], [], {}
        for unit, found in zip(units[cell.id], store.each(partial(unit_records, store), keys)):
            records += found
            prompts |= {record.subject: str(unit.prompt) for record in found}
        video = cell.config.video
        shapes = dict.fromkeys(keys, (video.num_frames, video.height, video.width))
        features = _features(store, keys, settings.nets)
        of_set = set_means(records, prompts) + distances.of(features, shapes, {})
        lines = [json.dumps(row(record), allow_nan=False) for record in of_set]
        made[cell.id] = "\n".join(lines) + "\n"
    # One after another at once: who reads meanwhile, or an end, finds no half of them.
    for id, text in made.items():
        store.write(f"cells/{id}/records.jsonl", text)
    return list(dict.fromkeys(distances.warnings))


def unit_records(store: Store, key: str) -> list[Any]:
    """The records of one unit."""
    path = store.path(f"{store.unit(key)}/records.jsonl")
    return measures_of(store.fs.cat_file(path).decode(errors="replace"), path)


def _features(
    store: Store, keys: Iterable[str], nets: tuple[str, ...]
) -> dict[str, dict[str, np.ndarray]]:
    """The vectors of units by net and key."""
    found: dict[str, dict[str, np.ndarray]] = {net: {} for net in nets}
    names = [f"{store.unit(key)}/features.npz" for key in keys] if nets else []
    for key, name, data in zip(keys, names, store.each(store.read, names)):
        if data is not None:
            for net, vector in arrays_of(data, store.path(name)).items():
                found.setdefault(net, {})[key] = vector
    return found
