"""Whole sweeps of a tiny model in this process, through the real command."""

import hashlib
import json
import shutil
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from stand_in_trackers import stand_in
from tiny_sweep import plan_of, starts

from vidcfg.render import job
from vidcfg.sweep import executor, worker
from vidcfg.sweep.__main__ import Logged, main
from vidcfg.sweep.run import make_executor, put_plan, run_sweep, unit_records
from vidcfg.sweep.store import NoStoreError, Store
from vidcfg.sweep.worker import Worker


def test_a_sweep_leaves_every_unit_whole_and_a_second_run_makes_nothing(sweep, store, capsys):
    assert sweep() == 0
    keys = [unit["key"] for unit in plan_of(store)["units"]]
    assert len(keys) == 16
    assert store.done_keys(keys) == set(keys)
    first = starts(store)
    assert sweep() == 0
    assert starts(store) == first
    assert "16 were there" in capsys.readouterr().out


def test_in_this_process_steps_and_units_of_one_job_are_followed(plan, store):
    """A job of four: its steps are told, then each of its units, before the next one is made."""
    made, steps, seen = plan("workers={batch: 32}", "seeds=3"), [], []

    def look(books):
        seen.append((books.done, len(store.done_keys(made.keys)), len(steps)))

    on_step = lambda done, total, *, what: steps.append((done, total, what))  # noqa: E731
    here = make_executor(made, store, on_step=on_step)
    run_sweep(made, store, here, on_change=look)
    assert {(done, there) for done, there, _ in seen} == {(n, n) for n in range(9)}
    text = "a red circle moving left over a navy background"
    assert [step for step in steps if step[2] == f"3 of '{text}'"] == [
        (k, 3, f"3 of '{text}'") for k in (1, 2, 3)
    ]


def test_a_worker_elsewhere_tells_the_steps_of_a_shared_run_before_its_units(
    plan, store, monkeypatch
):
    monkeypatch.setattr(executor, "STEP_SECONDS", 0.0)
    made = plan("workers={batch: 32}", "seeds=3")
    put_plan(store, made)
    (job,) = [job for job in made.jobs(made.keys) if len(job.units) == 3]
    here = Worker(store.url)
    here.load(job)
    *steps, _, _, _, end = found = list(executor.with_steps(here, job))
    what = "3 of 'a red circle moving left over a navy background'"
    assert steps == [{"step": k, "steps": 3, "what": what} for k in (1, 2, 3)]
    assert [result.get("key") for result in found[3:6]] == list(job.units)
    assert end["kind"] == "done"


def test_of_several_models_that_of_the_first_job_alone_is_loaded(
    plan, store, tiny_model, tmp_path, monkeypatch
):
    other, loaded = shutil.copytree(tiny_model, tmp_path / "other"), []
    (other / "more.bin").write_bytes(b"another content")
    load = worker.load_pipeline
    monkeypatch.setattr(worker, "load_pipeline", lambda model: loaded.append(model) or load(model))
    made = plan(f"grid={{model.checkpoint: [{tiny_model}, {other}]}}", "seeds=3")
    put_plan(store, made)
    units = [unit.key for unit in made.grid_units if unit.cell == made.cells[1].id]
    here = make_executor(made, store)
    here.submit(*made.jobs(units[:1]))
    assert [event.kind for _ in range(2) for event in here.wait(1.0)] == ["unit", "done"]
    assert [model.checkpoint for model in loaded] == [str(other)]


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (0, 3, 1, 2), (3, 0, 1, 2)])
def test_values_do_not_depend_on_how_frames_lie_in_memory(plan, store, monkeypatch, order):
    made, measured, seen = plan("seeds=3", "metrics=[mini, flicker]"), Worker._measured, []

    def measure(self, key, config, unit, rendered):
        stored = np.ascontiguousarray(rendered.frames_THWC.transpose(order))
        frames = stored.transpose(np.argsort(order))
        other = replace(rendered, frames_THWC=frames)
        seen.append([measured(self, key, config, unit, one) for one in (rendered, other)])
        return seen[-1][0]

    monkeypatch.setattr(Worker, "_measured", measure)
    put_plan(store, made)
    assert list(Worker(store.url).run(made.jobs(made.keys)[0]))
    for (rows, features), (other_rows, other_features) in seen:
        assert rows == other_rows
        assert all(np.array_equal(features[name], other_features[name]) for name in features)
        assert "mini" in features


