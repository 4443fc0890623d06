"""A folder as people have it: what is damaged is named, what is odd is told, the rest scored."""

import json

import pytest
from mixed_files import FAILS, NOTED, good_files, odd_files

from vidcfg.evaluate import run
from vidcfg.evaluate.__main__ import main
from vidcfg.progress import printable


@pytest.fixture
def evaluate_twice(tmp_path, monkeypatch, capsys):
    """Writes files, evaluates their folder twice, and checks all that is said of them."""
    folder, out = tmp_path / "mixed", tmp_path / "out"
    folder.mkdir()
    scored = []
    score_video = run.score_video

    def noted(item, *arguments, **options):
        scored.append(item.name)
        return score_video(item, *arguments, **options)

    monkeypatch.setattr(run, "score_video", noted)

    def evaluate(choose, *arguments):
        said = {}
        for name, write in good_files(folder).items():
            if choose(name):
                said[name] = ""
                write()
        for name, (what, write) in odd_files(folder).items():
            if choose(name):
                said[printable(name)] = what
                write()
        fails = {name for name, what in said.items() if what == FAILS}
        written = []
        for again in (False, True):
            assert main([str(folder), "-o", str(out), *arguments]) == 1
            shown = capsys.readouterr()
            # Each damaged file once as it is met, and in the list; each odd one in a warning.
            assert shown.err.count("not scored: ") == len(fails)
            assert f"not scored: {len(fails)}\n" in shown.out
            for name, what in said.items():
                assert (f"\n  {name}: " in shown.out) == (what == FAILS)
                assert (f"\nwarning: {name}: " in shown.out) == (what == NOTED)
            assert "global" not in shown.err
            assert sorted(scored) == sorted(fails if again else said)
            scored.clear()
            written.append((out / "records.jsonl").read_bytes())
        assert written[0] == written[1]
        rows = [json.loads(line) for line in written[0].splitlines()]
        values = {row["subject"] for row in rows if row["path"] and row["value"] is not None}
        assert values == said.keys() - fails
        return said

    return evaluate


FEW = {
    *("libx264-yuv420p.mp4", "libvpx-yuv420p.webm", "ffv1-bgr0.mkv", "qtrle-rgb24.mov"),
    *("wrapped_avframe-yuv420p.y4m", "mjpeg-yuvj420p.avi", "mpeg2video-yuv420p.ts", "b.png"),
    *("gif-rgb8.gif", "stills-png", "cut.mp4", "cut.mkv", "empty.mp4", "letter.mp4", "gone.mp4"),
    *("spoiled.png", "counts-99.avi", "really-mkv.mp4", "one-frame.mp4", "latin-\udce9.mkv"),
}


def test_damaged_files_are_named_odd_ones_told_and_the_rest_is_scored_once(evaluate_twice):
    assert len(evaluate_twice(FEW.__contains__, "--metrics", "appearance")) == 20


@pytest.mark.slow
def test_a_hundred_files_of_which_thirty_are_damaged_or_odd(evaluate_twice):
    said = evaluate_twice(lambda name: True)
    assert (len(said), sum(map(bool, said.values()))) == (100, 30)
