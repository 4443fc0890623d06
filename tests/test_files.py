"""Files appear whole or not at all, and errors say in one line which file and why."""

import errno
import hashlib
import json
import os
import signal
import subprocess
import threading
from pathlib import Path

import pytest

from vidcfg import files
from vidcfg.files import (
    FileError,
    append_text,
    atomic_path,
    make_folder,
    remembered_sha256,
    remove_leftovers,
    sha256_of,
    temporary_beside,
    uninterrupted,
    write_json,
    write_text,
)


def _write_half(path, error, **options):
    with atomic_path(path, **options) as temporary:
        temporary.write_bytes(b"half")
        raise error


def test_a_file_is_seen_once_its_block_is_left(tmp_path):
    path = tmp_path / "x.txt"
    with atomic_path(path) as temporary:
        temporary.write_text("whole")
        assert not path.exists()
        assert temporary.parent == path.parent
        assert temporary.name.startswith(".tmp-")
        assert temporary.suffix == ".txt"
    assert path.read_text() == "whole"
    assert [p.name for p in tmp_path.iterdir()] == ["x.txt"]


def test_existing_file_is_kept_unless_overwriting_is_asked_for(tmp_path):
    path = tmp_path / "x.txt"
    path.write_text("precious")
    with pytest.raises(FileError, match=r"x\.txt exists.*overwrite"), atomic_path(path):
        pytest.fail("the block is not entered")
    assert path.read_text() == "precious"
    with atomic_path(path, overwrite=True) as temporary:
        temporary.write_text("second")
    assert path.read_text() == "second"


def test_a_file_that_appears_meanwhile_is_not_replaced(tmp_path):
    path = tmp_path / "x.txt"

    def be_late():
        with atomic_path(path) as temporary:
            temporary.write_text("late")
            path.write_text("early")

    with pytest.raises(FileError, match="exists"):
        be_late()
    assert path.read_text() == "early"
    assert [p.name for p in tmp_path.iterdir()] == ["x.txt"]


def test_where_there_are_no_hard_links_the_file_is_renamed(tmp_path, monkeypatch):
    def refuse(source, target):
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    with atomic_path(tmp_path / "x.txt") as temporary:
        temporary.write_text("whole")
    assert (tmp_path / "x.txt").read_text() == "whole"
    assert [p.name for p in tmp_path.iterdir()] == ["x.txt"]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("boom")])
def test_interrupted_write_leaves_no_file(tmp_path, error):
    with pytest.raises(type(error)):
        _write_half(tmp_path / "x.mp4", error)
    assert list(tmp_path.iterdir()) == []


def test_interrupted_overwrite_keeps_the_old_file(tmp_path):
    path = tmp_path / "x.mp4"
    path.write_bytes(b"old")
    with pytest.raises(RuntimeError):
        _write_half(path, RuntimeError(), overwrite=True)
    assert path.read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    ("number", "words"),
    [(errno.ENOSPC, "No space left"), (errno.EACCES, "Permission denied")],
)
def test_full_disk_or_forbidden_folder_is_one_line_that_names_the_file(tmp_path, number, words):
    with pytest.raises(FileError, match=rf"x\.mkv cannot be written: {words}") as caught:
        _write_half(tmp_path / "x.mkv", OSError(number, "low\nlevel text"))
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_folder_that_is_missing_or_a_file_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match="folder .*missing does not exist. Create it first"):
        write_text(tmp_path / "missing" / "x", "")
    with pytest.raises(FileError, match="file is a file, not a folder"):
        write_text(tmp_path / "file" / "x", "")
    with pytest.raises(FileError, match="is a folder, a file is to be written there"):
        write_text(tmp_path, "")


def test_text_replaces_what_was_there_and_every_character_can_be_written(tmp_path):
    path = tmp_path / "x.txt"
    write_text(path, "first")
    assert write_text(path, "é 日本 \ud800\n") == path
    assert path.read_text("utf-8") == "é 日本 \\ud800\n"


def test_what_cannot_be_added_to_a_file_is_told_with_its_name(tmp_path):
    append_text(tmp_path / "a.jsonl", "é\n")
    append_text(tmp_path / "a.jsonl", "2\n")
    assert (tmp_path / "a.jsonl").read_text("utf-8") == "é\n2\n"
    with pytest.raises(FileError, match=r"^/dev/full cannot be written: No space left"):
        append_text(Path("/dev/full"), "3\n")


def test_json_is_read_back_as_it_was_and_has_no_nan(tmp_path):
    value = {"é": [1, 2.5, None], "b": "日"}
    path = write_json(tmp_path / "x.json", value)
    text = path.read_text("utf-8")
    assert json.loads(text) == value
    assert text.startswith('{\n "é": [')
    assert text.endswith("}\n")
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, float("nan"))
    assert path.read_text("utf-8") == text


def test_a_folder_is_made_with_those_above_it_and_tried(tmp_path):
    folder = tmp_path / "a" / "b"
    assert make_folder(folder, "--out") == folder
    assert make_folder(str(folder), "--out") == folder
    assert list(folder.iterdir()) == []


