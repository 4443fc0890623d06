"""Where results are kept: whole or not at all, and found again."""

import errno
import json
import os
import threading

import pytest

from vidcfg.sweep.store import Store, StoreError

KEY = "ab" + "0" * 62
FILES = {"video.mkv": b"video" * 100, "record.json": b"{}", "records.jsonl": b'{"a": 1}\n'}


@pytest.fixture(params=["local", "memory"])
def store(request, tmp_path):
    if request.param == "local":
        yield Store(str(tmp_path / "store"))
        return
    made = Store(f"memory://{tmp_path.name}")
    yield made
    if made.fs.exists(made.root):
        made.fs.rm(made.root, recursive=True)


def test_a_unit_is_done_once_it_is_committed(store):
    assert not store.is_done(KEY)
    assert store.commit(KEY, FILES)
    assert store.is_done(KEY)
    assert store.done_keys([KEY, "cd" + "1" * 62]) == {KEY}


def test_done_lists_size_and_sha256_of_every_file(store):
    store.commit(KEY, FILES)
    done = store.read_json(f"{store.unit(KEY)}/DONE")
    assert set(done) == set(FILES)
    assert done["video.mkv"]["size"] == 500


def test_a_second_commit_leaves_the_first_as_it_is(store):
    store.commit(KEY, FILES)
    assert not store.commit(KEY, FILES | {"record.json": b"[]"})
    assert store.fs.cat_file(store.path(f"{store.unit(KEY)}/record.json")) == b"{}"


@pytest.mark.parametrize("damage", ["shorter", "other content", "missing", "no DONE", "bad DONE"])
def test_a_damaged_unit_is_not_done_and_is_set_aside(store, damage):
    store.commit(KEY, FILES)
    folder = store.unit(KEY)
    if damage == "shorter":
        store.write(f"{folder}/video.mkv", b"vid")
    elif damage == "other content":
        store.write(f"{folder}/records.jsonl", b'{"a": 2}\n')
    elif damage == "missing":
        store.remove(f"{folder}/record.json")
    elif damage == "no DONE":
        store.remove(f"{folder}/DONE")
    else:
        store.write(f"{folder}/DONE", b'{"video.mkv":')
    assert not store.is_done(KEY)
    assert store.commit(KEY, FILES)
    assert store.is_done(KEY)
    assert len(store.names("damaged")) == 1


def test_of_many_commits_at_once_one_wins_and_the_unit_is_whole(tmp_path):
    wins, errors = [], []
    barrier = threading.Barrier(8)

    def commit(index: int) -> None:
        mine = FILES | {"record.json": json.dumps({"number": index}).encode()}
        barrier.wait()
        try:
            if Store(str(tmp_path)).commit(KEY, mine):
                wins.append(index)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=commit, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    store = Store(str(tmp_path))
    assert not errors
    assert len(wins) == 1
    assert store.is_done(KEY)
    assert store.read_json(f"{store.unit(KEY)}/record.json") == {"number": wins[0]}
    assert os.listdir(tmp_path / "units" / "ab") == [KEY]
    assert store.names("damaged") == []


def test_a_full_store_is_told_in_one_sentence_and_leaves_nothing_half(tmp_path, monkeypatch):
    store = Store(str(tmp_path))

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    monkeypatch.setattr("os.fsync", full)
    for write in (lambda: store.commit(KEY, FILES), lambda: store.write("plan.json", b"{}")):
        with pytest.raises(StoreError, match="is full. Free some space and run the same command"):
            write()
    assert not store.is_done(KEY)
    left = [name for _, _, names in os.walk(tmp_path) for name in names]
    assert left == []


def test_lines_are_added_to_what_is_there(store):
    store.append("attempts/x.jsonl", "one")
    store.append("attempts/x.jsonl", "two")
    assert store.fs.cat_file(store.path("attempts/x.jsonl")) == b"one\ntwo\n"


def test_a_store_of_an_unknown_kind_is_refused():
    with pytest.raises(StoreError, match="nosuch"):
        Store("nosuch://bucket/x")
