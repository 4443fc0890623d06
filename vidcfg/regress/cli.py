"""The command line of `python -m vidcfg.regress`."""

import argparse
import sys
from collections.abc import Sequence

EPILOG = """\
commands:
  record     keep the measured values of a set of renders as a baseline
  check      compare a set of renders with a baseline
  power      what change a gate finds with how many clips
  calibrate  measure the noise of a setting from repeated renders of it
  policy     print the default policy, to save and edit

A set is a folder of renders (measured on the spot, without weights), a folder with the
records.jsonl of vidcfg evaluate, or the store of a sweep.

exit codes of check:
  0  PASS: no metric is worse by more than its margin
  1  FAIL: at least one is, and noise does not explain it
  2  INCONCLUSIVE: too much noise or too few clips to tell (0 with --allow-inconclusive)
  3  error: nothing was compared (wrong option or policy, broken or unlike clips)
  130  interrupted
The other commands exit with 0, or 3 on an error.
"""


class _Parser(argparse.ArgumentParser):
    """argparse exits with 2, which means inconclusive here."""

    def error(self, message: str):
        self.print_usage(sys.stderr)
        self.exit(3, f"{self.prog}: {message}\n")


def parser() -> argparse.ArgumentParser:
    made = _Parser(
        prog="vidcfg regress",
        description="Tell whether a change made videos flicker, pulse, burn, freeze or drift.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=EPILOG,
    )
    commands = made.add_subparsers(dest="command", required=True, metavar="COMMAND")
    record = commands.add_parser("record", help="keep measured values as a baseline")
    record.add_argument("set", help="renders, evaluated renders, or a sweep's store")
    record.add_argument("-o", "--out", required=True, metavar="DIR", help="the baseline's folder")
    record.add_argument("--with-videos", action="store_true", help="keep small pictures too")
    record.add_argument("--all-metrics", action="store_true", help="not the policy's alone")
    record.add_argument("--overwrite", action="store_true", help="renew an existing baseline")
    check = commands.add_parser("check", help="compare with a baseline")
    check.add_argument("set", help="renders, evaluated renders, or a sweep's store")
    check.add_argument("--baseline", required=True, metavar="DIR")
    check.add_argument(
        "-o", "--out", metavar="DIR", help="write index.html, result.json, junit.xml"
    )
    check.add_argument("--allow-inconclusive", action="store_true", help="exit code 0 for 2")
    power = commands.add_parser("power", help="detectable changes")
    power.add_argument("--baseline", metavar="DIR")
    power.add_argument("--sd", type=float, help="noise of a paired change, in place of a baseline")
    power.add_argument("-n", type=int, nargs="+", default=[16, 64], metavar="CLIPS")
    calibrate = commands.add_parser("calibrate", help="noise from repeats of one setting")
    calibrate.add_argument("sets", nargs="+", metavar="SET")
    calibrate.add_argument("--save", metavar="DIR", help="a baseline that is to know the noise")
    calibrate.add_argument("-o", "--out", metavar="FILE", help="write the suggested policy")
    policy = commands.add_parser("policy", help="print the policy in full")
    for one in (record, check, power, calibrate, policy):
        one.add_argument("--policy", metavar="FILE", help="a YAML file (default: built in)")
        one.add_argument(
            *("--set",),
            action="append",
            default=[],
            dest="overrides",
            metavar="PATH=VALUE",
            help="replace a value of the policy, such as alpha=0.01; may be repeated",
        )
    for one in (record, check, calibrate):
        one.add_argument("--workers", type=int, default=0, help="threads that measure")
        one.add_argument("--quiet", action="store_true", help="no progress")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; the result is its exit code."""
    arguments = parser().parse_args(sys.argv[1:] if argv is None else list(argv))
    try:
        from vidcfg.regress.commands import run

        return run(arguments)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
