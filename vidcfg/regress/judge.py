"""From paired values to verdicts. Pure: numbers in, numbers and words out."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from scipy.stats import t as student

from vidcfg import cli
from vidcfg.metrics.paired import (
    cluster_bootstrap,
    cluster_means,
    holm,
    minimum_detectable_effect,
    needed_clips,
    sign_flip_p,
    smallest_p,
)
from vidcfg.regress.pairs import Pairs
from vidcfg.regress.policy import MetricRule, Policy

PASS, FAIL, INCONCLUSIVE, SKIPPED = "PASS", "FAIL", "INCONCLUSIVE", "SKIPPED"
ORDER = (FAIL, INCONCLUSIVE, PASS, SKIPPED)
EXIT_CODES = {PASS: cli.DONE, FAIL: cli.FAILED}

FEWEST_PROMPTS = 3
"""From so many prompts on, a change of all of them is no accident of one."""

FALSE_ALARMS = 0.01
"""How often the alarm may go off without a change, over all clips and metrics."""


@dataclass(frozen=True, eq=False)
class PairedChange:
    """The change of a metric over the clips that have it on both sides.

    `worse_n` is positive in the bad direction, on the scale that is tested (log ratio or
    difference), `difference_n` likewise as new - base; `clusters_n` names the clips' prompts and
    `positions_n` their places among all pairs. `direction` is 1 if up is bad, -1 if down is.
    """

    rule: MetricRule
    direction: int
    positions_n: np.ndarray
    clusters_n: np.ndarray
    worse_n: np.ndarray
    difference_n: np.ndarray

    def mean(self, values_n: np.ndarray) -> float:
        """The mean over prompts, every prompt once."""
        return float(cluster_means(values_n, self.clusters_n).mean())

    @cached_property
    def point(self) -> float:
        return self.mean(self.worse_n)

    @cached_property
    def ends(self) -> tuple[float, float]:
        """The 90 % interval of `point`, by prompt."""
        found = cluster_bootstrap(self.worse_n, self.clusters_n, level=0.9)
        return found.low, found.high

    @property
    def margin(self) -> float:
        """That of the rule, on the scale of `worse_n`."""
        return self.rule.margin_of(self.direction)

    @property
    def p(self) -> float:
        p = sign_flip_p(self.worse_n, self.clusters_n)
        return min(1.0, 2 * p) if self.rule.bad == "either" else p

    @property
    def is_above(self) -> bool:
        """The mean change is above both margins."""
        return self.point > self.margin and self.mean(self.difference_n) > self.rule.at_least

    def is_within(self, alpha: float) -> bool:
        """The change is shown to be below one of the margins, at level alpha, or is exactly 0."""
        # Values that are equal bit for bit need no statistics.
        if not self.worse_n.any():
            return True
        low, high = self.ends
        within = self._is_below(self.worse_n, self.margin, alpha, high)
        if within and self.rule.bad == "either":
            other = self.rule.margin_of(-self.direction)
            within = self._is_below(-self.worse_n, other, alpha, -low)
        if within or not self.rule.at_least > 0:
            return within
        high = cluster_bootstrap(self.difference_n, self.clusters_n, level=0.9).high
        return self._is_below(self.difference_n, self.rule.at_least, alpha, high)

    def _is_below(self, values_n: np.ndarray, margin: float, alpha: float, high: float) -> bool:
        # The interval alone is too short for a handful of prompts; the test is exact.
        return high < margin and sign_flip_p(margin - values_n, self.clusters_n) <= alpha

    def destroyed(self, num_metrics: int) -> np.ndarray:
        """Which clips stand so far out that no test over prompts is needed: bool [n].

        A clip is destroyed if its change is above `alarm_of` the rule and above what the spread of
        all clips explains, with tails as heavy as those of Student's t of 3 degrees, over as many
        clips as `num_metrics` metrics have. Where every prompt is above the alarm, spread is none.
        """
        deviation = np.sort(np.abs(self.worse_n - np.median(self.worse_n)))
        # Of few clips the median deviation may be small by chance; the second largest is not.
        few = len(deviation) < 8
        spread = deviation[-2 if few else len(deviation) // 2] if len(deviation) > 1 else 0.0
        chance = FALSE_ALARMS / (num_metrics * len(deviation))
        reach = student.isf(chance, 3) / student.isf(0.25, 3)
        alarm = self.rule.alarm_of(self.direction)
        means = cluster_means(self.worse_n, self.clusters_n)
        if not (len(means) >= FEWEST_PROMPTS and means.min() > alarm):
            alarm = max(alarm, reach * spread)
        return (self.worse_n > alarm) & (self.difference_n > self.rule.at_least)

    @property
    def is_unanimous(self) -> bool:
        """Four prompts or more all got worse by much the same, half an alarm on average.

        Noise around 0 would have to put all of them into a window half as wide as it is far.
        """
        means = cluster_means(self.worse_n, self.clusters_n)
        least, most = float(means.min()), float(means.max())
        is_large = self.is_above and self.point > self.rule.alarm_of(self.direction) / 2
        return len(means) > FEWEST_PROMPTS and is_large and least > 2 * (most - least)

    def shown(self, worse: float) -> float | None:
        """A change on the tested scale as the reader sees it: relative or plain, positive up.

        None for infinity.
        """
        change = self.rule.shown(self.direction * worse)
        return change if math.isfinite(change) else None

    def detectable(self, alpha: float, power: float) -> float | None:
        """The change, as shown, that is found with that power; at least the margin."""
        found = minimum_detectable_effect(self.worse_n, self.clusters_n, alpha=alpha, power=power)
        size = self.shown(max(found, self.margin))
        return None if size is None else abs(size)


@dataclass(frozen=True)
class MetricResult:
    """The verdict on one metric.

    `change` and its 90 % interval are relative (0.05 = 5 %) if `is_ratio`, else in the metric's
    unit, and positive upwards; `difference` is the mean of new - base. `detectable` is the change
    that is found with the policy's power, `needed_clips` how many would decide (None: decided, or
    more than a million). `is_lost`: the verdict is on clips that lost the metric; `is_guarded`:
    its guard got worse. `tested` has the change of every clip, None where no clip has the metric
    on both sides.
    """

    name: str
    verdict: str
    reason: str
    is_ratio: bool
    bad: str
    clips: int = 0
    prompts: int = 0
    base_mean: float | None = None
    new_mean: float | None = None
    change: float | None = None
    low: float | None = None
    high: float | None = None
    margin: float | None = None
    difference: float | None = None
    at_least: float | None = None
    p: float | None = None
    p_adjusted: float | None = None
    detectable: float | None = None
    needed_clips: int | None = None
    lost: int = 0
    gained: int = 0
    is_lost: bool = False
    is_guarded: bool = False
    tested: PairedChange | None = None

    @property
    def size(self) -> float:
        """The change in the bad direction, in margins."""
        if self.change is None or not self.margin:
            return math.inf if self.lost else 0.0
        way = {"up": self.change, "down": -self.change, "either": abs(self.change)}
        return way[self.bad] / self.margin

    @property
    def is_unproven(self) -> bool:
        """Worse than the margin allows, or lost, without proof."""
        is_above = self.tested is not None and self.tested.is_above
        return self.verdict == INCONCLUSIVE and (is_above or self.is_lost or self.is_guarded)

    @property
    def exits_clean(self) -> bool:
        """The metric keeps no gate from passing."""
        return self.verdict in (PASS, SKIPPED)

    def amount(self, change: float | None) -> str:
        """A change in words: `+5.2%`, or `+0.0412` where it is no ratio."""
        if change is None or not math.isfinite(change):
            return "-"
        if self.is_ratio:
            return f"{change:+.1%}" if abs(change) >= 0.0005 else "0.0%"
        return f"{change:+.3g}" if change else "0"


@dataclass(frozen=True)
class Judgement:
    """The gate's verdict and that of each metric, worst first.

    INCONCLUSIVE is two things: worse, but not proven (exit code 4), and no sign of harm with too
    few clips to be sure (5), which alone may be allowed.
    """

    verdict: str
    metrics: tuple[MetricResult, ...]

    @property
    def is_unproven(self) -> bool:
        """Something is worse than its margin, without proof."""
        return any(result.is_unproven for result in self.metrics)

    @property
    def may_be_allowed(self) -> bool:
        """INCONCLUSIVE without a sign of harm."""
        return self.verdict == INCONCLUSIVE and not self.is_unproven

    @property
    def exit_code(self) -> int:
        open_code = cli.UNPROVEN if self.is_unproven else cli.UNSURE
        return EXIT_CODES.get(self.verdict, open_code)


def judge(pairs: Mapping[str, Pairs], policy: Policy) -> Judgement:
    """The verdict on paired clips.

    A metric FAILs if a clip is destroyed or all prompts agree that it got much worse (`destroyed`,
    `is_unanimous`), whatever their number; or if its mean change in the bad direction is above
    both margins and its sign-flip p-value, Holm-adjusted over the metrics by their weights, is at
    most alpha. It PASSes if the change is shown to be below a margin: the upper end of the 90 %
    bootstrap interval lies below it, and so does, at level alpha, a sign-flip test of the
    distance. Else it is INCONCLUSIVE.
    A metric that more than `max_lost` of the clips have lost counts as changed above its margin.

    The gate FAILs if a metric does, and PASSes if all do; metrics that neither side has are
    SKIPPED unless they are required.
    """
    every = [_measured(name, pairs.get(name), policy) for name in policy.metrics]
    # A metric without a p-value cannot be tested and takes no part of alpha.
    found = {result.name: result for result in every if result.p is not None}
    weights = [policy.metrics[name].weight for name in found]
    adjusted = holm([result.p for result in found.values()], weights=weights)
    for (name, result), p_adjusted in zip(found.items(), adjusted.tolist()):
        result = replace(result, p_adjusted=p_adjusted)
        found[name] = _judged(result, policy, policy.share(name, found))
    # A metric passes only if its guard has not got worse by more than the guard's margin.
    guards = {name: found.get(policy.metrics[name].guard) for name in found}
    for name, guard in guards.items():
        if found[name].verdict == PASS and guard is not None and guard.size > 1:
            reason = f"does not count while {guard.name} is {guard.amount(guard.change)}"
            found[name] = replace(
                found[name], verdict=INCONCLUSIVE, reason=reason, is_guarded=True
            )
    judged = [*found.values(), *(result for result in every if result.p is None)]
    judged.sort(key=lambda result: (ORDER.index(result.verdict), -result.size))
    counted = [r.verdict for r in judged if r.verdict != SKIPPED] or [INCONCLUSIVE]
    return Judgement(min(counted, key=ORDER.index), tuple(judged))


def _measured(name: str, pairs: Pairs | None, policy: Policy) -> MetricResult:
    """All numbers but those of the verdict; `p`, of change and loss together, may be None."""
    rule = policy.metrics[name]
    reason = "no clip of the baseline has a value" + ", and one is required" * rule.required
    verdict = INCONCLUSIVE if rule.required else SKIPPED
    result = MetricResult(name, verdict, reason, rule.is_ratio, rule.bad)
    if pairs is None:
        return result
    has_new, has_base = np.isfinite(pairs.new_N), np.isfinite(pairs.base_N)
    lost, gained, both = has_base & ~has_new, has_new & ~has_base, has_new & has_base
    p_values, found = [], {}
    if both.any():
        tested = _change(rule, pairs, both)
        p_values.append(tested.p)
        found = _numbers(tested, pairs)
    if lost.any():
        # A clip that can no longer be measured has changed too.
        p_values.append(sign_flip_p(lost.astype(float) - gained, pairs.clusters_N))
    if not p_values:
        return result
    return replace(
        result,
        margin=rule.margin,
        at_least=rule.at_least,
        p=min(1.0, len(p_values) * min(p_values)),
        lost=int(lost.sum()),
        gained=int(gained.sum()),
        **found,
    )


def _change(rule: MetricRule, pairs: Pairs, both: np.ndarray) -> PairedChange:
    clusters = np.asarray(pairs.clusters_N)[both]
    change, difference = rule.changes(pairs.new_N[both], pairs.base_N[both])
    direction = rule.direction
    if rule.bad == "either" and cluster_means(change, clusters).mean() < 0:
        direction = -1
    positions = np.flatnonzero(both)
    return PairedChange(
        rule, direction, positions, clusters, direction * change, direction * difference
    )


def _numbers(tested: PairedChange, pairs: Pairs) -> dict[str, Any]:
    low, high = (tested.shown(end) for end in tested.ends[:: tested.direction])
    return {
        "clips": len(tested.clusters_n),
        "prompts": len(set(tested.clusters_n.tolist())),
        "base_mean": tested.mean(pairs.base_N[tested.positions_n]),
        "new_mean": tested.mean(pairs.new_N[tested.positions_n]),
        "change": tested.shown(tested.point),
        "low": low,
        "high": high,
        "difference": tested.direction * tested.mean(tested.difference_n),
        "tested": tested,
    }


def _judged(result: MetricResult, policy: Policy, share: float) -> MetricResult:
    tested, measured = result.tested, result.clips + result.lost
    is_proven = result.p_adjusted <= policy.alpha
    # Loss of the metric comes first: what is left may be the easy clips.
    if tested is None or result.lost > policy.max_lost * measured:
        verdict = FAIL if is_proven else INCONCLUSIVE
        reason = f"measurable in the baseline, lost in {result.lost} of {measured} clips"
        return replace(result, verdict=verdict, reason=reason, is_lost=True)
    amount = result.amount(result.change)
    result = replace(result, detectable=tested.detectable(share, policy.power))
    # What needs no statistics comes before them.
    count = int(tested.destroyed(len(policy.metrics)).sum())
    if count:
        reason = f"{count} of {result.clips} clips are far outside of what noise explains"
        return replace(result, verdict=FAIL, reason=reason)
    if tested.is_unanimous:
        reason = f"{amount}, in all of {result.prompts} prompts alike"
        return replace(result, verdict=FAIL, reason=reason)
    if tested.is_above and is_proven:
        count = int((tested.worse_n > 0).sum())
        reason = f"{amount}, worse in {count} of {result.clips} clips"
        return replace(result, verdict=FAIL, reason=reason)
    if tested.is_within(policy.alpha):
        reason = f"{amount}, {'worse but ' if is_proven else ''}within the margin"
        return replace(result, verdict=PASS, reason=reason)
    return _undecided(result, policy, share)


def _undecided(result: MetricResult, policy: Policy, share: float) -> MetricResult:
    tested, prompts = result.tested, result.prompts
    level = share if tested.is_above else policy.alpha
    # Why it is open: too few prompts for any proof, or noise.
    least = math.ceil(-math.log2(level))
    unit = "prompts" if policy.unit == "prompt" else "clips"
    if tested.is_above and smallest_p(prompts) > share:
        reason = f"above the margin, but {prompts} {unit} cannot prove it; {least} can"
    elif smallest_p(prompts) > policy.alpha:
        reason = f"{prompts} {unit} prove nothing; {least} can"
    elif tested.is_above:
        reason = "above the margin, but noise could explain it"
    else:
        reason = "too much noise to tell whether the margin is kept"
    # How many clips would decide if the true change is the one that was seen.
    needed = needed_clips(
        tested.worse_n,
        tested.clusters_n,
        effect=tested.point if tested.is_above else tested.margin - tested.point,
        alpha=level,
        power=policy.power,
    )
    # These clips were not enough, whatever a formula for even noise says.
    needed = needed and max(needed, result.clips + 1)
    return replace(result, verdict=INCONCLUSIVE, reason=reason, needed_clips=needed)
