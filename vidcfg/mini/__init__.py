"""The embedded model: moving shapes, codec, text encoder, ST-DiT, pipeline and scorer."""

from pathlib import Path

MINI_PATH = Path(__file__).parent / "checkpoint"
"""Folder of the embedded checkpoint."""

FEW_STEPS = MINI_PATH.with_name("checkpoint_few_steps")
"""Folder of its student of 4 steps without guidance (`model.checkpoint: few_steps`)."""

SIZE_MULTIPLE = 4
"""Height and width that it makes are multiples of it: the patch of its codec."""

STRENGTH_ADAPTER = MINI_PATH.with_name("strength_adapter.safetensors")
"""Its adapter of the rule `distilled` (`adapter: mini`)."""
