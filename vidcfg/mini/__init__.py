"""The embedded model: moving shapes, codec, text encoder, ST-DiT, pipeline and scorer."""

from pathlib import Path

MINI_PATH = Path(__file__).parent / "checkpoint"
"""Folder of the embedded checkpoint."""
