"""A corpus of damaged and hostile inputs: each is read, or refused in a sentence.

A tenth of it by default; `pytest -m slow -s tests/test_mutated.py` prints the counts of the whole.
"""

import json
import random
import shutil
from pathlib import Path

import pytest
from fake_store import write_store, write_unit_files
from mutations import NONSENSE, Tally, mutated, mutated_bytes, mutated_json
from train_mini.config import TrainConfig
from video_files import noise

from vidcfg.evaluate.inputs import find_items, with_prompts
from vidcfg.evaluate.score import score_video
from vidcfg.evaluate.settings import Settings
from vidcfg.media.write import encode_video
from vidcfg.metrics.record import range_of
from vidcfg.regress.check import check_clips
from vidcfg.regress.clips import read_finished, write_baseline
from vidcfg.regress.measure import load_clips
from vidcfg.regress.output import table
from vidcfg.regress.policy import Policy
from vidcfg.render.config import RenderConfig
from vidcfg.report.analyse import analyse
from vidcfg.results import read_results
from vidcfg.settings.document import load_document, read_document, validate
from vidcfg.settings.errors import ConfigError
from vidcfg.settings.strict_yaml import dump_yaml
from vidcfg.stored.read import LARGEST, ResultsError
from vidcfg.sweep.cells import cells_of
from vidcfg.sweep.config import SweepConfig, load_sweep_config
from vidcfg.sweep.plan import make_plan, read_plan
from vidcfg.sweep.store import Store
from vidcfg.sweep.tell import status

CONFIGS = Path(__file__).parents[1] / "configs"


