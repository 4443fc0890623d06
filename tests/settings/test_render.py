import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vidcfg.guidance.setting import Guidance
from vidcfg.render.config import RenderConfig, load_render_config
from vidcfg.settings.document import read_document, validate
from vidcfg.settings.errors import ConfigError
from vidcfg.settings.presets import head_of

ROOT = Path(__file__).parents[2]
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_shipped_file_loads_and_says_how_to_run_it(path):
    config = load_render_config(path)
    assert config.notes == []
    assert config.name == path.stem
    assert config.output.dir == f"out/{path.stem}"
    head = head_of(path)
    assert [*head] == ["Run", "For", "Evidence", "Writes", "Source"]
    assert head["Run"].startswith(f"vidcfg render {path.stem}")
    assert head["Writes"].startswith(f"out/{path.stem}/ ")
    page = re.search(r"docs/\S+\.md", head["Evidence"])
    assert head["Evidence"] == "untested" or (ROOT / page[0]).is_file()


def test_the_promised_files_are_shipped():
    promised = {"quickstart", "uniform", "keyframes", "decay", "schedules", "negative_prompt"}
    assert promised <= {path.stem for path in CONFIGS}


def test_quickstart_stays_small_enough_for_a_minute():
    config = load_render_config(next(p for p in CONFIGS if p.stem == "quickstart"))
    assert len(config.prompts) * len(config.seeds) <= 4
    assert (config.guidance.scale.kind, config.guidance.frames.kind) == ("cosine", "keyframes")


def test_prompts_may_be_plain_text(kite):
    config = kite.load("prompts=[a red circle, {text: a cross, negative: blurry}]")
    assert [(p.text, p.negative) for p in config.prompts] == [
        ("a red circle", ""),
        ("a cross", "blurry"),
    ]
    assert kite.load("prompts=a red circle").prompts[0].text == "a red circle"


@pytest.mark.parametrize(
    ("seeds", "expected"),
    [("0-3", (0, 1, 2, 3)), ("7", (7,)), ("[5, 2]", (5, 2)), ("4-4", (4,))],
)
def test_seeds_are_a_number_a_list_or_an_inclusive_range(kite, seeds, expected):
    assert kite.load(f"seeds={seeds}").seeds == expected
    assert kite.load(seeds=seeds).seeds == expected


def test_seed_option_wins_over_the_file_and_names_itself(kite):
    assert kite.load(seeds=[3, 4]).seeds == (3, 4)
    assert kite.load("seeds=1", seeds=9).seeds == (9,)
    assert kite.error(seeds="x").startswith("--seed x: seeds is the text 'x', but must be")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["guidance.scale=[1, 2, 3]"],
            "--set guidance.scale=[1, 2, 3]: guidance.scale has 3 numbers, "
            "but sampling.num_steps is 30. Give one number per step, or use kind: knots.",
        ),
        (
            ["video.num_frames=1"],
            "kite.yaml:14: guidance.frames has no effect: video.num_frames is 1. Write uniform.",
        ),
        (
            ["guidance.frames.at.1=99"],
            "--set guidance.frames.at.1=99: guidance.frames.at.1 is 99, "
            "but the clip has frames 0 to 16 (or -17 to -1 from the end).",
        ),
        (
            ["prompts.1.text=a red circle moving left"],
            "kite.yaml:7: prompts.1 repeats prompts.0. "
            "Delete it; more videos come from more seeds.",
        ),
        (
            ["guidance.method=dual", "prompts.0.negative=blurry"],
            "kite.yaml:7: prompts.1.negative is empty, but guidance.method dual steers away from "
            "it. Write what to avoid.",
        ),
        (
            ["prompts.0.image=a.png"],
            "--set prompts.0.image=a.png: prompts.0.image is set, "
            "but the mini model starts from text alone. Delete it.",
        ),
        (
            ["guidance.scale={high: 3, low: 2}"],
            "--set guidance.scale={high: 3, low: 2}: guidance.scale names experts, "
            "but the mini model is one network. Write one schedule.",
        ),
        (
            ["model={kind: mini, attention: xformers, device: cpu}"],
            "--set model={kind: mini, attention: xformers, device: cpu}: model.attention is "
            "'xformers', which needs CUDA, but device is cpu. Write sdpa, or device: cuda.",
        ),
    ],
)
def test_values_that_do_not_go_together_are_refused(kite, overrides, message):
    assert kite.error(*overrides) == message


def test_a_section_can_be_replaced_as_a_whole(kite):
    config = kite.load("guidance={scale: 3.0}")
    assert config.guidance == Guidance(scale=3.0)


def test_harmless_leftovers_are_noted_with_their_path(kite):
    config = kite.load(
        "guidance.scale=1.0", "guidance.frames=uniform", "prompts.0.negative=blurry"
    )
    assert config.notes == [
        "prompts.0.negative has no effect: guidance.scale is off on every step.",
        "guidance.rescale has no effect: guidance.scale is 1 (off) on every step.",
    ]