def test_a_file_in_place_of_a_folder_is_wrong_input(tmp_path):
    (tmp_path / "x").write_text("")
    with pytest.raises(ValueError, match="--out is .*x, which is a file, not a folder"):
        make_folder(tmp_path / "x", "--out")


def test_a_folder_that_cannot_be_made_or_written_is_named(tmp_path, monkeypatch):
    def forbid(self, *arguments, **options):
        raise PermissionError(errno.EACCES, "low level text")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "mkdir", forbid)
        with pytest.raises(FileError, match="output.dir .*x cannot be made: Permission denied"):
            make_folder(tmp_path / "x", "output.dir")
    monkeypatch.setattr(Path, "write_bytes", forbid)
    with pytest.raises(FileError, match="output.dir .*x cannot be written: Permission denied"):
        make_folder(tmp_path / "x", "output.dir")


def test_hash_is_that_of_the_content(tmp_path):
    (tmp_path / "x").write_bytes(b"content")
    assert sha256_of(tmp_path / "x") == hashlib.sha256(b"content").hexdigest()


def test_a_large_file_is_read_once_until_it_changes(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("vidcfg.files.REMEMBERED_BYTES", 4)
    read = []
    monkeypatch.setattr(
        "vidcfg.files.sha256_of", lambda path: read.append(path) or sha256_of(path)
    )
    path = tmp_path / "large"
    path.write_bytes(b"content")
    # It may change again within the same tick of the clock.
    assert len({remembered_sha256(path) for _ in range(2)}) == 1
    assert len(read) == 2
    monkeypatch.setattr("vidcfg.files.SETTLED_SECONDS", -1)
    assert {remembered_sha256(path) for _ in range(3)} == {sha256_of(path)}
    assert len(read) == 3
    # The cache is lost or damaged in any way: no error, and the file is read.
    (kept,) = (tmp_path / "cache" / "vidcfg" / "hashes").iterdir()
    whole = kept.read_text()
    file = json.dumps(json.loads(whole)["file"])
    for damaged in ("", "[]", "null", "{}", f'{{"file": {file}, "sha256": 7}}', whole[:-9], "\0"):
        kept.write_text(damaged)
        assert remembered_sha256(path) == sha256_of(path)
    kept.unlink()
    kept.mkdir()
    assert remembered_sha256(path) == sha256_of(path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(path))
    assert remembered_sha256(path) == sha256_of(path)
    assert len(read) == 12


def test_ctrl_c_waits_for_the_end_of_the_block_once_it_is_held():
    done = []

    def work():
        with uninterrupted() as hold:
            hold()
            os.kill(os.getpid(), signal.SIGINT)
            done.append("the rest")

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        work()
    assert done == ["the rest"]
    assert signal.getsignal(signal.SIGINT) is before


def test_ctrl_c_before_the_block_is_held_stops_it():
    def work():
        with uninterrupted():
            os.kill(os.getpid(), signal.SIGINT)
            pytest.fail("not reached")

    with pytest.raises(KeyboardInterrupt):
        work()


def test_an_error_in_a_held_block_is_not_lost():
    def work():
        with uninterrupted() as hold:
            hold()
            raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        work()


def test_a_block_in_another_thread_leaves_ctrl_c_alone():
    seen = []

    def work():
        with uninterrupted() as hold:
            hold()
            seen.append(signal.getsignal(signal.SIGINT))

    before = signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]


def test_what_a_killed_process_left_half_written_is_removed_and_nothing_else(tmp_path):
    """A file, a folder and a link of a process that has ended; those of others stay."""
    ended = subprocess.Popen(["true"])
    ended.wait()
    mine = temporary_beside(tmp_path / "x.txt")
    place, _, rest = mine.name.partition(f"-{os.getpid()}-")
    dead = [tmp_path / f"{place}-{ended.pid}-{end}" for end in ("1.txt", "2", "3")]
    others = [mine, tmp_path / f".tmp-0badcafe-{ended.pid}-1", tmp_path / ".tmp-notes"]
    others += [tmp_path / f"{place}-1-of-init", tmp_path / f"{place}-{'9' * 30}x"]
    for path in (dead[0], *others):
        path.write_text("half")
    dead[1].mkdir()
    (dead[1] / "inner").write_text("half")
    dead[2].symlink_to(mine)
    assert rest.endswith(".txt")
    remove_leftovers(tmp_path.iterdir())
    assert sorted(tmp_path.iterdir()) == sorted(others)
    dead[0].write_text("half")
    make_folder(tmp_path, "output.dir")
    assert sorted(tmp_path.iterdir()) == sorted(others)


def test_machines_of_one_name_leave_each_others_half_files(tmp_path, monkeypatch):
    ended = subprocess.Popen(["true"])
    ended.wait()
    made = []
    for machine in ("one", "other"):
        monkeypatch.setattr(files, "MACHINE", tmp_path / machine)
        files.MACHINE.write_text(f"id of the {machine}")
        name = temporary_beside(tmp_path / "x").name.replace(f"-{os.getpid()}-", f"-{ended.pid}-")
        made.append(tmp_path / name)
        made[-1].write_text("half")
    remove_leftovers(made)
    assert [path.exists() for path in made] == [True, False]
