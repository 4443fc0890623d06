"""The embedded model: moving shapes, codec, text encoder, ST-DiT, pipeline and scorer."""

from pathlib import Path
from typing import Any

MINI_PATH = Path(__file__).parent / "checkpoint"
"""Folder of the embedded checkpoint."""


def dtype_argument(dtype: Any) -> dict[str, Any]:
    """The argument of `from_pretrained` for a dtype, or a dict of them by component.

    It is `dtype` from diffusers 0.42 on, where `torch_dtype` warns, and `torch_dtype` before.
    """
    import diffusers

    major, minor = (int(part) for part in diffusers.__version__.split(".")[:2])
    return {"dtype" if (major, minor) >= (0, 42) else "torch_dtype": dtype}
