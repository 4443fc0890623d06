import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import fsspec
import numpy as np
import psutil
import pytest
from stand_in_trackers import stand_in
from video_files import write_video

import vidcfg
from vidcfg.evaluate.__main__ import main
from vidcfg.metrics.record import Record


def run(*arguments):
    return main([str(a) for a in arguments])


def test_command_writes_lines_parquet_and_a_table(rendered, tmp_path, capsys):
    import pyarrow.parquet as pq

    out = tmp_path / "out"
    assert run(rendered, "--metrics", "flicker,appearance", "--out", out) == 0
    lines = (out / "records.jsonl").read_text().splitlines()
    records = [Record.from_dict(json.loads(line)) for line in lines]
    table = pq.read_table(out / "records.parquet").to_pylist()
    assert len(table) == len(records)
    for record, row in zip(records, table):
        assert (row["name"], row["value"], row["n"]) == (record.name, record.value, record.n)
        assert row["trace"] == (None if record.trace is None else list(record.trace))
        assert json.loads(row["extra"]) == record.extra
    text = (out / "table.txt").read_text()
    assert text.strip() in capsys.readouterr().out
    assert "frame_diff" in text
    assert sorted(p.name for p in out.iterdir()) == [
        "records.jsonl",
        "records.parquet",
        "scored.jsonl",
        "table.txt",
    ]


def test_what_is_at_an_address_is_named_by_it_and_never_by_the_copy(rendered, tmp_path, capsys):
    system, out = fsspec.filesystem("memory"), tmp_path / "out"
    for place in ("one/clips", "two/clips"):
        for name, data in {
            "a": (rendered / "clip_0.mkv").read_bytes(),
            "bad": b"no video",
        }.items():
            system.pipe_file(f"/{place}/{name}.mkv", data)
    try:
        sets = "memory://one/clips", "memory://two/clips/"
        assert run(*sets, "--metrics", "appearance", "--per-video", "--out", out) == 1
        said = capsys.readouterr()
        assert run("memory://one/clips/a.mkv", "--metrics", "appearance", "--out", out / "1") == 0
    finally:
        system.rm("/one", recursive=True)
        system.rm("/two", recursive=True)

    def paths(folder):
        rows = map(json.loads, (folder / "records.jsonl").read_text().splitlines())
        return {row["path"] for row in rows} - {None}

    videos = {f"memory://{n}/clips/{name}.mkv" for n in ("one", "two") for name in ("a", "bad")}
    assert paths(out) == videos
    assert paths(out / "1") == {"memory://one/clips/a.mkv"}
    written = [p.read_bytes().decode(errors="replace") for p in out.rglob("*") if p.is_file()]
    assert len(written) == 8
    for text in (said.out, said.err, *written):
        assert "vidcfg-store-" not in text
    assert "memory://two/clips/bad.mkv: memory://two/clips/bad.mkv cannot be read" in said.out


def test_log_tells_a_tracker_the_values_of_videos_and_of_the_set(rendered, tmp_path, monkeypatch):
    seen = stand_in("mlflow", monkeypatch)
    out = tmp_path / "scored"
    assert run(rendered, "--metrics", "appearance", "--out", out, "--log", "mlflow") == 0
    assert (seen.name, seen.parameters["stride"]) == ("scored", "None")
    rows = [json.loads(line) for line in (out / "records.jsonl").read_text().splitlines()]
    numbers = {video: number for number, video in seen.videos.items()}
    for row in rows:
        number = numbers.get(row["subject"], max(numbers.values()))
        told = seen.values[number]["set/" * (row["path"] is None) + row["name"]]
        assert told == row["value"]
    assert len(numbers) == len({row["path"] for row in rows})


def test_pandas_reads_all_rows(rendered, tmp_path):
    pandas = pytest.importorskip("pandas")
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"x" * 500)
    assert run(rendered, bad, "--metrics", "appearance", "--out", tmp_path) == 1
    lines = pandas.read_json(tmp_path / "records.jsonl", lines=True, precise_float=True)
    table = pandas.read_parquet(tmp_path / "records.parquet")
    rows = [json.loads(line) for line in (tmp_path / "records.jsonl").read_text().splitlines()]
    for frame in (lines, table):
        assert len(frame) == len(rows) > 40
        assert (frame["schema"] == 1).all()
        for key in ("subject", "name", "value", "status", "skipped_reason", "prompt", "seed"):
            found = frame[key].astype(object).where(frame[key].notna(), None).tolist()
            assert found == [row[key] for row in rows], key
    kept = pandas.read_json(tmp_path / "scored.jsonl", lines=True)
    assert kept["video"].tolist() == [f"clip_{i}.mkv" for i in range(5)]


