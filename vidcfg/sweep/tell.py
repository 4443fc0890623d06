"""What a sweep says of itself: before it runs, while it runs, and from its store alone."""

from collections import Counter
from collections.abc import Iterable

from vidcfg.progress import Progress, counted, duration
from vidcfg.sweep.cells import shares_exactly
from vidcfg.sweep.driver import Books
from vidcfg.sweep.plan import Plan
from vidcfg.sweep.store import NoStoreError, Store

MAX_CELLS_LISTED = 40
MAX_FAILURES_LISTED = 20


def head(plan: Plan) -> str:
    """One line: `quick: 18 cells x 8 prompts x 4 seeds = 576 videos, 9000 model evaluations`."""
    seeds, shared = plan.cells[0].config.seeds, plan.counts["shared"]
    line = (
        f"{plan.sweep.name}: {counted(len(plan.cells), 'cell')} x "
        f"{counted(len(plan.prompts), 'prompt')} x {counted(len(seeds), 'seed')} = "
        f"{counted(len(plan.grid_units), 'video')}"
    )
    return line if shared is None else f"{line}, {shared} model evaluations"


def preview(plan: Plan) -> str:
    """Cells with their cost, the sum against other ways of doing it, jobs, and where it goes."""
    workers = plan.sweep.workers.num
    where = f"{workers} Ray workers" if workers else "this process"
    place = f"runs in {where}; writes to {plan.sweep.store}"
    return "\n\n".join([head(plan), _cells(plan), _cost(plan), place])


def _cells(plan: Plan) -> str:
    shown = plan.cells[:MAX_CELLS_LISTED]
    width = max(len(cell.label) for cell in shown)
    lines = [f"{'cell':{width}}  evaluations a video"]
    for cell in shown:
        cost = plan.alone.get(cell.id)
        mark = "  baseline" if cell.id == plan.baseline else ""
        count = "told by the model" if cost is None else cost
        lines.append(f"{cell.label:{width}}  {count}{mark}")
    if len(plan.cells) > len(shown):
        lines.append(f"... and {len(plan.cells) - len(shown)} more")
    return "\n".join(lines)


def _cost(plan: Plan) -> str:
    counts, jobs = plan.counts, plan.jobs(plan.keys)
    workers = plan.sweep.workers.num or 1
    if counts["shared"] is None:
        return f"model evaluations: told when the model is loaded; {len(jobs)} jobs"
    planned = sum(plan.cost(job.units) for job in jobs)
    lines = [
        f"model evaluations: {planned} in {len(jobs)} jobs for {workers} worker(s)",
        f"  {counts['shared']} with all sharing, {counts['separate']} video by video, "
        f"{counts['naive']} at 2 per step",
    ]
    if not all(shares_exactly(cell.config) for cell in plan.cells):
        lines.append(
            "  some cells share nothing: their model calls hold two branches, and videos are\n"
            "  made one by one to keep every bit. Write guidance.passes: sequential to share."
        )
    # Measuring included, as the jobs of this store took
    store = Store(plan.sweep.store)
    read = (store.read_json(f"jobs/{name}") for name in store.names("jobs"))
    recorded = [job for job in read if job is not None]
    if executed := sum(job["executed"] for job in recorded):
        seconds = sum(job["seconds"] for job in recorded) / executed
        total = duration(planned * seconds / workers)
        lines.append(f"  about {total} at {seconds:.3f} s an evaluation, as measured")
    return "\n".join(lines)


def made_by(store: Store, done: Iterable[str]) -> dict[str, int]:
    """How many units each version of vidcfg and its numerics has made."""
    versions: Counter = Counter()
    for record in store.each(store.render_of, done):
        known, sources = (record.get(name) or {} for name in ("versions", "sources"))
        numerics = sources.get("numerics", "unknown")
        versions[f"vidcfg {known.get('vidcfg', 'unknown')}, numerics {numerics}"] += 1
    return dict(sorted(versions.items()))


class Follow:
    """Shows the books of a sweep: what it keeps and why, and each failure as it is booked."""

    def __init__(self, progress: Progress, store: Store):
        self.progress, self.store = progress, store
        self._told: set[str] = set()
        self._has_begun = False

    def __call__(self, books: Books) -> None:
        if books.there and not self._has_begun and not self.progress.is_quiet:
            versions = made_by(self.store, books.there).items()
            told = " and ".join(f"{count} by {version}" for version, count in versions)
            self.progress.say(
                f"keeps {len(books.there)} videos that are there ({told}): settings, prompts and "
                "numerics, and the content of weights and images, are those of this plan"
            )
        self._has_begun = True
        for key, event in books.failed.items():
            if key not in self._told:
                self.progress.say(f"failed {key[:12]}: {event.kind}: {event.message}")
        self._told |= set(books.failed)
        self.progress.update(books.done, books.total - books.cached, note=note(books))


def note(books: Books) -> str:
    """`12 running, 0 failed, 40 were there, 3.1 a second, 2 min left`."""
    running = sum(len(job.units) for job in books.running.values()) - books.reported.total()
    parts = [f"{running} running", f"{len(books.failed)} failed"]
    if books.cached:
        parts.append(f"{books.cached} were there")
    if rate := books.rate:
        parts.append(f"{rate:.1f} a second" if rate >= 1 else f"{60 * rate:.1f} a minute")
        if books.left:
            parts.append(f"{duration(books.left / rate)} left")
    return ", ".join(parts)


def status(store: Store) -> tuple[str, bool]:
    """A table of cells, the failed units, and whether everything is done.

    Raises:
        NoStoreError: if the store holds no sweep.
    """
    # The units, by what became of them
    plan = store.read_json("plan.json")
    if plan is None:
        raise NoStoreError(f"{store.url} holds no plan.json, so no sweep. Check the address.")
    cell_of = {unit["key"]: unit["cell"] for unit in plan["units"]}
    done = store.done_keys(cell_of)
    failed = {name.removesuffix(".json") for name in store.names("failed")} - done
    started = {name.removesuffix(".jsonl") for name in store.names("attempts")} - done - failed
    counts = Counter((cell, key in done, key in failed) for key, cell in cell_of.items())
    begun = Counter(cell_of[key] for key in started & set(cell_of))

    # The cells, in a table
    width = max(len(cell["label"]) for cell in plan["cells"])
    lines = [f"{plan['name']}: {len(done)} of {len(cell_of)} units done", ""]
    lines.append(f"{'cell':{width}}  {'done':>6}{'failed':>8}{'missing':>9}")
    for cell in plan["cells"]:
        id = cell["id"]
        numbers = f"{counts[id, True, False]:>6}{counts[id, False, True]:>8}"
        more = f"  ({begun[id]} begun)" if begun[id] else ""
        lines.append(f"{cell['label']:{width}}  {numbers}{counts[id, False, False]:>9}{more}")

    # What failed
    bad = sorted(failed & set(cell_of))
    lines += [""] if bad else []
    for key in bad[:MAX_FAILURES_LISTED]:
        facts = store.read_json(f"failed/{key}.json") or {}
        lines.append(f"failed {key[:12]}: {facts.get('kind')}: {facts.get('message')}")
    if len(bad) > MAX_FAILURES_LISTED:
        lines.append(f"... and {len(bad) - MAX_FAILURES_LISTED} more in {store.path('failed')}")
    return "\n".join(lines), len(done) == len(cell_of)
