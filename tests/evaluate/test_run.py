"""The whole evaluation on small files: what it depends on, and what it does not."""

import json
import os
import shutil
from dataclasses import replace

import numpy as np
import pytest
from clip_metrics import frame_diff
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from video_files import write_video

from vidcfg.evaluate import run
from vidcfg.evaluate.inputs import find_items
from vidcfg.evaluate.kept import Kept
from vidcfg.evaluate.run import evaluate
from vidcfg.evaluate.score import native, score_video
from vidcfg.evaluate.sets import set_means
from vidcfg.evaluate.settings import Settings
from vidcfg.media.read import read_video
from vidcfg.metrics.clip import ClipModel
from vidcfg.metrics.record import Backend, Record

PLAIN = Settings(families=("flicker", "appearance"))


def by_name(evaluation, subject="set"):
    return {record.name: record for record in evaluation.records(subject)}


def test_set_values_are_the_means_of_the_videos(rendered):
    items = find_items([rendered])
    evaluation = evaluate(items, PLAIN)
    expected = [frame_diff(read_video(item.path).frames).mean() for item in items]
    for item, value in zip(items, expected):
        record = by_name(evaluation, item.name)["frame_diff"]
        assert record.value == pytest.approx(value, rel=1e-12)
        assert record.clip.lossless
        assert (record.clip.num_frames, record.clip.height, record.clip.width) == (9, 24, 32)
    found = by_name(evaluation)["frame_diff"]
    assert found.value == pytest.approx(np.mean(expected), rel=1e-12)
    assert found.n == 5
    assert found.interval[0] < found.value < found.interval[1]


def test_rows_carry_path_prompt_and_seed(rendered):
    evaluation = evaluate(find_items([rendered]), PLAIN)
    row = next(r for r in evaluation.rows if r["subject"] == "clip_2.mkv")
    assert row["path"].endswith("clip_2.mkv")
    assert row["seed"] == 2
    assert "over a" in row["prompt"]


def test_bad_files_stop_nothing_and_stay_in_the_report(rendered, tmp_path):
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"no video at all" * 50)
    items = find_items([rendered, bad, tmp_path / "gone.mkv"])
    evaluation = evaluate(items, PLAIN)
    assert {r.subject for r in evaluation.failures} == {"bad.mp4", "gone.mkv"}
    assert all(str(tmp_path) in r.skipped_reason for r in evaluation.failures)
    assert by_name(evaluation)["frame_diff"].n == 5


def test_set_without_any_good_file_is_reported(tmp_path):
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"")
    evaluation = evaluate(find_items([bad]), PLAIN)
    assert [r.status for r in evaluation.failures] == ["failed"]
    assert evaluation.records() == []


@given(st.permutations(range(5)))
@settings(max_examples=4, deadline=None, suppress_health_check=list(HealthCheck))
def test_order_of_the_videos_changes_nothing(rendered, order):
    items = find_items([rendered])
    assert evaluate([items[i] for i in order], PLAIN).rows == evaluate(items, PLAIN).rows


def test_number_of_workers_changes_nothing(rendered):
    items = find_items([rendered])
    chosen = Settings(families=("flicker", "motion", "warp"))
    alone = evaluate(items, chosen)
    assert evaluate(items, replace(chosen, workers=2)).rows == alone.rows


def test_number_of_threads_changes_nothing(rendered):
    import cv2

    item = find_items([rendered])[0]
    chosen = Settings(families=("warp", "motion"))
    before, found = cv2.getNumThreads(), []
    for threads in (1, 4):
        cv2.setNumThreads(threads)
        found.append(score_video(item, chosen).records)
    cv2.setNumThreads(before)
    assert found[0] == found[1]


def scored_and_kept(items, chosen, folder):
    """An evaluation that keeps what it scores, and how many videos of it were kept before."""
    were_kept = []
    evaluation = evaluate(
        items,
        chosen,
        kept=Kept(folder, chosen),
        report=lambda scored, is_kept: were_kept.append(is_kept),
    )
    return evaluation, sum(were_kept)