def sizes(whole):
    return pytest.mark.parametrize(
        "count", [whole // 10, pytest.param(whole, marks=pytest.mark.slow)]
    )


def settle(tally, what):
    print(f"\n{what}: {tally}")
    assert not tally.faults
    assert tally.refused
    assert tally.read


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A store of a few units, one of which has failed, and a baseline of another store."""
    root, what = tmp_path_factory.mktemp("good"), {"seeds": (0,), "prompts": ("a", "b")}
    grid = {"modes": ("uniform", "decay"), "scales": (1.0, 3.0), "families": ("appearance",)}
    write_store(root / "store", **what, **grid, failing=[("uniform-1", 1, 0)])
    grid = {"modes": ("uniform",), "scales": (1.0,), "families": ("appearance", "warp")}
    write_store(root / "whole", **what | {"prompts": ("a", "b", "c")}, **grid)
    facts = {"made_by": {"commit": "abc"}, "noise": {"mc_flicker": {"sd": 0.05, "n": 6}}}
    write_baseline(root / "baseline", read_finished(root / "whole"), facts=facts)
    return root


@sizes(500)
def test_mutated_configurations(count, monkeypatch):
    monkeypatch.chdir(CONFIGS / "sweep")
    paths = {RenderConfig: "*.yaml", SweepConfig: "sweep/*.yaml", TrainConfig: "train/*.yaml"}
    data = {m: [load_document(p).data for p in CONFIGS.glob(form)] for m, form in paths.items()}
    data[Policy] = [Policy().to_dict()]
    tally = Tally()
    for seed in range(count):
        draw = random.Random(seed)
        model = draw.choice(list(data))
        made, what = mutated(draw.choice(data[model]), draw)

        def work(model=model, made=made, what=what):
            document = read_document(dump_yaml(made), source="config.yaml")
            config = validate(document, model)
            if model is SweepConfig:
                cells_of(config, document=document)
            return what if any(word in what for word in NONSENSE) else ""

        tally.of(f"{seed}: {model.__name__}, {what}", work, (ConfigError,))
    settle(tally, "configurations")


def largest(value):
    """The largest number in plain data."""
    if isinstance(value, dict | list | tuple):
        return max(map(largest, value.values() if isinstance(value, dict) else value), default=0)
    return abs(value) if isinstance(value, int | float) else 0


@sizes(200)
def test_mutated_stores(good, tmp_path, count):
    tally, root = Tally(), tmp_path / "store"
    forms = ("plan.json", "summary.json", "jobs/*", "failed/*", "cells/*", "units/*/*/*[!v]")
    for seed in range(count):
        draw = random.Random(seed)
        shutil.copytree(good / "store", root, dirs_exist_ok=True)
        found = sorted(root.glob(draw.choice(forms))) or [root / "plan.json"]
        path = draw.choice(found)
        data, what = mutated_json(path.read_bytes(), draw)
        if path.parent.parent.parent.name == "units" and path.name != "DONE":
            # As a stranger would: what is listed fits what is there.
            files = {p.name: p.read_bytes() for p in path.parent.iterdir() if p.name != "DONE"}
            write_unit_files(root, path.parent.name, files | {path.name: data})
        path.write_bytes(data)

        def work():
            made = analyse(read_results(root))
            json.dumps(made, allow_nan=False)
            return f"{largest(made):g}" if largest(made) > LARGEST else ""

        tally.of(f"{seed}: {path.name}, {what}, report", work, (ResultsError,))

        def tell():
            status(Store(str(root)))

        tally.of(f"{seed}: {path.name}, {what}, status", tell, (ResultsError,))
        shutil.rmtree(root)
    settle(tally, "stores, by report and by status")


@sizes(100)
def test_mutated_plans_for_workers(tmp_path, monkeypatch, count):
    monkeypatch.chdir(CONFIGS / "sweep")
    overrides = ["prompts=[a, b]", "seeds=0-1", "grid={guidance.scale: [3.0, 5.0]}"]
    sweep, document = load_sweep_config("quick.yaml", [*overrides, "baseline=null"])
    good = json.dumps(make_plan(sweep, document=document).to_dict()).encode()
    tally, store = Tally(), Store(str(tmp_path))
    for seed in range(count):
        data, what = mutated_json(good, random.Random(seed))
        (tmp_path / "plan.json").write_bytes(data)

        def work():
            plan = read_plan(store.read_json("plan.json"))
            plan.jobs(plan.keys)

        tally.of(f"{seed}: {what}", work, (ResultsError, ConfigError))
    settle(tally, "plans")


@sizes(100)
def test_mutated_baselines(good, tmp_path, count):
    tally, new, root = Tally(), load_clips(good / "whole"), tmp_path / "baseline"
    policy = Policy(metrics={"mc_flicker": {"guard": None}, "sharpness": {}})
    for seed in range(count):
        draw = random.Random(seed)
        shutil.copytree(good / "baseline", root, dirs_exist_ok=True)
        path = root / draw.choice(("baseline.json", "records.jsonl"))
        data, what = mutated_json(path.read_bytes(), draw)
        path.write_bytes(data)

        def work():
            table(check_clips(new, load_clips(root), policy))

        tally.of(f"{seed}: {path.name}, {what}", work, (ResultsError,))
    settle(tally, "baselines")


@sizes(100)
def test_mutated_prompts_and_records_beside_videos(good, tmp_path, count):
    tally, video = Tally(), tmp_path / "a.mkv"
    video.write_bytes(b"")
    record = next((good / "whole").glob("units/*/*/record.json")).read_bytes()
    prompts = b'[{"video": "a.mkv", "prompt": "a kite"}]'
    for seed in range(count):
        draw = random.Random(seed)
        beside, told = mutated_json(record, draw), mutated_json(prompts, draw)
        video.with_suffix(".json").write_bytes(beside[0])
        (tmp_path / "prompts.json").write_bytes(told[0])

        def work():
            items = find_items([video])
            for item in (*items, *with_prompts({"": items}, tmp_path / "prompts.json")[""]):
                item.prompt.encode()

        tally.of(f"{seed}: {beside[1]}, {told[1]}", work, (ValueError,))
    settle(tally, "prompts")


@sizes(100)
def test_damaged_videos(tmp_path, count):
    tally = Tally()
    frames = noise(5, 16, 24)
    kinds = [("ffv1", ".mkv"), ("h264", ".mp4"), ("h264_lossless", ".mp4")]
    videos = [(encode_video(frames, fps=8, codec=codec), ending) for codec, ending in kinds]
    for seed in range(count):
        draw = random.Random(seed)
        data, ending = draw.choice(videos)
        made, what = mutated_bytes(data, draw)
        path = tmp_path / f"{seed}{ending}"
        path.write_bytes(made)

        def work(path=path):
            # A video that cannot be read is told on a record.
            scored = score_video(find_items([path])[0], Settings(("appearance",)))
            for record in scored.records:
                if record.status == "failed":
                    raise ValueError(record.skipped_reason)
                if abs(record.value or 0) > max(map(abs, range_of(record.unit))):
                    return f"{record.name} {record.value}"
            return ""

        tally.of(f"{seed}: {ending}, {what}", work, (ValueError,))
    settle(tally, "videos")
