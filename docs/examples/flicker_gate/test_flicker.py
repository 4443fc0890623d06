"""Fails when the videos of generate.py start to flicker, freeze, blur, burn or drift."""

import pytest
from generate import PROMPTS, render


@pytest.mark.temporal_gate(policy="policy.yaml", name="discs", fps=8)
def test_videos_have_not_got_worse(temporal_gate):
    temporal_gate({prompt: render(prompt) for prompt in PROMPTS})
