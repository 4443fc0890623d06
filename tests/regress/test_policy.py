import numpy as np
import pytest

from vidcfg.metrics.catalogue import METRICS
from vidcfg.regress.change import provable_p
from vidcfg.regress.policy import DEFAULTS, Policy, load_policy
from vidcfg.settings.document import read_document, validate
from vidcfg.settings.errors import ConfigError


def parsed(text):
    return validate(read_document(text, source="policy.yaml"), Policy)


def test_default_policy_checks_known_metrics_and_writes_itself_in_full(tmp_path):
    assert set(DEFAULTS) <= set(METRICS)
    path = tmp_path / "policy.yaml"
    path.write_text(Policy().to_yaml())
    assert load_policy(path) == Policy() == load_policy(None)


def test_known_metric_takes_what_is_left_out_from_the_defaults():
    policy = parsed("schema: 1\nmetrics:\n  sharpness: {margin: 0.07}\n  freeze_share:\n")
    assert list(policy.metrics) == ["sharpness", "freeze_share"]
    assert policy.metrics["sharpness"].margin == 0.07
    assert policy.metrics["sharpness"].bad == "down"
    assert policy.metrics["freeze_share"] == Policy().metrics["freeze_share"]


def test_shares_and_alarms_make_alpha_and_flicker_needs_eight_prompts():
    policy = Policy()
    shares = [policy.share(name) for name in policy.metrics]
    assert sum(shares) + policy.alarm_alpha == pytest.approx(policy.alpha) == pytest.approx(0.05)
    share = policy.share("mc_flicker")
    assert provable_p(8) < share < provable_p(7)


def test_tolerance_is_never_below_the_margin():
    rule = Policy().metrics["mc_flicker"]
    assert (rule.margin, rule.tolerance_of(1)) == (0.015, pytest.approx(np.log(1.05)))
    assert rule.replace(margin=0.2).tolerance_of(1) == pytest.approx(np.log(1.2))
    assert rule.replace(tolerance=None).tolerance_of(1) == pytest.approx(np.log(1.015))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("schema: 1\nalfa: 0.1", "policy.yaml:2: unknown key 'alfa'. Did you mean 'alpha'?"),
        ("schema: 1\nalpha: 0.9", "policy.yaml:2: alpha is 0.9, but must be from 0.0001 to 0.5"),
        ("schema: 1\nunit: video", "but must be one of prompt, clip"),
        ("schema: 1\nmetrics: {}", "metrics is empty"),
        ("schema: 1\nmetrics:\n  fvd: {margin: 0.1}", "metrics.fvd.bad is missing"),
        ("schema: 1\nmetrics:\n  fvd: {bad: up}", "metrics.fvd.margin is missing"),
        ("schema: 1\nmetrics:\n  sharpness: {margin: 1.5}", "loss of everything"),
        ("schema: 1\nmetrics:\n  mc_flicker: {}", "guard is 'dynamic_degree', which is not"),
        ("schema: 1\nmetrics:\n  sharpness: {margin: .nan}", "margin"),
    ],
)
def test_wrong_policy_names_line_and_fix(text, words):
    with pytest.raises(ConfigError) as caught:
        parsed(text)
    assert words in str(caught.value)


def test_overrides_reach_the_default_policy():
    policy = load_policy(None, ["alpha=0.01", "metrics.sharpness.margin=0.2"])
    assert (policy.alpha, policy.metrics["sharpness"].margin) == (0.01, 0.2)
