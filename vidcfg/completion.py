"""python -m vidcfg.completion bash|zsh|fish: what a shell needs to complete commands, options and
presets."""

import argparse
import sys
from collections.abc import Sequence

from vidcfg import cli
from vidcfg.extras import explained

DETAILS = """\
It needs argcomplete, in the environment of vidcfg. Into ~/.bashrc or ~/.zshrc goes

  eval "$(vidcfg completion bash)"
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the result is its exit code."""
    about = "Print what a shell needs to complete commands, options and presets."
    made = cli.parser("completion", about, details=DETAILS)
    made.add_argument("shell", choices=("bash", "zsh", "fish"))
    return cli.run(made, _print, argv)


def _print(arguments: argparse.Namespace) -> int:
    with explained("completion"):
        from argcomplete import shellcode
    sys.stdout.write(shellcode(["vidcfg"], shell=arguments.shell))
    return cli.DONE


if __name__ == "__main__":
    sys.exit(main())
