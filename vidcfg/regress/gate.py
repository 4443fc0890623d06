"""From paired values to verdicts. Pure: numbers in, numbers and words out."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from vidcfg.metrics.paired import holm, needed_clips, smallest_p
from vidcfg.regress.estimate import Estimate, Pairs, estimate
from vidcfg.regress.policy import MetricRule, Policy

PASS, FAIL, INCONCLUSIVE, SKIPPED = "PASS", "FAIL", "INCONCLUSIVE", "SKIPPED"
ORDER = (FAIL, INCONCLUSIVE, PASS, SKIPPED)
EXIT_CODES = {PASS: 0, FAIL: 1, INCONCLUSIVE: 2}


@dataclass(frozen=True)
class MetricResult:
    """The verdict on one metric.

    `change` and its 90 % interval are relative (0.05 = 5 %) if `is_ratio`, else in the metric's
    unit, and positive upwards; `difference` is the mean of new - base. `detectable` is the change
    that is found with the policy's power, `needed_clips` how many would decide (None: decided, or
    more than a million). `is_lost`: the verdict is on clips that lost the metric. `worse` has the
    change of every clip in the bad direction on the tested scale, None where it is not measured
    on both sides.
    """

    name: str
    verdict: str
    reason: str
    is_ratio: bool
    bad: str
    clips: int
    prompts: int
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
    worse: tuple[float | None, ...] = ()

    @property
    def size(self) -> float:
        """The change in the bad direction, in margins."""
        if self.change is None or not self.margin:
            return math.inf if self.lost else 0.0
        way = {"up": self.change, "down": -self.change, "either": abs(self.change)}
        return way[self.bad] / self.margin

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
    """The gate's verdict and that of each metric, worst first."""

    verdict: str
    metrics: tuple[MetricResult, ...]

    @property
    def exit_code(self) -> int:
        return EXIT_CODES[self.verdict]


def judge(pairs: Mapping[str, Pairs], policy: Policy) -> Judgement:
    """The verdict on paired clips.

    A metric FAILs if its mean change in the bad direction is above both margins and its sign-flip
    p-value, Holm-adjusted over the metrics by their weights, is at most alpha. It PASSes if the
    change is shown to be below a margin: the upper end of the 90 % bootstrap interval lies below
    it, and so does, at level alpha, a sign-flip test of the distance. Else it is INCONCLUSIVE.
    A metric that more than `max_lost` of the clips have lost counts as changed above its margin.

    The gate FAILs if a metric does, and PASSes if all do; metrics that neither side has are
    SKIPPED unless they are required.
    """
    found, unmeasured = {}, []
    for name, rule in policy.metrics.items():
        made = estimate(rule, pairs[name], policy) if name in pairs else None
        if made is None:
            unmeasured.append(_unmeasured(name, rule))
        else:
            found[name] = made
    adjusted = _adjusted(found)
    results = {
        name: _verdict(name, made, adjusted[name], policy, policy.share(name, found))
        for name, made in found.items()
    }
    every = [*_guarded(results, policy), *unmeasured]
    every.sort(key=lambda result: (ORDER.index(result.verdict), -result.size))
    counted = [r.verdict for r in every if r.verdict != SKIPPED] or [INCONCLUSIVE]
    return Judgement(min(counted, key=ORDER.index), tuple(every))


def _adjusted(found: Mapping[str, Estimate]) -> dict[str, float]:
    if not found:
        return {}
    weights = [made.rule.weight for made in found.values()]
    p_values = holm([made.p for made in found.values()], weights=weights)
    return dict(zip(found, p_values.tolist()))


def _verdict(
    name: str, found: Estimate, p_adjusted: float, policy: Policy, share: float
) -> MetricResult:
    has_lost = found.lost > policy.max_lost * found.compared
    is_proven = p_adjusted <= policy.alpha
    result = _result(name, found, p_adjusted)
    if not found.clusters_n or has_lost:
        verdict = FAIL if is_proven else INCONCLUSIVE
        reason = f"measurable in the baseline, lost in {found.lost} of {found.compared} clips"
        return replace(result, verdict=verdict, reason=reason, is_lost=True)
    amount = result.amount(result.change)
    result = replace(result, detectable=found.detectable(share, policy.power))
    if found.is_above and is_proven:
        count = int((found.worse_n > 0).sum())
        reason = f"{amount}, worse in {count} of {len(found.worse_n)} clips"
        return replace(result, verdict=FAIL, reason=reason)
    if found.is_within(policy.alpha):
        reason = f"{amount}, {'worse but ' if is_proven else ''}within the margin"
        return replace(result, verdict=PASS, reason=reason)
    needed = _needed(found, policy, share)
    return replace(result, reason=_open_reason(found, policy, share), needed_clips=needed)


