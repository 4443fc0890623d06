"""Baselines and other sets of clips: what is read back, and what is refused."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
from video_files import write_video

from vidcfg.metrics.record import Record
from vidcfg.regress.check import check_clips
from vidcfg.regress.clips import MeasuredClip, as_set, read_baseline, write_baseline
from vidcfg.regress.measure import load_clips, measure_folder, measure_frames
from vidcfg.regress.pairs import can_pass, codec_class, pair
from vidcfg.regress.policy import Policy
from vidcfg.results import Key
from vidcfg.stored.read import ResultsError


@pytest.fixture
def baseline(drawn, tmp_path):
    return write_baseline(tmp_path / "base", drawn, facts={"recorded_from": "here"})


def test_baseline_gives_back_values_bit_for_bit(drawn, baseline):
    found = read_baseline(baseline)
    assert list(found.clips) == list(drawn.clips)
    assert found.facts["recorded_from"] == "here"
    for key, clip in drawn.clips.items():
        for name, record in clip.records.items():
            read = found.clips[key].records[name]
            assert (read.value, read.status, read.clip) == (
                record.value,
                record.status,
                record.clip,
            )
            assert read.trace is None or read.trace == pytest.approx(record.trace, rel=1e-4)
    assert check_clips(drawn, found).verdict == "PASS"


def test_baseline_is_renewed_only_when_asked_for(drawn, baseline):
    with pytest.raises(ResultsError, match="--overwrite"):
        write_baseline(baseline, drawn)
    write_baseline(baseline, drawn, metrics=["sharpness"], overwrite=True)
    assert {n for c in read_baseline(baseline).clips.values() for n in c.records} == {"sharpness"}


@pytest.mark.parametrize(
    ("file", "change", "words"),
    [
        ("records.jsonl", lambda text: text[:-30], "damaged line"),
        (
            "records.jsonl",
            lambda text: text.replace('"value": 0.', '"value": NaN, "x": 0.', 1),
            "finite",
        ),
        ("records.jsonl", lambda text: "\n".join(text.splitlines()[40:]), "no records of"),
        ("records.jsonl", None, "cannot be read"),
        ("baseline.json", lambda text: text[:-20], "damaged"),
        (
            "baseline.json",
            lambda text: text.replace("vidcfg.regress/1", "other/9"),
            "kind is .*should be 'vidcfg.regress/1'",
        ),
        ("baseline.json", lambda text: text.replace('"prompt"', '"text"', 1), "prompt is missing"),
    ],
)
def test_damaged_baseline_is_refused(baseline, file, change, words):
    path = baseline / file
    text = path.read_text()
    path.unlink()
    if change is not None:
        path.write_text(change(text))
    with pytest.raises(ResultsError, match=words):
        read_baseline(baseline)


def test_path_without_clips_is_refused(tmp_path):
    with pytest.raises(ResultsError, match="does not exist"):
        load_clips(tmp_path / "nothing")
    with pytest.raises(ResultsError, match="holds no videos"):
        load_clips(tmp_path)


@pytest.fixture
def folder(tmp_path, panning):
    """Six renders in two cells, with records beside them."""
    for cell in ("fast", "slow"):
        (tmp_path / "renders" / cell).mkdir(parents=True)
        for index in range(3):
            path = tmp_path / "renders" / cell / f"{index}.mkv"
            write_video(path, panning(index), fps=8, codec="ffv1")
            record = {"prompt": {"text": f"prompt {index}"}, "seed": 5}
            path.with_suffix(".json").write_text(json.dumps(record))
    return tmp_path / "renders"


def test_folder_is_measured_with_cells_prompts_and_seeds(folder):
    found = measure_folder(folder, workers=2)
    assert list(found.clips)[0] == Key("fast", "prompt 0", 5)
    assert [key.cell for key in found.clips] == ["fast"] * 3 + ["slow"] * 3
    assert found.clips[Key("slow", "prompt 1", 5)].records["mc_flicker"].value is not None


def test_seeds_that_names_tell_are_one_prompt_measured_or_evaluated(tmp_path):
    random = np.random.default_rng(0)
    for index in (0, 10):
        frames = random.integers(0, 256, (3, 16, 20, 3), dtype=np.uint8)
        write_video(tmp_path / f"a cat-{index}.mkv", frames, fps=8, codec="ffv1")
    expected = [Key("", "a cat", 0), Key("", "a cat", 10)]
    assert list(measure_folder(tmp_path, workers=0).clips) == expected
    # Rows that name neither prompt nor seed, as earlier versions wrote.
    with (tmp_path / "records.jsonl").open("w") as lines:
        for index in (0, 10):
            record = Record("frame_diff", 0.1, 2, "p", subject=f"a cat-{index}.mkv").to_dict()
            print(json.dumps(record | {"path": f"a cat-{index}.mkv"}), file=lines)
    assert list(load_clips(tmp_path).clips) == expected


def test_broken_video_is_named(folder):
    path = folder / "slow" / "1.mkv"
    path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(ResultsError, match=r"slow/1\.mkv cannot be measured"):
        measure_folder(folder)


def test_two_clips_of_one_prompt_and_seed_are_refused(folder):
    (folder / "fast" / "1.json").write_text((folder / "fast" / "0.json").read_text())
    with pytest.raises(ResultsError, match="two clips are fast: 'prompt 0', seed 5"):
        measure_folder(folder)


def test_clips_in_memory_equal_the_same_clips_on_disk(folder, panning):
    on_disk = measure_folder(folder / "fast").clips[Key("", "prompt 2", 5)]
    in_memory = measure_frames(panning(2), Key("", "prompt 2", 5), fps=8)
    assert codec_class(on_disk.info) == codec_class(in_memory.info) == "lossless"
    for name, record in on_disk.records.items():
        assert in_memory.records[name].value == record.value, name


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (np.zeros((9, 3, 24, 32), np.uint8), "T, H, W, 3"),
        (np.zeros((9, 24, 3), np.uint8), "T, H, W, 3"),
        (np.full((9, 24, 32, 3), 7.0), "have to be in"),
        (np.full((9, 24, 32, 3), np.nan), "NaN"),
    ],
)
def test_wrong_arrays_are_refused(given, words):
    with pytest.raises(ResultsError, match=words):
        measure_frames(given, Key("", "x"), fps=8)


def altered(clips, **info):
    """The set with other facts about its videos."""
    made = []
    for key, clip in clips.clips.items():
        records = {n: replace(r, clip=replace(r.clip, **info)) for n, r in clip.records.items()}
        made.append(MeasuredClip(key, records))
    return as_set("altered", made)


@pytest.mark.parametrize(
    ("info", "words"),
    [
        ({"lossless": False, "codec": "h264"}, r"lossy \(h264\) against lossless.*ffv1"),
        ({"num_frames": 17}, "num_frames is 17 against 9.*as many frames"),
        ({"fps": 16.0}, "fps is 16.0 against 8.0"),
        ({"height": 48}, "height is 48 against 24"),
    ],
)
def test_unlike_videos_are_refused_with_what_to_do(drawn, info, words):
    with pytest.raises(ResultsError, match="(?s)" + words):
        pair(altered(drawn, **info), drawn, Policy())


def test_other_protocol_or_weights_are_refused(drawn, change):
    from vidcfg.metrics.record import Backend

    other = change(drawn, mc_flicker=lambda r: replace(r, protocol="flow=other"))
    with pytest.raises(ResultsError, match="mc_flicker: protocol is 'flow=other'"):
        pair(other, drawn, Policy())
    nets = [
        change(drawn, sharpness=lambda r, s=s: replace(r, backend=Backend("net", s))) for s in "ab"
    ]
    with pytest.raises(ResultsError, match="(?s)sharpness: backend sha256 is 'a' against 'b'.*12"):
        pair(*nets, Policy())


def part(clips, keep):
    return as_set("part", [clip for i, clip in enumerate(clips.clips.values()) if keep(i)])


def test_missing_and_extra_clips_are_named_with_the_intersection(drawn):
    fewer = part(drawn, lambda i: i != 4)
    with pytest.raises(
        ResultsError, match="11 clips are on both sides.*1 of the baseline are missing"
    ):
        pair(fewer, drawn, Policy())
    with pytest.raises(ResultsError, match="1 are not in the baseline"):
        pair(drawn, fewer, Policy())
    outcome = check_clips(fewer, drawn, Policy(max_missing=0.1))
    assert outcome.verdict == "PASS"
    assert outcome.paired.missing == (list(drawn.clips)[4],)


def test_no_common_clip_and_a_single_one_are_refused(drawn):
    first, rest = part(drawn, lambda i: i == 0), part(drawn, lambda i: i > 0)
    with pytest.raises(ResultsError, match="0 clips are on both sides"):
        pair(first, rest, Policy(max_missing=1.0))
    with pytest.raises(ResultsError, match="One clip proves nothing"):
        pair(first, first, Policy())


def test_required_metric_without_any_value_is_refused(drawn, change):
    def gone(record):
        return replace(record, value=None, skipped_reason="x", status="skipped")

    nothing = change(drawn, mc_flicker=gone)
    with pytest.raises(ResultsError, match="mc_flicker is required"):
        pair(nothing, nothing, Policy())
    assert check_clips(nothing, drawn).verdict == "FAIL"


@pytest.mark.parametrize(
    ("name", "guess"), [("align[mini]", "Measure it"), ("mc_fliker", "'mc_f")]
)
def test_a_metric_that_the_policy_adds_and_nobody_measured_is_no_pass(drawn, name, guess):
    rule = {"bad": "down", "scale": "difference", "margin": 0.02}
    policy = Policy(metrics={**Policy().to_dict()["metrics"], name: rule})
    words = rf"checks {re.escape(name)}, which was not measured in drawn and drawn.*{guess}"
    with pytest.raises(ResultsError, match=words):
        pair(drawn, drawn, policy)
    with pytest.raises(ResultsError, match=rf"{re.escape(name)}, which was not measured"):
        can_pass(drawn, policy)
    # One of the two sides has it, with a value or without.
    null = Record(name, None, 0, "p", skipped_reason="too short", status="skipped")
    for record in (Record(name, 0.5, 8, "p"), null):
        clips = (replace(c, records=c.records | {name: record}) for c in drawn.clips.values())
        having = as_set("having", clips)
        for sides in ((having, drawn), (drawn, having)):
            with pytest.raises(ResultsError, match="which was not measured in drawn. "):
                pair(*sides, policy)
        pair(having, having, policy)


def test_a_known_metric_that_is_new_to_a_baseline_is_skipped_and_says_what_to_do(drawn):
    old = (
        replace(clip, records={n: r for n, r in clip.records.items() if n != "colour_drift"})
        for clip in drawn.clips.values()
    )
    old = as_set("old", old)
    outcome = check_clips(drawn, old, Policy())
    (result,) = (r for r in outcome.judgement.metrics if r.name == "colour_drift")
    assert (outcome.verdict, result.verdict) == ("PASS", "SKIPPED")
    assert "record it anew to check this one" in result.reason
    # What was not measured is not what was lost.
    with pytest.raises(ResultsError, match="colour_drift, which was not measured in old"):
        check_clips(old, drawn, Policy())
