"""From paired values to verdicts. Pure: numbers in, numbers and words out."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from vidcfg import cli
from vidcfg.metrics.paired import cluster_means, holm, needed_clips
from vidcfg.metrics.record import mean_interval
from vidcfg.progress import counted
from vidcfg.regress.change import FEWEST_PROMPTS, ODD, PairedChange, RepeatNoise, provable_p
from vidcfg.regress.pairs import Pairs
from vidcfg.regress.policy import MetricRule, Policy
from vidcfg.report.formats import written

PASS, FAIL, INCONCLUSIVE, SKIPPED = "PASS", "FAIL", "INCONCLUSIVE", "SKIPPED"
ORDER = (FAIL, INCONCLUSIVE, PASS, SKIPPED)
EXIT_CODES = {PASS: cli.DONE, FAIL: cli.FAILED}

HARM = 0.2
"""A sign of harm: without a change one gate in five, at most, shows one (symmetric noise)."""


@dataclass(frozen=True)
class MetricResult:
    """The verdict on one metric.

    `change` and its interval (of level 1 - 2 alpha) are relative (0.05 = 5 %) if `is_ratio`, else
    in the metric's unit, and positive upwards; `difference` is the mean of new - base. A PASS
    shows the change to be below `tolerance`, which comes from the policy or from `repeats`
    (`tolerance_from`).
    `detectable` is the change that is found with the policy's power (None where so few prompts
    cannot prove any), `needed_clips` how many would
    decide (None: decided, or more than a million). `explained` is the part of the change that a
    rise of what the metric grows with accounts for; `change` and what follows is without it.
    `is_lost`: the verdict is on clips that lost the metric; `is_unproven`: INCONCLUSIVE with a
    sign of harm. `tested` has the change of every clip, None where no clip has the metric on both
    sides.
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
    tolerance: float | None = None
    tolerance_from: str = "policy"
    difference: float | None = None
    at_least: float | None = None
    p: float | None = None
    p_adjusted: float | None = None
    detectable: float | None = None
    needed_clips: int | None = None
    explained: float = 0.0
    lost: int = 0
    gained: int = 0
    is_lost: bool = False
    is_unproven: bool = False
    tested: PairedChange | None = None

    @property
    def size(self) -> float:
        """The change in the bad direction, in tolerances."""
        if self.change is None or not self.tolerance:
            return math.inf if self.lost else 0.0
        way = {"up": self.change, "down": -self.change, "either": abs(self.change)}
        return way[self.bad] / self.tolerance

    @property
    def exits_clean(self) -> bool:
        """The metric keeps no gate from passing."""
        return self.verdict in (PASS, SKIPPED)

    def amount(self, change: float | None) -> str:
        """A change in words: `+5.2%`, or `+0.0412` where it is no ratio."""
        if change is None or not math.isfinite(change):
            return "-"
        if self.is_ratio:
            return written("{:+.1%}", change) if abs(change) >= 0.0005 else "0.0%"
        return f"{change:+.3g}" if abs(change) >= 5e-7 else "0"


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