def test_a_unit_is_measured_beside_its_encoding(plan, store, monkeypatch):
    made, measuring, seen = plan("seeds=3"), threading.Event(), []
    measured, encode = Worker._measured, job.encode_video

    def measure(*arguments):
        measuring.set()
        return measured(*arguments)

    def encoded(*arguments, **options):
        seen.append(measuring.wait(20))
        return encode(*arguments, **options)

    monkeypatch.setattr(Worker, "_measured", measure)
    monkeypatch.setattr(job, "encode_video", encoded)
    put_plan(store, made)
    results = list(Worker(store.url).run(made.jobs(made.keys)[0]))
    assert seen == [True] * len(results)
    assert {result["status"] for result in results} == {"done"}


def test_executed_evaluations_are_those_planned(store, done):
    summary = store.read_json("summary.json")
    jobs = [store.read_json(f"jobs/{name}") for name in store.names("jobs")]
    assert summary["executed"] == summary["planned"] == sum(job["executed"] for job in jobs)
    assert summary["executed"] < plan_of(store)["planned"]["separate"]
    assert summary["finished"]
    assert summary["done"] == 16


def test_rules_that_do_the_same_at_first_share_more_than_is_planned(sweep, store):
    """`every` decides from the second step on; a term of strength 1 does nothing beside cfg."""
    methods = "[{kind: delta_reuse, every: 1}, {kind: delta_reuse, every: 2}, [cfg, {kind: stg, scale: 1.0}]]"  # noqa: E501
    assert sweep("--set", f"grid={{guidance.method: {methods}}}", "--set", "seeds=3") == 0
    summary = store.read_json("summary.json")
    assert (summary["mismatches"], summary["self_check"]["equal"]) == ([], True)
    assert summary["executed"] < summary["planned"]


def test_a_condition_that_a_rule_changes_is_evaluated_beside_the_plain_one(sweep, store):
    """By hand: the first step of three shares no cond, for one of the two is annealed."""
    assert sweep("--set", "grid={guidance.method: [cfg, cads]}", "--set", "seeds=3") == 0
    plan, summary = plan_of(store), store.read_json("summary.json")
    assert plan["planned"]["shared"] == 2 * (3 + 4 + 4)
    assert (summary["executed"], summary["mismatches"]) == (summary["planned"], [])


def test_a_unit_is_the_video_that_render_makes(store, done, sweep_file, tmp_path):
    from vidcfg.render.__main__ import main as render

    out = tmp_path / "single"
    frames = "guidance.frames={kind: ramp, first: 0.0, last: 1.0}"
    arguments = ["--set", frames, "--set", "guidance.scale=4.0", "--out", str(out), "--quiet"]
    assert render([str(sweep_file.parent / "base.yaml"), *arguments]) == 0
    hashes = {
        (r["prompt"]["text"], r["seed"]): r["video"]["frames_sha256"]
        for r in (json.loads(path.read_text()) for path in out.glob("*.json"))
    }
    plan = plan_of(store)
    mine = {}
    for unit in plan["units"]:
        if unit["cell"] == "ramp-scale-4":
            record = store.read_json(f"{store.unit(unit['key'])}/record.json")
            mine[record["prompt"]["text"], record["seed"]] = record["video"]["frames_sha256"]
    assert len(mine) == 4
    assert mine == hashes


def test_rows_are_those_that_evaluate_gives_for_the_lossless_file(sweep, store):
    """All but where the video is, and that it has not been through a codec."""
    from vidcfg.evaluate.inputs import Item
    from vidcfg.evaluate.run import evaluate
    from vidcfg.evaluate.settings import Settings

    metrics = "metrics=[flicker, warp, motion, appearance, mini]"
    assert sweep("--set", metrics, "--set", "prompts=[a red circle moving left]") == 0
    unit = plan_of(store)["units"][3]
    folder = store.path(store.unit(unit["key"]))
    text = store.fs.cat_file(f"{folder}/records.jsonl").decode()
    mine = {row["name"]: row for row in map(json.loads, text.splitlines())}
    item = Item(Path(folder) / "video.mkv", "x", "a red circle moving left", stride=4)
    settings = Settings(families=("flicker", "warp", "motion", "appearance", "mini"))
    other = {row["name"]: row for row in evaluate([item], settings).rows if row["path"]}
    assert set(mine) == set(other)
    for name, row in mine.items():
        assert (row["value"], row["n"], row["protocol"], row["status"]) == tuple(
            other[name][key] for key in ("value", "n", "protocol", "status")
        )
        assert row["subject"] == row["unit_key"] == unit["key"]
        assert row["path"] == f"{store.unit(unit['key'])}/video.mkv"
    with np.load(f"{folder}/features.npz") as features:
        assert set(features.files) == {"mini"}


