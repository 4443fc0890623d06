"""Which videos a second run makes again, and what it says of each."""

import json

from vidcfg.media.read import read_video

RED = "a-red-circle-moving-left-over-a-navy-background-s3"
BLUE = "a-blue-square-growing-over-a-teal-background-s3"


def test_skip_existing_renders_what_is_missing_or_without_a_record(render, tmp_path, capsys):
    assert render("--seed", "3") == 0
    out = tmp_path / "out"
    kept = (out / f"{RED}.mkv").stat().st_mtime_ns
    (out / f"{BLUE}.json").unlink()
    (out / f"{BLUE}.mkv").write_bytes(b"half")
    assert render("--skip-existing") == 0
    assert (out / f"{RED}.mkv").stat().st_mtime_ns == kept
    assert len(read_video(out / f"{BLUE}.mkv").frames) == 9
    assert len([*out.iterdir()]) == 13
    capsys.readouterr()
    assert render("--skip-existing") == 0
    assert "all 4 videos are in" in capsys.readouterr().out


def test_skip_existing_does_not_take_a_video_of_other_settings_for_done(render, capsys):
    assert render("--seed", "3") == 0
    assert render("--seed", "3", "--skip-existing", "--set", "guidance.rescale=0.5") == 2
    assert "made with other settings" in capsys.readouterr().err


def test_both_options_replace_what_has_other_settings_and_keep_the_rest(render, tmp_path):
    assert render("--seed", "3") == 0
    assert render("--seed", "4", "--set", "guidance.rescale=0.5") == 2
    changed = ("--set", "guidance.rescale=0.5", "--overwrite")
    assert render("--seed", "4", *changed) == 0
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.mkv")}
    assert render("--skip-existing", *changed) == 0
    for path, time in times.items():
        assert (path.stat().st_mtime_ns == time) == path.stem.endswith("s4")


def test_skip_existing_makes_again_what_is_stale_or_damaged_and_says_why(
    render, tmp_path, monkeypatch, capsys
):
    weights, weak = tmp_path / "model" / "a.bin", tmp_path / "weak" / "a.bin"
    for path in (weights, weak):
        path.parent.mkdir()
        path.write_bytes(b"one")
    guidance = f"{{scale: 1.0, method: {{kind: autoguidance, checkpoint: {weak.parent}}}}}"
    words = [f"model.checkpoint={weights.parent}", f"guidance={guidance}", "seeds=[3]"]
    words += ["prompts=[a red circle]", "sampling.num_steps=1"]
    arguments = [part for word in words for part in ("--set", word)]
    video, sheet, record = (
        tmp_path / f"out/a-red-circle-s3{e}" for e in (".mkv", ".png", ".json")
    )

    def cut(path):
        path.write_bytes(path.read_bytes()[:-20])

    def by_an_older_version():
        known = json.loads(record.read_text())
        for key in ("unit", "sources", "contents"):
            del known[key]
        record.write_text(json.dumps(known))

    assert render(*arguments) == 0
    number = "vidcfg.render.identity.NUMERICS"
    for change, why in (
        (lambda: weights.write_bytes(b"two"), "the content of model.checkpoint is another"),
        (lambda: weak.write_bytes(b"two"), "the content of guidance.method.checkpoint is another"),
        (lambda: monkeypatch.setattr(number, 99), "the numerics of vidcfg are version 99, not "),
        (by_an_older_version, "made by a vidcfg that did not note what its videos are made of"),
        (video.unlink, ".mkv is missing"),
        (lambda: cut(video), ".mkv is damaged"),
        (lambda: cut(sheet), ".png is damaged"),
        (lambda: cut(record), ".json is missing or damaged"),
    ):
        before = video.stat().st_mtime_ns
        assert render(*arguments, "--skip-existing") == 0
        assert video.stat().st_mtime_ns == before
        change()
        capsys.readouterr()
        assert render(*arguments, "--skip-existing") == 0
        told = capsys.readouterr().out
        assert f"{video} is made again: " in told
        assert why in told
        assert len(read_video(video).frames) == 9


def test_a_video_that_vanishes_while_others_are_made_is_told(
    render, tmp_path, monkeypatch, capsys
):
    from vidcfg.render import job

    write, gone = job.write_together, tmp_path / "out" / f"{RED}.mkv"

    def written(*arguments, **options):
        gone.unlink(missing_ok=True)
        write(*arguments, **options)

    assert render("--seed", "3") == 0
    monkeypatch.setattr(job, "write_together", written)
    assert render("--skip-existing") == 1
    told = capsys.readouterr().err
    assert f"{RED}: {RED}.mkv is missing. Run again with --skip-existing." in told


def test_two_runs_at_the_same_moment_share_the_work(render, tmp_path, monkeypatch, capsys):
    """A second run makes the first two videos while this one samples its first."""
    from vidcfg.render import job

    sample = job.sample_units

    def run_beside(*words):
        def beside(*arguments, **options):
            monkeypatch.setattr(job, "sample_units", sample)
            assert render("--seed", "3", "--skip-existing", *words) == 0
            return sample(*arguments, **options)

        monkeypatch.setattr(job, "sample_units", beside)

    run_beside()
    assert render("--skip-existing") == 0
    out = tmp_path / "out"
    assert len([*out.iterdir()]) == 13
    assert render("--skip-existing") == 0
    assert "all 4 videos are in" in capsys.readouterr().out
    # One of other settings that came meanwhile is no video of this run.
    (out / f"{RED}.json").unlink()
    (out / f"{BLUE}.json").unlink()
    run_beside("--set", "guidance.rescale=0.5")
    assert render("--skip-existing") == 2
    assert "made with other settings" in capsys.readouterr().err
