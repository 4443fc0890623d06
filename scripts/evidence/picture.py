"""docs/pictures/evidence.png: what a scale does, and what frame weights change."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from evidence.cells import ALIGNMENT, FLICKER, Work
from evidence.page import COLUMNS, SCALES
from evidence.sets import BY_PROMPT, SetValues
from evidence.verdicts import Cells

INK = ("#1b5e9e", "#c4501b", "#2c7d4f", "#7a4da0")


def draw(path: Path, works: Sequence[Work], sweeps: Mapping[str, Cells], sets: SetValues) -> None:
    """Six panels; those of sweeps that are not there stay empty."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    style = {"font.size": 11, "axes.spines.top": False, "axes.spines.right": False}
    with plt.rc_context(style):
        figure, axes = plt.subplots(2, 3, figsize=(12, 6.6), constrained_layout=True)
        for axis, name in zip(axes[0], (ALIGNMENT, FLICKER, "clipped_share")):
            _curve(axis, name, sweeps.get("scale", {}), INK[0], "trained pairs")
            if name == ALIGNMENT:
                _curve(axis, name, sweeps.get("held_out", {}), INK[1], "held-out pairs")
                axis.legend(*axis.get_legend_handles_labels(), frameon=False)
        _distance(axes[1, 0], sweeps.get("scale", {}), sets)
        for metric, colour in zip(BY_PROMPT, INK):
            _curve(axes[1, 1], metric, sweeps.get("variety", {}), colour, metric.split()[0])
        axes[1, 1].set_title("precision and recall by prompt")
        if "variety" in sweeps:
            axes[1, 1].legend(frameon=False)
        _frames(axes[1, 2], sweeps.get("frames", {}))
        for axis in [*axes[0], *axes[1, :2]]:
            axis.set_xscale("log")
            axis.set_xticks([1, 2, 4, 8, 20, 40], ["1", "2", "4", "8", "20", "40"])
            axis.minorticks_off()
            axis.set_xlabel("guidance scale")
        for axis, ticks in ((axes[0, 1], (0.5, 1, 2, 5, 10, 20)), (axes[1, 0], (0.1, 0.2, 0.5))):
            axis.set_yscale("log")
            axis.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
            axis.minorticks_off()
        num = len(works[0].prompts)
        figure.suptitle(f"Guidance on the embedded model: {num} prompts, 95 % intervals")
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=90)
        plt.close(figure)


def _scales(cells: Cells) -> list[float]:
    return [float(id.rpartition("scale-")[2]) for id in cells]


def _curve(axis, metric: str, cells: Cells, colour: str, label: str) -> None:
    axis.set_title(COLUMNS.get(metric, metric))
    if not cells:
        return
    columns = [made.values[metric] * SCALES.get(metric, 1.0) for made in cells.values()]
    known = [column[np.isfinite(column)] for column in columns]
    axis.plot(_scales(cells), [c.mean() for c in known], "o-", color=colour, ms=4, label=label)
    mean, half = np.array([(c.mean(), 1.96 * c.std() / len(c) ** 0.5) for c in known]).T
    axis.fill_between(_scales(cells), mean - half, mean + half, color=colour, alpha=0.2, lw=0)


def _distance(axis, cells: Cells, sets: SetValues) -> None:
    axis.set_title("Fréchet distance")
    for name, label, colour in zip(("fd", "fd of look"), ("whole", "look"), INK):
        found = [sets.values(name, made) for made in cells.values()]
        middle = np.array([values[0] for values in found])
        half = np.array([1.96 * values[1:].std() for values in found])
        axis.plot(_scales(cells), middle, "o-", color=colour, ms=4, label=label)
        low, high = middle - half, middle + half
        axis.fill_between(_scales(cells), low, high, color=colour, alpha=0.2, lw=0)
    if cells:
        axis.legend(frameon=False)


def _frames(axis, cells: Cells) -> None:
    axis.set(title="frame weights: down and right is better", xlabel="alignment")
    axis.set_ylabel(COLUMNS[FLICKER])
    for mode, colour in zip(("uniform", "keyframes", "decay", "ramp"), INK):
        line = [made for id, made in cells.items() if id.startswith(mode)]
        x, y = ([np.nanmean(one.values[n]) for one in line] for n in (ALIGNMENT, FLICKER))
        if line:
            axis.plot(x, 255 * np.array(y), "o-", color=colour, ms=4, label=mode)
    if cells:
        axis.legend(frameon=False)
