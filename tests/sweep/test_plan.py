"""Units, jobs and counts, before anything is rendered."""

import itertools
import json
import re
import shutil
from pathlib import Path

import pytest
from PIL import Image

from vidcfg.stored.shapes import CELL_ID
from vidcfg.sweep.config import load_sweep_config
from vidcfg.sweep.jobs import ends_after
from vidcfg.sweep.plan import make_plan, read_plan

ROOT = Path(__file__).parents[2]

GRID = "grid={guidance.scale: [1.0, 2.0, 3.0, 4.0, 5.0]}"
VALUES = [
    [2.0 + scale if start <= k < stop else 1.0 for k in range(12)]
    for scale in range(4)
    for start in (0, 2)
    for stop in (5, 12)
]
INTERVALS = f"grid={json.dumps({'guidance.scale': VALUES})}"


def test_every_unit_of_the_grid_is_there_once(plan):
    made = plan()
    places = [(u.cell, u.prompt, u.seed) for u in made.grid_units]
    cells = [cell.id for cell in made.cells]
    assert sorted(places) == sorted(itertools.product(cells, (0, 1), (3, 4)))
    assert len({unit.key for unit in made.units}) == len(made.units)


def test_keys_do_not_depend_on_the_grid_around_a_unit(plan):
    small = {(u.cell, u.prompt, u.seed): u.key for u in plan().grid_units}
    large = {(u.cell, u.prompt, u.seed): u.key for u in plan("seeds=2-9").grid_units}
    assert all(large[place] == key for place, key in small.items())


@pytest.mark.parametrize(
    "change",
    [
        "set={sampling.num_steps: 4}",
        "set={sampling.scheduler: heun}",
        "set={guidance.rescale: 0.5}",
        "set={video.fps: 12}",
        "set={output.video: h264_lossless}",
        "prompts=[a red star, {text: a blue square growing over a teal background, negative: x}]",
    ],
)
def test_whatever_changes_a_video_changes_its_key(plan, change):
    assert {u.key for u in plan().grid_units}.isdisjoint(u.key for u in plan(change).grid_units)


