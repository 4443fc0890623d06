"""Where results are kept: whole or not at all, and found again."""

import errno
import io
import json
import os
import threading
from hashlib import sha256
from pathlib import Path

import fsspec
import numpy as np
import pytest
from tiny_sweep import UNIT_FILES

from vidcfg.results import read_results
from vidcfg.stored.read import ResultsError
from vidcfg.stored.unit import read_unit
from vidcfg.sweep.store import NoStoreError, Store, StoreError

KEY = "ab" + "0" * 62
FILES = UNIT_FILES
OTHER = b'{"video": {"frames_sha256": "OTHER"}}'


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


def test_units_far_away_are_asked_for_side_by_side(tmp_path, monkeypatch):
    """Each answer waits for the other one."""
    store, other = Store(f"memory://{tmp_path.name}"), "cd" + "1" * 62
    for key in (KEY, other):
        store.commit(key, FILES)
    both, is_whole = threading.Barrier(2, timeout=60), store._is_whole
    monkeypatch.setattr(store, "_is_whole", lambda folder: both.wait() >= 0 and is_whole(folder))
    assert store.done_keys([KEY, other, "cd" + "2" * 62]) == {KEY, other}


def test_done_lists_size_and_sha256_of_every_file(store):
    store.commit(KEY, FILES)
    done = store.read_json(f"{store.unit(KEY)}/DONE")
    assert set(done) == set(FILES)
    assert done["video.mkv"]["size"] == 500


def test_a_second_commit_leaves_the_first_as_it_is(store):
    store.commit(KEY, FILES)
    assert not store.commit(KEY, FILES | {"record.json": OTHER})
    kept = store.fs.cat_file(store.path(f"{store.unit(KEY)}/record.json"))
    assert kept == FILES["record.json"]


def npz():
    packed = io.BytesIO()
    np.savez(packed, mini=np.arange(7.0))
    return packed.getvalue()


