import pytest

from vidcfg.metrics.catalogue import METRICS
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


def test_flicker_has_the_largest_share_and_all_shares_make_alpha():
    policy = Policy()
    assert sum(policy.share(name) for name in policy.metrics) == pytest.approx(0.05)
    assert policy.share("warp_residual") > 0.8 * policy.alpha


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
        ("schema: 1\nmetrics:\n  warp_residual: {}", "guard is 'dynamic_degree', which is not"),
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
