"""Verdicts on numbers that are chosen, so that the right one is known."""

import math

import numpy as np
import pytest

from vidcfg.metrics.paired import sign_flip_p
from vidcfg.regress.change import RepeatNoise, by_signs
from vidcfg.regress.judge import judge
from vidcfg.regress.output import size_words
from vidcfg.regress.pairs import Pairs
from vidcfg.regress.policy import MetricRule, Policy


def policy(**rules):
    defaults = {"a": {"bad": "up", "margin": 0.02}}
    return Policy(metrics=rules or defaults)


def pairs(worse, *, base=0.02, clusters=None):
    """Pairs whose log ratios are `worse` where the floor does not matter."""
    worse = np.asarray(worse, dtype=float)
    values = np.full(len(worse), base)
    names = clusters or tuple(f"prompt {i}" for i in range(len(worse)))
    floor = Policy().metrics["mc_flicker"].floor
    return Pairs((values + floor) * np.exp(worse) - floor, values, names)


def around(mean, sd, num=16, seed=0):
    noise = np.random.default_rng(seed).normal(size=num)
    return mean + sd * (noise - noise.mean()) / noise.std(ddof=1)


def only(judgement, name="a"):
    return next(r for r in judgement.metrics if r.name == name)


def test_sure_rise_above_the_margin_fails_with_its_size():
    result = only(judge({"a": pairs(around(0.05, 0.02))}, policy()))
    assert result.verdict == "FAIL"
    assert result.change == pytest.approx(math.expm1(0.05))
    assert result.low < result.change < result.high
    assert (result.clips, result.prompts) == (16, 16)
    assert result.reason.startswith("+5.1%, worse in")


def test_sure_rise_below_the_margin_passes_and_says_that_it_is_one():
    result = only(judge({"a": pairs(around(0.01, 0.004))}, policy()))
    assert result.verdict == "PASS"
    assert "+1.0%, worse but within the tolerance" in result.reason


def test_no_change_without_noise_passes_and_with_noise_is_open():
    assert only(judge({"a": pairs(np.zeros(16))}, policy())).verdict == "PASS"
    result = only(judge({"a": pairs(around(0.0, 0.2))}, policy()))
    assert result.verdict == "INCONCLUSIVE"
    assert result.detectable > 0.1
    assert result.needed_clips > 100


def test_what_so_few_prompts_cannot_prove_is_not_called_detectable():
    # Without noise of repeats a proof at 5 % takes 5 prompts beside the two that are left out.
    for num, is_known in ((2, False), (6, False), (7, True), (12, True)):
        result = only(judge({"a": pairs(around(0.0, 0.2, num))}, policy()))
        assert (result.detectable is not None) == is_known
    noisy = {"a": RepeatNoise(0.2, 12, "three repeats")}
    assert only(judge({"a": pairs(around(0.0, 0.2, 3))}, policy(), noisy)).detectable > 0.1


def test_sizes_without_meaning_have_no_hundred_digits():
    result = only(judge({"a": pairs([-40.0, 30.0] * 6)}, policy()))
    assert result.high > 1e6
    assert result.amount(result.high) == ">100000%"
    assert size_words(1e300, True) == ">100000%"
    assert (result.amount(15.0), size_words(15.0, True)) == ("+1500.0%", "1500.0%")


def test_needed_clips_decide():
    first = only(judge({"a": pairs(around(0.004, 0.06))}, policy()))
    assert first.verdict == "INCONCLUSIVE"
    more = pairs(around(0.004, 0.06, num=2 * first.needed_clips))
    assert only(judge({"a": more}, policy())).verdict == "PASS"


@pytest.mark.parametrize(
    ("num", "is_calibrated"), [(8, False), (16, False), (40, False), (5, True)]
)
def test_detectable_change_fails_with_about_the_power_that_is_said(num, is_calibrated):
    rule, random, sd = policy(), np.random.default_rng(num), 0.05
    noise = {"a": RepeatNoise(sd, 4000, "repeats")} if is_calibrated else None
    first = only(judge({"a": pairs(around(0.0, sd, num=num))}, rule, noise))
    drawn = math.log1p(first.detectable) + random.normal(0, sd, (300, num))
    found = [only(judge({"a": pairs(row)}, rule, noise)).verdict == "FAIL" for row in drawn]
    # A standard error of .023 at .8; a formula for t-tests finds .3 to .6.
    assert 0.73 <= np.mean(found) <= 0.92
    if noise is None:
        known = RepeatNoise(sd, 0, "--sd").detectable(
            rule.metrics["a"], num, alpha=rule.share("a"), power=0.8
        )
        assert known == pytest.approx(first.detectable, rel=1e-9)


