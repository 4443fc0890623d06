"""python -m vidcfg.presets: the ready configurations, and what each is for."""

import argparse
import sys
from collections.abc import Sequence

from vidcfg import cli
from vidcfg.settings.presets import presets

DETAILS = """\
A preset is rendered by its name, or written out to be changed. "untested": it follows the model's
own example and published formulas, and nothing was measured on that model.

examples:
  vidcfg render wan2.2-5b --prompt "a red kite over a green hill"
  vidcfg render wan2.2-5b-less-flicker --dry-run
  vidcfg init wan2.2-5b > my.yaml
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the result is its exit code."""
    about = "List the ready configurations: name, family, what for, evidence."
    return cli.run(cli.parser("presets", about, details=DETAILS), _list, argv)


def _list(arguments: argparse.Namespace) -> int:
    rows = [("name", "family", "for", "evidence")]
    for preset in presets().values():
        evidence = preset.head["Evidence"].split(" (")[0]
        rows.append((preset.name, preset.family, preset.head["For"], evidence))
    widths = [max(map(len, column)) + 2 for column in zip(*rows)]
    for row in rows:
        cli.say("".join(f"{cell:<{width}}" for cell, width in zip(row, widths)).rstrip())
    return cli.DONE


if __name__ == "__main__":
    sys.exit(main())
