"""What a sweep would do, told before any model is loaded."""

from vidcfg.sweep.identity import shares_exactly
from vidcfg.sweep.plan import Plan
from vidcfg.sweep.progress import duration
from vidcfg.sweep.store import Store

MAX_CELLS_LISTED = 40


def head(plan: Plan) -> str:
    """One line: `quick: 18 cells x 8 prompts x 4 seeds = 576 videos, 9,000 evaluations`."""
    seeds = plan.cells[0].config.seeds
    units = len(plan.cells) * len(plan.prompts) * len(seeds)
    counts = plan.counts
    line = (
        f"{plan.sweep.name}: {len(plan.cells)} cells x {len(plan.prompts)} prompts x "
        f"{len(seeds)} seeds = {units} videos"
    )
    return line if counts["shared"] is None else f"{line}, {counts['shared']} model evaluations"


def preview(plan: Plan) -> str:
    """Cells with their cost, the sum against other ways of doing it, jobs, and where it goes."""
    jobs = plan.jobs([unit.key for unit in plan.units], num_workers=plan.sweep.workers.num or 1)
    return "\n\n".join([head(plan), _cells(plan), _cost(plan, len(jobs)), _place(plan)])


def _cells(plan: Plan) -> str:
    first = {}
    for unit in plan.units:
        first.setdefault(unit.cell, unit.key)
    shown = plan.cells[:MAX_CELLS_LISTED]
    width = max(len(cell.label) for cell in shown)
    lines = [f"{'cell':{width}}  evaluations a video"]
    for cell in shown:
        cost = plan.evaluations((first[cell.id],)) if cell.id in first else None
        mark = "  baseline" if cell.id == plan.baseline else ""
        count = "told by the model" if cost is None else f"{cost.total}"
        lines.append(f"{cell.label:{width}}  {count}{mark}")
    if len(plan.cells) > len(shown):
        lines.append(f"... and {len(plan.cells) - len(shown)} more")
    return "\n".join(lines)


def _cost(plan: Plan, num_jobs: int) -> str:
    counts = plan.counts
    if counts["shared"] is None:
        return f"model evaluations: told when the model is loaded; {num_jobs} jobs"
    keys = [unit.key for unit in plan.units]
    jobs = plan.jobs(keys, num_workers=plan.sweep.workers.num or 1)
    planned = sum(plan.evaluations(job.units).total for job in jobs)
    lines = [
        f"model evaluations: {planned} in {num_jobs} jobs for "
        f"{plan.sweep.workers.num or 1} worker(s)",
        f"  {counts['shared']} with all sharing, {counts['separate']} video by video, "
        f"{counts['naive']} at 2 per step",
    ]
    if not all(shares_exactly(cell.config) for cell in plan.cells):
        lines.append(
            "  some cells share nothing: their model calls hold two branches, and videos are\n"
            "  made one by one to keep every bit. Write guidance.passes: sequential to share."
        )
    seconds = seconds_per_evaluation(plan)
    if seconds is not None:
        total = planned * seconds / (plan.sweep.workers.num or 1)
        lines.append(f"  about {duration(total)} at {seconds:.3f} s an evaluation, as measured")
    return "\n".join(lines)


def seconds_per_evaluation(plan: Plan) -> float | None:
    """Seconds a model evaluation in the jobs of this store, measuring included; None before."""
    store = Store(plan.sweep.store)
    jobs = [store.read_json(f"jobs/{name}") for name in store.names("jobs")]
    executed = sum(job["executed"] for job in jobs)
    return sum(job["seconds"] for job in jobs) / executed if executed else None


def _place(plan: Plan) -> str:
    where = f"{plan.sweep.workers.num} Ray workers" if plan.sweep.workers.num else "this process"
    return f"runs in {where}; writes to {plan.sweep.store}"
