"""python -m vidcfg.sweep: run a grid of settings, look at one, or simulate a cluster."""

import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """`status STORE`, `simulate ...`, or a sweep file with options; returns the exit code."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if argv[:1] == ["simulate"]:
        from vidcfg.sweep.simulate import main as simulate

        return simulate(argv[1:])
    if argv[:1] == ["status"]:
        from vidcfg.sweep.status import main as status

        return status(argv[1:])
    from vidcfg.sweep.cli import main as run

    return run(argv)


if __name__ == "__main__":
    sys.exit(main())
