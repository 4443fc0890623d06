"""Alignment on the prompts that no clip of the training showed and no caption of it told."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from evidence.cells import ALIGNMENT, CONFIGS, Work, read
from train_mini.config import DataConfig, load_config
from train_mini.data import sample_scene_of

from vidcfg.mini.shapes import caption

TRAINED = ("gpu.yaml", "tune.yaml")
"""Below configs/train: what the embedded model was trained with."""


def training_data() -> list[DataConfig]:
    return [load_config(CONFIGS.parent / "train" / name).data for name in TRAINED]


def training_texts(data: DataConfig) -> Iterator[str]:
    """What every clip shows as a whole caption, and the caption that it has."""
    for i in range(data.num_clips):
        scene, told = sample_scene_of((data.seed, i), data)
        yield caption(scene)
        yield told


def unseen_rows(works: Iterable[Work], out: Path, texts: set[str]) -> list[list[str]]:
    """Sweep, setting, the number of prompts that are not among `texts`, and alignment on them
    with its 95 % interval, on as many prompts as are there."""
    rows = []
    for work in works:
        is_new = np.array([prompt not in texts for prompt in work.prompts])
        values = read(out, work).values[ALIGNMENT][is_new]
        values = values[np.isfinite(values)]
        error = 1.96 * values.std(ddof=1) / len(values) ** 0.5
        figure = f"{values.mean():.3f} ± {error:.3f}"
        rows.append([work.sweep, work.label, f"{len(values)} of {len(is_new)}", figure])
    return rows