def test_keys_follow_the_files_of_the_model_and_not_their_place(plan, tiny_model, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(tiny_model, copy)
    moved = plan(f"set={{model.checkpoint: {copy}}}")
    assert [u.key for u in moved.units] == [u.key for u in plan().units]
    config = copy / "scheduler" / "scheduler_config.json"
    config.write_text(config.read_text().replace("2.0", "3.0"))
    other = plan(f"set={{model.checkpoint: {copy}}}")
    assert {u.key for u in other.units}.isdisjoint(u.key for u in moved.units)


def test_cells_and_prompts_whose_files_hold_the_same_are_refused(plan, tiny_model, tmp_path):
    """They would be one video, and the second one's would be missing."""
    copy = shutil.copytree(tiny_model, tmp_path / "copy")
    with pytest.raises(ValueError, match=r"the cells '.*' and '.*copy' name files of equal cont"):
        plan(f"grid={{model.checkpoint: [{tiny_model}, {copy}]}}")
    for name in ("a", "b"):
        Image.new("RGB", (12, 8)).save(tmp_path / f"{name}.png")
    texts = [{"text": "a red star", "image": str(tmp_path / f"{name}.png")} for name in "ab"]
    other = {"model": {"kind": "diffusers", "checkpoint": "nobody/moves"}}
    changes = {"set": other | {"sampling.scheduler": "pipeline"}, "prompts": texts}
    with pytest.raises(ValueError, match=r"prompts\.0 and prompts\.1 name files of equal content"):
        plan(*(f"{name}={json.dumps(value)}" for name, value in changes.items()))


def test_a_cell_named_after_the_folder_above_has_an_id_that_is_no_path(
    plan, tmp_path, monkeypatch
):
    monkeypatch.chdir(Path(plan().cells[0].config.model.checkpoint) / "vae")
    (cell,) = plan("grid={model.checkpoint: [..]}").cells
    assert re.fullmatch(CELL_ID, cell.id)


def test_one_prompt_and_seed_is_one_job_for_one_worker(plan):
    made = plan(GRID)
    jobs = made.jobs([u.key for u in made.grid_units], num_workers=1)
    assert len(jobs) == 4
    for job in jobs:
        units = [made.by_key[key] for key in job.units]
        assert len({(unit.prompt, unit.seed) for unit in units}) == 1


def test_jobs_hold_every_unit_once_however_they_are_cut(plan):
    made = plan(GRID)
    keys = [unit.key for unit in made.units]
    for num_workers, batch in itertools.product((1, 2, 3, 8, 100), (1, 2, 32)):
        jobs = made.jobs(keys, num_workers=num_workers, batch=batch)
        assert sorted(itertools.chain(*(job.units for job in jobs))) == sorted(keys)
        assert max(len(job.units) for job in jobs) <= batch
        assert len({job.id for job in jobs}) == len(jobs)
        assert len(jobs) >= min(num_workers, len(keys))


def thirds(plan, keys, num_workers):
    """The costliest groups halved until there are three jobs for each worker."""
    pieces = {group: plan.cost(group) for group in plan.groups(keys)}
    while len(pieces) < 3 * num_workers:
        piece = max(pieces, key=lambda p: (len(p) > 1, pieces[p]))
        pieces.pop(piece)
        middle = len(piece) // 2
        pieces |= {half: plan.cost(half) for half in (piece[:middle], piece[middle:])}
    return sorted(pieces.values(), reverse=True)


@pytest.mark.parametrize("num_workers", [2, 5, 8, 16])
def test_work_is_cut_only_where_workers_would_stand_idle(plan, num_workers):
    """Against three jobs for each worker: fewer evaluations, or an end that is sooner."""
    made = plan(INTERVALS, "set={sampling.num_steps: 12}", "seeds=0-7")
    keys = [unit.key for unit in made.grid_units]
    costs = [made.cost(job.units) for job in made.jobs(keys, num_workers=num_workers)]
    others = thirds(made, keys, num_workers)
    ends, other_ends = ends_after(costs, num_workers), ends_after(others, num_workers)
    # One evaluation of rounding for each piece, beside the 2 % that count as equally soon.
    assert ends <= 1.02 * other_ends + 1
    assert sum(costs) <= sum(others) or ends < other_ends


def test_a_published_grid_is_cut_for_64_workers_with_the_fewest_evaluations():
    """18 cells, 32 pairs of prompt and seed: two jobs of each pair, and one of the self-check;
    192 jobs, three for each worker, would take 9,320 evaluations."""
    sweep, document = load_sweep_config(ROOT / "configs" / "sweep" / "quick.yaml")
    made = make_plan(sweep, document=document)
    jobs = made.jobs(made.keys, num_workers=64)
    assert (len(jobs), sum(made.cost(job.units) for job in jobs)) == (65, 9066)


def test_a_plan_is_read_back_from_its_file(plan):
    for overrides in ((), (GRID,)):
        made = plan(*overrides)
        again = read_plan(json.loads(json.dumps(made.to_dict())))
        assert again.to_dict() == made.to_dict()
        assert again.jobs(again.keys, num_workers=3) == made.jobs(made.keys, num_workers=3)


def test_the_costliest_job_comes_first(plan):
    made = plan(GRID)
    jobs = made.jobs([unit.key for unit in made.units], num_workers=4)
    costs = [made.evaluations(job.units).total for job in jobs]
    assert costs == sorted(costs, reverse=True)


def test_settings_that_forbid_one_run_are_in_different_jobs(plan):
    made = plan("grid={sampling.num_steps: [3, 5], guidance.passes: [sequential, batched]}")
    jobs = made.jobs([unit.key for unit in made.grid_units], num_workers=1)
    assert len(jobs) == 16


@pytest.mark.parametrize(
    "methods",
    [
        "[cfg, dual, apg]",
        "[{kind: multi, conditions: [{name: sky, prompt: a red star, scale: 2.0}]}, cfg, "
        "{kind: multi, conditions: [{name: sky, prompt: a blue star, scale: 2.0}]}]",
    ],
)
def test_cells_whose_branches_read_different_texts_are_in_different_jobs(plan, methods):
    """`uncond` of dual sees the empty prompt; the second `sky` is another. cfg goes with one."""
    negative = "prompts=[{text: a red circle, negative: blurry}]"
    made = plan(f"grid={{guidance.method: {methods}}}", negative, "seeds=[3, 4]")
    jobs = made.jobs([unit.key for unit in made.grid_units], num_workers=1)
    of_job = sorted(sorted(made.by_key[key].cell for key in job.units) for job in jobs)
    cells = [cell.id for cell in made.cells]
    apart = cells[1] if cells[1] == "dual" else cells[2]
    assert of_job == sorted([[apart], sorted({*cells} - {apart})] * 2)


def test_counts_of_a_small_grid_are_those_counted_by_hand(plan):
    """Scales 1 to 5, three steps: alone 3 + 4 x 6 evaluations. Together: the first step is
    cond and uncond once; after it each of four guided paths takes 2 x 2, and the plain one 2."""
    counts = plan(GRID).counts
    assert counts == {"naive": 4 * 5 * 6, "separate": 4 * 27, "shared": 4 * (2 + 4 * 4 + 2)}


def test_a_grid_without_a_pair_to_check_gets_a_hidden_one(plan):
    made = plan(GRID)
    # The plain cell of the grid is one of the two.
    assert len(made.units) == len(made.grid_units) + 1
    assert [cell.id for cell in made.hidden] == list(made.check_cells)
    assert made.check_pairs[0][0] in {unit.key for unit in made.grid_units}
    entry = made.to_dict()
    assert entry["self_check"] is None
    assert {u["cell"] for u in entry["units"]} == {cell.id for cell in made.cells}


def test_the_pair_to_check_is_off_whatever_the_convention_of_the_first_cell(plan):
    made = plan("grid={guidance.method: [{kind: cfg, convention: w}, apg]}")
    assert all(cell.config.guidance.is_off for cell in made.hidden)
    assert [made.alone[cell.id] for cell in made.hidden] == [3, 3]


def test_a_sweep_of_images_has_a_pair_to_check_that_its_plan_can_hold(plan):
    made = plan(
        "grid={guidance.scale: [2.0, 3.0]}", "set={video.num_frames: 1, guidance: {scale: 2.0}}"
    )
    assert [cell.config.guidance.is_off for cell in made.hidden] == [True, True]
    assert all(first != second for first, second in made.check_pairs)
    assert read_plan(made.to_dict()).hidden == made.hidden


def test_a_grid_with_scale_1_under_two_frame_modes_checks_all_of_them(plan):
    made = plan()
    assert not made.hidden
    assert len(made.check_pairs) == 4
    frames = [made.cell_of[c].config.guidance.frames.kind for c in made.check_cells]
    assert frames == ["uniform", "ramp"]


def test_one_of_the_pairs_is_not_made_in_one_run(plan):
    """Units that share an evaluation would be equal whatever went wrong."""
    made = plan()
    jobs = made.jobs([unit.key for unit in made.units], num_workers=1)
    job_of = {key: job.id for job in jobs for key in job.units}
    apart = [job_of[first] != job_of[second] for first, second in made.check_pairs]
    assert apart == [True, False, False, False]


def test_plan_json_is_plain_data_with_all_that_a_reader_needs(plan):
    made = json.loads(json.dumps(plan().to_dict(), allow_nan=False))
    assert made["kind"] == "vidcfg.sweep/1"
    assert made["baseline"] == "uniform-scale-4"
    cell = made["cells"][3]
    assert cell["settings"]["guidance.scale"] == 4.0
    assert len(cell["surface"]["latent_strength"]) == 3
    # Latent frames of weights 0, 5/16 and 13/16 (means over pixels): both branches on each step.
    assert cell["evaluations"] == 6
    assert set(made["planned"]) == {"naive", "separate", "shared"}


def test_a_cell_that_its_model_cannot_make_is_named(load):
    sweep, document = load("grid={video.num_frames: [9, 10]}")
    with pytest.raises(ValueError, match=r"num_frames 10.*Use 9 or 13"):
        make_plan(sweep, document=document)