def judge(
    pairs: Mapping[str, Pairs], policy: Policy, noise: Mapping[str, RepeatNoise] | None = None
) -> Judgement:
    """The verdict on paired clips; `noise` is that of repeats, by metric, where it is known.

    A metric FAILs if a clip lost it or is destroyed, or all prompts agree that it got worse
    (`destroyed`, `is_unanimous`); or if its mean change in the bad
    direction is above both margins and its p-value, Holm-adjusted over the metrics by their
    weights, is at most the policy's `test_alpha`. It PASSes if the change is shown to be below
    its tolerance, at level alpha. Else it is INCONCLUSIVE: with a sign of harm if the change is
    above both margins and the chance of such a sign without a change, over all metrics, is HARM.

    The gate FAILs if a metric does, and PASSes if all do; metrics that neither side has are
    SKIPPED unless they are required.
    """
    noise = noise or {}
    every = [_measured(name, pairs, policy, noise) for name in policy.metrics]
    # A metric without a p-value cannot be tested and takes no part of alpha.
    found = {result.name: result for result in every if result.p is not None}
    weights = [policy.metrics[name].weight for name in found]
    adjusted = holm([result.p for result in found.values()], weights=weights)
    for (name, result), p_adjusted in zip(found.items(), adjusted.tolist()):
        result = replace(result, p_adjusted=p_adjusted)
        found[name] = _judged(result, policy, policy.share(name, found))
    # A metric passes only if its guard has not got worse by more than it tolerates.
    guards = {name: found.get(policy.metrics[name].guard) for name in found}
    for name, guard in guards.items():
        if found[name].verdict == PASS and guard is not None and guard.size > 1:
            reason = f"does not count while {guard.name} is {guard.amount(guard.change)}"
            is_worse = guard.is_unproven or guard.verdict == FAIL
            told = {"verdict": INCONCLUSIVE, "reason": reason, "is_unproven": is_worse}
            found[name] = replace(found[name], **told)
    for name, result in found.items():
        if result.explained >= 0.0005:
            other = policy.metrics[name].grows_with
            reason = f"{result.reason} (beside {result.explained:+.1%} of {other})"
            found[name] = replace(result, reason=reason)
    judged = [*found.values(), *(result for result in every if result.p is None)]
    judged.sort(key=lambda result: (ORDER.index(result.verdict), -result.size))
    verdicts = [r.verdict for r in judged if r.verdict != SKIPPED] or [INCONCLUSIVE]
    return Judgement(min(verdicts, key=ORDER.index), tuple(judged))


def _measured(
    name: str, every: Mapping[str, Pairs], policy: Policy, noise: Mapping[str, RepeatNoise]
) -> MetricResult:
    """All numbers but those of the verdict; without a clip on both sides `p` is None."""
    rule, pairs = policy.metrics[name], every.get(name)
    reason = "no clip of the baseline has a value" + ", and one is required" * rule.required
    verdict = INCONCLUSIVE if rule.required else SKIPPED
    result = MetricResult(name, verdict, reason, rule.is_ratio, rule.bad)
    if pairs is None:
        return result
    has_new, has_base = np.isfinite(pairs.new_N), np.isfinite(pairs.base_N)
    lost, gained = int((has_base & ~has_new).sum()), int((has_new & ~has_base).sum())
    result = replace(result, lost=lost, gained=gained)
    positions_n, new_n, base_n, clusters_n = pairs.common
    if not len(positions_n):
        reason += ", record it anew to check this one" * bool(gained)
        return _failed_by_loss(result, lost) if lost else replace(result, reason=reason)
    # What the base would have grown by anyway is no change.
    explained = _explained(rule, every, policy)
    change, difference = rule.changes(new_n, base_n, grown=explained)
    is_fall = rule.bad == "either" and cluster_means(change, clusters_n).mean() < 0
    direction = -1 if is_fall else rule.direction
    tested = PairedChange(
        rule,
        direction,
        positions_n=positions_n,
        clusters_n=clusters_n,
        worse_n=direction * change,
        difference_n=direction * difference,
        repeats=noise.get(name),
        num_metrics=len(policy.metrics),
    )
    low, high = (tested.shown(end) for end in tested.ends(policy.alpha)[::direction])
    tolerance = tested.tolerance(policy.alpha)
    return replace(
        result,
        clips=len(tested.clusters_n),
        prompts=tested.num_prompts,
        base_mean=tested.mean(base_n),
        new_mean=tested.mean(new_n),
        change=tested.shown(tested.point),
        low=low,
        high=high,
        margin=rule.margin,
        tolerance=abs(rule.shown(direction * tolerance)),
        tolerance_from="policy" if tolerance == rule.tolerance_of(direction) else "repeats",
        difference=direction * tested.mean(tested.difference_n),
        at_least=rule.at_least,
        explained=explained,
        p=tested.p,
        tested=tested,
    )


