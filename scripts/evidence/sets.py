"""Distances of the videos of a cell, as a set or by prompt, to drawn clips, and how far they may
be off."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from evidence.cells import Made

from vidcfg.metrics.distances import Moments, frechet, prdc

SETS = ("fd", "fd of look", "precision", "recall")
BY_PROMPT = ("precision by prompt", "recall by prompt")
HALVES = 100
LEAST = 16
"""Clips below which sets are not compared."""
NEIGHBOURS = 5


class SetValues:
    """The metrics of SETS of cells against the features of drawn clips [M, D]; each taken once.
    Columns from `first_of_look` on are how a clip looks.

    Their spread is that of random halves, the same ones in all cells, so that differences of
    cells stay paired by prompt. A statistic of a random half differs from that of the whole by
    about the standard error of the whole: the variances are s^2 (2 / n - 1 / n) and s^2 / n.
    """

    def __init__(self, real: np.ndarray, *, first_of_look: int = 0):
        real = np.asarray(real, np.float64)
        self.columns = {"fd": slice(None), "fd of look": slice(first_of_look, None)}
        self.real = {name: Moments(real[:, columns]) for name, columns in self.columns.items()}
        self._known = {}

    def values(self, name: str, made: Made, rows: slice = slice(None)) -> np.ndarray:
        """The value of the whole set, of these rows, and of its halves [1 + H]."""
        what = name if name in self.columns else "neighbours"
        key = (what, id(made), rows.start, rows.step)
        if key not in self._known:
            features = made.features[rows].astype(np.float64)
            random, num = np.random.default_rng(0), len(features)
            chosen = [np.arange(num)]
            chosen += [np.sort(random.choice(num, num // 2, replace=False)) for _ in range(HALVES)]
            if num < LEAST:
                found = np.full((2, 1 + HALVES), np.nan)
            elif what in self.columns:
                features, real = features[:, self.columns[what]], self.real[what]
                found = np.array([[frechet(features[rows], real) for rows in chosen]])
            else:
                found = self._neighbours(features, chosen)
            # With the cell, so that its id stays its own.
            self._known[key] = made, found
        return self._known[key][1][1 if name == "recall" else 0]

    def _neighbours(self, features: np.ndarray, chosen: list[np.ndarray]) -> np.ndarray:
        """Precision and recall [2, 1 + H], as `vidcfg.metrics.distances.prdc` takes them, with the
        distances taken once for all halves."""
        from scipy.spatial.distance import cdist

        drawn = self.real["fd"].features
        between, within = cdist(drawn, features), cdist(features, features)
        real = cdist(drawn, drawn)
        radius = np.partition(real, NEIGHBOURS, axis=1)[:, NEIGHBOURS]
        is_real = (between < radius[:, None]).any(axis=0)
        found = np.empty((2, len(chosen)))
        for i, rows in enumerate(chosen):
            own = np.partition(within[np.ix_(rows, rows)], NEIGHBOURS, axis=1)[:, NEIGHBOURS]
            found[:, i] = is_real[rows].mean(), (between[:, rows] < own).any(axis=1).mean()
        return found


def even(real: np.ndarray, parts: Sequence[int]) -> np.ndarray:
    """A factor for every column [D], so that each part of the columns (their numbers) has the same
    variance in all among drawn clips."""
    sizes = [block.var(axis=0).sum() for block in np.split(real, np.cumsum(parts)[:-1], axis=1)]
    return np.repeat(1 / np.sqrt(sizes), parts)


def by_prompt(made: Made, prompts: Sequence[str], honest: Mapping[str, np.ndarray]) -> Made:
    """Many videos of each prompt as one row a prompt: means of what was measured, and precision
    and recall against the clips that its caption stands for (`honest`, features by prompt).

    Only where the reference is of the same prompt does recall tell whether a strong scale leaves
    out what the model knows: together, clips of many prompts cover all there is.
    """
    names = list(dict.fromkeys(prompts))
    rows = {name: [i for i, prompt in enumerate(prompts) if prompt == name] for name in names}

    def means(columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {k: np.array([np.nanmean(c[rows[n]]) for n in names]) for k, c in columns.items()}

    found = [prdc(honest[name], made.features[rows[name]], k=NEIGHBOURS) for name in names]
    own = dict(zip(BY_PROMPT, np.array([(one.precision, one.recall) for one in found]).T))
    middle = np.stack([made.features[rows[name]].mean(axis=0) for name in names])
    return replace(made, values=means(made.values) | own, right=means(made.right), features=middle)
