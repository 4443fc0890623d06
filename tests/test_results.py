import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from fake_store import unit_key, write_json, write_store

from vidcfg.metrics.record import Record
from vidcfg.regress.clips import MeasuredClip, as_set, write_baseline
from vidcfg.report.sentences import first_lines
from vidcfg.report.table import make_table
from vidcfg.results import Key, load, read_results
from vidcfg.stored.read import ResultsError, measures_of
from vidcfg.sweep.store import Store


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """6 cells, 4 prompts, 2 seeds, all there. Tests that change files copy it."""
    return write_store(tmp_path_factory.mktemp("sweep") / "store")


@pytest.fixture
def copied(store, tmp_path):
    return shutil.copytree(store, tmp_path / "store")


def unit_folder(root, cell="uniform-3", prompt=1, seed=0):
    key = unit_key(cell, prompt, seed)
    return root / "units" / key[:2] / key


def test_every_unit_of_the_plan_comes_back_with_its_place(store):
    results = read_results(store)
    assert results.kind == "sweep"
    assert len(results.cells) == 6
    assert len(results.units) == 6 * 4 * 2
    assert not results.missing
    assert not results.problems
    for unit in results.units:
        index = results.prompts.index(unit.prompt)
        assert unit.key == unit_key(unit.cell, index, unit.seed)
        assert unit.video.suffix == ".mkv"
        assert unit.records["frame_diff"].value > 0
    assert results.baseline == "uniform-3"


def test_prompts_of_one_text_go_by_the_images_that_they_start_from(copied):
    plan = json.loads((copied / "plan.json").read_text())
    plan["prompts"][:3] = [
        {"text": "it moves", "negative": "", "image": "/data/kite.png"},
        {"text": "it moves", "negative": "", "image": "/data/fox.png"},
        {"text": "it moves", "negative": "", "image": None},
    ]
    (copied / "plan.json").write_text(json.dumps(plan))
    results = read_results(copied)
    assert results.prompts[:3] == ("it moves (kite.png)", "it moves (fox.png)", "it moves")
    table = make_table(results)
    assert len(table.pairs) == 8
    for unit in results.units:
        assert unit.key == unit_key(unit.cell, results.prompts.index(unit.prompt), unit.seed)
    assert not any("Several videos" in line for line in first_lines(results, table))


def test_scored_videos_of_one_text_go_by_the_images_of_their_records(store, tmp_path):
    rows = []
    for index, image in enumerate(("kite.png", "fox.png", "fox.png")):
        unit = read_results(store).units[index]
        video = Path(shutil.copy(unit.video, tmp_path / f"{index}.mkv"))
        render = {"kind": "vidcfg.render/1", "settings": {"prompt": {"image": image}}}
        video.with_suffix(".json").write_text(json.dumps(render))
        place = {"path": str(video), "subject": video.name, "prompt": "it moves", "seed": 0}
        rows += [json.dumps(r.to_dict() | place) for r in unit.records.values()]
    (tmp_path / "records.jsonl").write_text("\n".join(rows))
    results = read_results(tmp_path)
    kite, fox = "it moves (kite.png)", "it moves (fox.png)"
    assert [unit.prompt for unit in results.units] == [kite, fox, fox]
    # What is still one place is told.
    (line,) = (x for x in first_lines(results, make_table(results)) if "Several videos" in x)
    assert f"'{fox}', seed 0: the last of each counts" in line
    assert kite not in line


def test_unit_without_done_is_missing_and_not_a_problem(copied):
    (unit_folder(copied) / "DONE").unlink()
    results = read_results(copied)
    assert results.missing == (unit_key("uniform-3", 1, 0),)
    assert not results.problems


@pytest.mark.parametrize("how", ["shorter", "other", "gone", "no-json"])
def test_damaged_unit_is_left_aside_and_named(copied, how):
    folder = unit_folder(copied)
    if how == "shorter":
        (folder / "video.mkv").write_bytes(b"x")
    elif how == "other":
        text = (folder / "records.jsonl").read_text()
        (folder / "records.jsonl").write_text(text.replace("frame_diff", "frame_diss"))
    elif how == "gone":
        (folder / "record.json").unlink()
    else:
        (folder / "DONE").write_text("{")
    results = read_results(copied)
    assert len(results.units) == 47
    assert str(folder) in results.problems[0]
    assert "Run the sweep again" in results.problems[0]
    assert results.missing == (folder.name,)


def test_failed_unit_is_listed_with_its_error(tmp_path):
    root = write_store(
        tmp_path, scales=(1.0,), modes=("uniform",), families=(), failing=[("uniform-1", 2, 1)]
    )
    (failure,) = read_results(root).failed
    assert (failure.cell, failure.seed, failure.kind) == ("uniform-1", 1, "oom")
    assert "out of memory" in failure.message


def test_failure_of_a_unit_that_was_done_later_is_forgotten(copied):
    key = unit_key("uniform-1", 0, 0)
    write_json(copied / "failed" / f"{key}.json", {"key": key, "kind": "lost"})
    assert not read_results(copied).failed


