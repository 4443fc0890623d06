"""Results made by a stranger: nothing is written or read outside, nothing ends in a traceback."""

import io
import json
import shutil
import struct
import tempfile
import time
import zipfile
import zlib
from pathlib import Path

import pytest
from fake_store import write_store, write_unit_files
from video_files import noise, write_video

from vidcfg.evaluate.inputs import find_items
from vidcfg.evaluate.run import evaluate
from vidcfg.evaluate.settings import Settings
from vidcfg.files import content_of
from vidcfg.media.pictures import exif_orientation
from vidcfg.regress.clips import read_strip
from vidcfg.regress.measure import load_clips
from vidcfg.regress.policy import load_policy
from vidcfg.render.config import load_render_config
from vidcfg.render.forecast import forecast_of
from vidcfg.report.write import write_report
from vidcfg.results import read_results
from vidcfg.stored.read import ResultsError, arrays_of, inside
from vidcfg.sweep.store import Store


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A store of two units, one of which has failed, and a video that nobody may see."""
    root = tmp_path_factory.mktemp("hostile")
    what = {"modes": ("uniform",), "scales": (1.0,), "prompts": ("a", "b"), "seeds": (0,)}
    write_store(root / "store", **what, families=("appearance",), failing=[("uniform-1", 1, 0)])
    write_video(root / "private.mkv", noise(3, 16, 24), fps=8, codec="ffv1")
    return root


@pytest.fixture
def store(made, tmp_path):
    return shutil.copytree(made / "store", tmp_path / "store")


@pytest.mark.parametrize("name", ["a/../../x", "../x", "units/../../../x", "a/..", "\0", ""])
def test_no_name_leads_out_of_its_folder(tmp_path, name):
    with pytest.raises(ResultsError, match="leads out"):
        inside(tmp_path, name)


def test_store_elsewhere_with_a_key_that_leads_out_is_refused(store, tmp_path, monkeypatch):
    import fsspec

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "t"))
    (tmp_path / "t").mkdir()
    memory = fsspec.filesystem("memory")
    memory.put(str(store), "/bites", recursive=True)
    memory.store["/bites/a/../../../escaped"] = memory.store["/bites/plan.json"]
    try:
        with pytest.raises(ResultsError, match=r"memory://bites.*leads out.*not read") as told:
            write_report("memory://bites")
    finally:
        memory.store.clear()
    assert "\n" not in str(told.value)
    assert not list((tmp_path / "t").iterdir())
    assert not list(tmp_path.rglob("escaped"))


@pytest.mark.parametrize(
    ("where", "value"),
    [
        (("units", 0, "key"), "../../../../x"),
        (("units", 0, "key"), "g" * 64),
        (("cells", 0, "id"), ".."),
        (("cells", 0, "id"), "a/b"),
        (("units", 0, "cell"), "none"),
        (("units", 0, "prompt"), 7),
        (("baseline",), "../x"),
        (("sources",), "y" * 99),
        (("sources",), {"uniform-1": {"model.checkpoint": ["ab"]}}),
    ],
)
def test_names_of_a_plan_have_a_grammar(store, where, value):
    plan = json.loads((store / "plan.json").read_text())
    node = plan
    for part in where[:-1]:
        node = node[part]
    node[where[-1]] = value
    (store / "plan.json").write_text(json.dumps(plan))
    with pytest.raises(ResultsError, match=r"plan\.json: "):
        read_results(store)


@pytest.mark.parametrize("part", ["video.mkv", "record.json", "records.jsonl", "DONE", "."])
def test_link_that_leaves_a_store_is_not_followed(store, made, tmp_path, part):
    unit = next(store.glob("units/*/*"))
    target = tmp_path / "outside"
    if part == ".":
        shutil.move(unit, target)
        unit.symlink_to(target)
    else:
        files = {p.name: p.read_bytes() for p in unit.iterdir() if p.name != "DONE"}
        files |= {part: (made / "private.mkv").read_bytes()} if part == "video.mkv" else {}
        write_unit_files(store, unit.name, files)
        shutil.move(unit / part, target)
        (unit / part).symlink_to(target)
    # A unit whose files are not its own is no unit; a link above it is refused.
    assert not Store(str(store)).is_done(unit.name)
    if part == ".":
        with pytest.raises(ResultsError, match="leads out"):
            read_results(store)
        return
    results = read_results(store)
    assert not results.units
    assert "leads out" in results.problems[0]


def scores(folder, video, **more):
    """A folder of results that name a video."""
    folder.mkdir()
    row = {"name": "frame_diff", "value": 0.1, "n": 2, "protocol": "p", "subject": "a.mkv"}
    rows = row | {"path": str(video), "prompt": "a", "seed": 0} | more
    (folder / "records.jsonl").write_text(json.dumps(rows) + "\n")
    return folder


@pytest.mark.parametrize("content", [{}, {"content": "1 ab"}])
@pytest.mark.parametrize("how", ["absolute", "relative", "link"])
def test_foreign_records_embed_no_video_from_outside(made, tmp_path, monkeypatch, how, content):
    monkeypatch.chdir(tmp_path)
    private = made / "private.mkv"
    private.with_suffix(".json").write_text('{"name": "secret"}')
    place = {"absolute": private, "relative": Path("../hostile0/private.mkv"), "link": "a.mkv"}
    folder = scores(tmp_path / "scores", place[how], **content)
    if how == "link":
        (folder / "a.mkv").symlink_to(private)
    if how == "relative":
        shutil.copytree(made, tmp_path / "hostile0")
        monkeypatch.chdir(folder)
    (unit,) = read_results(folder).units
    assert unit.video is unit.render_file is None
    assert "secret" not in repr(unit)
    page = write_report(folder).read_text()
    assert "data:image/webp" not in page
    assert "1 of 1 videos is not shown" in page
    if content:
        with pytest.raises(ResultsError, match=r"is not the video that a\.mkv was"):
            load_clips(folder)
    else:
        assert load_clips(folder).clips


def _npy(head, body=b"\0" * 8):
    return b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head.encode() + body


ONE = "{'descr': '<f8', 'fortran_order': False, 'shape': (1,)}\n"


@pytest.mark.parametrize(
    ("member", "method"),
    [
        (_npy(ONE.replace("1,", "1099511627776,")), zipfile.ZIP_STORED),  # 8 TiB
        (_npy(ONE.replace("1,", "9" * 30 + ",")), zipfile.ZIP_STORED),
        (_npy("{'descr': (\n"), zipfile.ZIP_STORED),
        (_npy("'" * 3 + "\n"), zipfile.ZIP_STORED),
        (_npy("  1\n 2\n3\n"), zipfile.ZIP_STORED),
        (b"no array", zipfile.ZIP_STORED),
        (_npy(ONE.replace("1,", f"{1 << 22},"), bytes(8 << 22)), zipfile.ZIP_DEFLATED),
        (_npy(ONE), 99),
        (_npy(ONE), "encrypted"),
    ],
    ids=["8 TiB", "digits", "half", "quote", "indents", "no array", "bomb", "method", "cipher"],
)
def test_features_that_cannot_be_read_are_refused(member, method):
    file = io.BytesIO()
    how = method if method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) else zipfile.ZIP_STORED
    with zipfile.ZipFile(file, "w", how) as archive:
        archive.writestr("net.npy", member)
    data = bytearray(file.getvalue())
    central = data.rindex(b"PK\x01\x02")
    if method == 99:  # a compression that nobody knows
        data[8], data[central + 10] = method, method
    if method == "encrypted":
        data[6] |= 1
        data[central + 8] |= 1
    with pytest.raises(ResultsError, match=r"store/features\.npz.*Remove it"):
        arrays_of(bytes(data), "store/features.npz")
    with pytest.raises(ResultsError, match=r"store/features\.npz.*Remove it"):
        arrays_of(member, "store/features.npz")


def _chunk(name, data):
    body = name + data
    return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))


def test_picture_that_claims_a_huge_size_fails_alone(tmp_path, capsys):
    size = struct.pack(">II", 100_000, 100_000)
    control = struct.pack(">IIIIIHHBB", 0, 100_000, 100_000, 0, 0, 1, 8, 0, 0)
    parts = (b"IHDR", size + b"\x08\x02\0\0\0"), (b"acTL", struct.pack(">II", 1, 0))
    parts += (b"fcTL", control), (b"IDAT", zlib.compress(bytes(100))), (b"IEND", b"")
    bomb = b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*part) for part in parts)
    (tmp_path / "bomb.png").write_bytes(bomb)
    write_video(tmp_path / "good.mkv", noise(3, 16, 24), fps=8, codec="ffv1")
    evaluated = evaluate(find_items([tmp_path]), Settings(families=("appearance",)))
    assert [r.subject for r in evaluated.failures] == ["bomb.png"]
    assert "damaged at frame 0" in evaluated.failures[0].skipped_reason
    # As a still it has no EXIF data that can be read; as a baseline's picture it is none.
    assert exif_orientation(tmp_path / "bomb.png") == (False, False, False)
    assert read_strip(tmp_path / "bomb.png", 4) is None


def test_own_videos_elsewhere_are_known_by_their_content(made, tmp_path):
    video = shutil.copy(made / "private.mkv", tmp_path / "mine.mkv")
    Path(video).with_suffix(".json").write_text('{"name": "mine"}')
    folder = scores(tmp_path / "scores", video, content=content_of(Path(video)))
    (unit,) = read_results(folder).units
    assert unit.video == Path(video)
    assert unit.cell == "mine"


def test_pictures_of_a_baseline_come_from_its_folder(tmp_path):
    clip = {"cell": "", "prompt": "a", "seed": 0, "strip": "../../private.webp"}
    head = {"kind": "vidcfg.regress/1", "clips": [clip]}
    (tmp_path / "baseline.json").write_text(json.dumps(head))
    (tmp_path / "records.jsonl").write_text("")
    with pytest.raises(ResultsError, match=r"baseline\.json: clips\.0\.strip is"):
        load_clips(tmp_path)


ESCAPE = "\x1b]0;owned\x07\x1b[2J\x9b1m\u202e"


def test_no_command_prints_what_a_terminal_obeys(store, capsys):
    from vidcfg.regress.__main__ import main as regress
    from vidcfg.report.__main__ import main as report
    from vidcfg.sweep.__main__ import main as sweep

    plan = json.loads((store / "plan.json").read_text())
    plan["name"] = plan["cells"][0]["label"] = f"cell {ESCAPE} |=1+1"
    (store / "plan.json").write_text(json.dumps(plan))
    (failure,) = (store / "failed").iterdir()
    failure.write_text(json.dumps({"key": failure.stem, "kind": ESCAPE, "message": ESCAPE}))
    assert sweep(["status", str(store)]) == 1
    assert report([str(store)]) == 0
    assert report([str(store), "--baseline", ESCAPE]) == 2
    assert regress(["check", f"{store}{ESCAPE}", "--baseline", str(store), "--debug"]) == 2
    with pytest.raises(SystemExit):
        report([f"--{ESCAPE}"])
    said = "".join(capsys.readouterr())
    assert said.count(r"\x1b]0;owned\x07\x1b[2J\x9b1m\u202e") >= 5
    assert not set(ESCAPE[0] + "\x07\x9b\u202e") & set(said)
    # Nor does its table; the label stays one cell of it.
    table = (store / "report" / "report.md").read_text()
    assert "\x1b" not in table
    assert r"\|=1+1" in table


def test_junit_holds_any_name(tmp_path):
    from xml.etree import ElementTree

    from vidcfg.regress.output import _junit

    made = _junit([(f"<a>&{ESCAPE}", "failure", {"message": ESCAPE}, ESCAPE)])
    assert ElementTree.fromstring(made)[0].get("name").startswith("<a>&")


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (
            ["metrics.mc_flicker.margin=1e300"],
            "margin is 1e\\+300, but must be above 0 and at most",
        ),
        (["metrics.mc_flicker.tolerance=.inf"], "not finite"),
        (["alpha=inf"], "Write a finite number"),
    ],
)
def test_policy_that_cannot_be_meant_is_refused(overrides, words):
    with pytest.raises(ValueError, match=words):
        load_policy(None, overrides)


@pytest.mark.parametrize("where", ["output.dir", "prompts.0", "name", "model.checkpoint"])
def test_nul_in_a_setting_is_refused(where):
    quickstart = Path(__file__).parents[1] / "configs" / "quickstart.yaml"
    with pytest.raises(ValueError, match=where.split(".")[0]):
        load_render_config(quickstart, [f'{where}="a\\0b"'])


def test_dry_run_of_a_hundred_thousand_seeds_takes_seconds():
    quickstart = Path(__file__).parents[1] / "configs" / "quickstart.yaml"
    one, begin = load_render_config(quickstart, ["seeds=7"]), time.process_time()
    # As a list each seed is looked up among the others.
    config = one.replace(seeds=list(range(100_000)))
    total = forecast_of(config).plan().total
    assert time.process_time() - begin < 5
    assert total == 100_000 * forecast_of(one).plan().total
