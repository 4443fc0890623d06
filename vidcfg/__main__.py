"""python -m vidcfg: the list of commands, and `vidcfg render x.yaml` for each of them."""

import sys
from importlib import import_module
from importlib.util import find_spec

COMMANDS = {
    "render": "render the videos of a configuration",
    "evaluate": "measure videos: alignment, flicker, motion, distances between sets",
    "sweep": "render and measure a grid of settings, on one machine or many",
    "report": "write the page of a sweep's results",
    "regress": "compare two result sets and say pass, fail or inconclusive",
    "families": "list the pipelines that can be guided",
    "doctor": "tell what works on this machine, and how to get what is missing",
    "weights": "list, fetch and check the weight files that metrics need",
}
"""Command -> what it does; the code is vidcfg/<command>/__main__.py with `main(argv) -> int`."""


def commands() -> dict[str, str]:
    """The commands of this installation, in order of use."""
    return {name: text for name, text in COMMANDS.items() if _exists(name)}


def _exists(name: str) -> bool:
    try:
        return find_spec(f"vidcfg.{name}.__main__") is not None
    except ModuleNotFoundError:
        return False


def usage() -> str:
    from vidcfg import __doc__ as about

    found = commands()
    width = max(map(len, found)) + 2
    lines = [about.splitlines()[0], "", "usage: vidcfg COMMAND ... (or python -m vidcfg.COMMAND)"]
    lines += ["", *(f"  {name:<{width}}{text}" for name, text in found.items())]
    lines += ["", "vidcfg COMMAND --help tells more; vidcfg --version prints the version."]
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Run a command; without one, list them. An unknown command has exit code 2."""
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(usage())
        return 0
    if argv[0] in ("-V", "--version"):
        from vidcfg import __version__

        print(f"vidcfg {__version__}")
        return 0
    if argv[0] not in commands():
        print(_unknown(argv[0]), file=sys.stderr)
        return 2
    return import_module(f"vidcfg.{argv[0]}.__main__").main(argv[1:])


def _unknown(name: str) -> str:
    from difflib import get_close_matches

    near = get_close_matches(name, commands(), n=1)
    advice = f"Did you mean '{near[0]}'?" if near else f"There are: {', '.join(commands())}."
    return f"vidcfg has no command '{name}'. {advice}"


if __name__ == "__main__":
    sys.exit(main())