def evaluation_rows(store):
    for unit in read_results(store).units:
        if unit.cell == "uniform-1":
            place = {"path": str(unit.video), "prompt": unit.prompt, "seed": unit.seed}
            for record in unit.records.values():
                yield record.to_dict() | place | {"subject": f"{unit.key}.mkv"}


def test_output_of_evaluate_is_one_cell(store, tmp_path):
    rows = list(evaluation_rows(store))
    rows.append(rows[0] | {"path": None, "subject": "set", "prompt": None, "seed": None})
    (tmp_path / "records.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    results = read_results(tmp_path)
    assert results.kind == "evaluation"
    assert [cell.id for cell in results.cells] == ["all"]
    assert len(results.units) == 8
    assert {unit.seed for unit in results.units} == {0, 1}
    assert len(results.of_cells["all"]) == 1


def test_video_that_could_not_be_scored_is_a_failure(store, tmp_path):
    row = next(evaluation_rows(store))
    bad = row | {"value": None, "status": "failed", "skipped_reason": "b.mp4 is empty"}
    rows = [row, bad | {"subject": "b.mp4", "path": "b.mp4", "name": "read"}]
    (tmp_path / "records.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    results = read_results(tmp_path)
    assert len(results.units) == 1
    assert results.failed[0].message == "b.mp4 is empty"


@pytest.mark.parametrize(
    "line",
    [
        '{"schema": 2, "name": "a", "value": 1, "n": 1, "protocol": ""}',
        "{",
        '{"value": 1}',
        '{"name": "a", "value": NaN}',
        '{"name": "a", "value": "1"}',
    ],
)
def test_damaged_line_is_named_with_its_number(tmp_path, line):
    good = '{"name": "a", "value": 1.0, "n": 1, "protocol": ""}'
    (tmp_path / "records.jsonl").write_text(f"{good}\n{line}\n")
    with pytest.raises(ResultsError, match=r"records\.jsonl:2: no record .*again"):
        read_results(tmp_path)


def test_lines_end_where_json_lines_do(tmp_path):
    # As jq writes them: what only Unicode calls the end of a line stays as it is.
    row = {"name": "a", "value": 1.0, "n": 1, "protocol": "", "subject": "a\u2028b", "path": "x"}
    text = json.dumps(row, ensure_ascii=False) + "\r\n"
    (tmp_path / "records.jsonl").write_text(text + text.replace("\u2028", "\x85"), newline="")
    assert [unit.key for unit in read_results(tmp_path).units] == ["a\u2028b", "a\x85b"]
    assert [r.subject for r in measures_of(text.replace(', "path": "x"', ""), "x")] == ["a\u2028b"]


def test_folder_without_results_names_the_command(tmp_path):
    with pytest.raises(ResultsError, match="vidcfg evaluate"):
        read_results(tmp_path)
    with pytest.raises(ResultsError, match="does not exist"):
        read_results(tmp_path / "nowhere")


def test_plan_of_another_version_is_refused(copied):
    plan = json.loads((copied / "plan.json").read_text())
    write_json(copied / "plan.json", plan | {"kind": "vidcfg.sweep/2"})
    later = r"later version of vidcfg wrote it \(vidcfg.sweep/2, .*Type: pip install -U vidcfg$"
    with pytest.raises(ResultsError, match=later):
        read_results(copied)


def test_plan_that_lacks_its_units_is_refused(copied):
    plan = json.loads((copied / "plan.json").read_text())
    del plan["units"]
    write_json(copied / "plan.json", plan)
    with pytest.raises(ResultsError, match="units"):
        read_results(copied)


@pytest.fixture
def pandas(monkeypatch):
    """In place of pandas, which nothing else needs: a frame is its rows."""
    monkeypatch.setitem(sys.modules, "pandas", SimpleNamespace(DataFrame=list))


def test_frames_of_a_store_have_a_row_for_every_planned_video(pandas, tmp_path):
    root = write_store(
        tmp_path,
        scales=(1.0, 3.0),
        modes=("uniform",),
        families=("flicker",),
        failing=[("uniform-1", 2, 1)],
        missing=[("uniform-3", 0, 0)],
    )
    units, records = load(root)
    assert len(units) == 2 * 4 * 2
    by_key = {row["key"]: row for row in units}
    results = read_results(root)
    for unit in results.units:
        row = by_key[unit.key]
        assert (row["cell"], row["prompt"], row["seed"]) == (unit.cell, unit.prompt, unit.seed)
        assert (row["status"], row["video"]) == ("done", str(unit.video))
        assert (row["guidance.frames"], row["guidance.scale"]) == ("uniform", float(unit.cell[8:]))
        assert row["frame_diff"] == unit.records["frame_diff"].value
        planned = next(cell.evaluations for cell in results.cells if cell.id == unit.cell)
        assert row["evaluations"] == planned
    gone = {by_key[unit_key(*at)]["status"] for at in [("uniform-1", 2, 1)]}
    assert gone == {"failed"}
    row = by_key[unit_key("uniform-3", 0, 0)]
    assert (row["status"], row["prompt"], row["seed"]) == ("missing", results.prompts[0], 0)
    assert (row["guidance.scale"], row.get("frame_diff")) == (3.0, None)
    # records: those of videos, then those of cells
    of_units = [row for row in records if row["key"] is not None]
    assert len(of_units) == sum(len(unit.records) for unit in results.units)
    assert len(records) - len(of_units) == sum(map(len, results.of_cells.values()))
    first, record = of_units[0], next(iter(results.units[0].records.values()))
    assert (first["metric"], first["value"], first["n"]) == (record.name, record.value, record.n)


def test_frames_of_a_baseline_have_a_row_for_every_clip(pandas, tmp_path):
    records = {"motion": Record("motion", 0.5, 9, "p", "1", "none")}
    keys = Key("", "a red kite", 3), Key("sub", "kite.mp4", -1)
    clips = [MeasuredClip(key, records) for key in keys]
    write_baseline(tmp_path / "kept", as_set("kites", clips))
    units, rows = load(tmp_path / "kept")
    assert [(u["cell"], u["prompt"], u["seed"], u["motion"]) for u in units] == [
        ("", "a red kite", 3, 0.5),
        ("sub", "kite.mp4", None, 0.5),
    ]
    assert [(row["metric"], row["value"], row["n"]) for row in rows] == [("motion", 0.5, 9)] * 2


def test_frames_of_renders_have_their_settings_and_no_records(pandas, tmp_path):
    scale = {"kind": "cosine", "start": 9.0, "end": 2.0, "over": "progress"}
    for number, value in enumerate([scale, {"kind": "constant", "value": 3.0}]):
        settings = {"guidance": {"scale": value, "windows": [{"frames": [0, 3]}]}, "seed": number}
        render = {
            "kind": "vidcfg.render/1",
            "name": "kite",
            "seed": number,
            "seconds": 2.5,
            "settings": settings | {"prompt": {"text": "a kite", "negative": ""}},
            "files": {"video": f"kite-s{number}.mp4"},
            "trace": {"evaluations": {"cond": 6, "uncond": 4}},
        }
        write_json(tmp_path / "sub" / f"kite-s{number}.json", render)
    write_json(tmp_path / "notes.json", {"of": "another program"})
    units, records = load(tmp_path)
    assert records == []
    first, second = units
    assert first == {
        "key": "sub/kite-s0",
        "cell": "sub",
        "label": "kite",
        "prompt": "a kite",
        "seed": 0,
        "status": "done",
        "video": str(tmp_path / "sub/kite-s0.mp4"),
        "seconds": 2.5,
        "evaluations": 10,
        "guidance.scale": "cosine",
        "guidance.scale.start": 9.0,
        "guidance.scale.end": 2.0,
        "guidance.scale.over": "progress",
        "guidance.windows": '[{"frames": [0, 3]}]',
    }
    assert (second["guidance.scale"], second["seed"]) == (3.0, 1)


@pytest.mark.parametrize(
    "part",
    [
        *({"trace": [1]}, {"trace": {"evaluations": {"cond": "6"}}}, {"files": {"video": 7}}),
        *({"settings": {"prompt": "a kite"}}, {"seed": {}}),
    ],
)
def test_a_render_of_another_shape_is_told_with_its_field(pandas, tmp_path, part):
    write_json(tmp_path / "kite-s0.json", {"kind": "vidcfg.render/1"} | part)
    with pytest.raises(ResultsError, match=rf"kite-s0\.json: {next(iter(part))}.* is "):
        load(tmp_path)


def test_what_a_command_at_work_has_half_written_or_removed_is_not_read(
    pandas, copied, monkeypatch
):
    before = read_results(copied)
    folders = copied / "jobs", copied / "failed", copied / "renders"
    for folder in folders:
        folder.mkdir(exist_ok=True)
        (folder / ".tmp-0123abcd-1-0123456789ab.json").write_text("")
    write_json(copied / "renders" / "kite-s0.json", {"kind": "vidcfg.render/1", "seed": 1})
    store = Store(str(copied))
    assert [name for name in store.names("jobs") if name.startswith(".")] == []

    # A file goes between the listing of its folder and its reading.
    gone, reading = {"gone.json"}, Path.read_text
    for folder in folders:
        write_json(folder / "gone.json", {})

    def read_text(path, *args, **kwargs):
        if path.name in gone:
            path.unlink()
        return reading(path, *args, **kwargs)

    monkeypatch.setattr(Path, "read_text", read_text)
    units, _ = load(copied / "renders")
    assert [unit["seed"] for unit in units] == [1]
    after = read_results(copied)
    assert (after.jobs, after.failed) == (before.jobs, before.failed)
    assert not any((folder / "gone.json").exists() for folder in folders)


def test_without_results_or_pandas_load_says_what_is_missing(store, tmp_path, monkeypatch):
    with pytest.raises(ResultsError, match="no store, no scores and no renders"):
        load(tmp_path)
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ModuleNotFoundError, match="load needs pandas, .*Type: pip install pandas"):
        load(store)


def test_the_reader_is_there_once_the_package_is_imported():
    script = "import vidcfg; print(vidcfg.results.load.__name__)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "load\n", done.stderr