DAMAGES = {
    "shorter": lambda store: store.write(f"{store.unit(KEY)}/video.mkv", b"vid"),
    "other content": lambda store: store.write(f"{store.unit(KEY)}/records.jsonl", b""),
    "missing": lambda store: store.remove(f"{store.unit(KEY)}/record.json"),
    "no DONE": lambda store: store.remove(f"{store.unit(KEY)}/DONE"),
    "bad DONE": lambda store: store.write(f"{store.unit(KEY)}/DONE", b'{"video.mkv":'),
    "DONE of nothing": lambda store: store.write(f"{store.unit(KEY)}/DONE", b"{}"),
    # What a `DONE` vouches for and nobody can read.
    "no records": {name: FILES[name] for name in ("video.mkv", "record.json")},
    "no record": {name: FILES[name] for name in ("video.mkv", "records.jsonl")},
    "no video": {name: FILES[name] for name in ("record.json", "records.jsonl")},
    "records are none": FILES | {"records.jsonl": b'{"a": 1}\n'},
    "record is none": FILES | {"record.json": b"[]"},
    "npz cut short": FILES | {"features.npz": npz()[:-30]},
    "npz is empty": FILES | {"features.npz": b""},
    "npz is none": FILES | {"features.npz": b"zip" * 99},
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_unit_is_not_done_and_is_set_aside(store, damage):
    files = DAMAGES[damage]
    if callable(files):
        store.commit(KEY, FILES)
        files(store)
    else:
        done = {n: {"size": len(d), "sha256": sha256(d).hexdigest()} for n, d in files.items()}
        for name, data in (files | {"DONE": json.dumps(done).encode()}).items():
            store.write(f"{store.unit(KEY)}/{name}", data)
    assert store.fs.exists(store.path(store.unit(KEY)))
    assert not store.is_done(KEY)
    # Nor is it for a report, which reads no features.
    if not damage.startswith("npz"):
        with pytest.raises((ResultsError, OSError)):
            read_unit(store.path(store.unit(KEY)), None if store.is_local else store.fs)
    assert store.commit(KEY, FILES | {"features.npz": npz()})
    assert store.is_done(KEY)
    # On an object store, files without `DONE` are what a killed worker left: they are replaced.
    is_half = damage == "no DONE" and not store.is_local
    assert len(store.names("damaged")) == (0 if is_half else 1)


PLACES = {
    "file": None,
    "link to a whole unit": Path("other", "units", "ab", KEY),
    "link to nothing": Path("nowhere"),
    "link to a file": Path("other", "units", "ab", KEY, "DONE"),
}


@pytest.mark.parametrize("what", PLACES)
@pytest.mark.parametrize("where", ["units", "units/ab", f"units/ab/{KEY}", "damaged"])
def test_what_stands_in_place_of_a_folder_is_set_aside(tmp_path, what, where):
    store, other = Store(str(tmp_path / "store")), Store(str(tmp_path / "other"))
    other.commit(KEY, FILES)
    place = tmp_path / "store" / where
    place.parent.mkdir(parents=True)
    if what == "file":
        place.write_bytes(b"thesis")
    else:
        place.symlink_to(tmp_path / PLACES[what])
    if where == "damaged":
        store.write(f"{store.unit(KEY)}/half", b"")
    is_used = what == "link to a whole unit" and not where.endswith(KEY)
    assert not store.is_done(KEY)
    assert store.commit(KEY, FILES)
    assert store.is_done(KEY)
    assert other.is_done(KEY)
    # A link to a folder may stand for a folder above the units: it is on a larger disk.
    if not is_used:
        aside = [p for p in (tmp_path / "store").rglob("*-??????") if os.path.lexists(p)]
        assert [p for p in aside if p.is_symlink() or p.is_file()]


@pytest.mark.parametrize("name", ["plan.json", "failed/x.json", "attempts/x.jsonl"])
def test_a_file_is_written_where_a_folder_or_a_file_for_its_folder_stands(tmp_path, name):
    store = Store(str(tmp_path))
    (tmp_path / name / "inner").mkdir(parents=True)
    store.write(name, b"{}")
    store.append(name, "{}")
    assert store.read(name) == b"{}{}\n"
    if "/" in name:
        folder = name.partition("/")[0]
        (tmp_path / folder).rename(tmp_path / "moved")
        (tmp_path / folder).write_bytes(b"thesis")
        store.append(name, "x")
        assert store.read(name) == b"x\n"
    assert len(store.names("damaged")) == (2 if "/" in name else 1)


def test_of_many_commits_at_once_one_wins_and_the_unit_is_whole(tmp_path):
    wins, errors = [], []
    barrier = threading.Barrier(8)

    def commit(index: int) -> None:
        mine = FILES | {"record.json": OTHER.replace(b"OTHER", b"%d" % index)}
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
    record = store.read_json(f"{store.unit(KEY)}/record.json")
    assert record["video"]["frames_sha256"] == str(wins[0])
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


def test_two_that_write_one_unit_to_an_object_store_again_and_again_both_go_on(monkeypatch):
    """Each time before one has written its DONE, the other has replaced a file."""
    made, pauses = Store("memory://rivals"), []
    rivals = {number: OTHER.replace(b"OTHER", b"%d" % number) for number in range(4)}
    write = type(made.fs._system).pipe_file

    def beside(system, path, data, **options):
        if path.endswith("DONE") and len(pauses) in rivals:
            write(system, path.replace("DONE", "record.json"), rivals[len(pauses)])
        return write(system, path, data, **options)

    monkeypatch.setattr(type(made.fs._system), "pipe_file", beside)
    monkeypatch.setattr("vidcfg.sweep.store.time.sleep", pauses.append)
    assert made.commit(KEY, FILES)
    assert len(pauses) == len(rivals)
    assert made.is_done(KEY)
    made.fs.rm(made.root, recursive=True)


def test_lines_are_added_to_what_is_there(store):
    store.append("attempts/x.jsonl", "one")
    store.append("attempts/x.jsonl", "two")
    assert store.fs.cat_file(store.path("attempts/x.jsonl")) == b"one\ntwo\n"


def test_a_store_of_an_unknown_kind_is_refused():
    with pytest.raises(StoreError, match="nosuch"):
        Store("nosuch://bucket/x")


@pytest.mark.parametrize("below", ["", "/sweeps/kite"])
def test_a_store_in_place_of_a_file_or_a_lost_link_is_refused(tmp_path, below):
    (tmp_path / "file").write_bytes(b"thesis")
    (tmp_path / "link").symlink_to(tmp_path / "unmounted")
    for name in ("file", "link"):
        for kind in ("", "file://"):
            with pytest.raises(NoStoreError, match=f"cannot be: {tmp_path}/{name} is no folder."):
                Store(f"{kind}{tmp_path}/{name}{below}")
    assert (tmp_path / "file").read_bytes() == b"thesis"


@pytest.mark.parametrize(("kind", "extra"), [("s3", "s3"), ("gs", "gs"), ("gcs", "gs")])
def test_a_missing_library_is_one_sentence_with_what_to_type(monkeypatch, kind, extra):
    def missing(*arguments, **options):
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec.core, "url_to_fs", missing)
    text = f"{kind}://bucket/x needs a library that is not installed. Type: "
    text += f"pip install 'vidcfg[{extra}]'"
    with pytest.raises(NoStoreError) as told:
        Store(f"{kind}://bucket/x")
    assert str(told.value) == f"the store {text}"
    with pytest.raises(ResultsError) as told:
        read_results(f"{kind}://bucket/x")
    assert str(told.value) == text


def test_a_place_that_fails_in_its_own_way_is_one_sentence_and_no_missing_unit(monkeypatch):
    """Libraries of object stores raise classes of their own, which nobody else knows."""
    store = Store("memory://away")

    def away(*arguments, **options):
        raise Exception("Could not connect\nto the endpoint")

    monkeypatch.setattr(type(store.fs._system), "cat_file", away)
    monkeypatch.setattr(type(store.fs._system), "find", away)
    text = "memory://away cannot be reached: Could not connect to the endpoint"
    for read in (lambda: store.is_done(KEY), lambda: store.read_json("plan.json")):
        with pytest.raises(StoreError, match=f"^{text}$"):
            read()
    with pytest.raises(ResultsError, match=f"^{text}$"):
        read_results("memory://away")


@pytest.mark.parametrize("name", ["kite::v2", "file::kite", "100%", "[a]*", "~kite #1"])
def test_a_folder_of_any_name_is_the_store_of_that_name(tmp_path, monkeypatch, name):
    """`::` stands between places in an address, and in a path it is two characters."""
    monkeypatch.chdir(tmp_path)
    made = [Store(name), Store(str(tmp_path / name)), Store(f"file://{tmp_path}/{name}")]
    assert {(one.root, one.is_local) for one in made} == {(str(tmp_path / name), True)}
    assert made[0].commit(KEY, FILES)
    assert (tmp_path / name / "units" / KEY[:2] / KEY / "DONE").is_file()
    assert made[1].is_done(KEY)
    assert made[2].done_keys([KEY]) == {KEY}
