"""Colours of all clips that changed alike: what of it the gate proves."""

import numpy as np
import pytest

from vidcfg.regress.judge import judge
from vidcfg.regress.pairs import Pairs
from vidcfg.regress.policy import Policy


@pytest.mark.parametrize(("share", "verdict"), [(1.0, "PASS"), (0.5, "FAIL"), (0.0, "FAIL")])
def test_clips_that_lost_half_their_saturation_or_all_fail(share, verdict):
    base = np.random.default_rng(0).uniform(0.1, 0.6, 16)
    prompts = tuple(f"prompt {i}" for i in range(16))
    found = judge({"saturation": Pairs(share * base, base, prompts)}, Policy())
    result = next(r for r in found.metrics if r.name == "saturation")
    assert result.verdict == verdict
    assert result.change == pytest.approx((share - 1) * base.mean())
