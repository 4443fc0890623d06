"""python -m vidcfg.sweep: run a grid of settings, or look at one.

Heavy imports wait until there is work.
"""

import argparse
import json
import shlex
import sys
import time
from collections.abc import Sequence
from typing import Any

from vidcfg import cli
from vidcfg.tracking import Log, add_log, tracked

DETAILS = """\
Every video of the grid is rendered, measured and put into the store; cells that are still on the
same trajectory share their model evaluations. What is done is never made again: to resume, run
the same command. `vidcfg sweep status STORE` tells how far a sweep is; in a source checkout,
`python tools/simulate_cluster.py --help` what it would take on a cluster.

examples:
  vidcfg sweep configs/sweep/quick.yaml --dry-run
  vidcfg sweep configs/sweep/quick.yaml --workers 2
  vidcfg sweep sweep.yaml --address auto --store s3://bucket/sweeps/kite
"""


def parser() -> argparse.ArgumentParser:
    about = "Render and measure a grid of guidance settings over prompts and seeds."
    made = cli.parser("sweep", about, details=DETAILS)
    add = made.add_argument
    add("config", help="a YAML file such as configs/sweep/quick.yaml")
    cli.add_set(made, "workers.num=4")
    add("--store", "-o", "--out", metavar="URL", help="replace store")
    cli.add_workers(made, "replace workers.num; 0 is this process", default=None)
    add_log(made)
    add("--address", metavar="ADDRESS", help="of a Ray cluster; auto for the one of this machine")
    add(
        "--dry-run",
        action="store_true",
        help="print cells, units, jobs and cost; load no model, write nothing",
    )
    add(
        "--replace-plan",
        action="store_true",
        help="go on in a store whose plan this one does not extend; files stay",
    )
    add("--no-report", action="store_true", help="write no report at the end")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """`status STORE`, or a sweep file with options; the result is the exit code."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if argv[:1] == ["status"]:
        about = "Tell what of a sweep is done, failed and missing, cell by cell."
        made = cli.parser("sweep status", about)
        made.add_argument("store", help="the store of a sweep: a folder, or s3://bucket/path")
        return cli.run(made, _status, argv[1:])
    return cli.run(parser(), lambda arguments: _sweep(arguments, argv), argv)


def _status(arguments: argparse.Namespace) -> int:
    from vidcfg.sweep.store import Store
    from vidcfg.sweep.tell import status

    text, is_complete = status(Store(arguments.store))
    cli.say(text)
    return cli.DONE if is_complete else cli.FAILED


def _sweep(arguments: argparse.Namespace, argv: list[str]) -> int:
    from vidcfg.render.prompts import early_prompt_warnings

    plan = _plan(arguments)
    for warning in early_prompt_warnings(plan.cells[0].config):
        cli.warn(warning)
    _warn_of_the_unknown(plan)
    if arguments.dry_run:
        from vidcfg.sweep.tell import preview

        cli.say(preview(plan))
        return cli.DONE
    try:
        return _run(plan, arguments)
    except KeyboardInterrupt:
        command = shlex.join(["python", "-m", "vidcfg.sweep", *argv])
        raise KeyboardInterrupt(
            f"interrupted: what is finished is in {plan.sweep.store}. Continue with: {command}"
        ) from None


def _plan(arguments: argparse.Namespace) -> Any:
    from vidcfg.sweep.config import load_sweep_config
    from vidcfg.sweep.plan import make_plan

    overrides = list(arguments.set)
    if arguments.store is not None:
        # A JSON string is a YAML string, whatever characters it holds.
        overrides.append(f"store={json.dumps(arguments.store)}")
    if arguments.workers is not None:
        overrides.append(f"workers.num={arguments.workers}")
    sweep, document = load_sweep_config(arguments.config, overrides)
    if arguments.address is not None and not sweep.workers.num:
        raise ValueError(
            f"--address {arguments.address} is a Ray cluster, but workers.num is 0, which is this "
            "process alone. Add --workers 8, or leave --address out."
        )
    return make_plan(sweep, document)


def _warn_of_the_unknown(plan: Any) -> None:
    """Places whose content this machine does not know, so that it is no part of the keys."""
    unknown = {n: None for of in plan.sources.values() for n, c in of.items() if c is None}
    for name in unknown:
        cli.warn(
            f"{name} is not on this machine: if its authors change it, finished videos will not "
            "be made again. Name a commit (model.revision), or run hf download first; once it is "
            "here, videos made before count as others."
        )


def _parameters(plan: Any) -> dict[str, Any]:
    """The settings that all cells share, and the values of those that the grid varies."""
    from vidcfg.dataframes import settings_of

    grid = plan.sweep.grid
    shared = settings_of(plan.cells[0].config.to_dict()).items()
    kept = {k: v for k, v in shared if not f"{k}.".startswith(tuple(f"{g}." for g in grid))}
    return kept | {f"grid.{name}": json.dumps(values) for name, values in grid.items()}


class Logged:
    """Tells a tracker of each video of the grid once, as soon as it is done or has failed.

    Metrics are told by cell, and a video by the number of its prompt and seed, so that the curves
    of cells have the same clip at the same place.
    """

    every_s = 10.0

    def __init__(self, plan: Any, store: Any, log: Log):
        self.plan, self.store, self.log = plan, store, log
        self.left = {unit.key: unit for unit in plan.grid_units}
        pairs = dict.fromkeys((unit.prompt, unit.seed) for unit in plan.grid_units)
        self.numbers = {pair: number for number, pair in enumerate(pairs)}
        self._looked = time.monotonic()

    def __call__(self, books: Any, *, is_last: bool = False) -> None:
        """What has happened since the last time."""
        from vidcfg.sweep.run import unit_records

        # The store is asked now and then: one that is far away takes a second to tell.
        if not is_last and time.monotonic() - self._looked < self.every_s:
            return
        done = self.store.done_keys(self.left)
        for key in [key for key in self.left if key in done or key in books.failed]:
            unit, values = self.left.pop(key), {"failed": 1.0}
            if key in done:
                values = {one.name: one.value for one in unit_records(self.store, key)}
            named = f"{self.plan.prompts[unit.prompt].text}, seed {unit.seed}"
            by_cell = {f"{metric}/{unit.cell}": value for metric, value in values.items()}
            self.log(named, self.numbers[unit.prompt, unit.seed], by_cell)
        self._looked = time.monotonic()


def _run(plan: Any, arguments: argparse.Namespace) -> int:
    from vidcfg.progress import Progress, duration
    from vidcfg.sweep.run import make_executor, run_sweep
    from vidcfg.sweep.store import Store
    from vidcfg.sweep.tell import Follow, head

    # The sweep
    say = (lambda *words: None) if arguments.quiet else cli.say
    store = Store(plan.sweep.store)
    say(head(plan))
    run = tracked(arguments.log, plan.sweep.name, _parameters(plan))
    with run as log, Progress("done", quiet=arguments.quiet) as progress:
        executor = make_executor(plan, store, address=arguments.address, on_step=progress.step)
        follow, logged = Follow(progress, store), arguments.log and Logged(plan, store, log)

        def on_change(books: Any, *, is_last: bool = False) -> None:
            follow(books)
            if logged:
                logged(books, is_last=is_last)

        outcome = run_sweep(
            plan, store, executor, on_change=on_change, replace_plan=arguments.replace_plan
        )
        on_change(outcome.books, is_last=True)

    # What it came to
    for warning in outcome.warnings:
        cli.warn(warning)
    summary, check = outcome.summary, outcome.summary["self_check"]
    held = {True: "holds", False: "FAILED", None: "not made"}[check["equal"]]
    say(
        f"{summary['done']} units in {store.url} ({summary['cached']} were there), "
        f"{duration(summary['wall_s'])}, {summary['executed']} model evaluations, "
        f"self-check of {check['pairs']} pairs {held}"
    )

    if len(made_by := summary["units_made_by"]) > 1:
        told = ", ".join(f"{count} by {version}" for version, count in made_by.items())
        cli.warn(f"videos of several versions are in this store: {told}")

    # The report, and all that is wrong
    if summary["done"] and not arguments.no_report:
        from vidcfg.report.write import write_report

        say(f"report: {write_report(store.root if store.is_local else store.url)}")
    for problem in outcome.problems:
        cli.say(problem, file=sys.stderr)
    return cli.FAILED if outcome.problems else cli.DONE


if __name__ == "__main__":
    sys.exit(main())