def test_a_larger_grid_extends_a_store(sweep, store, done):
    grid = "grid={guidance.scale: [1.0, 4.0, 6.0], guidance.frames: [uniform, {kind: ramp, first: 0.0, last: 1.0}]}"  # noqa: E501
    assert sweep("--set", grid, "--set", "seeds=3-5") == 0
    # New: one scale for two frame modes, and a seed for the four cells of before.
    assert len(starts(store)) == 2 * 3 * 2 * 3
    assert set(starts(store).values()) == {1}


def test_a_store_of_other_videos_is_refused_with_what_to_type(
    sweep, store, done, tmp_path, capsys
):
    before = plan_of(store)
    assert sweep("--set", "set={sampling.num_steps: 2}") == 2
    message = capsys.readouterr().err
    assert "16 finished videos" in message
    assert "--replace-plan" in message
    assert sweep("--set", "metrics=[flicker]") == 2
    assert "measured by flicker, motion" in capsys.readouterr().err
    (tmp_path / "net.pt").write_bytes(b"weights")
    weights = ("--set", f"weights={{i3d-k400: {tmp_path / 'net.pt'}}}", "--replace-plan")
    for words in (weights[:2], weights, (*weights, "--set", "metrics=[flicker]")):
        assert sweep(*words) == 2
        assert "videos measured with other weights: i3d-k400." in capsys.readouterr().err
    assert sweep("--set", "name=other") == 2
    assert "holds the sweep 'tiny'" in capsys.readouterr().err
    assert plan_of(store) == before
    assert sweep("--set", "seeds=3", "--replace-plan") == 0


def test_a_folder_with_other_files_is_refused(sweep, tmp_path, capsys):
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "thesis.txt").write_text("mine")
    assert sweep() == 2
    assert "holds other files" in capsys.readouterr().err


def test_a_plan_that_another_driver_writes_meanwhile_is_no_foreign_file(store, plan):
    """The other one starts first and is done with its plan between any two looks at the store."""
    other, made = Store(store.url), plan()

    def beside(look):
        def looked(*arguments):
            seen = look(*arguments)
            if other.read_json("plan.json") is None:
                put_plan(other, made)
            return seen

        return looked

    store.names, store.read_json = beside(store.names), beside(store.read_json)
    put_plan(store, made)
    assert other.read_json("plan.json") == json.loads(json.dumps(made.to_dict()))
    # What is foreign is told all the same.
    foreign = Store(f"{store.url}/units")
    foreign.write_json("letter.json", {})
    with pytest.raises(NoStoreError, match="units holds other files. Name an empty folder, or on"):
        put_plan(foreign, made)


def alter(store, key):
    """Make a finished unit one of other frames, whole by its own hashes."""
    folder = store.unit(key)
    record = store.read_json(f"{folder}/record.json")
    record["video"]["frames_sha256"] = "0" * 64
    done, text = store.read_json(f"{folder}/DONE"), json.dumps(record).encode()
    done["record.json"] = {"size": len(text), "sha256": hashlib.sha256(text).hexdigest()}
    store.write(f"{folder}/record.json", text)
    store.write_json(f"{folder}/DONE", done)


def test_the_self_check_is_noted_and_a_difference_fails_the_sweep(sweep, store, done, capsys):
    check = store.read_json("summary.json")["self_check"]
    assert (check["equal"], check["pairs"]) == (True, 4)
    alter(store, plan_of(store)["check"]["pairs"][0][1])
    assert sweep() == 1
    assert "1 of 4 pairs differ" in capsys.readouterr().err


def test_a_grid_without_a_pair_is_checked_too(sweep, store, capsys):
    arguments = ("--set", "grid={guidance.scale: [2.0, 4.0]}", "--set", "seeds=3")
    assert sweep(*arguments) == 0
    check = store.read_json("summary.json")["self_check"]
    assert (check["equal"], check["pairs"]) == (True, 1)
    assert len(plan_of(store)["units"]) == 4
    alter(store, plan_of(store)["check"]["pairs"][0][1])
    capsys.readouterr()
    assert sweep(*arguments) == 1
    assert capsys.readouterr().err.splitlines()[-1] == (
        "self-check: the cells self-check-1 and self-check-2 have guidance off and should be "
        "equal, but 1 of 1 pairs differ"
    )


def test_cells_get_the_means_of_their_units(store, done):
    plan = plan_of(store)
    for cell in plan["cells"]:
        text = store.fs.cat_file(store.path(f"cells/{cell['id']}/records.jsonl")).decode()
        of_set = {row["name"]: row for row in map(json.loads, text.splitlines())}
        values = []
        for unit in plan["units"]:
            if unit["cell"] == cell["id"]:
                rows = store.fs.cat_file(store.path(f"{store.unit(unit['key'])}/records.jsonl"))
                found = [json.loads(line) for line in rows.splitlines()]
                values += [r["value"] for r in found if r["name"] == "frame_diff"]
        assert len(values) == 4
        assert of_set["frame_diff"]["value"] == pytest.approx(np.mean(values), rel=1e-12)
        assert of_set["frame_diff"]["n"] == 4


