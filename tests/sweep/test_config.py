"""What a sweep file may say, and what is told when it says something else."""

import json
import shutil

import numpy as np
import pytest

from vidcfg.settings.errors import ConfigError
from vidcfg.settings.presets import path_of
from vidcfg.sweep.cells import baseline_of, cells_of


@pytest.fixture
def cells(load):
    def make(*overrides):
        sweep, document = load(*overrides)
        return cells_of(sweep, document=document)

    return make


def test_cells_are_all_combinations_with_the_last_setting_fastest(cells):
    made = cells()
    kinds = [(c.config.guidance.frames.kind, c.config.guidance.scale.value) for c in made]
    assert kinds == [("uniform", 1.0), ("uniform", 4.0), ("ramp", 1.0), ("ramp", 4.0)]


def test_ids_are_readable_file_names_and_all_different(cells):
    made = cells("grid={guidance.scale: [1.0, 4.0], guidance.rescale: [0.0, 0.70]}")
    ids = [cell.id for cell in made]
    assert ids[1] == "scale-1-rescale-0.7"
    assert len(set(ids)) == 4
    assert made[1].label == "scale 1 · rescale 0.7"


def test_a_grid_varies_one_rule_of_a_list(cells):
    rules = json.dumps([{"kind": "cfg"}, {"kind": "stg", "scale": 1.5}])
    made = cells(f"set={{guidance.method: {rules}}}", "grid={guidance.method.1.scale: [1.2, 2]}")
    scales = [[rule.scale for rule in cell.config.guidance.method.terms] for cell in made]
    assert [[cfg, stg.value] for cfg, stg in scales] == [[None, 1.2], [None, 2.0]]
    assert [cell.label for cell in made] == ["method.1.scale 1.2", "method.1.scale 2"]


def test_labels_that_read_the_same_still_have_different_ids(cells):
    points = [[[0.0, 1.0], [1.0, 0.5]], [[0.0, 1.0], [1.0, 0.5000001]]]
    kinds = [{"kind": "knots", "points": one} for one in points]
    made = cells(f"grid={json.dumps({'guidance.frames': kinds})}")
    assert made[0].id != made[1].id


def test_matrix_of_a_grid_lies_beside_the_sweep_file_wherever_the_base_is(cells, tmp_path):
    base = tmp_path / "elsewhere" / "base.yaml"
    base.parent.mkdir()
    (tmp_path / "base.yaml").rename(base)
    for name, strength in (("a", 3.0), ("b", 5.0)):
        np.save(tmp_path / f"{name}.npy", np.full((3, 3), strength))
    made = cells("base=elsewhere/base.yaml", "grid={guidance.scale: [a.npy, b.npy]}")
    assert [max(cell.config.guidance.scale.numbers()) for cell in made] == [3.0, 5.0]
    assert [cell.id for cell in made] == ["a.npy", "b.npy"]


def test_every_problem_of_every_cell_is_told_at_once(cells):
    with pytest.raises(ConfigError) as caught:
        cells("grid={guidance.rescale: [0.5, 1.5, -1.0], guidance.scale: [2.0]}")
    messages = str(caught.value).splitlines()
    assert len(messages) == 2
    assert all("guidance.rescale" in message for message in messages)
    assert "1.5" in messages[0]
    assert "-1" in messages[1]


def test_an_unknown_setting_in_the_grid_names_the_nearest(cells):
    with pytest.raises(ConfigError, match=r"Did you mean 'guidance\.scale'"):
        cells("grid={guidance.scael: [1.0, 2.0]}")


def test_a_wrong_value_in_the_base_names_its_file_and_line(cells, sweep_file):
    base = sweep_file.parent / "base.yaml"
    base.write_text(base.read_text().replace("num_steps: 3", "num_steps: none"))
    with pytest.raises(ConfigError, match=r"base\.yaml:9: sampling\.num_steps"):
        cells()


def test_a_base_that_is_missing_is_named(load):
    sweep, document = load("base=nowhere.yaml")
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: no such file"):
        cells_of(sweep, document=document)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("grid={}", "must map settings to lists"),
        ("grid={guidance.scale: 3.0}", "must have a list of values"),
        ("grid={guidance.scale: [3.0, 3.0]}", "has 3.0 twice"),
        ("grid={seeds: [1, 2]}", "varies seeds, which all cells share"),
        ("baseline={guidance.scale: 9.0}", "which the grid does not have"),
        ("baseline={guidance.clamp: 2.0}", "is not in the grid"),
        ("workers={num: -1}", "workers.num is -1"),
        ("workers={nmu: 1}", "Did you mean 'workers.num'"),
        ("prompts=[]", "must be a list of prompts"),
        ("seeds=3-1", "Write 1-3"),
        ("metrics=[]", "at least one item"),
    ],
)
def test_what_cannot_be_is_refused_with_the_fix(load, sweep_file, override, message):
    with pytest.raises(ConfigError) as caught:
        load(override)
    assert message in str(caught.value)


def test_a_store_that_this_process_alone_sees_is_refused_for_workers(load):
    assert load("store=memory://x")[0].workers.num == 0
    with pytest.raises(ConfigError, match="Use --workers 0, or --store with a folder") as told:
        load("store=memory://x", "workers.num=2")
    assert "store is memory://x, which this process alone sees, and workers.num is 2." in str(
        told.value
    )


