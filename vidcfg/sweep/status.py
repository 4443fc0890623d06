"""How far a sweep is, from its store alone: no cluster, no model."""

import argparse
import sys
from collections import Counter

from vidcfg.sweep.store import Store, StoreError

EPILOG = """\
exit codes:
  0  every unit is done
  1  units are missing or failed
  2  there is no sweep at this address
"""


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m vidcfg.sweep status",
        description="Tell what of a sweep is done, failed and missing, cell by cell.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("store", help="the store of a sweep: a folder, or s3://bucket/path")
    return made


def main(argv: list[str]) -> int:
    arguments = parser().parse_args(argv)
    try:
        text, is_complete = status(Store(arguments.store))
    except StoreError as error:
        print(error, file=sys.stderr)
        return 2
    print(text)
    return 0 if is_complete else 1


def status(store: Store) -> tuple[str, bool]:
    """A table of cells, the failed units, and whether everything is done.

    Raises:
        StoreError: if the store holds no sweep.
    """
    plan = store.read_json("plan.json")
    if plan is None:
        raise StoreError(f"{store.url} holds no plan.json, so no sweep. Check the address.")
    keys = [unit["key"] for unit in plan["units"]]
    done = store.done_keys(keys)
    failed = {name.removesuffix(".json") for name in store.names("failed")} - done
    started = {name.removesuffix(".jsonl") for name in store.names("attempts")}
    counts: dict[str, Counter] = {cell["id"]: Counter() for cell in plan["cells"]}
    for unit in plan["units"]:
        key = unit["key"]
        state = "done" if key in done else "failed" if key in failed else "missing"
        counts[unit["cell"]][state] += 1
        if state == "missing" and key in started:
            counts[unit["cell"]]["begun"] += 1
    width = max(len(cell["label"]) for cell in plan["cells"])
    lines = [f"{plan['name']}: {len(done)} of {len(keys)} units done", ""]
    lines.append(f"{'cell':{width}}  {'done':>6}{'failed':>8}{'missing':>9}")
    for cell in plan["cells"]:
        row = counts[cell["id"]]
        numbers = f"{row['done']:>6}{row['failed']:>8}{row['missing']:>9}"
        begun = f"  ({row['begun']} begun)" if row["begun"] else ""
        lines.append(f"{cell['label']:{width}}  {numbers}{begun}")
    lines += _failures(store, sorted(failed & set(keys)))
    return "\n".join(lines), len(done) == len(keys)


def _failures(store: Store, keys: list[str]) -> list[str]:
    lines = [""] if keys else []
    for key in keys[:20]:
        facts = store.read_json(f"failed/{key}.json") or {}
        lines.append(f"failed {key[:12]}: {facts.get('kind')}: {facts.get('message')}")
    if len(keys) > 20:
        lines.append(f"... and {len(keys) - 20} more in {store.path('failed')}")
    return lines
