"""What must not count as done: damaged units, other weights, what vanishes while a sweep runs."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest
from tiny_sweep import plan_of, starts

from vidcfg import __version__
from vidcfg.render.identity import NUMERICS
from vidcfg.results import read_results
from vidcfg.stored.unit import facts_of
from vidcfg.sweep import plan as plan_module
from vidcfg.sweep import run as run_module
from vidcfg.sweep.__main__ import main
from vidcfg.sweep.worker import Worker


def test_damaged_units_are_made_again_and_no_others(sweep, store, done):
    unit = plan_of(store)["units"][5]["key"]
    store.write(f"{store.unit(unit)}/records.jsonl", b"{}\n")
    assert sweep() == 0
    assert {key for key, count in starts(store).items() if count > 1} == {unit}
    assert store.is_done(unit)
    assert len(store.names("damaged")) == 1


def test_what_no_longer_is_what_was_planned_is_never_taken_for_done(
    sweep, store, tiny_model, tmp_path, capsys
):
    """Weights, and a plan of before: refused with the reason; files stay, unread."""
    model = shutil.copytree(tiny_model, tmp_path / "model")
    words = [f"set={{model.checkpoint: {model}}}", "seeds=3", "prompts=[a red circle]"]
    arguments = [part for word in words for part in ("--set", word)]
    assert sweep(*arguments) == 0
    keys = {unit["key"] for unit in plan_of(store)["units"]}
    capsys.readouterr()
    assert sweep(*arguments) == 0
    told = capsys.readouterr().err
    by = f"vidcfg {__version__}, numerics {NUMERICS}"
    assert f"keeps 4 videos that are there (4 by {by}): settings, prompts and" in told
    assert store.read_json("summary.json")["units_made_by"] == {by: 4}

    # Weights of the same size
    path = model / "vae" / "diffusion_pytorch_model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert sweep(*arguments) == 2
    told = capsys.readouterr().err
    assert "4 finished videos that this sweep leaves out or would make otherwise" in told
    assert ": the content of model.checkpoint is another). Use --store" in told
    assert sweep(*arguments, "--replace-plan") == 0
    assert "warning: left aside: 4 finished videos" in capsys.readouterr().err
    assert keys.isdisjoint(unit["key"] for unit in plan_of(store)["units"])
    assert set(starts(store).values()) == {1}

    # A plan whose keys are of another kind, and that names no sources
    old = plan_of(store)
    del old["sources"]
    for unit in old["units"]:
        new, unit["key"] = unit["key"], unit["key"][::-1]
        folder = Path(store.path(store.unit(unit["key"])))
        shutil.copytree(store.path(store.unit(new)), folder)
        record = (folder / "record.json").read_bytes().replace(new.encode(), unit["key"].encode())
        (folder / "record.json").write_bytes(record)
        facts = json.loads((folder / "DONE").read_text()) | {"record.json": facts_of(record)}
        (folder / "DONE").write_text(json.dumps(facts))
    store.write_json("plan.json", old)
    assert sweep(*arguments) == 2
    told = capsys.readouterr().err
    assert "made by a vidcfg that did not note what its videos are made of" in told


def test_weights_that_change_before_they_are_loaded_stop_a_sweep(
    sweep, store, tiny_model, tmp_path, capsys, monkeypatch
):
    model = shutil.copytree(tiny_model, tmp_path / "model")
    config = model / "scheduler" / "scheduler_config.json"
    load = Worker.load

    def late(self, job):
        config.write_text(config.read_text().replace("2.0", "3.0"))
        load(self, job)

    monkeypatch.setattr(Worker, "load", late)
    assert sweep("--set", f"set={{model.checkpoint: {model}}}", "--set", "seeds=3") == 3
    told = capsys.readouterr().err
    assert "planned with: the content of model.checkpoint is another. Run the same" in told
    assert store.done_keys([unit["key"] for unit in plan_of(store)["units"]]) == set()


@pytest.mark.parametrize(
    ("gone", "code", "why"),
    [
        ("unit", 1, "1 units that were made or were there do not read back (one of them "),
        ("plan.json", 3, "has no plan.json any more: it was removed while the sweep ran"),
        ("", 3, "has no plan.json any more: it was removed while the sweep ran"),
    ],
)
def test_what_vanishes_while_a_sweep_runs_is_told(
    sweep, store, done, capsys, monkeypatch, gone, code, why
):
    """A unit, the plan, or the whole store; with one unit still to be made."""
    keys = [unit["key"] for unit in plan_of(store)["units"]]
    shutil.rmtree(store.path(store.unit(keys[-1])))
    make = Worker.run

    def run(self, job):
        store.fs.rm(store.path(store.unit(keys[0]) if gone == "unit" else gone), recursive=True)
        return make(self, job)

    monkeypatch.setattr(Worker, "run", run)
    assert sweep() == code
    assert why in capsys.readouterr().err
    assert keys[-1] in store.done_keys(keys)


def test_repair_has_no_dead_end_and_is_reported(sweep, store, done, tmp_path, capsys):
    """A file and a link in place of a unit, features cut short that a `DONE` vouches for."""
    units = [Path(store.path(store.unit(unit["key"]))) for unit in plan_of(store)["units"]]
    file, link, cut = units[:3]
    shutil.rmtree(file)
    file.write_bytes(b"thesis")
    link.rename(tmp_path / "elsewhere")
    link.symlink_to(tmp_path / "elsewhere")
    listed = json.loads((cut / "DONE").read_text())
    listed["features.npz"] = {"size": 2, "sha256": hashlib.sha256(b"PK").hexdigest()}
    (cut / "features.npz").write_bytes(b"PK")
    (cut / "DONE").write_text(json.dumps(listed))
    assert main(["status", store.url]) == 1
    assert "13 of 16 units done" in capsys.readouterr().out
    assert sweep() == 0
    told = capsys.readouterr().err
    aside = store.names("damaged")
    assert sorted(name[:64] for name in aside) == sorted(unit.name for unit in units[:3])
    for name in aside:
        assert f"warning: set aside as {store.path('damaged')}/{name}" in told
    assert store.read_json("summary.json")["set_aside"] == aside
    assert len(store.done_keys([unit.name for unit in units])) == 16


def test_a_sweep_whose_plan_is_gone_goes_on_with_what_is_there(sweep, store, done):
    """As a message about a damaged `plan.json` says: remove it, run the same command."""
    before, plan = starts(store), plan_of(store)
    store.remove("plan.json")
    assert sweep() == 0
    assert starts(store) == before
    assert plan_of(store)["units"] == plan["units"]


def test_videos_that_other_code_of_a_metric_measured_are_not_gone_on_with(
    sweep, store, done, capsys, monkeypatch
):
    """One that is new is measured for what is missing; code that changed refuses the store."""

    def own(code):
        made = {"red_share": code} if code else {}
        monkeypatch.setattr(plan_module, "foreign_metrics", lambda families: made)
        return sweep("--replace-plan")

    assert [own(code) for code in ("1" * 64, "1" * 64, None, "1" * 64)] == [0] * 4
    before = plan_of(store)
    assert own("2" * 64) == 2
    assert "holds videos measured with other code: red_share." in capsys.readouterr().err
    assert plan_of(store) == before
    shutil.rmtree(store.path("units"))
    assert own("2" * 64) == 0


def test_records_of_cells_are_never_those_of_other_settings(sweep, store, done, monkeypatch):
    """A ramp to 0.5 has the id that a ramp to 1 had; the sweep ends before anything is made."""

    def end(*arguments, **how):
        raise KeyboardInterrupt

    of_cells = {cell: len(rows) for cell, rows in read_results(store.root).of_cells.items()}
    assert min(of_cells.values()) > 0
    with monkeypatch.context() as patch:
        patch.setattr(run_module, "drive", end)
        assert sweep("--set", "workers.batch=2") == 130
        kept = read_results(store.root).of_cells
        assert {cell: len(rows) for cell, rows in kept.items()} == of_cells
        grid = "grid={guidance.frames: [uniform, {kind: ramp, first: 0.0, last: 0.5}], guidance.scale: [1.0, 4.0]}"  # noqa: E501
        assert sweep("--set", grid, "--replace-plan") == 130
    results = read_results(store.root)
    assert results.of_cells == {cell: [] for cell in of_cells}
    assert [cell.settings["guidance.frames"] for cell in results.cells][-1]["last"] == 0.5


@pytest.mark.parametrize(("when", "code"), [("load", 3), ("run", 1)])
def test_a_plan_that_another_sweep_replaces_is_told(
    sweep, store, done, capsys, monkeypatch, when, code
):
    """Before and after a worker has read it; a `KeyError` of each unit is no answer."""
    shutil.rmtree(store.path("units"))
    other, make = plan_of(store), getattr(Worker, when)
    other["units"] = [unit for unit in other["units"] if unit["seed"] == 3]

    def meanwhile(self, *arguments):
        assert when == "load" or self.plan
        store.write_json("plan.json", other)
        return make(self, *arguments)

    monkeypatch.setattr(Worker, when, meanwhile)
    assert sweep() == code
    told = capsys.readouterr().err
    assert f"another sweep has put its plan in place of this one in {store.url}." in told
    assert "KeyError" not in told


def test_a_unit_in_the_folder_of_another_one_is_made_again(sweep, store, done, capsys):
    first, second = (unit["key"] for unit in plan_of(store)["units"][:2])
    shutil.rmtree(store.path(store.unit(second)))
    shutil.copytree(store.path(store.unit(first)), store.path(store.unit(second)))
    (problem,) = read_results(store.root).problems
    assert f"it holds the unit {first[:12]}" in problem
    assert not store.is_done(second)
    assert sweep() == 0
    assert store.render_of(second)["unit"] == second
