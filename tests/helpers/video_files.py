"""Video files for tests: encoded as a render does, written whole or not at all."""

from pathlib import Path

import numpy as np

from vidcfg.files import atomic_path
from vidcfg.media.write import encode_video


def write_video(
    path: str | Path,
    frames_THWC: np.ndarray,
    *,
    fps: float | int,
    overwrite: bool = False,
    **options: str | int,
) -> Path:
    """Encode frames; `options` are the codec and the enlargement of `encode_video`."""
    with atomic_path(path, overwrite=overwrite) as temporary:
        temporary.write_bytes(encode_video(frames_THWC, fps=fps, **options))
    return Path(path)
