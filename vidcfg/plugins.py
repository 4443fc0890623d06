"""Installed packages that add rules, frame weightings, schedules, metrics or families by name.

[project.entry-points."vidcfg.plugins"]
mine = "my_package.guidance"          # a module that registers when it is imported
"""

import functools
import warnings
from importlib.metadata import entry_points

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
