"""python -m vidcfg: the list of commands, and `vidcfg render x.yaml` for each of them."""

import os
import sys
from importlib import import_module
from importlib.util import find_spec

from vidcfg import cli

COMMANDS = {
    "render": "render the videos of a configuration",
    "presets": "list the ready configurations, and what each is for",
    "init": "print the file of one of them, to be changed",
    "evaluate": "measure videos: alignment, flicker, motion, distances between sets",
    "sweep": "render and measure a grid of settings, on one machine or many",
    "report": "write the page of a sweep's results",
    "regress": "compare two result sets and say pass, fail or inconclusive",
    "families": "list the pipelines that can be guided, and check another",
    "doctor": "tell what works on this machine, and how to get what is missing",
    "weights": "list, fetch and check the weight files that metrics need",
    "completion": "print what a shell needs to complete all this",
}
"""Command -> what it does; the code, `main(argv) -> int`, is in vidcfg/<command>.py, or in
vidcfg/<command>/__main__.py."""


def module_of(command: str) -> str:
    """The name of the module with the command's `main`."""
    name = f"vidcfg.{command}"
    is_package = find_spec(name).submodule_search_locations is not None
    return f"{name}.__main__" if is_package else name


def usage() -> str:
    from vidcfg import __doc__ as about

    width = max(map(len, COMMANDS)) + 2
    # Without docstrings (python -OO) it is not told.
    lines = [*(about or "").splitlines()[:1], ""]
    lines += ["usage: vidcfg COMMAND ... (or python -m vidcfg.COMMAND)", ""]
    lines += [*(f"  {name:<{width}}{text}" for name, text in COMMANDS.items())]
    lines += ["", "vidcfg COMMAND --help tells more; vidcfg --version prints the version."]
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Run a command; without one, list them. An unknown command has exit code 2."""
    argv = sys.argv[1:] if argv is None else argv
    if "_ARGCOMPLETE" in os.environ:
        return _complete(os.environ["COMP_LINE"][: int(os.environ["COMP_POINT"])])
    if not argv or argv[0] in ("-h", "--help", "help"):
        cli.say(usage())
        return 0
    if argv[0] in ("-V", "--version"):
        from vidcfg import __version__

        cli.say(f"vidcfg {__version__}")
        return 0
    if argv[0] not in COMMANDS:
        cli.say(_unknown(argv[0]), file=sys.stderr)
        return 2
    return import_module(module_of(argv[0])).main(argv[1:])


def _complete(line: str) -> int:
    """Answer a shell: the commands, or what the command on the line says of itself."""
    words = line.split()
    is_typed = len(words) > 2 or (len(words) == 2 and line[-1].isspace())
    if is_typed and words[1] in COMMANDS:
        # The words of the command begin at the second one of the line.
        os.environ["_ARGCOMPLETE"] = "2"
        return import_module(module_of(words[1])).main([])
    made = cli.PlainParser(prog="vidcfg", add_help=False)
    made.add_argument("command", choices=COMMANDS)
    cli.complete(made)
    return cli.DONE


def _unknown(name: str) -> str:
    from difflib import get_close_matches

    near = get_close_matches(name, COMMANDS, n=1)
    advice = f"Did you mean '{near[0]}'?" if near else f"There are: {', '.join(COMMANDS)}."
    return f"vidcfg has no command '{name}'. {advice}"


if __name__ == "__main__":
    sys.exit(main())
