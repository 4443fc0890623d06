"""vidcfg report STORE: the page of a sweep, or of evaluated videos."""

import argparse
import sys
from collections.abc import Sequence

from vidcfg import cli
from vidcfg.progress import Progress

DETAILS = """\
It writes index.html (one file, works without a network), report.json (all of its numbers) and
report.md (a table) to STORE/report. A sweep that is not finished is shown as far as it is there.

examples:
  vidcfg report out/sweep
  vidcfg report out/sweep -o page.html --baseline "uniform, scale 6"
  vidcfg report out/scores --metrics mc_flicker,align,dynamic_degree
"""


def parser() -> argparse.ArgumentParser:
    about = "Write the page that compares the settings of a sweep."
    made = cli.parser("report", about, details=DETAILS)
    made.add_argument("store", help="a sweep's store, or a folder with evaluate's records.jsonl")
    cli.add_out(made, "the HTML file to write", metavar="FILE")
    made.add_argument("--metrics", metavar="NAMES", help="show these only, separated by commas")
    made.add_argument("--baseline", metavar="CELL", help="compare with this cell (id or label)")
    text = "size of all embedded videos together (16); at least one prompt is always there"
    made.add_argument("--max-mb", type=float, default=16.0, metavar="MB", help=text)
    return made


def report(arguments: argparse.Namespace) -> int:
    from vidcfg.places import is_url
    from vidcfg.report.write import write_report

    names = [name.strip() for name in (arguments.metrics or "").split(",") if name.strip()]
    with Progress("videos", quiet=arguments.quiet) as progress:
        path = write_report(
            arguments.store,
            out=arguments.out,
            metrics=names or None,
            baseline=arguments.baseline,
            max_megabytes=arguments.max_mb,
            progress=progress.update,
        )
    if not arguments.quiet:
        size = "" if is_url(path) else f" ({path.stat().st_size / 1e6:.1f} MB)"
        cli.say(f"{path}{size}")
    return cli.DONE


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(parser(), report, argv)


if __name__ == "__main__":
    sys.exit(main())
