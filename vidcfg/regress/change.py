"""How one metric changed over paired clips, and what statistics make of it."""

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from scipy.special import ndtri, stdtr, stdtrit

from vidcfg.metrics import paired
from vidcfg.metrics.record import mean_interval
from vidcfg.regress.policy import MetricRule

FEWEST_PROMPTS = 3
"""From so many prompts on a mean over them says something, and a change of all is no accident."""

ODD = 2
"""So many prompts may be odd without a change, or a tenth of more than twenty."""

AGREEMENT = {4: 0.5, 8: 1.0, 12: 3.0}
"""From so many prompts on -> how far apart changes may lie that agree, as a part of the least.

Left-skewed noise (exponential), the worst case, agrees in 5, 6 and 5 of 10,000 metrics at 6, 8 and
12 prompts.
"""

HEAVY = 4
"""Degrees of freedom of the tails that a mean of few prompts may have."""


def odd(num: int) -> int:
    """How many of `num` prompts a proof may not hang on."""
    return max(ODD, num // 10)


def provable_p(num: int) -> float:
    """The smallest p-value that a change of `num` prompts can have without calibrated noise."""
    kept = num - odd(num)
    return min(paired.smallest_p(kept), math.exp(-kept / 2)) if num > ODD else 1.0


def by_signs(kept_g: np.ndarray) -> float:
    """The p-value of the sign-flip test, or Hoeffding's bound of it where that is less.

        P(sum s_g z_g >= sum z_g) <= exp(-(sum z_g)^2 / (2 sum z_g^2)),   s_g random signs

    Of more than 20 prompts random patterns are counted, which give nothing below 1 / 20000, more
    than a metric of small weight may have.

    Source: Hoeffding 1963, Probability inequalities for sums of bounded random variables.
    """
    if not len(kept_g):
        return 1.0
    p, total = paired.sign_flip_p(kept_g, range(len(kept_g))), float(kept_g.sum())
    bound = math.exp(-(total**2) / (2 * float(kept_g @ kept_g))) if total > 0 else 1.0
    return min(p, bound)


def found_effect(num: int, alpha: float, power: float) -> float:
    """The mean change that the sign-flip test of `num` prompts finds with that power, in standard
    deviations of prompts; infinite where none can reach alpha.

    The lowest of normal values, without the odd ones, have a mean that is lower by `loss` and
    another spread. Where few sign patterns are as extreme as alpha allows, it is nearly all
    prompts that have to get worse. At a power of .8, .77 to .92 of simulated tests find it; at a
    hundredth of the level, with 22 to 30 prompts, .58 to .75.
    """
    kept = num - odd(num)
    is_exact = kept <= paired.EXACT_CLUSTERS
    patterns = 2.0**kept if is_exact else paired.RESAMPLES + 1
    count = math.floor(alpha * patterns * (1 + 1e-9))
    if kept < 2:
        return math.inf
    # How far the mean of those that are kept has to be from 0, in their spread.
    reach = math.inf
    if count >= 1:
        # How many of random patterns are as extreme varies: so many in four of five draws.
        level = (count if is_exact else count - 0.84 * math.sqrt(count)) / patterns
        reach = float(-stdtrit(kept - 1, level)) / math.sqrt(kept)
    if (ratio := -2 * math.log(alpha) / kept) < 1:
        reach = min(reach, math.sqrt(ratio / (1 - ratio)))
    if math.isinf(reach):
        return math.inf
    cut, share = ndtri(kept / num), kept / num
    loss = math.exp(-(cut**2) / 2) / math.sqrt(2 * math.pi) / share
    spread = math.sqrt(1 - cut * loss - loss**2)
    by_t = loss + reach * spread + float(stdtrit(num - 1, power)) / math.sqrt(num)
    all_worse = float(-ndtri(1 - power ** (1 / num)))
    part = count**-0.5 if is_exact and all_worse > by_t else 0.0
    return all_worse**part * by_t ** (1 - part)


@dataclass(frozen=True)
class RepeatNoise:
    """Standard deviation of a metric's change between two renders of one clip, without cause.

    On the scale of the rule (log ratio, or difference), over `n` pairs that do not depend on each
    other. `source` says from what.
    """

    sd: float
    n: int
    source: str

    @classmethod
    def of(cls, changes: Sequence[float] | np.ndarray, source: str, n: int) -> "RepeatNoise":
        # Without a cause the mean change is 0.
        return cls(math.sqrt(float(np.mean(np.square(changes)))), n, source)

    @classmethod
    def saved(cls, facts: Mapping[str, Any]) -> "dict[str, RepeatNoise]":
        """What `calibrate` saved with a baseline, by metric; empty without."""
        saved = facts.get("noise") or {}
        return {name: cls(float(x["sd"]), int(x["n"]), "repeats") for name, x in saved.items()}

    def p(self, point: float, num: int) -> float:
        """How often repeats of `num` prompts would give a mean change of `point` or more."""
        z = math.inf if not self.sd else point * math.sqrt(num) / self.sd
        if point <= 0:
            return 1.0
        return float(max(stdtr(self._degrees, -z), stdtr(HEAVY, -z * _UNIT)))

    def reach(self, level: float, num: int) -> float:
        """The mean change that repeats of `num` prompts exceed with chance `level`."""
        z = max(-stdtrit(self._degrees, level), -stdtrit(HEAVY, level) / _UNIT)
        return float(z) * self.sd / math.sqrt(num)

    @property
    def _degrees(self) -> float:
        """Of freedom of `sd`; heavy tails (t of 3 degrees) tell it half as well as normal ones."""
        return max(1.0, self.n / 2)

    def outlier(self, chance: float) -> float:
        """The change that one render exceeds with that chance, with tails of 3 degrees of freedom.

        Fewer repeats know less of it: for 21 metrics of 8 and 11 clips with three repeats each,
        noise of t of 3 degrees sets off alarms in 1.9 % of draws at a level of 1.75 %.
        """
        return float(-stdtrit(3 * self.n / (self.n + 3), chance)) / math.sqrt(3) * self.sd

    def detectable(
        self, rule: MetricRule, num: int, *, alpha: float, power: float
    ) -> float | None:
        """The change, as a reader sees it, found with that power by one clip of `num` prompts.

        Never below the margin; None where so few prompts cannot reach alpha.
        """
        known = self if self.source == "repeats" else None
        found = detectable(rule, rule.direction, self.sd, num, alpha, power, known)
        return abs(rule.shown(rule.direction * found)) if math.isfinite(found) else None


def detectable(
    rule: MetricRule,
    direction: int,
    sd: float,
    num: int,
    alpha: float,
    power: float,
    repeats: RepeatNoise | None = None,
) -> float:
    """The mean change of `num` prompts of that spread, on the scale that is tested, that is proven
    and above the margin with that power; infinite where there is none."""
    level = alpha / 2 if rule.bad == "either" else alpha
    effect = found_effect(num, level, power)
    found = effect * sd if math.isfinite(effect) else effect
    # The estimate may be lower than what is true.
    below = float(stdtrit(num - 1, power)) * sd / math.sqrt(num) if num > 1 else math.inf
    if repeats is not None:
        found = min(found, repeats.reach(level / 2, num) + below)
    return max(found, rule.margin_of(direction) + below)


_UNIT = math.sqrt(HEAVY / (HEAVY - 2))
"""Standard deviation of Student's t of HEAVY degrees of freedom."""


@dataclass(frozen=True, eq=False)
class PairedChange:
    """The change of a metric over the clips that have it on both sides.

    `worse_n` is positive in the bad direction, on the scale that is tested (log ratio or
    difference), `difference_n` likewise as new - base; `clusters_n` names the clips' prompts and
    `positions_n` their places among all pairs. `direction` is 1 if up is bad, -1 if down is.
    `repeats` is the noise of repeats, where the baseline knows it; `num_metrics` how many metrics
    are looked at together.
    """

    rule: MetricRule
    direction: int
    positions_n: np.ndarray
    clusters_n: np.ndarray
    worse_n: np.ndarray
    difference_n: np.ndarray
    repeats: RepeatNoise | None = None
    num_metrics: int = 1

    def mean(self, values_n: np.ndarray) -> float:
        """The mean over prompts, every prompt once."""
        return float(paired.cluster_means(values_n, self.clusters_n).mean())

    @cached_property
    def means_g(self) -> np.ndarray:
        """Of each prompt."""
        return paired.cluster_means(self.worse_n, self.clusters_n)

    @property
    def num_prompts(self) -> int:
        return len(self.means_g)

    @cached_property
    def point(self) -> float:
        return float(self.means_g.mean())

    def ends(self, alpha: float) -> tuple[float, float]:
        """The interval of `point` of level 1 - 2 alpha, Student's over prompts.

        With the noise of repeats by that; the whole line for one prompt.
        """
        if self.noise is not None:
            reach = self.noise.reach(alpha, self.num_prompts)
            return self.point - reach, self.point + reach
        found = mean_interval(self.means_g.tolist(), level=1 - 2 * alpha)
        return found or (-math.inf, math.inf)

    @cached_property
    def noise(self) -> RepeatNoise | None:
        """The noise of repeats if these clips vary no more than four times as much, else None.

        Clips that vary more have changed, each in its own way; repeats say nothing about that.
        Fewer than twelve may vary six times as much by chance.
        """
        most = 4 if len(self.worse_n) >= 12 else 6
        if self.repeats is None or self._spread > most * self.repeats.sd:
            return None
        return self.repeats

    def tolerance(self, alpha: float) -> float:
        """What a PASS shows the change to be below, on the scale of `worse_n`.

        That of the rule, or what repeats of so many prompts hide if that is more.
        """
        least = self.rule.tolerance_of(self.direction)
        if self.noise is None:
            return least
        # So wide that without a change all metrics together stay inside.
        levels = alpha, alpha / (20 * self.num_metrics)
        return max(least, sum(self.noise.reach(level, self.num_prompts) for level in levels))

    @cached_property
    def p(self) -> float:
        """One-sided p-value of the mean change, by the sign-flip test and by Hall's t alike.

        The larger of both: the first is exact for symmetric noise and leaves the worst prompts
        out, so that no proof hangs on ODD of them; the second allows for skew. With the noise of
        repeats, or by that (times 2). Twice as large if both ways are bad.
        """
        kept = np.sort(self.means_g)[: len(self.means_g) - odd(len(self.means_g))]
        return min(1.0, self._by_repeats_too(max(by_signs(kept), self._skewed_p)))

    @cached_property
    def sign_of_harm(self) -> float:
        """A p-value that few prompts can make small: Hall's t alone, or the noise of repeats.

        For one metric; times `num_metrics` for all of them.
        """
        return min(1.0, self._by_repeats_too(self._skewed_p) * self.num_metrics)

    def _by_repeats_too(self, p: float) -> float:
        if self.noise is not None:
            p = 2 * min(p, self.noise.p(self.point, self.num_prompts))
        return 2 * p if self.rule.bad == "either" else p

    @cached_property
    def _skewed_p(self) -> float:
        return paired.skewness_corrected_p(self.worse_n, self.clusters_n)

    @property
    def is_above(self) -> bool:
        """The mean change is above both margins."""
        margin = self.rule.margin_of(self.direction)
        return self.point > margin and self.mean(self.difference_n) > self.rule.at_least

    def is_within(self, alpha: float) -> bool:
        """The change is shown to be below the tolerance at level alpha, or no clip changed.

        By Student's bound, with the noise of repeats by that.
        """
        # Values that are equal bit for bit need no statistics.
        if not self.worse_n.any():
            return True
        if self.noise is None and self.num_prompts < FEWEST_PROMPTS:
            return False
        low, high = self.ends(alpha)
        tolerance = self.tolerance(alpha)
        other = max(tolerance, self.rule.tolerance_of(-self.direction))
        if high < tolerance and (self.rule.bad != "either" or low > -other):
            return True
        # A change of intensity that is none passes, whatever its ratio.
        differences = paired.cluster_means(self.difference_n, self.clusters_n).tolist()
        found = mean_interval(differences, level=1 - 2 * alpha)
        return found is not None and found[1] < self.rule.at_least

    def destroyed(self, alpha: float) -> np.ndarray:
        """Which clips stand so far out that no test over prompts is needed: bool [n].

        A clip is destroyed if its change is above `alarm_of` the rule and above what noise
        explains at level alpha, with tails as heavy as those of Student's t of 3 degrees (2 and 1
        for four and three clips), over as many clips as all metrics have. Noise is that of
        repeats, else the spread of the clips; where every prompt is above the alarm, spread is
        none.
        """
        num = len(self.worse_n)
        chance = alpha / (self.num_metrics * num)
        if self.noise is not None:
            reach = self.noise.outlier(chance)
        else:
            # The fewer clips, the less their spread is known.
            tails = min(3, max(1, num - 2))
            reach = -stdtrit(tails, chance) / stdtrit(tails, 0.75) * self._spread
        alarm = self.rule.alarm_of(self.direction)
        if not (self.num_prompts >= FEWEST_PROMPTS and self.means_g.min() > alarm):
            alarm = max(alarm, reach)
        return (self.worse_n > alarm) & (self.difference_n > self.rule.at_least)

    @cached_property
    def _spread(self) -> float:
        """The median deviation; of fewer than 12 clips, which may agree by chance, more."""
        sizes = np.sort(np.abs(self.worse_n - np.median(self.worse_n)))
        num = len(sizes)
        if num < 2:
            return 0.0
        return float(sizes[num // 2 if num >= 12 else -3 if num >= 8 else -2])

    @property
    def is_unanimous(self) -> bool:
        """All prompts got worse by so much the same that noise around 0 explains it no more.

        Noise would have to put all of them into one narrow window away from 0, as AGREEMENT says;
        for four and five prompts it has to lie half an alarm away.
        """
        least, most = float(self.means_g.min()), float(self.means_g.max())
        num = self.num_prompts
        windows = [width for count, width in AGREEMENT.items() if num >= count]
        is_large = num >= 6 or self.point > self.rule.alarm_of(self.direction) / 2
        return bool(windows) and self.is_above and is_large and most - least < windows[-1] * least

    def shown(self, worse: float) -> float | None:
        """A change on the tested scale as the reader sees it: relative or plain, positive up.

        None for infinity.
        """
        change = self.rule.shown(self.direction * worse)
        return change if math.isfinite(change) else None

    def found(self, num: int, alpha: float, power: float) -> float:
        """`detectable` for so many prompts like these."""
        sd = float(self.means_g.std(ddof=1)) if self.num_prompts > 1 else math.inf
        return detectable(self.rule, self.direction, sd, num, alpha, power, self.noise)

    def detectable(self, alpha: float, power: float) -> float | None:
        """The change, as shown, that the test of the mean finds with that power; at least the
        margin. None where so few prompts prove nothing."""
        size = self.shown(self.found(self.num_prompts, alpha, power))
        return None if size is None else abs(size)

    def proving_clips(self, alpha: float, power: float) -> int | None:
        """How many clips would prove the change that was seen; None above a million."""
        clips_each = len(self.worse_n) / self.num_prompts
        counts = range(self.num_prompts + 1, int(paired.MAX_CLIPS / clips_each))
        index = bisect_left(counts, True, key=lambda n: self.found(n, alpha, power) <= self.point)
        return math.ceil(counts[index] * clips_each) if index < len(counts) else None
