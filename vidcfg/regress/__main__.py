"""python -m vidcfg.regress record | check | power | calibrate | policy"""

import argparse
import sys
from collections.abc import Sequence

from vidcfg import cli

DETAILS = """\
A set is a folder of renders (measured on the spot, without weights), a folder with the
records.jsonl of vidcfg evaluate, the store of a sweep, or a baseline. The exit code of check is
the verdict; what cannot be compared is never a PASS."""


def parser() -> argparse.ArgumentParser:
    about = "Tell whether a change made videos flicker, pulse, burn, freeze or drift."
    made = cli.parser("regress", about, details=DETAILS, has_verdict=True)
    # What all subcommands have.
    commands = made.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, text: str) -> argparse.ArgumentParser:
        one = commands.add_parser(name, help=text, description=text)
        one.formatter_class = argparse.RawDescriptionHelpFormatter
        one.epilog = cli.exit_codes(has_verdict=name == "check")
        one.add_argument("--policy", metavar="FILE", help="a YAML file (default: built in)")
        cli.add_set(one, "alpha=0.01")
        return cli.shared(one, default=argparse.SUPPRESS)

    # What each one adds.
    a_set = "renders, evaluated renders, or a sweep's store"

    record = command("record", "keep the measured values of a set as a baseline")
    record.add_argument("clips", metavar="SET", help=a_set)
    cli.add_out(record, "the baseline's folder", required=True)
    pictures = record.add_mutually_exclusive_group()
    pictures.add_argument("--with-videos", action="store_true", help="keep larger pictures")
    pictures.add_argument("--no-pictures", action="store_true", help="keep no pictures")
    record.add_argument("--all-metrics", action="store_true", help="not the policy's alone")
    record.add_argument("--overwrite", action="store_true", help="renew an existing baseline")

    check = command("check", "compare a set with a baseline")
    check.add_argument("clips", metavar="SET", help=a_set)
    check.add_argument("--baseline", required=True, metavar="DIR", help="what `record` wrote")
    cli.add_out(check, "write index.html, result.json, junit.xml")
    check.add_argument("--allow-inconclusive", action="store_true", help="exit code 0 for 5")

    power = command("power", "tell what change a gate finds with how many clips")
    noisy = "one with several seeds a prompt, or with noise that `calibrate` saved"
    power.add_argument("--baseline", metavar="DIR", help=noisy)
    power.add_argument("--sd", type=float, help="noise of a paired change, in place of a baseline")
    counts = {"default": [16, 64], "metavar": "CLIPS", "help": "numbers of clips (16 64)"}
    power.add_argument("-n", type=int, nargs="+", **counts)

    calibrate = command("calibrate", "measure the noise of a setting from repeats of it")
    calibrate.add_argument("sets", nargs="+", metavar="SET", help="repeats: " + a_set)
    calibrate.add_argument("--save", metavar="DIR", help="a baseline that is to know the noise")
    cli.add_out(calibrate, "write the suggested policy", metavar="FILE")

    for one in (record, check, calibrate):
        cli.add_workers(one, "threads that measure (default: one a core; 0: none)", default=None)
    command("policy", "print the policy in full, to save and edit")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; the result is its exit code."""

    def todo(arguments: argparse.Namespace) -> int:
        from vidcfg.places import fetched
        from vidcfg.regress import commands

        with fetched(arguments, "clips", "baseline", "sets") as here:
            return getattr(commands, arguments.command)(here)

    return cli.run(parser(), todo, argv)


if __name__ == "__main__":
    sys.exit(main())
