"""vidcfg weights list | fetch NAME... | verify [NAME...]"""

import argparse
import sys
from collections.abc import Sequence

from vidcfg import cli
from vidcfg.metrics.weight_files import (
    WEIGHTS,
    MissingWeightsError,
    check,
    fetch,
    find_weights,
    named,
    sha256_of,
    weights_folder,
)
from vidcfg.progress import Progress


def main(argv: Sequence[str] | None = None) -> int:
    """0: done. 1: something is missing or wrong. 2: the command was not understood."""
    parser = cli.parser(
        "weights",
        "Weight files that some metrics need. Nothing is downloaded unless asked for.",
        details="VIDCFG_WEIGHTS_DIR names the folder, VIDCFG_OFFLINE=1 forbids downloads.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, text, num in (
        ("list", "what there is: size, licence, origin, and whether it is here", None),
        ("fetch", "download and check", "+"),
        ("verify", "check the hashes of what is here", "*"),
    ):
        command = cli.shared(commands.add_parser(name, help=text))
        if num:
            command.add_argument("names", nargs=num, metavar="NAME")
    return cli.run(parser, _todo, argv)


def _todo(options: argparse.Namespace) -> int:
    if options.command == "list":
        return _list()
    chosen = [named(name) for name in options.names]
    return _fetch(chosen, options.quiet) if options.command == "fetch" else _verify(chosen)


def _list() -> int:
    print(f"folder: {weights_folder()}")
    for weight in WEIGHTS.values():
        try:
            state = f"here: {find_weights(weight.name)}"
        except MissingWeightsError as error:
            state = "not here" if "not on this machine" in str(error) else str(error)
        print(f"\n{weight.name}  {weight.about:g} MB  {state}")
        print(f"  for      {weight.used_by}")
        print(f"  licence  {weight.licence}")
        print(f"  from     {weight.url}")
        print(f"  check    {_check_text(weight)}")
    return 0


def _check_text(weight) -> str:
    sha256 = "sha256" if len(weight.sha256 or "") == 64 else "sha256 begins"
    known = {sha256: weight.sha256, "git blob sha1": weight.git_sha1}
    return (
        ", ".join(f"{what} {value}" for what, value in known.items() if value) or "no hash known"
    )


def _fetch(chosen, is_quiet: bool) -> int:
    failed = 0
    is_terminal = sys.stderr.isatty()
    for weight in chosen:
        if not is_terminal and not is_quiet:
            print(f"{weight.name}: {weight.url}", file=sys.stderr)
        quiet = is_quiet or not is_terminal
        try:
            with Progress(weight.name, is_bytes=True, quiet=quiet) as progress:
                path = fetch(weight.name, report=progress.update)
            print(f"{weight.name}: {path}\n  sha256 {sha256_of(path)}")
        except MissingWeightsError as error:
            print(error, file=sys.stderr)
            failed = 1
    return failed


def _verify(chosen) -> int:
    failed = 0
    for weight in chosen or WEIGHTS.values():
        try:
            path = find_weights(weight.name)
            verdict = "ok" if check(weight, path) else "no hash is known to check it with"
            print(f"{weight.name}: {verdict}\n  {path}\n  sha256 {sha256_of(path)}")
        except MissingWeightsError as error:
            is_absent = "not on this machine" in str(error)
            print(f"{weight.name}: {'not here' if is_absent else error}")
            failed |= bool(chosen) or not is_absent
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
