"""python -m vidcfg.regress record | check | power | calibrate | policy"""

import sys

from vidcfg.regress.cli import main

if __name__ == "__main__":
    sys.exit(main())
