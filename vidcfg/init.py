"""python -m vidcfg.init NAME: the file of a preset, to be changed."""

import argparse
import sys
from collections.abc import Sequence

from vidcfg import cli
from vidcfg.settings.presets import preset_named, presets

DETAILS = """\
example:
  vidcfg init wan2.2-5b > my.yaml
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the result is its exit code."""
    made = cli.parser("init", "Print the file of a preset, to be changed.", details=DETAILS)
    made.add_argument("name", help="one of `vidcfg presets`").completer = lambda **_: presets()
    return cli.run(made, _print, argv)


def _print(arguments: argparse.Namespace) -> int:
    sys.stdout.write(preset_named(arguments.name).path.read_text("utf-8"))
    return cli.DONE


if __name__ == "__main__":
    sys.exit(main())