def test_many_prompts_prove_a_change_at_whatever_level():
    # Twelve standard errors; random sign patterns alone reach no p below 1 / 20000.
    rule = policy(
        a={"bad": "up", "margin": 0.02}, b={"bad": "up", "margin": 0.02, "weight": 500.0}
    ).replace(alpha=0.01)
    assert rule.share("a") < 1 / 20_000
    many = {"a": pairs(around(0.08, 0.05, num=64)), "b": pairs(around(0, 0.001, num=64))}
    result = only(judge(many, rule))
    assert (result.verdict, result.p < 1e-6) == ("FAIL", True)
    assert result.detectable < 0.08
    # The bound is none below the exact test, of as many prompts as that one counts.
    kept = around(0.05, 0.06, num=18)
    assert by_signs(kept) == sign_flip_p(kept, range(18))


def test_clips_that_would_prove_a_change_prove_it():
    rule, random = policy(), np.random.default_rng(5)
    first = only(judge({"a": pairs(around(0.06, 0.12, num=12))}, rule))
    assert (first.verdict, first.is_unproven) == ("INCONCLUSIVE", True)
    drawn = 0.06 + random.normal(0, 0.12, (300, first.needed_clips))
    found = [only(judge({"a": pairs(row)}, rule)).verdict == "FAIL" for row in drawn]
    assert 0.73 <= np.mean(found) <= 0.92


def test_large_improvement_passes():
    assert only(judge({"a": pairs(around(-0.5, 0.1))}, policy())).verdict == "PASS"


@pytest.mark.parametrize("bad", ["up", "down", "either"])
def test_direction_decides_what_is_worse(bad):
    rule = policy(a={"bad": bad, "margin": 0.02})
    up, down = (judge({"a": pairs(around(x, 0.01))}, rule).verdict for x in (0.1, -0.1))
    assert (up == "FAIL") == (bad != "down")
    assert (down == "FAIL") == (bad != "up")


def test_margin_for_a_loss_is_a_loss_of_that_share():
    rule = MetricRule(bad="down", margin=0.1)
    change, _ = rule.changes(np.array([0.9 - 0.1 * rule.floor]), np.array([1.0]))
    assert -change[0] == pytest.approx(rule.margin_of(-1))


def test_a_change_has_to_be_above_the_absolute_margin_too():
    rises = {"a": pairs(around(0.05, 0.01), base=0.02)}
    assert judge(rises, policy(a={"bad": "up", "margin": 0.02, "at_least": 5e-4})).exit_code == 1
    assert judge(rises, policy(a={"bad": "up", "margin": 0.02, "at_least": 5e-3})).exit_code == 0


def test_clips_of_one_prompt_count_as_one():
    values = np.repeat(around(0.05, 0.06, num=4), 8)
    clusters = tuple(np.repeat(list("abcd"), 8).tolist())
    by_prompt = judge({"a": pairs(values, clusters=clusters)}, policy())
    assert by_prompt.verdict == "INCONCLUSIVE"
    assert "4 prompts cannot prove it; 7 can" in only(by_prompt).reason
    by_clip = judge({"a": pairs(values)}, policy())
    assert by_clip.verdict == "FAIL"


def test_a_change_that_is_bad_both_ways_takes_a_prompt_more_to_prove():
    for bad, fewest in (("up", 7), ("either", 8)):
        rule = policy(a={"bad": bad, "margin": 0.01})
        reason = only(judge({"a": pairs(around(0.05, 0.06, num=6))}, rule)).reason
        assert f"6 prompts cannot prove it; {fewest} can" in reason
    reason = only(judge({"a": pairs(around(0.05, 0.06, num=7))}, rule)).reason
    assert "7 prompts cannot prove it; 8 can" in reason


