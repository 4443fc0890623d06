"""vidcfg report STORE: the page of a sweep, or of evaluated videos."""

import argparse
import sys

EPILOG = """\
It writes index.html (one file, works without a network), report.json (all of its numbers) and
report.md (a table) to STORE/report. A sweep that is not finished is shown as far as it is there.

examples:
  python -m vidcfg.report out/sweep
  python -m vidcfg.report out/sweep -o page.html --baseline "uniform, scale 6"
  python -m vidcfg.report out/scores --metrics warp_residual,align,dynamic_degree

exit codes:
  0  written
  2  the results or an option cannot be used
"""


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m vidcfg.report",
        description="Write the page that compares the settings of a sweep.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("store", help="a sweep's store, or a folder with evaluate's records.jsonl")
    made.add_argument("-o", "--out", metavar="FILE", help="the HTML file to write")
    made.add_argument("--metrics", metavar="NAMES", help="show these only, separated by commas")
    made.add_argument("--baseline", metavar="CELL", help="compare with this cell (id or label)")
    made.add_argument(
        "--max-mb",
        type=float,
        default=16.0,
        metavar="MB",
        help="size of all embedded videos together (16); at least one prompt is always there",
    )
    made.add_argument("--quiet", action="store_true", help="print errors only")
    return made


def main(argv: list[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    from vidcfg.report.results import ResultsError
    from vidcfg.report.write import write_report

    names = [name.strip() for name in (arguments.metrics or "").split(",") if name.strip()]
    try:
        path = write_report(
            arguments.store,
            out=arguments.out,
            metrics=names or None,
            baseline=arguments.baseline,
            max_megabytes=arguments.max_mb,
            progress=_bar(arguments.quiet),
        )
    except ResultsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if not arguments.quiet:
        print(f"{path} ({path.stat().st_size / 1e6:.1f} MB)")
    return 0


def _bar(is_quiet: bool):
    if is_quiet or not sys.stderr.isatty():
        return lambda done, total: None
    from tqdm import tqdm

    bar = tqdm(desc="videos", unit="")

    def report(done: int, total: int) -> None:
        bar.total = total
        bar.update(done - bar.n)

    return report


if __name__ == "__main__":
    sys.exit(main())
