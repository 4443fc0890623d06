"""Installed packages that add rules, frame weightings, schedules, metrics or families by name.

[project.entry-points."vidcfg.plugins"]
mine = "my_package.guidance"          # a module that registers when it is imported
"""

import functools
import sys
import traceback
import warnings
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from vidcfg.files import digest, sha256_of

GROUP = "vidcfg.plugins"


@functools.cache
def load_plugins() -> None:
    """Import what installed packages name in this group, once in a process.

    One that cannot be imported is a warning with its name; the others are loaded.
    """
    for point in entry_points(group=GROUP):
        try:
            point.load()
        except Exception as error:
            named = f"{point.name} = {point.value}"
            what = f"the plugin {named} is left out: {type(error).__name__}: {error}"
            warnings.warn(what, stacklevel=2)


def code_of(made: Any) -> str | None:
    """The sha256 of the code that a class or function from outside comes with: the file of its
    module, or all Python files of its package. None for ours, and where there is no file.
    """
    root = made.__module__.partition(".")[0]
    return None if root == "vidcfg" else _code_of_module(root)


@functools.cache
def _code_of_module(root: str) -> str | None:
    module = sys.modules.get(root)
    files = [Path(file)] if (file := getattr(module, "__file__", None)) else []
    for folder in getattr(module, "__path__", ()):
        files += Path(folder).rglob("*.py")
    known = [sha256_of(file) for file in sorted(set(files)) if file.is_file()]
    return digest("".join(known)) if known else None


def raised_in(error: BaseException, *modules: str) -> str:
    """` (raised in mine.py:12)`, the line of a plugin, or of one of `modules`, that raised an
    error or called what did; empty where it came from elsewhere."""
    own = {name.partition(".")[0] for name in modules}
    own |= {point.module.partition(".")[0] for point in entry_points(group=GROUP)}
    found, seen = "", set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        for frame, line in traceback.walk_tb(error.__traceback__):
            if str(frame.f_globals.get("__name__")).partition(".")[0] in own - {"vidcfg"}:
                found = f" (raised in {frame.f_code.co_filename}:{line})"
        error = error.__cause__ or error.__context__
    return found
