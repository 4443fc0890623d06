"""A whole sweep: plan, store, executor, driver, sets, summary."""

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from vidcfg.sweep.aggregate import self_check, write_cells
from vidcfg.sweep.driver import Books, SweepStopped, drive
from vidcfg.sweep.executor import Executor
from vidcfg.sweep.plan import Plan
from vidcfg.sweep.store import Store, StoreError
from vidcfg.sweep.worker import Worker, WorkerSpec


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a sweep came to. `problems` are sentences; without any the sweep has succeeded."""

    books: Books
    summary: dict[str, Any]
    problems: tuple[str, ...]
    warnings: tuple[str, ...]


def put_plan(store: Store, plan: Plan, *, replace: bool = False) -> dict[str, Any]:
    """Write `plan.json`, or extend the one that is there: more cells, prompts or seeds keep all
    that is done.

    With `replace` the plan may leave out units that are done, or measure something else; they
    stay in the store, unread.

    Raises:
        StoreError: if the store holds another sweep, or something else, and what to type.
    """
    known = store.read_json("plan.json")
    made = plan.to_dict()
    if known is None and store.names("") and not _is_ours(store.names("")):
        raise StoreError(
            f"the store {store.url} holds other files. Name an empty folder, or one of a sweep."
        )
    if known is not None and not replace:
        why = _conflict(store, known, made)
        if why:
            raise StoreError(
                f"the store {store.url} holds {why}. Use --store with another folder, or "
                f"--replace-plan to go on here: files stay, and what does not fit is not read."
            )
    if known != made:
        store.write_json("plan.json", made)
    return made


def _conflict(store: Store, known: dict[str, Any], made: dict[str, Any]) -> str:
    """Why a plan is no extension of the one in the store; empty if it is."""
    if known.get("kind") != made["kind"] or known.get("name") != made["name"]:
        return f"the sweep '{known.get('name')}', and this one is '{made['name']}'"
    mine = {unit["key"] for unit in made["units"]}
    others = [unit for unit in known["units"] if unit["key"] not in mine]
    done = store.done_keys([unit["key"] for unit in others])
    if done:
        cell = next(unit["cell"] for unit in others if unit["key"] in done)
        return (
            f"{len(done)} finished videos that this sweep leaves out or would make otherwise "
            f"(one of the cell {cell})"
        )
    if known["metrics"] != made["metrics"] and store.done_keys(list(mine)):
        old, new = (", ".join(one["metrics"]) for one in (known, made))
        return f"videos measured by {old}, and this sweep measures {new}"
    return ""


def _is_ours(names: list[str]) -> bool:
    parts = {"units", "attempts", "logs", "jobs", "failed", "cells", "damaged", "report"}
    return all(name in parts or name.startswith(".tmp-") for name in names)


def make_executor(plan: Plan, store: Store, *, address: str | None = None) -> Executor:
    """This process for `workers.num: 0`, else Ray."""
    spec = WorkerSpec(store.url)
    workers = plan.sweep.workers
    if workers.num == 0:
        from vidcfg.sweep.in_process import InProcess

        return InProcess(Worker(spec), time_limit=workers.time_limit)
    from vidcfg.sweep.ray_executor import RayExecutor

    return RayExecutor(spec, workers, address)


def run_sweep(
    plan: Plan,
    store: Store,
    executor: Executor,
    *,
    on_change: Callable[[Books], None] = lambda books: None,
    replace_plan: bool = False,
) -> Outcome:
    """Make what is missing, then the sets and the summary.

    Raises:
        ModelLoadError, SweepStopped, StoreError: see `drive` and `put_plan`.
        KeyboardInterrupt: what is finished stays; the summary says that the sweep is not.
    """
    made = put_plan(store, plan, replace=replace_plan)
    begin = time.monotonic()
    try:
        books = drive(plan, store, executor, on_change=on_change)
    except StoreError as error:
        raise SweepStopped(str(error)) from error
    except (KeyboardInterrupt, RuntimeError) as error:
        _note_stop(store, plan, error)
        raise
    done = store.done_keys([unit.key for unit in plan.units])
    warnings = write_cells(store, made, done)
    check = self_check(store, made, done)
    problems = list(books.mismatches)
    if books.failed:
        problems.append(f"{len(books.failed)} units failed: see failed/ in {store.url}")
    if check["equal"] is False:
        first, second = check["cells"]
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
        "versions": _versions(),
        "finished": len(done) == len(plan.units),
    }
    store.write_json("summary.json", summary)
    return Outcome(books, summary, tuple(problems), tuple(warnings))


def _note_stop(store: Store, plan: Plan, error: BaseException) -> None:
    """A summary that says why the sweep is not finished, as far as the store takes it."""
    with contextlib.suppress(StoreError):
        done = store.done_keys([unit.key for unit in plan.units])
        why = str(error) or type(error).__name__
        summary = {"done": len(done), "finished": False, "stopped": why, "versions": _versions()}
        store.write_json("summary.json", summary)


def _versions() -> dict[str, str]:
    from vidcfg.render.record import versions

    return versions()
