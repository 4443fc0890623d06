"""python -m vidcfg.sweep: run a grid of settings, or look at one."""

import sys

from vidcfg.sweep.cli import main

if __name__ == "__main__":
    sys.exit(main())
