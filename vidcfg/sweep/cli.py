"""The command line of a sweep. Heavy imports wait until there is work."""

import argparse
import json
import shlex
import sys
import traceback
from typing import Any

EPILOG = """\
Every video of the grid is rendered, measured and put into the store; cells that are still on the
same trajectory share their model evaluations. What is done is never made again: to resume, run
the same command. `python -m vidcfg.sweep status STORE` tells how far a sweep is,
`python -m vidcfg.sweep simulate --help` what it would take on a cluster.

examples:
  python -m vidcfg.sweep configs/sweep/quick.yaml --dry-run
  python -m vidcfg.sweep configs/sweep/quick.yaml --workers 2
  python -m vidcfg.sweep sweep.yaml --address auto --store s3://bucket/sweeps/kite

exit codes:
  0    every unit is done and the self-check holds
  1    units failed, the self-check failed, the model cannot be loaded, or the store is full
  2    a configuration or option that cannot be used
  130  interrupted; finished units stay, the same command continues
"""


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m vidcfg.sweep",
        description="Render and measure a grid of guidance settings over prompts and seeds.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = made.add_argument
    add("config", help="a YAML file such as configs/sweep/quick.yaml")
    add(
        "--set",
        action="append",
        default=[],
        metavar="PATH=VALUE",
        help="replace a value of the file, such as workers.num=4; may be repeated",
    )
    add("--store", metavar="URL", help="replace store")
    add("--workers", type=int, metavar="N", help="replace workers.num; 0 is this process")
    add("--address", metavar="ADDRESS", help="of a Ray cluster; auto for the one of this machine")
    add(
        "--dry-run",
        action="store_true",
        help="print cells, units and cost; load no model, write nothing",
    )
    add(
        "--replace-plan",
        action="store_true",
        help="go on in a store whose plan this one does not extend; files stay",
    )
    add("--no-report", action="store_true", help="write no report at the end")
    add("--quiet", action="store_true", help="print warnings and errors only")
    add("--debug", action="store_true", help="show the traceback of an error")
    return made


def main(argv: list[str]) -> int:
    """Run the command; the result is its exit code."""
    arguments = parser().parse_args(argv)
    from vidcfg.settings.errors import ConfigError

    try:
        plan = _plan(arguments)
    except (ConfigError, ValueError) as error:
        return _fail(str(error), 2, arguments)
    _warn_of_prompts(plan)
    if arguments.dry_run:
        from vidcfg.sweep.preview import preview

        print(preview(plan))
        return 0
    try:
        return _run(plan, arguments)
    except KeyboardInterrupt:
        command = shlex.join(["python", "-m", "vidcfg.sweep", *argv])
        text = (
            f"\ninterrupted: what is finished is in {plan.sweep.store}. Continue with: {command}"
        )
        return _fail(text, 130, arguments)
    except Exception as error:
        code = _exit_code(error)
        if code is None:
            raise
        return _fail(" ".join(str(error).split()), code, arguments)


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
    return make_plan(sweep, document=document)


def _warn_of_prompts(plan: Any) -> None:
    """Words that the model does not know, and ends that it does not see."""
    from vidcfg.render.prompts import prompt_warnings, texts_of, tokenizer_in
    from vidcfg.render.record import model_folder

    config = plan.cells[0].config
    folder = model_folder(config)
    found = tokenizer_in(folder) if folder is not None else None
    for warning in prompt_warnings(texts_of(config), *found) if found else ():
        print(f"warning: {warning}", file=sys.stderr)


def _run(plan: Any, arguments: argparse.Namespace) -> int:
    from vidcfg.sweep.preview import head
    from vidcfg.sweep.progress import progress_for
    from vidcfg.sweep.run import make_executor, run_sweep
    from vidcfg.sweep.store import Store

    store = Store(plan.sweep.store)
    if not arguments.quiet:
        print(head(plan), flush=True)
    executor = make_executor(plan, store, address=arguments.address)
    with progress_for(sys.stdout, is_quiet=arguments.quiet) as progress:
        outcome = run_sweep(
            plan, store, executor, on_change=progress, replace_plan=arguments.replace_plan
        )
    for warning in outcome.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    if not arguments.quiet:
        print(_last_line(outcome, store))
    if not arguments.no_report and outcome.summary["done"]:
        _report(store, arguments)
    for problem in outcome.problems:
        print(problem, file=sys.stderr)
    return 1 if outcome.problems else 0


def _last_line(outcome: Any, store: Any) -> str:
    from vidcfg.sweep.progress import duration

    books, check = outcome.books, outcome.summary["self_check"]
    held = {True: "holds", False: "FAILED", None: "not made"}[check["equal"]]
    return (
        f"{outcome.summary['done']} units in {store.url} ({books.cached} were there), "
        f"{duration(outcome.summary['wall_s'])}, {books.executed} model evaluations, "
        f"self-check of {check['pairs']} pairs {held}"
    )


def _report(store: Any, arguments: argparse.Namespace) -> None:
    from vidcfg.report import write_report

    if not store.is_local:
        print(f"no report: copy {store.url} to a disk, then python -m vidcfg.report FOLDER")
        return
    path = write_report(store.root)
    if not arguments.quiet:
        print(f"report: {path}")


def _exit_code(error: Exception) -> int | None:
    """1 for failures, 2 for settings that cannot be used, None for a bug."""
    if isinstance(error, RuntimeError | OSError | MemoryError):
        return 1
    return 2 if isinstance(error, ValueError) else None


def _fail(text: str, code: int, arguments: argparse.Namespace) -> int:
    if arguments.debug:
        traceback.print_exc()
    print(text, file=sys.stderr)
    return code
