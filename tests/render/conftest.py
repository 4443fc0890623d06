"""A tiny random model behind the real command, so that a render takes a moment."""

from pathlib import Path

import pytest
import torch

CONFIG = """\
schema: 1
name: tiny
model: {kind: mini, device: cpu}
prompts:
  - a red circle moving left over a navy background
  - {text: a blue square growing over a teal background, negative: blurry}
seeds: 3-4
video: {num_frames: 9, height: 8, width: 12, fps: 8}
sampling: {num_steps: 3, scheduler: flow_euler}
guidance:
  scale: {kind: linear, start: 6.0, end: 2.0}
  frames: {kind: ramp, first: 0.0, last: 1.0}
output: {dir: OUT, video: ffv1}
"""


@pytest.fixture(scope="session")
def tiny_pipeline():
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
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture
def config_path(tmp_path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(CONFIG.replace("OUT", str(tmp_path / "out")))
    return path


@pytest.fixture
def render(tiny_pipeline, config_path, monkeypatch):
    """The command with the tiny model: `render("--seed", "3") -> exit code`."""
    from vidcfg.render import __main__ as cli

    monkeypatch.setattr("vidcfg.pipelines.load.load_pipeline", lambda model: tiny_pipeline)
    return lambda *arguments: cli.main([str(config_path), *arguments])


@pytest.fixture
def config(config_path):
    from vidcfg.render.config import load_render_config

    return lambda *overrides: load_render_config(config_path, overrides)