def test_the_resolved_file_writes_every_default_in_the_words_of_the_file(kite):
    data = kite.load("guidance.windows=[{frames: [0, 4], to: 0.5}]").to_dict()
    assert data["schema"] == 1
    assert data["seeds"] == [0, 1]
    assert data["guidance"]["windows"] == [{"frames": [0, 4], "from": 0.0, "to": 0.5}]
    assert data["guidance"]["scale"]["over"] == "progress"
    assert data["model"]["device"] == "auto"


number = st.floats(-20, 20)
fraction = st.floats(0, 1)
positions = st.lists(fraction, min_size=1, max_size=4, unique=True).map(sorted)


def of_kind(kind, **fields):
    return st.fixed_dictionaries({"kind": st.just(kind), **fields})


def knots(values):
    points = positions.flatmap(lambda ps: st.tuples(*[st.tuples(st.just(p), values) for p in ps]))
    return of_kind("knots", points=points.map(lambda pairs: [list(pair) for pair in pairs]))


over = st.sampled_from(["progress", "sigma"])
schedules = st.one_of(
    number,
    st.lists(number, min_size=7, max_size=7),
    of_kind("linear", start=number, end=number, over=over),
    of_kind("cosine", start=number, end=number),
    of_kind("step", start=number, end=number, switch=fraction),
    of_kind("interval", **{"value": number, "from": st.just(0.0), "to": fraction}),
    knots(number),
)
frame_weights = st.one_of(
    st.just("uniform"),
    of_kind("decay", end=st.floats(0.01, 0.99), curve=st.sampled_from(["cosine", "exponential"])),
    of_kind("ramp", first=st.floats(0.1, 0.9), last=fraction),
    of_kind("trapezoid", edge=st.floats(0.01, 0.5)),
    of_kind(
        "keyframes",
        at=st.lists(st.sampled_from(["first", "1.5s", 3, -2]), min_size=1, max_size=3),
        floor=st.floats(0, 0.9),
        reach=st.floats(0.5, 9),
    ),
)
texts = st.text(st.characters(exclude_categories=["Cs", "Cc", "Cn"]), min_size=1, max_size=12)


@settings(max_examples=40, deadline=None)
@given(
    scale=schedules,
    frames=frame_weights,
    rescale=fraction,
    clamp=st.none() | st.floats(0.1, 9),
    text=texts.filter(str.strip),
    seeds=st.lists(st.integers(0, 2**60 - 1), min_size=1, max_size=4, unique=True),
)
def test_a_config_survives_being_written_and_read(scale, frames, rescale, clamp, text, seeds):
    if scale == 1.0:
        frames = "uniform"
    config = RenderConfig(
        schema=1,
        name="kite",
        model="mini",
        prompts=[text],
        seeds=seeds,
        video={"num_frames": 17, "height": 32, "width": 48, "fps": 8},
        sampling={"num_steps": 7},
        guidance={"scale": scale, "frames": frames, "rescale": rescale, "clamp": clamp},
        output={"dir": "out"},
    )
    again = validate(read_document(config.to_yaml(), source="again"), RenderConfig)
    assert again == config
    assert again.to_yaml() == config.to_yaml()


def test_importing_the_config_brings_neither_torch_nor_diffusers():
    code = (
        "import sys, vidcfg.render.config; "
        "heavy = ('torch', 'diffusers', 'cv2', 'ray'); "
        "print([m for m in sys.modules if m.split('.')[0] in heavy])"
    )
    root = str(Path(__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": root}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True
    )
    assert done.stdout.strip() == "[]"


def test_a_tilde_is_the_home_of_the_user_wherever_a_file_or_folder_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    np.save(tmp_path / "strength.npy", np.full((30, 5), 2.0))
    config = load_render_config(
        "quickstart",
        ["output.dir=~/out", "model={kind: mini, checkpoint: ~/mini}", "guidance.frames=uniform"]
        + ["guidance.scale=~/strength.npy"],
    )
    assert config.output.dir == str(tmp_path / "out")
    assert config.model.folder == tmp_path / "mini"
    config = load_render_config("wan2.1-i2v-14b", image="~/kite.png")
    assert config.prompts[0].image == str(tmp_path / "kite.png")
    assert config.prompts[0].text  # what is no path stays as it is
    assert load_render_config("wan2.1-1.3b", prompt="~ a kite").prompts[0].text == "~ a kite"


def test_a_prompt_of_the_command_line_holds_nothing_that_no_tokenizer_reads():
    with pytest.raises(ConfigError, match=r"--prompt a .* the character U\+DC80 is not allowed"):
        load_render_config("wan2.1-1.3b", prompt="a \udc80 kite")