def test_an_unfinished_sweep_compares_what_all_cells_have(store, done):
    """Without one unit of a cell, its (prompt, seed) is left out of every cell."""
    from vidcfg.sweep.plan import read_plan
    from vidcfg.sweep.run import write_cells

    plan = plan_of(store)
    lost = plan["units"][0]["key"]
    shutil.rmtree(store.path(store.unit(lost)))
    done = store.done_keys([unit["key"] for unit in plan["units"]])
    write_cells(store, read_plan(plan), done)
    for cell in plan["cells"]:
        text = store.fs.cat_file(store.path(f"cells/{cell['id']}/records.jsonl")).decode()
        rows = {row["name"]: row for row in map(json.loads, text.splitlines())}
        assert rows["frame_diff"]["n"] == 3


def test_a_sweep_goes_to_any_place_that_fsspec_knows(sweep, tmp_path):
    url = f"memory://{tmp_path.name}/sweep"
    assert sweep("--store", url, "--set", "seeds=3") == 0
    store = Store(url)
    keys = [unit["key"] for unit in plan_of(store)["units"]]
    assert len(keys) == 8
    assert store.done_keys(keys) == set(keys)
    store.fs.rm(store.root, recursive=True)


def test_a_dry_run_tells_the_cost_and_writes_nothing(sweep, tmp_path, capsys):
    assert sweep("--dry-run") == 0
    text = capsys.readouterr().out
    assert "4 cells x 2 prompts x 2 seeds = 16 videos" in text
    assert "96 at 2 per step" in text
    assert str(tmp_path / "store") in text
    assert not (tmp_path / "store").exists()


def test_a_model_whose_commit_is_not_known_is_warned_about(sweep, capsys):
    model = "set={model: {kind: diffusers, checkpoint: some/video}}"
    assert sweep("--dry-run", "--set", model) == 0
    assert "warning: model.checkpoint is not on this machine: if" in capsys.readouterr().err
    pinned = model.replace("some/video", f"some/video, revision: {'a' * 40}")
    assert sweep("--dry-run", "--set", pinned) == 0
    assert "not on this machine" not in capsys.readouterr().err


def test_status_tells_each_cell_without_a_model(store, done, capsys):
    capsys.readouterr()
    assert main(["status", store.url]) == 0
    assert "16 of 16 units done" in capsys.readouterr().out
    assert main(["status", store.url + "x"]) == 2


def test_a_wrong_option_or_file_has_exit_code_2(sweep, capsys):
    assert sweep("--set", "grid={guidance.scale: [true]}") == 2
    assert "guidance.scale" in capsys.readouterr().err


def test_the_report_is_written_at_the_end(sweep_file, tmp_path, capsys):
    assert main([str(sweep_file)]) == 0
    page = tmp_path / "store" / "report" / "index.html"
    assert page.exists()
    assert f"report: {page}" in capsys.readouterr().out


def test_log_tells_a_tracker_the_videos_of_each_cell_and_what_failed(
    done, sweep, store, plan, monkeypatch
):
    seen = stand_in("tensorboard", monkeypatch)
    made = plan()
    assert sweep("--log", "tensorboard") == 0
    assert json.loads(seen.parameters["grid.guidance.scale"]) == [1.0, 4.0]
    assert "guidance.scale" not in seen.parameters
    # a number is a prompt and a seed, the same in every cell
    assert len(seen.videos) == 4
    assert seen.videos[3] == f"{made.prompts[1].text}, seed 4"
    for unit in made.grid_units:
        number = 2 * unit.prompt + unit.seed - 3
        records = {record.name: record.value for record in unit_records(store, unit.key)}
        told = seen.values[number]
        of_cell = {k.split("/")[0]: v for k, v in told.items() if k.endswith(f"/{unit.cell}")}
        assert of_cell == {k: v for k, v in records.items() if v is not None}
    # one that fails is told as such, and nothing twice
    told, unit = [], made.grid_units[0]
    shutil.rmtree(store.path(store.unit(unit.key)))
    logged = Logged(made, store, lambda *values: told.append(values))
    for _ in range(2):
        logged(SimpleNamespace(failed={unit.key: None}), is_last=True)
    assert len(told) == len(made.grid_units)
    assert [values for _, _, values in told if f"failed/{unit.cell}" in values] == [
        {f"failed/{unit.cell}": 1.0}
    ]