def test_more_metrics_make_each_harder_to_fail():
    rule = {"bad": "up", "margin": 0.005}
    rises = pairs(around(0.05, 0.06))
    noise = {name: pairs(around(0, 0.001, seed=3)) for name in "bcdefgh"}
    assert judge({"a": rises}, policy(a=rule)).verdict == "FAIL"
    many = policy(**dict.fromkeys("abcdefgh", rule))
    assert only(judge({"a": rises, **noise}, many)).verdict == "INCONCLUSIVE"
    weighted = {name: {**rule, "weight": 90.0 if name == "a" else 1.0} for name in "abcdefgh"}
    assert only(judge({"a": rises, **noise}, policy(**weighted))).verdict == "FAIL"


def test_guard_withholds_a_pass_while_motion_is_lost():
    rules = {
        "a": {"bad": "up", "margin": 0.02, "guard": "motion"},
        "motion": {"bad": "down", "margin": 0.1, "floor": 0.001},
    }
    quiet = pairs(around(-0.3, 0.01))
    kept, lost = (
        judge({"a": quiet, "motion": pairs(m)}, policy(**rules))
        for m in (around(0.0, 0.01), around(-0.5, 0.05))
    )
    assert kept.verdict == "PASS"
    assert lost.verdict == "FAIL"
    assert only(lost).verdict == "INCONCLUSIVE"
    assert "does not count while motion" in only(lost).reason
    assert only(lost, "motion").verdict == "FAIL"


@pytest.mark.parametrize("count", [1, 12, 16])
def test_clips_that_lost_a_value_fail_whatever_the_others_do(count):
    whole = pairs(np.zeros(16))
    broken = Pairs(
        np.where(np.arange(16) < count, np.nan, whole.new_N), whole.base_N, whole.clusters_N
    )
    result = only(judge({"a": broken}, policy()))
    assert (result.verdict, result.lost) == ("FAIL", count)
    assert f"lost in {count} of 16 clips" in result.reason
    # A policy may allow for some.
    lenient = judge({"a": broken}, policy().replace(max_lost=0.1))
    assert lenient.verdict == ("PASS" if count == 1 else "FAIL")


def test_clips_that_gained_a_value_are_counted_and_compared_with_nothing():
    whole = pairs(around(0.01, 0.004))
    gained = Pairs(
        np.append(whole.new_N, [9.0, 8.0]),
        np.append(whole.base_N, [np.nan, np.nan]),
        (*whole.clusters_N, "one more", "and another"),
    )
    alone, beside = (only(judge({"a": given}, policy())) for given in (whole, gained))
    assert (beside.verdict, beside.gained, beside.lost, beside.clips) == ("PASS", 2, 0, 16)
    assert (beside.change, beside.low, beside.high) == (alone.change, alone.low, alone.high)


def test_nothing_measured_is_never_a_pass():
    empty = np.full(6, np.nan)
    nothing = {"a": Pairs(empty, empty, tuple("abcdef"))}
    assert judge(nothing, policy()).verdict == "INCONCLUSIVE"
    assert judge({}, policy()).verdict == "INCONCLUSIVE"
    both = policy(a={"bad": "up", "margin": 1.0}, b={"bad": "up", "margin": 1.0, "required": True})
    good = {"a": pairs(np.zeros(6))}
    assert judge(good, both).verdict == "INCONCLUSIVE"
    assert only(judge(good, both), "b").reason.endswith("one is required")


def test_two_similar_clips_do_not_pass_and_three_do_and_equal_ones_always_do():
    assert judge({"a": pairs([1e-6, 2e-6])}, policy()).verdict == "INCONCLUSIVE"
    assert judge({"a": pairs([1e-6, 2e-6, 0])}, policy()).verdict == "PASS"
    assert judge({"a": pairs(np.zeros(2))}, policy()).verdict == "PASS"


