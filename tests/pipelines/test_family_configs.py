"""The ready configurations of checkpoints: complete, of lengths that exist, in the usual range."""

from inspect import signature
from pathlib import Path

import diffusers
import pytest

from vidcfg.guidance.frame_map import CausalMap, CogVideoXMap, OneToOneMap
from vidcfg.pipelines.families import FAMILIES
from vidcfg.pipelines.run import scale_note
from vidcfg.render.call import check_prompt, check_shape
from vidcfg.render.config import load_render_config

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
    "svd": OneToOneMap(),
    "animatediff": OneToOneMap(),
    "sd15": OneToOneMap(),
    "sdxl": OneToOneMap(),
    "sd3": OneToOneMap(),
    "flux": OneToOneMap(),
}
CLASSES = {
    "wan/i2v_14b": "WanImageToVideoPipeline",
    "cogvideox/i2v_5b": "CogVideoXImageToVideoPipeline",
}
"""The pipelines of the files that are not for the first one of their family."""

FILES = sorted(path for family in MAPS for path in (CONFIGS / family).glob("*.yaml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_configuration_loads_and_fits_its_family(path):
    config = load_render_config(path)
    family = FAMILIES[path.parent.name]
    MAPS[family.name].check(config.video.num_frames)
    check_shape(config.video, family)
    cls = getattr(diffusers, CLASSES.get(f"{path.parent.name}/{path.stem}", family.pipelines[0]))
    for prompt in config.prompts:
        check_prompt(prompt, family, signature(cls.__call__).parameters)
    scale = config.guidance.scale
    for one in scale.values() if isinstance(scale, dict) else [scale]:
        assert scale_note(family, one.value) is None


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_head_says_run_needs_writes_and_source(path):
    text = path.read_text()
    head = [line for line in text.splitlines() if line.startswith("# ")]
    words = [line[2:].split(":")[0] for line in head if not line.startswith("#   ")]
    assert words == ["Run", "Needs", "Writes", "Source"]
    assert f"configs/{path.relative_to(CONFIGS)}" in head[0]
    assert load_render_config(path).model.checkpoint in text.split("schema:")[0]


def test_every_folder_of_configurations_is_a_family_that_is_checked():
    assert {path.parent.name for path in FILES} == set(MAPS) <= set(FAMILIES)