def test_columns_of_the_table_stand_below_each_other(rendered, tmp_path, capsys):
    run(rendered, "--metrics", "flicker,warp,appearance", "--out", tmp_path)
    first, *rows = (tmp_path / "table.txt").read_text().split("\n\n")[0].splitlines()
    rows = [row for row in rows if row.startswith("  ")]
    assert len(rows) > 6
    assert {row[first.index("unit") - 2 :][:2] for row in rows} == {"  "}
    assert {row[first.index("unit")].isspace() for row in rows} == {False}


def test_second_run_writes_the_same_bytes(rendered, tmp_path):
    for name in ("a", "b"):
        run(rendered, "--metrics", "appearance", "--out", tmp_path / name)
    first, second = ((tmp_path / n / "records.jsonl").read_bytes() for n in ("a", "b"))
    assert first == second


def test_features_of_an_earlier_run_do_not_stay(rendered, tmp_path):
    (tmp_path / "features.npz").write_bytes(b"of other videos")
    run(rendered, "--metrics", "appearance", "--out", tmp_path)
    assert not (tmp_path / "features.npz").exists()


def test_bad_file_gives_exit_code_one_and_its_name(rendered, tmp_path, capsys):
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"x" * 500)
    assert run(rendered, bad, "--metrics", "appearance") == 1
    shown = capsys.readouterr()
    assert "not scored: 1" in shown.out
    assert str(bad) in shown.out
    assert str(bad) in shown.err


def test_cuts_are_named_with_their_frames(tmp_path, capsys):
    shots = np.random.default_rng(0).integers(0, 256, (2, 24, 32, 3), dtype=np.uint8)
    path = write_video(tmp_path / "a.mkv", np.repeat(shots, (5, 4), axis=0), fps=8, codec="ffv1")
    assert run(path, "--metrics", "flicker", "--out", tmp_path / "out") == 0
    assert "a.mkv: at frame 5\n" in (tmp_path / "out" / "table.txt").read_text() + "\n"
    row = json.loads((tmp_path / "out" / "records.jsonl").read_text().splitlines()[0])
    assert (row["value"], row["extra"]["cuts"], row["status"]) == (0, [5], "static")


def test_two_folders_are_compared_and_their_results_can_be_reported(noise_video, tmp_path, capsys):
    from vidcfg.report.analyse import analyse
    from vidcfg.results import read_results

    for index in range(4):
        (tmp_path / "ab"[index % 2]).mkdir(exist_ok=True)
        noise_video(f"{'ab'[index % 2]}/{index // 2}.mkv", seed=index)
    assert run("a", "b", "--metrics", "warp", "--per-video") == 0
    shown = capsys.readouterr().out
    lines = shown.splitlines()
    assert lines[0].startswith("2 pairs of videos with equal names, 2 prompts")
    assert lines[1].startswith("“b” and “a” cannot be told apart in flicker: mc_flicker")
    assert "mc_flicker_p95" not in shown
    assert lines[-1].startswith("written: runs/evaluate/a-b")
    assert [len(re.findall(rf"^{name}", shown, re.M)) for name in ("flicker$", "b/1.mkv ")] == [
        1,
        1,
    ]
    assert "mc_flicker_p95" in Path("runs/evaluate/a-b/table.txt").read_text()
    analysis = analyse(read_results("runs/evaluate/a-b"))
    assert [cell["id"] for cell in analysis["cells"]] == ["a", "b"]


def test_last_line_of_the_table_names_the_worst_clip_frame_and_block(tmp_path, capsys):
    from video_files import write_video

    y, x = np.mgrid[0:32, 0:40]
    calm = np.stack([128 + 40 * np.sin((x + t) / 3) * np.cos(y / 4) for t in range(7)])
    for index in range(3):
        frames = np.repeat(calm[..., None], 3, axis=3)
        if index == 1:
            frames[4, 8:16, 24:32] += 80
        write_video(tmp_path / f"v{index}.mkv", frames.astype(np.uint8), fps=8, codec="ffv1")
    assert run(tmp_path, "--metrics", "warp") == 0
    line = capsys.readouterr().out.splitlines()[-3]
    assert line.startswith("Stands out in mc_flicker: v1.mkv ")
    assert line.endswith("most in frame 4, rows 8-16, columns 24-32.")
    assert "v0" not in line


