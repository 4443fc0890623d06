"""Real clips: which are taken, at which size, and what is said of them."""

import json
import shutil

import numpy as np
import pytest
from video_files import write_video

from vidcfg.evaluate.__main__ import main
from vidcfg.evaluate.inputs import find_items
from vidcfg.evaluate.run import evaluate
from vidcfg.evaluate.settings import Settings


@pytest.fixture
def measured(scorer_folder):
    """Evaluates a folder with the mini net: the set's records by name, and the warnings."""

    def run(folder, *, reference):
        chosen = Settings(
            families=("mini",), paths={"mini": str(scorer_folder)}, reference=str(reference)
        )
        evaluation = evaluate(find_items([folder]), chosen)
        return {record.name: record for record in evaluation.records()}, evaluation.warnings

    return run


@pytest.fixture
def enlarged(tmp_path):
    """Three renders of 10 x 14 pixels, enlarged four times, with their records."""
    folder = tmp_path / "enlarged"
    folder.mkdir()
    for index in range(3):
        small = np.random.default_rng(index).integers(0, 256, (5, 10, 14, 3), dtype=np.uint8)
        whole = small.repeat(4, axis=1).repeat(4, axis=2)
        path = write_video(folder / f"{index}.mkv", whole, fps=8, codec="ffv1")
        path.with_suffix(".json").write_text(json.dumps({"video": {"enlarge": 4}}))
    return folder


def test_renders_that_were_enlarged_are_real_clips_of_their_own_size(measured, enlarged):
    found, warnings = measured(enlarged, reference=enlarged)
    # Of a set to itself: the trace of a covariance is near 1, and double precision holds it.
    assert found["fd[mini]"].value == pytest.approx(0, abs=1e-12)
    assert found["mind[mini]"].value == 0
    assert warnings == []


def test_copies_among_the_real_clips_are_told(measured, enlarged, tmp_path):
    twice = shutil.copytree(enlarged, tmp_path / "twice")
    shutil.copytree(enlarged, twice / "again")
    found, (warning,) = measured(enlarged, reference=twice)
    assert found["fd[mini]"].extra["real_against_real"] == pytest.approx(0, abs=1e-12)
    assert "3 of 6 clips are copies of others" in warning


def test_reference_without_videos_is_an_error_before_anything_is_measured(
    enlarged, tmp_path, capsys
):
    (tmp_path / "empty").mkdir()
    out = tmp_path / "out"
    assert main([str(enlarged), "--reference", str(tmp_path / "empty"), "-o", str(out)]) == 2
    assert "empty holds no videos. Give a folder of videos, or `mini`." in capsys.readouterr().err
    assert not out.exists()
