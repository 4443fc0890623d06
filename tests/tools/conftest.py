"""Tools import each other by name, as they do when they are run."""

import sys
from pathlib import Path

from tiny_sweep import load, plan, sweep_file, tiny_model  # noqa: F401

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))