def test_pass_is_students_bound_below_the_tolerance():
    rule = {"bad": "up", "margin": 0.01, "tolerance": 0.05}
    sd = 0.02
    # The bound of 4 clips is 2.353 sd / 2 above their mean.
    edge = math.log(1.05) - 2.3534 * sd / 2
    for mean, verdict in ((edge - 1e-4, "PASS"), (edge + 1e-4, "INCONCLUSIVE")):
        result = only(judge({"a": pairs(around(mean, sd, num=4))}, policy(a=rule)))
        assert result.verdict == verdict
        assert result.tolerance == pytest.approx(0.05)
        assert result.tolerance_from == "policy"


def test_noise_of_repeats_widens_the_tolerance_and_proves_with_few_prompts():
    rules = policy(a={"bad": "up", "margin": 0.01})
    noise = {"a": RepeatNoise(0.05, 24, "repeats")}
    # sd of the mean of 4 prompts: 0.025.
    small, large = (pairs(around(mean, 0.05, num=4)) for mean in (0.03, 0.14))
    result = only(judge({"a": small}, rules, noise))
    assert (result.verdict, result.tolerance_from) == ("PASS", "repeats")
    # The 95 % point of t of 12 degrees, and the 99.75 % point of 4 scaled to a deviation of 1:
    # each is above the other one's.
    reach = 0.025 * (1.7823 + 5.5976 / math.sqrt(2))
    assert math.log1p(result.tolerance) == pytest.approx(reach, rel=1e-3)
    assert only(judge({"a": large}, rules, noise)).verdict == "FAIL"
    assert only(judge({"a": large}, rules)).verdict == "INCONCLUSIVE"
    # Clips that vary much more than repeats have changed, and are judged without them.
    wide = only(judge({"a": pairs(around(0.03, 0.4, num=4))}, rules, noise))
    assert (wide.verdict, wide.tolerance_from) == ("INCONCLUSIVE", "policy")


def test_no_proof_hangs_on_two_prompts():
    # The other fourteen go up and down; with these two, sign flips would find 1 in 4 and less.
    few = np.r_[[0.3, 0.3], np.linspace(0.001, 0.002, 14) * np.tile([1, -1], 7)]
    result = only(judge({"a": pairs(few)}, policy()))
    assert result.change > 0.03
    assert result.verdict == "INCONCLUSIVE"
    assert result.p > 0.3
    assert only(judge({"a": pairs(np.r_[few[:2], few[2:] + 0.03])}, policy())).verdict == "FAIL"


def test_inconclusive_with_a_sign_of_harm_is_another_exit_code():
    harmed = judge({"a": pairs(around(0.05, 0.02, num=4))}, policy())
    unsure = judge({"a": pairs(around(0.05, 0.3, num=4))}, policy())
    assert (harmed.verdict, harmed.exit_code) == ("INCONCLUSIVE", 4)
    assert (unsure.verdict, unsure.exit_code) == ("INCONCLUSIVE", 5)
    assert not harmed.may_be_allowed
    assert unsure.may_be_allowed


def test_worst_metric_comes_first():
    rules = {name: {"bad": "up", "margin": 0.02} for name in "abc"}
    given = {
        "a": pairs(np.zeros(16)),
        "b": pairs(around(0.2, 0.01)),
        "c": pairs(around(0.5, 0.01)),
    }
    assert [r.name for r in judge(given, policy(**rules)).metrics] == ["c", "b", "a"]


@pytest.mark.parametrize("count", [3, 16, 64])
def test_a_cut_that_its_baseline_has_not_fails_in_a_single_clip(count):
    base = np.zeros(count)
    base[1] = 1
    for new, verdict in ((base, "PASS"), (base + np.eye(count)[0], "FAIL")):
        names = tuple(f"prompt {i}" for i in range(count))
        found = judge({"cuts": Pairs(new, base, names)}, Policy())
        assert only(found, "cuts").verdict == verdict


def contrast_and_flicker(contrast, flicker, *, num=16):
    """Judged by the default policy: the two metrics times these factors in every clip."""
    rng = np.random.default_rng(5)
    prompts = tuple(f"prompt {i}" for i in range(num))
    made = {}
    for name, factor, low in (("contrast", contrast, 0.15), ("mc_flicker", flicker, 0.03)):
        base = rng.uniform(low, 2 * low, num)
        floor = Policy().metrics[name].floor
        made[name] = Pairs((base + floor) * factor - floor, base, prompts)
    judged = judge(made, Policy())
    return {name: only(judged, name) for name in made}