@pytest.mark.parametrize(
    ("value", "fix"), [("1.5", r"Use 1 or 2\."), ("0.00001", r"Use 0\."), ("-1", "from 0 to 64")]
)
def test_parts_of_a_gpu_that_ray_cannot_hand_out_are_refused(load, value, fix):
    assert load("workers.gpus_per_worker=0.3")[0].workers.gpus_per_worker == 0.3
    with pytest.raises(ConfigError, match=f"gpus_per_worker.*{fix}"):
        load(f"workers.gpus_per_worker={value}")
    with pytest.raises(ConfigError, match=r"cpus_per_worker.*from 0\.0001 to 1024"):
        load("workers.cpus_per_worker=0.00001")


def test_a_cluster_is_not_left_aside_for_this_process(sweep, capsys):
    assert sweep("--address", "auto", "--dry-run") == 2
    assert "workers.num is 0, which is this process alone" in capsys.readouterr().err


def test_metrics_and_references_that_there_are_not_are_refused(plan):
    with pytest.raises(ConfigError, match="Did you mean 'flicker'"):
        plan("metrics=[flicke]")
    with pytest.raises(ConfigError, match="the reference nowhere does not exist"):
        plan("reference=nowhere")
    with pytest.raises(ConfigError, match="weights: nowhere.pt, given for i3d-k400, is no file"):
        plan("weights={i3d-k400: nowhere.pt}")
    with pytest.raises(ConfigError, match="weights: no weights are named 'i3d'"):
        plan("weights={i3d: nowhere.pt}")


def test_files_of_weights_reach_what_measures(plan, tmp_path):
    (tmp_path / "i3d.pt").touch()
    settings = plan(f"weights={{i3d-k400: {tmp_path}/i3d.pt}}").settings(device="cuda")
    assert (settings.paths, settings.device) == ({"i3d-k400": f"{tmp_path}/i3d.pt"}, "cuda")


def test_two_cells_that_render_the_same_are_refused(cells):
    with pytest.raises(ConfigError, match="same"):
        cells("grid={guidance.frames: [uniform, {kind: uniform}]}")


def test_set_changes_the_base_and_prompts_and_seeds_are_for_all_cells(cells):
    made = cells("set={sampling.num_steps: 5}", "prompts=[a red star]", "seeds=7-8")
    assert {cell.config.sampling.num_steps for cell in made} == {5}
    assert {cell.config.prompts[0].text for cell in made} == {"a red star"}
    assert {cell.config.seeds for cell in made} == {(7, 8)}


def test_prompts_come_from_text_files_and_json_lines(cells, sweep_file):
    text = sweep_file.parent / "some.txt"
    text.write_text("# of shapes\na red star\u2028 turning\n\na blue ring\n")
    lines = sweep_file.parent / "some.jsonl"
    lines.write_text('"a red star"\n{"text": "a blue ring", "negative": "dull"}\n')
    plain = cells("prompts={file: some.txt}")[0].config.prompts
    rich = cells("prompts={file: some.jsonl}")[0].config.prompts
    # What only Unicode calls the end of a line ends no prompt.
    assert [prompt.text for prompt in plain] == ["a red star\u2028 turning", "a blue ring"]
    assert [(p.text, p.negative) for p in rich] == [("a red star", ""), ("a blue ring", "dull")]


def test_a_prompt_ends_where_its_line_does_and_at_no_other_separator(cells, sweep_file):
    text, odd = sweep_file.parent / "some.txt", "a red\u2028star \x0bin\x85the dark"
    text.write_bytes(f"\ufeff{odd}\r\na blue ring".encode())
    prompts = cells("prompts={file: some.txt}")[0].config.prompts
    assert [prompt.text for prompt in prompts] == [odd, "a blue ring"]


@pytest.mark.parametrize("ending", ["csv", "tsv", "json", "yaml"])
def test_a_table_is_no_file_of_prompts(cells, sweep_file, ending):
    (sweep_file.parent / f"some.{ending}").write_text("text,negative\na red star,dull\n")
    with pytest.raises(ConfigError, match=rf"some\.{ending}: is no text. Write one prompt a line"):
        cells(f"prompts={{file: some.{ending}}}")


def test_files_of_a_sweep_may_lie_in_the_home_of_the_user(load, tmp_path, monkeypatch):
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    (home / "some.txt").write_text("a red star\na blue ring\n")
    shutil.copy(path_of("quickstart"), home / "base.yaml")
    sweep, document = load(
        "prompts={file: ~/some.txt}", "base=~/base.yaml", "reference=~/real", "store=~/runs/kite"
    )
    assert [p.text for p in cells_of(sweep, document=document)[0].config.prompts] == [
        "a red star",
        "a blue ring",
    ]
    assert (sweep.store, sweep.reference) == (f"{home}/runs/kite", f"{home}/real")


def test_a_wrong_line_of_a_prompt_file_is_named(cells, sweep_file):
    (sweep_file.parent / "some.jsonl").write_text('"a red star"\n{"txet": "a"}\n')
    with pytest.raises(ConfigError, match=r"some\.jsonl:2: .*text"):
        cells("prompts={file: some.jsonl}")


def test_the_baseline_is_as_written_or_the_first_uniform_cell_that_is_guided(load):
    sweep, document = load()
    assert baseline_of(sweep, cells_of(sweep, document=document)) == "uniform-scale-4"
    sweep, document = load("baseline={guidance.scale: 1.0}")
    assert baseline_of(sweep, cells_of(sweep, document=document)) == "uniform-scale-1"
