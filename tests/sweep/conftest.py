"""A small sweep of a tiny model for all tests of this folder."""

from tiny_sweep import load, plan, sweep_file, tiny_model  # noqa: F401
