"""The project's own gate: renders of the mini model against the committed baseline."""

import numpy as np
import pytest

from vidcfg.regress.check import check_clips
from vidcfg.regress.clips import as_set, read_baseline
from vidcfg.regress.output import table


@pytest.fixture(scope="module")
def renders(mini_gate, pipe):
    return mini_gate.render_all(pipe)


@pytest.fixture(scope="module")
def scored(mini_gate, renders):
    return mini_gate.measured(renders)


def test_renders_of_every_frame_mode_pass_the_gate(mini_gate, scored):
    # Another CPU, thread count or attention kernel moves pixels by one level in 5 of 100000
    # places; that is at most an eighth of a margin in one clip (docs/regress.md).
    outcome = check_clips(scored, read_baseline(mini_gate.BASELINE))
    assert {clip.key.cell for clip in outcome.paired.new} == {"uniform", "keyframes", "decay"}
    assert outcome.verdict == "PASS", table(outcome)


def test_two_levels_of_flicker_in_the_renders_do_not_pass(mini_gate, renders, scored):
    flickering = {}
    for (mode, prompt), frames in renders.items():
        raised = np.where(np.arange(len(frames)) % 2, 2, 0)[:, None, None, None]
        if mode == "uniform":
            moved = np.clip(frames.astype(int) + raised, 0, 255).astype(np.uint8)
            flickering[mode, prompt] = moved
    clips = scored.clips | mini_gate.measured(flickering).clips
    outcome = check_clips(
        as_set("flickering", list(clips.values())), read_baseline(mini_gate.BASELINE)
    )
    failed = {r.name for r in outcome.judgement.metrics if r.verdict == "FAIL"}
    assert "mc_flicker" in failed, table(outcome)
    assert outcome.worst["mc_flicker"].new.key.cell == "uniform"


def test_baseline_is_small_and_without_videos(mini_gate):
    files = [path for path in mini_gate.BASELINE.rglob("*") if path.is_file()]
    assert {path.name for path in files} == {"baseline.json", "records.jsonl"}
    assert sum(path.stat().st_size for path in files) < 170_000
