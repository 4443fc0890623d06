import subprocess
import sys

import pytest

from vidcfg.report.__main__ import main


def test_command_writes_into_the_store_and_prints_where(store, capsys):
    assert main([str(store), "--max-mb", "0"]) == 0
    assert capsys.readouterr().out.startswith(str(store / "report" / "index.html"))
    assert (store / "report" / "report.json").is_file()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--baseline", "nothing"], "no cell 'nothing'"),
        (["--metrics", "align,flikker"], "not measured: flikker"),
    ],
)
def test_wrong_option_is_an_error_that_names_what_there_is(store, capsys, options, named):
    assert main([str(store), *options]) == 2
    error = capsys.readouterr().err
    assert named in error
    assert "There are: " in error


def test_folder_without_results_has_exit_code_2(tmp_path, capsys):
    assert main([str(tmp_path)]) == 2
    assert "vidcfg evaluate" in capsys.readouterr().err


def test_output_that_cannot_be_written_is_an_error(store, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main([str(store), "-o", str(tmp_path / "file" / "x.html"), "--max-mb", "0"]) == 2
    assert "cannot be written" in capsys.readouterr().err


def test_reading_results_loads_no_torch():
    code = "import sys, vidcfg.report.write; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