def _explained(rule: MetricRule, every: Mapping[str, Pairs], policy: Policy) -> float:
    """How much a metric grows with the one that it is proportional to: the rise of that one.

    Relative; the lower end of its interval by prompt, from 0 to its margin, so that chance
    explains nothing, and what is itself a regression explains no more than its margin.
    """
    other = every.get(rule.grows_with) if rule.grows_with in policy.metrics else None
    if other is None:
        return 0.0
    of_other = policy.metrics[rule.grows_with]
    _, new_n, base_n, clusters_n = other.common
    change, _ = of_other.changes(new_n, base_n)
    means = cluster_means(change, clusters_n)
    found = mean_interval(means.tolist(), level=1 - 2 * policy.alpha)
    return of_other.shown(min(max(found[0], 0.0), of_other.margin_of(1))) if found else 0.0


def _failed_by_loss(result: MetricResult, measured: int) -> MetricResult:
    reason = f"measurable in the baseline, lost in {result.lost} of {measured} clips"
    return replace(result, verdict=FAIL, reason=reason, is_lost=True)


def _judged(result: MetricResult, policy: Policy, share: float) -> MetricResult:
    tested, measured = result.tested, result.clips + result.lost
    is_proven = result.p_adjusted <= policy.test_alpha
    amount = result.amount(result.change)
    result = replace(result, detectable=tested.detectable(share, policy.power))
    # What needs no statistics comes first; what lost its value may be the worst clips of all.
    if result.lost > policy.max_lost * measured:
        return _failed_by_loss(result, measured)
    verdict = FAIL
    if count := int(tested.destroyed(policy.alarm_alpha).sum()):
        reason = f"{count} of {result.clips} clips are far outside of what noise explains"
    elif tested.is_unanimous:
        reason = f"{amount}, in all of {result.prompts} prompts alike"
    elif tested.is_above and is_proven:
        reason = f"{amount}, worse in {(tested.worse_n > 0).sum()} of {result.clips} clips"
    elif tested.is_within(policy.alpha):
        verdict = PASS
        reason = f"{amount}, {'worse but ' if is_proven else ''}within the tolerance"
    else:
        return _undecided(result, policy, share)
    return replace(result, verdict=verdict, reason=reason)


def _undecided(result: MetricResult, policy: Policy, share: float) -> MetricResult:
    tested, prompts = result.tested, result.prompts
    is_unproven = tested.is_above and tested.sign_of_harm <= HARM
    # Why it is open: too few prompts for any proof, or noise.
    level = share / 2 if result.bad == "either" else share
    least = math.ceil(-math.log2(level)) + ODD
    units = counted(prompts, policy.unit)
    if is_unproven and provable_p(prompts) > level:
        reason = f"above the margin, but {units} cannot prove it; {least} can"
    elif is_unproven:
        reason = "above the margin, but noise could explain it"
    elif prompts < FEWEST_PROMPTS:
        reason = f"{units} prove nothing; {FEWEST_PROMPTS} can"
    elif tested.is_above:
        reason = f"above the margin, as chance alone puts one of {tested.num_metrics} metrics"
    else:
        reason = "no sign of harm, but too much noise to tell"
    # How many clips would decide if the true change is the one that was seen.
    if tested.is_above:
        needed = tested.proving_clips(share, policy.power)
    else:
        levels = {"alpha": policy.alpha, "power": policy.power}
        effect = tested.tolerance(policy.alpha) - tested.point
        needed = needed_clips(tested.worse_n, tested.clusters_n, effect=effect, **levels)
        # These clips were not enough, whatever a formula for even noise says.
        needed = needed and max(needed, result.clips + 1)
    return replace(
        result, verdict=INCONCLUSIVE, reason=reason, needed_clips=needed, is_unproven=is_unproven
    )