def test_lossy_files_are_pointed_out(noise_video, capsys):
    assert run(noise_video("a.mp4", codec="h264"), "--metrics", "appearance") == 0
    assert "1 files are lossy" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--metrics", "flickr"], "Did you mean 'flicker'?"),
        (["--reference", "no/such/folder"], "does not exist"),
        (["--weights", "i3d-k400"], "NAME=FILE"),
        (["--weights", "i3d=x.pt"], "Known: i3d-k400"),
        (["--batch-size", "0"], "batch_size is 0"),
        (["--prompts", "no-such-file.txt"], "cannot be read"),
    ],
)
def test_wrong_arguments_give_exit_code_two_and_the_fix(rendered, capsys, arguments, words):
    assert run(rendered, *arguments) == 2
    assert words in capsys.readouterr().err


def test_nothing_found_read_or_measured_is_an_error(rendered, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("VIDCFG_WEIGHTS_DIR", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    broken = rendered.parent / "broken.mp4"
    broken.write_bytes(b"no video")
    for arguments, words in (
        ([tmp_path], "no videos in"),
        (["gone.mp4", "lost"], "gone.mp4 does not exist. Give a file or a folder of videos."),
        ([broken], "none of 1 videos could be read: "),
        ([rendered, "--metrics", "lpips"], "nothing was measured: weights lpips-alex"),
    ):
        assert run(*arguments) == 2
        assert words in capsys.readouterr().err.splitlines()[-1]
    assert not Path("runs/evaluate/gone.mp4").exists()
    assert not Path("runs/evaluate/gone").exists()
    # One that is there is measured.
    assert run(rendered / "clip_0.mkv", "gone.mp4", "--metrics", "appearance") == 1
    assert "gone.mp4 does not exist.\n2 of 2 videos" in capsys.readouterr().err


def test_results_go_to_a_folder_that_is_said_last(rendered, capsys):
    for given, name in (
        ([rendered], rendered.name),
        ([rendered / "clip_0.mkv"], "clip_0"),
        ([rendered / "clip_0.mkv", rendered / "clip_1.mkv"], rendered.name),
    ):
        assert run(*given, "--metrics", "appearance") == 0
        place = f"runs/evaluate/{name}"
        assert capsys.readouterr().out.splitlines()[-1].startswith(f"written: {place}")
        assert (Path(place) / "records.jsonl").is_file()


def test_progress_is_plain_lines_where_there_is_no_terminal(rendered, capsys):
    run(rendered, "--metrics", "appearance")
    assert capsys.readouterr().err.splitlines()[-1] == "5 of 5 videos"


def test_help_and_weight_free_metrics_load_no_torch(rendered):
    code = (
        "import sys; from vidcfg.evaluate.__main__ import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "print('torch' in sys.modules, 'cv2' in sys.modules)"
    )

    def last_line(*arguments):
        command = [sys.executable, "-c", code, *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return done.stdout.splitlines()[-1]

    assert last_line("--help") == "False False"
    assert last_line(rendered, "--device", "cpu") == "False True"


def test_missing_metrics_are_listed_once_with_their_reason(
    rendered, monkeypatch, tmp_path, capsys
):
    monkeypatch.setenv("VIDCFG_WEIGHTS_DIR", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert run(rendered, "--metrics", "fvd,appearance", "--reference", rendered) == 0
    text = capsys.readouterr().out
    assert text.count("add --weights i3d-k400=FILE") == 1
    assert "not measured: fvd[i3d-k400], fvd_infinity[i3d-k400]" in text


def test_version_is_printed(capsys):
    with pytest.raises(SystemExit) as left:
        run("--version")
    assert left.value.code == 0
    assert capsys.readouterr().out == f"vidcfg {vidcfg.__version__}\n"


def test_help_names_the_metrics_and_the_exit_codes(capsys):
    with pytest.raises(SystemExit) as left:
        run("--help")
    assert left.value.code == 0
    text = capsys.readouterr().out
    assert "130  interrupted" in text
    assert "flicker     differences" in text


@pytest.mark.parametrize("workers", ["-1", "two"])
def test_workers_are_counted_from_zero(rendered, capsys, workers):
    with pytest.raises(SystemExit) as left:
        run(rendered, "--workers", workers)
    assert left.value.code == 2
    assert "is not a whole number of at least 0" in capsys.readouterr().err


def test_quiet_prints_nothing_but_what_went_wrong(rendered, tmp_path, capsys):
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"")
    assert run(rendered, bad, "--metrics", "appearance", "--quiet", "-o", tmp_path / "out") == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err == f"not scored: {bad} is empty (0 bytes).\n"
    assert (tmp_path / "out" / "records.jsonl").exists()


def test_folder_that_cannot_be_written_is_told_before_anything_is_measured(
    rendered, tmp_path, capsys, monkeypatch
):
    def measure(*arguments, **options):
        pytest.fail("measured")

    monkeypatch.setattr("vidcfg.evaluate.run.evaluate", measure)
    (tmp_path / "file").write_text("")
    assert run(rendered, "--out", tmp_path / "file") == 2
    assert "--out is" in capsys.readouterr().err
    assert run(rendered, "--out", tmp_path / "file" / "below") == 3
    assert "cannot be made: Not a directory" in capsys.readouterr().err


def test_error_while_running_is_one_line_and_exit_code_three(rendered, capsys, monkeypatch):
    def fail(*arguments, **options):
        raise MemoryError("no room\nleft")

    monkeypatch.setattr("vidcfg.evaluate.run.evaluate", fail)
    assert run(rendered) == 3
    assert capsys.readouterr().err == "vidcfg evaluate: no room left\n"


@pytest.mark.parametrize(("workers", "times"), [(0, 1), (2, 2)])
def test_ctrl_c_ends_all_processes_without_a_traceback_and_keeps_what_is_scored(
    rendered, tmp_path, workers, times
):
    for index in range(400):
        shutil.copy(rendered / f"clip_{index % 5}.mkv", tmp_path / f"{index}.mkv")
    kept = tmp_path / "out" / "scored.jsonl"
    options = ["--workers", str(workers), "--out", str(kept.parent), "--device", "cpu"]
    command = [sys.executable, "-m", "vidcfg.evaluate", str(tmp_path), *options]
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        while not kept.exists() and process.poll() is None:
            time.sleep(0.05)
        for _ in range(times):
            # As a terminal does: to the whole group.
            os.killpg(process.pid, signal.SIGINT)
            time.sleep(0.02)
        shown, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert shown == ""
    (line,) = [line for line in errors.splitlines() if " a minute" not in line]
    done = int(re.match(r"vidcfg evaluate: interrupted: (\d+) of 400 videos are scored", line)[1])
    assert list(kept.parent.iterdir()) == [kept]
    assert done <= len(kept.read_text().splitlines()) <= done + 1
    # The standard library's tracker of semaphores ends once it sees that its parent is gone.
    deadline = time.monotonic() + 20
    while left := [p for p in psutil.process_iter() if _is_alive_in(process.pid, p)]:
        assert time.monotonic() < deadline, left
        assert all("resource_tracker" in " ".join(_command(p)) for p in left)
        time.sleep(0.1)


def test_workers_of_a_command_that_was_killed_end(rendered, tmp_path):
    for index in range(200):
        shutil.copy(rendered / f"clip_{index % 5}.mkv", tmp_path / f"{index}.mkv")
    kept, quiet = tmp_path / "out" / "scored.jsonl", {"stderr": subprocess.DEVNULL}
    command = [sys.executable, "-m", "vidcfg.evaluate", str(tmp_path), "--workers", "2", "--out"]
    with subprocess.Popen([*command, kept.parent], start_new_session=True, **quiet) as process:
        while not kept.exists() and process.poll() is None:
            time.sleep(0.05)
        assert sum(_is_alive_in(process.pid, p) for p in psutil.process_iter()) > 2
        process.kill()
    deadline = time.monotonic() + 20
    while left := [p for p in psutil.process_iter() if _is_alive_in(process.pid, p)]:
        assert time.monotonic() < deadline, left
        time.sleep(0.1)


def _command(process):
    try:
        return process.cmdline() or ["resource_tracker, about to end"]
    except psutil.NoSuchProcess:
        return ["resource_tracker, ended"]


def _is_alive_in(group, process):
    try:
        return os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE
    except (ProcessLookupError, psutil.NoSuchProcess):
        return False
