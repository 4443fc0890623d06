"""The ready configurations of checkpoints: complete, of lengths that exist, in the usual range."""

from pathlib import Path

import pytest

from vidcfg.config import load_render_config
from vidcfg.guidance.frame_map import CausalMap, CogVideoXMap
from vidcfg.models.families import FAMILIES

CONFIGS = Path(__file__).parents[2] / "configs"
MAPS = {
    "wan": CausalMap(4),
    "skyreels_v2": CausalMap(4),
    "ltx": CausalMap(8),
    "ltx2": CausalMap(8),
    "cogvideox": CogVideoXMap(4),
    "hunyuan_video": CausalMap(4),
    "hunyuan_video15": CausalMap(4),
    "mochi": CausalMap(6),
}
FILES = sorted(path for family in MAPS for path in (CONFIGS / family).glob("*.yaml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_configuration_loads_and_fits_its_family(path):
    config = load_render_config(path)
    family = FAMILIES[path.parent.name]
    MAPS[family.name].check(config.video.num_frames)
    assert config.video.height % 16 == config.video.width % 16 == 0
    scale = config.guidance.scale
    for one in scale.values() if isinstance(scale, dict) else [scale]:
        assert family.scale_note(one.value) is None


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_head_says_run_needs_writes_and_source(path):
    text = path.read_text()
    head = [line for line in text.splitlines() if line.startswith("# ")]
    words = [line[2:].split(":")[0] for line in head if not line.startswith("#   ")]
    assert words == ["Run", "Needs", "Writes", "Source"]
    assert f"configs/{path.relative_to(CONFIGS)}" in head[0]
    assert load_render_config(path).model.checkpoint in text.split("schema:")[0]


def test_every_text_to_video_family_has_a_configuration():
    assert {path.parent.name for path in FILES} == set(MAPS)