def test_run_goes_on_where_one_was_stopped_and_ends_with_equal_rows(
    rendered, scorer_folder, few_real_clips, tmp_path
):
    items = find_items([rendered])
    chosen = mini_settings(scorer_folder, families=("mini", "appearance"))

    def stop_at_third(scored, is_kept):
        if scored.item == items[2]:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(items, chosen, kept=Kept(tmp_path, chosen), report=stop_at_third)
    # A run that is killed may leave half a line.
    path = tmp_path / "scored.jsonl"
    assert len(path.read_text().splitlines()) == 3
    path.write_text(path.read_text() + '{"schema": 1, "ke')
    alone = evaluate(items, chosen)
    for expected in (3, 5):
        evaluation, num_kept = scored_and_kept(items, chosen, tmp_path)
        assert num_kept == expected
        assert json.dumps(evaluation.rows) == json.dumps(alone.rows)
        for name, vector in alone.features["mini"].items():
            np.testing.assert_array_equal(evaluation.features["mini"][name], vector)


def test_other_content_settings_or_facts_are_scored_anew(noise_video, tmp_path):
    path = noise_video("a.mkv", seed=0)
    (item,) = find_items([path])
    scored_and_kept([item], PLAIN, tmp_path)
    moved = replace(item, path=path.rename(tmp_path / "b.mkv"), name="b.mkv")
    evaluation, num_kept = scored_and_kept([moved], PLAIN, tmp_path)
    assert num_kept == 1
    assert {r["subject"] for r in evaluation.rows} == {"b.mkv", "set"}
    for one, chosen in (
        (replace(moved, stride=2), PLAIN),
        (moved, replace(PLAIN, families=("flicker",))),
        (replace(moved, prompt="noise", from_name=False), PLAIN),
        (replace(moved, path=shutil.copy(moved.path, tmp_path / "b.avi")), PLAIN),
    ):
        assert scored_and_kept([one], chosen, tmp_path)[1] == 0
    moved.path.unlink()
    noise_video("b.mkv", seed=1)
    assert scored_and_kept([moved], PLAIN, tmp_path)[1] == 0


def test_other_weights_under_one_name_are_scored_anew(noise_video, tmp_path, monkeypatch):
    items, chosen = find_items([noise_video("a.mkv")]), replace(PLAIN, families=("clip",))
    for digit, expected in (("1", 0), ("1", 1), ("2", 0)):
        backend, nothing = Backend("stub", digit * 64), {"encode_ids": len, "tokenize": len}
        images = {"image_size": 8, "encode_images": lambda images: images.mean(dim=(2, 3))}
        stub = ClipModel(backend, context_length=8, **images, **nothing)
        monkeypatch.setattr("vidcfg.metrics.clip.load_clip", lambda *_, m=stub, **__: m)
        evaluation, num_kept = scored_and_kept(items, chosen, tmp_path)
        assert num_kept == expected
        found = {r.backend.sha256[0] for r in evaluation.records("a.mkv") if r.backend}
        assert found == {digit}


@pytest.mark.parametrize("is_soon", [False, True])
def test_file_that_ends_its_worker_stops_no_other(rendered, monkeypatch, is_soon):
    items, real = find_items([rendered]), run._submit

    def submit(pool, item, chosen):
        if item != items[1]:
            return real(pool, item, chosen)
        future = pool.submit(os._exit, 9)
        assert not is_soon or future.exception()  # before the next one is handed out
        return future

    monkeypatch.setattr(run, "_submit", submit)
    evaluation = evaluate(items, replace(PLAIN, families=("appearance",), workers=2))
    (failed,) = evaluation.failures
    assert failed.subject == "clip_1.mkv"
    assert failed.skipped_reason.endswith("ended the process that read it.")
    assert by_name(evaluation)["saturation"].n == 4


def mini_settings(scorer_folder, **changes):
    return replace(
        Settings(families=("mini",), paths={"mini": str(scorer_folder)}, reference="mini"),
        **changes,
    )


@pytest.fixture
def few_real_clips(monkeypatch):
    monkeypatch.setattr("vidcfg.evaluate.reference.MINI_CLIPS", 12)


def test_mini_gives_alignment_accuracy_and_distances(rendered, scorer_folder, few_real_clips):
    evaluation = evaluate(find_items([rendered]), mini_settings(scorer_folder))
    found = by_name(evaluation)
    assert found["align[mini]"].n == 5
    assert -1 <= found["align[mini]"].value <= 1
    assert 0 <= found["attribute_accuracy[mini]"].value <= 1
    for name in ("shape", "colour", "motion", "background"):
        assert found[f"accuracy[mini:{name}]"].n == 5
    distance = found["fd[mini]"]
    assert distance.n == 5
    assert distance.extra["n_real"] == 12
    assert distance.extra["real_against_real_n"] == [5, 12]
    assert not distance.comparable_to_literature
    assert "2048" in distance.extra["note"]
    assert len(distance.backend.sha256) == 64
    assert found["precision[mini]"].skipped_reason
    assert evaluation.features["mini"]["clip_0.mkv"].shape == (12,)


