"""A tiny random model behind a whole sweep, so that a unit takes a moment."""

import json
import shutil
from collections import Counter
from pathlib import Path

import pytest
import torch

BASE = """\
schema: 1
name: tiny
model: {kind: mini, device: cpu, checkpoint: MODEL}
prompts:
  - a red circle moving left over a navy background
  - {text: a blue square growing over a teal background, negative: blurry}
seeds: 3-4
video: {num_frames: 9, height: 8, width: 12, fps: 8}
sampling: {num_steps: 3, scheduler: flow_euler}
guidance: {scale: 3.0}
output: {dir: out, video: ffv1}
"""

SWEEP = """\
schema: 1
name: tiny
base: base.yaml
grid:
  guidance.frames: [uniform, {kind: ramp, first: 0.0, last: 1.0}]
  guidance.scale: [1.0, 4.0]
metrics: [flicker, motion]
store: STORE
"""


UNIT_FILES = {
    "video.mkv": b"video" * 100,
    "record.json": b'{"video": {"frames_sha256": "ab"}}',
    "records.jsonl": b'{"name": "a", "value": 1.0, "n": 1, "protocol": ""}\n',
}
"""The files of a unit that nobody looks into."""


def save_tiny_model(folder: Path) -> Path:
    """A random model that renders in a few milliseconds a step."""
    from vidcfg.mini.codec import CausalVAE
    from vidcfg.mini.model import STDiT
    from vidcfg.mini.pipeline import MiniVideoPipeline
    from vidcfg.mini.scheduler import FlowMatchEuler
    from vidcfg.mini.text import TextEncoder, build_tokenizer

    with torch.random.fork_rng():
        torch.manual_seed(0)
        transformer = STDiT(in_channels=4, width=24, num_layers=2, num_heads=2, text_width=16)
        for parameter in transformer.parameters():
            # Layers that start as zero would make every output the same.
            if float(parameter.detach().abs().max()) == 0:
                torch.nn.init.normal_(parameter, std=0.2)
        tokenizer = build_tokenizer()
        pipe = MiniVideoPipeline(
            transformer=transformer.eval(),
            vae=CausalVAE(latent_channels=4),
            text_encoder=TextEncoder(tokenizer.get_vocab_size(), width=16, num_heads=2),
            tokenizer=tokenizer,
            scheduler=FlowMatchEuler(shift=2.0),
        )
        pipe.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory) -> Path:
    """The folder of a tiny model."""
    return save_tiny_model(tmp_path_factory.mktemp("tiny-model"))


def write_sweep(folder: Path, model: Path) -> Path:
    """A sweep of four cells, two prompts and two seeds, with its base beside it."""
    (folder / "base.yaml").write_text(BASE.replace("MODEL", str(model)))
    path = folder / "sweep.yaml"
    path.write_text(SWEEP.replace("STORE", str(folder / "store")))
    return path


@pytest.fixture
def sweep_file(tmp_path, tiny_model) -> Path:
    return write_sweep(tmp_path, tiny_model)


@pytest.fixture
def load(sweep_file):
    """`load(*overrides)`: the checked sweep and its document, with `--set` put in."""
    from vidcfg.sweep.config import load_sweep_config

    return lambda *overrides: load_sweep_config(sweep_file, overrides)


@pytest.fixture
def plan(load):
    """`plan(*overrides)`: the plan of the sweep."""
    from vidcfg.sweep.plan import make_plan

    def make(*overrides):
        sweep, document = load(*overrides)
        return make_plan(sweep, document=document)

    return make


@pytest.fixture
def sweep(sweep_file, tmp_path):
    """`sweep("--set", ...) -> exit code`; the store is in tmp_path/store."""
    from vidcfg.sweep.__main__ import main

    return lambda *arguments: main([str(sweep_file), "--no-report", *arguments])


@pytest.fixture
def store(tmp_path):
    from vidcfg.sweep.store import Store

    return Store(str(tmp_path / "store"))


@pytest.fixture(scope="session")
def swept(tmp_path_factory, tiny_model):
    """The folder of a sweep that is done."""
    from vidcfg.sweep.__main__ import main

    folder = tmp_path_factory.mktemp("swept")
    assert main([str(write_sweep(folder, tiny_model)), "--no-report"]) == 0
    return folder


@pytest.fixture
def done(swept, store):
    """The test's own sweep is done: its store is a copy."""
    shutil.copytree(swept / "store", store.root)


def plan_of(store):
    return store.read_json("plan.json")


def starts(store) -> Counter:
    """How often each unit was begun."""
    return Counter(
        name.removesuffix(".jsonl")
        for name in store.names("attempts")
        for line in store.fs.cat_file(store.path(f"attempts/{name}")).splitlines()
        if json.loads(line)["what"] == "start"
    )
