import json
import subprocess
import sys

import pytest

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
        "table.txt",
    ]


def test_second_run_writes_the_same_bytes(rendered, tmp_path):
    for name in ("a", "b"):
        run(rendered, "--metrics", "appearance", "--out", tmp_path / name)
    first, second = ((tmp_path / n / "records.jsonl").read_bytes() for n in ("a", "b"))
    assert first == second


def test_bad_file_gives_exit_code_one_and_its_name(rendered, tmp_path, capsys):
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"x" * 500)
    assert run(rendered, bad, "--metrics", "appearance") == 1
    shown = capsys.readouterr()
    assert "not scored: 1" in shown.out
    assert str(bad) in shown.out
    assert str(bad) in shown.err


def test_lossy_files_are_pointed_out(noise_video, capsys):
    assert run(noise_video("a.mp4", codec="h264"), "--metrics", "appearance") == 0
    assert "1 files are lossy" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--metrics", "flikker"], "Known: flicker"),
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


def test_folder_without_videos_is_an_error(tmp_path, capsys):
    assert run(tmp_path) == 2
    assert "no videos" in capsys.readouterr().err


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
    assert text.count("vidcfg weights fetch i3d-k400") == 1
    assert "not measured: fvd[i3d-k400], fvd_infinity[i3d-k400]" in text