def test_batch_size_and_order_do_not_change_features(rendered, scorer_folder, few_real_clips):
    items = find_items([rendered])
    one = evaluate(items, mini_settings(scorer_folder, batch_size=1))
    three = evaluate(items[::-1], mini_settings(scorer_folder, batch_size=3))
    assert one.rows == three.rows


def test_folder_reference_skips_bad_files_and_says_so(
    rendered, scorer_folder, noise_video, tmp_path
):
    for index in range(4):
        noise_video(f"real_{index}.mkv", seed=index)
    (tmp_path / "broken.mp4").write_bytes(b"x" * 999)
    evaluation = evaluate(
        find_items([rendered]), mini_settings(scorer_folder, reference=str(tmp_path))
    )
    found = by_name(evaluation)["fd[mini]"]
    assert found.extra["n_real"] == 4
    assert found.value > 0
    assert any("broken.mp4" in text for text in evaluation.warnings)


def test_without_a_prompt_alignment_is_null_with_the_reason(noise_video, scorer_folder):
    path = noise_video("a.mkv")
    found = by_name(evaluate(find_items([path]), mini_settings(scorer_folder, reference=None)))
    assert found["align[mini]"].skipped_reason == "the video has no prompt"


def test_clip_too_short_for_a_net_is_null_with_the_reason(noise_video, scorer_folder):
    path = noise_video("a.mkv", num_frames=2)
    found = by_name(evaluate(find_items([path]), mini_settings(scorer_folder)))
    assert "needs 4 frames" in found["align[mini]"].skipped_reason
    assert "needs 4 frames" in found["fd[mini]"].skipped_reason


def test_real_clips_have_the_shapes_of_the_videos_that_are_compared(
    rendered, noise_video, scorer_folder, few_real_clips
):
    noise_video("clip_9.mkv", num_frames=2, height=8, width=9)
    items, chosen = find_items([rendered]), mini_settings(scorer_folder)
    both = evaluate([*items, *find_items(["clip_9.mkv"])], chosen)
    assert by_name(both)["fd[mini]"].value == by_name(evaluate(items, chosen))["fd[mini]"].value
    (warning,) = both.warnings
    assert warning.startswith("1 of 6 videos are in no distance by mini: mini needs 4 frames")


@pytest.fixture
def no_weights(monkeypatch, tmp_path):
    monkeypatch.setenv("VIDCFG_WEIGHTS_DIR", str(tmp_path / "none"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "none"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "none"))


def test_missing_weights_are_null_with_reason_and_command(rendered, no_weights):
    chosen = Settings(families=("fvd", "r3d18", "lpips", "clip"), reference=str(rendered))
    chosen = replace(chosen, clip_model="nobody/no-such-clip")
    found = by_name(evaluate(find_items([rendered]), chosen))
    commands = {
        "fvd[i3d-k400]": "add --weights i3d-k400=FILE",
        "fd[r3d18-k400]": "vidcfg weights fetch r3d18-k400",
        "lpips_adjacent[alex]": "vidcfg weights fetch lpips-alex",
        "lpips_warp[alex]": "vidcfg weights fetch lpips-alex",
        "clip_score[no-such-clip]": "hf download nobody/no-such-clip",
    }
    for name, command in commands.items():
        assert found[name].value is None
        assert found[name].status == "skipped"
        assert command in found[name].skipped_reason


def test_distribution_metrics_without_a_reference_say_so(rendered, no_weights):
    found = by_name(evaluate(find_items([rendered]), Settings(families=("fvd",))))
    assert "--reference" in found["fvd[i3d-k400]"].skipped_reason


def test_enlarged_render_scores_as_its_own_pixels(tmp_path):
    frames = np.random.default_rng(0).integers(0, 256, (5, 16, 20, 3), dtype=np.uint8)
    for enlarge in (1, 3):
        path = write_video(
            tmp_path / f"x{enlarge}.mkv", frames, fps=8, codec="ffv1", enlarge=enlarge
        )
        path.with_suffix(".json").write_text(json.dumps({"video": {"enlarge": enlarge}}))
    plain, enlarged = (score_video(item, PLAIN) for item in find_items([tmp_path]))
    values = [[(r.name, r.value, r.trace) for r in s.records] for s in (plain, enlarged)]
    assert values[0] == values[1]
    assert enlarged.clip == plain.clip


