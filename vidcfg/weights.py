"""vidcfg weights list | fetch NAME... | verify [NAME...]"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from vidcfg import cli
from vidcfg.metrics.weight_files import (
    WEIGHTS,
    MissingWeightsError,
    check,
    fetch,
    find_weights,
    named,
    weights_folder,
)
from vidcfg.progress import Progress


def main(argv: Sequence[str] | None = None) -> int:
    """0: done. 1: something is missing or wrong."""
    made = cli.parser(
        "weights",
        "Weight files that some metrics need. Nothing is downloaded unless asked for.",
        details="VIDCFG_WEIGHTS_DIR names the folder, VIDCFG_OFFLINE=1 forbids downloads.",
    )
    commands = made.add_subparsers(required=True, metavar="COMMAND")
    for name, todo, text in (
        ("list", _list, "what there is: size, licence, origin, and whether it is here"),
        ("fetch", _fetch, "download and check"),
        ("verify", _verify, "check the hashes of what is here"),
    ):
        command = commands.add_parser(name, help=text, description=text)
        cli.shared(command, default=argparse.SUPPRESS)
        command.set_defaults(todo=todo)
        if name != "list":
            command.add_argument("names", nargs="+" if name == "fetch" else "*", metavar="NAME")
        if name == "fetch":
            text = "a copy of what `list` names as their origin, brought by other means"
            command.add_argument("--from", dest="source", type=Path, metavar="FILE", help=text)
    return cli.run(made, lambda options: options.todo(options), argv)


_UNTRIED = "no: what is known of this file is what others publish"


def _list(options: argparse.Namespace) -> int:
    cli.say(f"folder: {weights_folder()}")
    for weight in WEIGHTS.values():
        try:
            state = f"here: {find_weights(weight.name)}"
        except MissingWeightsError as error:
            state = "not here" if _is_absent(error) else str(error)
        cli.say(f"\n{weight.name}  {weight.about}  {state}")
        cli.say(f"  for      {weight.used_by}")
        cli.say(f"  licence  {weight.licence}")
        cli.say(f"  from     {weight.origin}")
        if weight.sha256:
            cli.say(f"  check    {weight.size} bytes, sha256 {weight.sha256}")
        cli.say(f"  tried    {weight.tried or _UNTRIED}")
    return cli.DONE


def _fetch(options: argparse.Namespace) -> int:
    code = cli.DONE
    for weight in [named(name) for name in options.names]:
        try:
            with Progress(f"bytes of {weight.name}", quiet=options.quiet, is_bytes=True) as bar:
                if not options.quiet:
                    bar.say(f"{weight.name}: {options.source or weight.origin}")
                told = None if options.quiet else bar.update
                path = fetch(weight.name, source=options.source, report=told)
            if not options.quiet:
                cli.say(f"{weight.name}: {path}\n  sha256 {weight.sha256}")
        except MissingWeightsError as error:
            cli.say(f"vidcfg weights: {error}", file=sys.stderr)
            code = cli.FAILED
    return code


def _verify(options: argparse.Namespace) -> int:
    code = cli.DONE
    for weight in [named(name) for name in options.names] or WEIGHTS.values():
        try:
            path = find_weights(weight.name)
            check(weight, path)
            if not options.quiet:
                cli.say(f"{weight.name}: ok\n  {path}\n  sha256 {weight.sha256}")
        except MissingWeightsError as error:
            cli.say(f"{weight.name}: {'not here' if _is_absent(error) else error}")
            if options.names or not _is_absent(error):
                code = cli.FAILED
    return code


def _is_absent(error: MissingWeightsError) -> bool:
    return "not on this machine" in str(error)


if __name__ == "__main__":
    sys.exit(main())
