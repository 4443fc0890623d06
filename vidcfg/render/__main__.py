"""python -m vidcfg.render config.yaml"""

import sys

from vidcfg.render.cli import main

if __name__ == "__main__":
    sys.exit(main())
