"""A small sweep of a tiny model for all tests of this folder."""

from tiny_sweep import (  # noqa: F401
    done,
    load,
    plan,
    store,
    sweep,
    sweep_file,
    swept,
    tiny_model,
)
