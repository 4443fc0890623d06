"""The picture of a trace: strength, spread before and after, passes, over the guided steps."""

import io
import textwrap
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

OFF = "#c8c8cc"
BEFORE, AFTER = "#8a8f98", "#3b528b"
PASSES = ("#21908d", "#5dc863", "#aadc32", "#3b528b", "#440154", "#fde725")
"""Colours of passes, in the order in which branches are first run."""
TITLE = {"loc": "left", "fontsize": 10, "fontweight": "bold"}
LEGEND = {"fontsize": 8, "frameon": False}
ABOVE = {"loc": "lower right", "bbox_to_anchor": (1.0, 1.0)}


class TraceFigure(Figure):
    """A figure that a notebook shows whether or not pyplot is in use."""

    def _repr_png_(self) -> bytes:
        content = io.BytesIO()
        self.savefig(content, format="png")
        return content.getvalue()


def plot_steps(steps: list, *, sample: int, title: str) -> TraceFigure:
    """A figure of one sample; passes are those of all samples.

    Raises:
        ValueError: for a run without steps, or a sample that it has not.
    """
    # What is shown, as arrays; numbers that still lie on a GPU are fetched here.
    if not steps:
        raise ValueError("there is nothing to plot: no step was guided. Call the pipeline first.")
    num_samples = len(steps[0].strength_BF)
    if not 0 <= sample < num_samples:
        raise ValueError(f"sample is {sample}, but the run has 0 to {num_samples - 1}.")
    strength_KF = np.stack([step.strength_BF[sample] for step in steps])
    spreads = {
        "before": np.array([step.std_cond_BF[sample].tolist() for step in steps]),
        "after": np.array([step.std_guided_BF[sample].tolist() for step in steps]),
    }

    # Three charts on one axis of steps.
    figure = TraceFigure(figsize=(8.4, 6.6), dpi=110, layout="constrained")
    title = textwrap.fill(title, 100).replace("$", r"\$")
    figure.suptitle(title, x=0.012, ha="left", fontsize=10)
    heights = {"height_ratios": (2.2, 1.6, 1.2)}
    strength, spread, passes = figure.subplots(3, 1, sharex=True, gridspec_kw=heights)
    terms = steps[0].terms[sample] if steps[0].terms else None
    whose = f" of {next(iter(terms))}" if terms else ""
    one, every = (f", sample {sample}", ", all samples") if num_samples > 1 else ("", "")
    _draw_strength(figure, strength, strength_KF, title=f"strength{whose}{one}")
    _draw_spread(spread, spreads)
    _draw_passes(passes, [step.evaluations for step in steps], title=f"model evaluations{every}")

    # Steps by their own numbers: a solver of second order has two columns for one.
    numbers = [step.step for step in steps]
    passes.set_xlabel("step (0 = noisiest)", fontsize=9)
    passes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=12, min_n_ticks=1))
    passes.xaxis.set_major_formatter(
        lambda x, _: str(numbers[round(x)]) if 0 <= round(x) < len(numbers) else ""
    )
    passes.set_xlim(-0.5, len(steps) - 0.5)
    for axis in (strength, spread, passes):
        axis.tick_params(labelsize=8)
    for axis in (spread, passes):
        axis.spines[["top", "right"]].set_visible(False)
        axis.yaxis.grid(True, color="#e6e6ea", linewidth=0.8)
        axis.set_axisbelow(True)
    return figure


def _draw_strength(figure: Any, axis: Any, strength_KF: np.ndarray, *, title: str) -> None:
    """Steps across, latent frames down; exactly 1 (off) is grey."""
    off_KF = strength_KF == 1
    high = max(strength_KF.max(), strength_KF.min() + 1)
    axis.set_facecolor(OFF)
    image = axis.imshow(
        np.ma.masked_array(strength_KF, off_KF).T,
        aspect="auto",
        interpolation="nearest",
        cmap=colormaps["viridis"],
        vmin=min(strength_KF.min(), 1),
        vmax=high,
    )
    axis.set_title(title, **TITLE)
    axis.set_ylabel("latent frame", fontsize=9)
    axis.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=8, min_n_ticks=1))
    bar = figure.colorbar(image, ax=axis, pad=0.012, aspect=16)
    bar.ax.tick_params(labelsize=8)
    if off_KF.any():
        patch = Patch(facecolor=OFF, label="1 = off")
        axis.legend(handles=[patch], borderpad=0, **ABOVE, **LEGEND)


def _draw_spread(axis: Any, spreads: dict[str, np.ndarray]) -> None:
    """The mean over frames as a line, from the lowest to the highest frame as a band."""
    for (name, values_KF), colour in zip(spreads.items(), (BEFORE, AFTER)):
        at_K = np.arange(len(values_KF))
        marker = {"marker": "o", "markersize": 3}
        axis.plot(at_K, values_KF.mean(1), color=colour, linewidth=1.6, label=name, **marker)
        axis.fill_between(at_K, values_KF.min(1), values_KF.max(1), color=colour, alpha=0.18, lw=0)
    axis.set_title("spread of a frame (standard deviation), lowest to highest and mean", **TITLE)
    axis.legend(ncols=2, loc="best", **LEGEND)


def _draw_passes(axis: Any, evaluations: list[dict[str, int]], *, title: str) -> None:
    """The evaluations of each branch, one above the other."""
    branches = dict.fromkeys(branch for step in evaluations for branch in step)
    bottom_K = np.zeros(len(evaluations))
    for i, branch in enumerate(branches):
        counts_K = np.array([step.get(branch, 0) for step in evaluations])
        colour = PASSES[i % len(PASSES)]
        axis.bar(range(len(counts_K)), counts_K, 0.7, bottom_K, color=colour, label=branch)
        bottom_K += counts_K
    axis.set_title(title, **TITLE)
    axis.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=4, min_n_ticks=1))
    axis.legend(ncols=3, **ABOVE, **LEGEND)