def _result(name: str, found: Estimate, p_adjusted: float) -> MetricResult:
    result = MetricResult(
        name=name,
        verdict=INCONCLUSIVE,
        reason="",
        is_ratio=found.rule.scale == "ratio",
        bad=found.rule.bad,
        clips=len(found.clusters_n),
        prompts=len(set(found.clusters_n)),
        margin=found.rule.margin,
        at_least=found.rule.at_least,
        p=found.p,
        p_adjusted=p_adjusted,
        lost=found.lost,
        gained=found.gained,
    )
    if not found.clusters_n:
        return result
    ends = sorted(found.shown(end) for end in (found.low, found.high))
    low, high = (end if math.isfinite(end) else None for end in ends)
    worse: list[float | None] = [None] * (int(found.positions_n.max()) + 1)
    for position, value in zip(found.positions_n.tolist(), found.worse_n.tolist()):
        worse[position] = value
    return replace(
        result,
        base_mean=found.base_mean,
        new_mean=found.new_mean,
        change=found.shown(found.point),
        low=low,
        high=high,
        difference=found.direction * found.absolute,
        worse=tuple(worse),
    )


def _open_reason(found: Estimate, policy: Policy, share: float) -> str:
    prompts = len(set(found.clusters_n))
    least = math.ceil(-math.log2(share if found.is_above else policy.alpha))
    unit = "prompts" if policy.unit == "prompt" else "clips"
    if found.is_above and smallest_p(prompts) > share:
        return f"above the margin, but {prompts} {unit} cannot prove it; {least} can"
    if smallest_p(prompts) > policy.alpha:
        return f"{prompts} {unit} prove nothing; {least} can"
    if found.is_above:
        return "above the margin, but noise could explain it"
    return "too much noise to tell whether the margin is kept"


def _needed(found: Estimate, policy: Policy, share: float) -> int | None:
    """Clips that would decide if the true change is the one that was seen."""
    gap = found.point if found.is_above else found.margin - found.point
    level = share if found.is_above else policy.alpha
    needed = needed_clips(
        found.worse_n, found.clusters_n, effect=gap, alpha=level, power=policy.power
    )
    # These clips were not enough, whatever a formula for even noise says.
    return needed and max(needed, len(found.clusters_n) + 1)


def _unmeasured(name: str, rule: MetricRule) -> MetricResult:
    return MetricResult(
        name=name,
        verdict=INCONCLUSIVE if rule.required else SKIPPED,
        reason="no clip of the baseline has a value" + ", and one is required" * rule.required,
        is_ratio=rule.scale == "ratio",
        bad=rule.bad,
        clips=0,
        prompts=0,
    )


def _guarded(results: Mapping[str, MetricResult], policy: Policy) -> list[MetricResult]:
    """A metric passes only if its guard has not got worse by more than the guard's margin."""
    return [_check_guard(r, results.get(policy.metrics[r.name].guard)) for r in results.values()]


def _check_guard(result: MetricResult, guard: MetricResult | None) -> MetricResult:
    if result.verdict != PASS or guard is None or guard.size <= 1:
        return result
    reason = f"does not count while {guard.name} is {guard.amount(guard.change)}"
    return replace(result, verdict=INCONCLUSIVE, reason=reason)


def plain(value: Any) -> Any:
    """Numbers that JSON has no word for become None."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def one_line(judgement: Judgement) -> str:
    """`FAIL: warp_residual +5.2%, sharpness -9.0%`."""
    named = [
        f"{r.name} {r.amount(r.change)}"
        for r in judgement.metrics
        if r.verdict == judgement.verdict
    ]
    return f"{judgement.verdict}: {', '.join(named)}"