def test_flicker_that_grows_with_the_contrast_of_the_picture_passes():
    found = contrast_and_flicker(1.04, 1.04)
    assert [result.verdict for result in found.values()] == ["PASS", "PASS"]
    flicker = found["mc_flicker"]
    assert flicker.explained == pytest.approx(0.04)
    assert abs(flicker.change) < 0.001
    assert flicker.reason.endswith("(beside +4.0% of contrast)")


def test_roughness_of_motion_grows_with_the_contrast_too():
    """1 - motion_smoothness is in levels: a picture with 4 % more contrast has 4 % more of it."""
    rng, prompts = np.random.default_rng(5), tuple(f"prompt {i}" for i in range(16))
    rough, contrast = rng.uniform(0.02, 0.04, 16), rng.uniform(0.15, 0.3, 16)
    floor = Policy().metrics["motion_smoothness"].floor

    def judged(factor):
        moved = 1 - ((rough + floor) * factor - floor)
        made = {"motion_smoothness": Pairs(moved, 1 - rough, prompts)}
        made["contrast"] = Pairs(contrast * 1.04, contrast, prompts)
        return only(judge(made, Policy()), "motion_smoothness")

    alike, more = judged(1.04), judged(1.04 * 1.06)
    assert (alike.verdict, more.verdict) == ("PASS", "FAIL")
    assert abs(alike.change) < 0.002
    assert more.change == pytest.approx(0.06, abs=0.003)


def test_flicker_that_grows_more_than_the_contrast_fails_by_the_rest():
    flicker = contrast_and_flicker(1.03, 1.03 * 1.05)["mc_flicker"]
    assert flicker.verdict == "FAIL"
    assert flicker.change == pytest.approx(0.05, abs=0.002)


def test_contrast_explains_no_more_than_it_may_rise():
    found = contrast_and_flicker(1.3, 1.3)
    assert [result.verdict for result in found.values()] == ["FAIL", "FAIL"]
    margin = Policy().metrics["contrast"].margin
    assert found["mc_flicker"].explained == pytest.approx(margin)
    assert found["mc_flicker"].change == pytest.approx(1.3 / (1 + margin) - 1, abs=0.005)


def test_contrast_that_falls_or_varies_by_chance_explains_nothing():
    assert contrast_and_flicker(0.96, 1.05)["mc_flicker"].explained == 0
    noise = around(0.01, 0.05)
    assert contrast_and_flicker(np.exp(noise), 1.05)["mc_flicker"].explained == 0
    # One prompt shows nothing.
    assert contrast_and_flicker(1.04, 1.04, num=1)["mc_flicker"].explained == 0


def test_a_metric_grows_with_one_that_is_checked_and_only_as_a_ratio():
    with pytest.raises(ValueError, match="contrst', which is not checked. Write contrast"):
        policy(a={"bad": "up", "margin": 0.02, "grows_with": "contrst"})
    with pytest.raises(ValueError, match="needs scale: ratio and bad: up"):
        policy(a={"bad": "down", "margin": 0.02, "grows_with": "contrast"})
    other = {"bad": "up", "margin": 0.02, "scale": "difference"}
    with pytest.raises(ValueError, match="'b', which is compared by difference. Write null"):
        policy(a={"bad": "up", "margin": 0.02, "grows_with": "b"}, b=other)
    # Where contrast is not looked at, it explains nothing.
    rule = policy(mc_flicker={"guard": None})
    assert only(judge({"mc_flicker": pairs(around(0.05, 0.01))}, rule), "mc_flicker").change > 0.04


def test_what_is_above_its_margin_by_chance_is_not_said_to_show_nothing():
    """+8 % in six of eight prompts, among 21 metrics: exit code 5, and no `no sign of harm`."""
    change = np.array([0.043, -0.04, 0.24, 0.09, 0.2, -0.06, 0.09, 0.09])
    judged = judge({"judder": pairs(change)}, Policy())
    judder = only(judged, "judder")
    assert judder.change > judder.margin
    assert not judder.is_unproven
    assert judder.reason == "above the margin, as chance alone puts one of 22 metrics"
