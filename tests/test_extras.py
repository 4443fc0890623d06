"""What the base does without the packages of any extra, and what is said where one is missing."""

import json
import logging
import subprocess
import sys

import pytest
from video_files import encode, smooth

from vidcfg.extras import EXTRA_OF, MissingPackageError, explained, quiet_xformers

WITHOUT = """
import contextlib, io, json
from importlib.machinery import PathFinder
found = PathFinder.find_spec
PathFinder.find_spec = lambda name, *more: (
    None if name.partition(".")[0] in {blocked} else found(name, *more)
)
from vidcfg.__main__ import main

codes, said = [], []
for command in {commands}:
    errors = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(errors):
        codes.append(main(command))
    said.append(out.getvalue() + errors.getvalue())
for name in ("guide", "diffusers"):
    try:
        exec("from vidcfg import " + name)
    except ImportError as error:
        said.append(str(error))
print(json.dumps([codes, said]))
"""


def test_the_base_gates_measures_and_reports_without_any_extra(tmp_path):
    for name, shift in (("a", 0), ("b", 9)):
        (tmp_path / "clips").mkdir(exist_ok=True)
        encode(tmp_path / "clips" / f"{name}.mkv", smooth(9, 32, 48) + shift)
    # What an earlier run left, which no package is there to write anew.
    (tmp_path / "scores").mkdir()
    (tmp_path / "scores" / "records.parquet").write_bytes(b"of other videos")
    commands = [
        ["regress", "record", "clips", "-o", "kept"],
        ["regress", "check", "clips", "--baseline", "kept", "-o", "gate"],
        ["evaluate", "clips", "--reference", "mini", "-o", "scores"],
        ["report", "scores"],
        ["doctor"],
        ["presets"],
        ["init", "keyframes"],
        ["render", "quickstart", "--dry-run"],
        ["render", "quickstart"],
        ["report", "s3://bucket/store"],
    ]
    code = WITHOUT.format(blocked=[*EXTRA_OF, "sentencepiece"], commands=commands)
    run = [sys.executable, "-c", code]
    done = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, check=True)
    codes, said = json.loads(done.stdout)
    assert codes == [0, 0, 0, 0, 0, 0, 0, 0, 2, 2]

    assert (tmp_path / "gate" / "index.html").is_file()
    assert (tmp_path / "scores" / "report" / "index.html").is_file()
    assert "written: scores: records.jsonl, table.txt" in said[2]
    assert not (tmp_path / "scores" / "records.parquet").exists()
    to_type = "not installed. Type: pip install 'vidcfg[render]'"
    assert f"mini needs torch, which is {to_type}" in said[2]
    assert "torch                     not installed" in said[4]
    assert said[8].splitlines()[-1].endswith(to_type)
    assert "needs fsspec, which is not installed. Type: pip install 'vidcfg[sweep]'" in said[9]
    assert said[10].startswith("vidcfg.guide needs torch, which is not installed. Type: pip")
    assert said[11].startswith("vidcfg.diffusers needs ")
    assert not any("Traceback" in text for text in said)


def test_render_says_that_its_pictures_lack_a_package_before_it_samples(tmp_path):
    code = WITHOUT.format(blocked=["matplotlib"], commands=[["render", "quickstart"]])
    run = [sys.executable, "-c", code]
    done = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, check=True)
    codes, said = json.loads(done.stdout)
    assert codes == [2]
    assert said[0].splitlines()[-1] == (
        "vidcfg render: this needs matplotlib, which is not installed. "
        "Type: pip install 'vidcfg[render]'"
    )
    assert not list(tmp_path.rglob("*.mp4"))


def test_another_extra_and_error_are_named_where_they_bring_all_that_is_needed():
    text = "LPIPS needs torch, which is not installed. Type: pip install 'vidcfg\\[metrics\\]'"
    with pytest.raises(OSError, match=text), explained("LPIPS", "metrics", OSError):
        raise ModuleNotFoundError(name="torch.nn")


def test_a_module_that_no_extra_brings_is_missing_as_it_is():
    with pytest.raises(ModuleNotFoundError, match="no_such") as caught, explained("this"):
        import no_such_module  # noqa: F401
    assert not isinstance(caught.value, MissingPackageError)


def test_xformers_for_another_torch_is_one_line(caplog):
    quiet_xformers()
    logger = logging.getLogger("xformers")
    logger.warning(
        "WARNING[XFORMERS]: xFormers can't load C++/CUDA extensions. xFormers was built for:\n"
        "    PyTorch 2.10.0+cu128 with CUDA 1208 (you have 2.9.0+cpu)\n"
        "    Python  3.10.19 (you have 3.11.7)\n  Please reinstall xformers\n  Memory-efficient"
    )
    logger.warning("another word")
    first, second = caplog.messages
    assert "\n" not in first
    assert "its build is for PyTorch 2.10.0+cu128. Type: pip uninstall xformers" in first
    assert second == "another word"