def test_lossy_enlarged_frames_are_averaged_and_wrong_factors_are_errors():
    frame = np.zeros((3, 4, 6), dtype=np.uint8)
    frame[:, :2, :2] = [[0, 255], [255, 0]]
    assert native(frame, 2, lossless=False)[0, 0, 0] == pytest.approx(0.5)
    with pytest.raises(ValueError, match="enlarged 5 times"):
        native(frame, 5, lossless=True)


def test_lossy_files_are_marked(noise_video):
    path = noise_video("a.mp4", codec="h264")
    evaluation = evaluate(find_items([path]), PLAIN)
    assert by_name(evaluation, "a.mp4")["frame_diff"].clip.lossless is False
    assert by_name(evaluation)["frame_diff"].clip.lossless is False


def test_stride_comes_from_the_record_unless_given(rendered):
    item = replace(find_items([rendered])[0], stride=2)
    protocols = []
    for chosen in (PLAIN, replace(PLAIN, stride=8)):
        record = {r.name: r for r in score_video(item, chosen).records}["stride_pulse"]
        protocols.append(record.protocol)
    assert "stride=2" in protocols[0]
    assert "stride=8" in protocols[1]


def test_unlike_protocols_are_never_averaged():
    made = [
        Record("x", value, 1, protocol, subject=f"v{i}")
        for i, (value, protocol) in enumerate([(1.0, "a"), (2.0, "a"), (9.0, "b")])
    ]
    found = set_means(made)
    assert [(r.protocol, r.value, r.n) for r in found] == [("a", 1.5, 2), ("b", 9.0, 1)]


def test_interval_of_a_set_is_by_prompt_and_in_the_range_of_the_unit():
    cases = [
        ("clipped_share", "0..1", (0.0, 0.0, 0.0, 0.65), 0),
        ("frame_diff", "intensity", (0.001, 0.1, 0.002, 0.001), 0),
        ("vbench", "0..1", (1.0, 0.8, 1.0, 1.0), 1),
    ]
    for name, unit, values, end in cases:
        made = [Record(name, x, 1, "a", unit, subject=f"v{i}") for i, x in enumerate(values)]
        assert end in set_means(made)[0].interval
        one = set_means(made, dict.fromkeys([f"v{i}" for i in range(4)], "a cat"))
        assert one[0].interval is None
        half = set_means(made, {"v0": "a cat", "v1": "a cat", "v2": None})
        assert half[0].n == 4
        assert half[0].interval is not None


@pytest.mark.parametrize("num", [4, 8])
def test_intervals_of_sets_cover_what_they_say_of_skewed_scores(num):
    random, hits = np.random.default_rng(0), 0
    for _ in range(1000):
        values = 0.05 * np.exp(0.5 * random.standard_normal(num))
        made = [
            Record("x", value, 1, "a", "intensity", subject=f"v{i}")
            for i, value in enumerate(values)
        ]
        low, high = set_means(made)[0].interval
        hits += low <= 0.05 * np.exp(0.125) <= high
    # .947 and .953 in 2,000 draws, Student's alone .917 and .919; one standard error is .007.
    assert 930 <= hits <= 975


def test_videos_without_a_value_are_counted():
    bad = Record("x", None, 0, "a", status="invalid", skipped_reason="noise", subject="v1")
    still = Record("x", 0.0, 4, "a", status="static", subject="v2")
    (found,) = set_means([Record("x", 3.0, 4, "a", subject="v0"), bad, still])
    assert (found.value, found.n, found.status) == (1.5, 2, "ok")
    assert found.extra == {"invalid": 1, "ok": 1, "static": 1}
    (found,) = set_means([bad])
    assert (found.value, found.skipped_reason, found.n) == (None, "noise", 0)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"families": ("flikker",)}, "metrics is 'flikker', but must be one of flicker, warp"),
        ({"families": ()}, "metrics is ''"),
        ({"families": ("mc_flicker",)}, "metrics is 'mc_flicker', one of a family. Write warp"),
        ({"families": ("warp", "align[mini]")}, "one of a family. Write mini"),
        ({"families": ("precision",)}, "one of a family. Write mini or fvd or r3d18"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"workers": -1}, "workers is -1"),
        ({"stride": 0}, "stride is 0"),
        ({"fps": 0.0}, "fps is 0"),
    ],
)
def test_wrong_settings_are_named(changes, words):
    with pytest.raises(ValueError, match=words):
        replace(PLAIN, **changes)
