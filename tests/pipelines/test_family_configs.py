"""The ready configurations of checkpoints: complete, of lengths that exist, in the usual range."""

import pytest
from PIL import Image

from vidcfg.guidance.frame_map import CausalMap, CogVideoXMap, OneToOneMap
from vidcfg.pipelines.families import FAMILIES
from vidcfg.render.checks import check_before_loading
from vidcfg.render.config import load_render_config, units_of
from vidcfg.render.forecast import forecast_of
from vidcfg.render.preview import preview
from vidcfg.settings.presets import presets

MAPS = {
    "wan": CausalMap(4),
    "anyflow": CausalMap(4),
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
    "wan2.1-i2v-14b": "WanImageToVideoPipeline",
    "wan2.1-i2v-14b-no-burn": "WanImageToVideoPipeline",
    "cogvideox-5b-i2v": "CogVideoXImageToVideoPipeline",
    "cogvideox-5b-i2v-no-burn": "CogVideoXImageToVideoPipeline",
}
"""The pipelines of the files that are not for the first one of their family."""
PRESETS = presets()
OURS = {name: preset for name, preset in PRESETS.items() if preset.family != "mini"}


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    path = tmp_path_factory.mktemp("picture") / "kite.png"
    Image.new("RGB", (96, 64)).save(path)
    return str(path)


def loaded(name, picture):
    config = load_render_config(name)
    return load_render_config(name, image=picture) if config.prompts[0].image else config


@pytest.mark.parametrize("name", OURS)
def test_preset_tells_surface_and_cost_before_anything_is_downloaded(name, picture):
    config = loaded(name, picture)
    check_before_loading(config)
    forecast = forecast_of(config)
    family = FAMILIES[OURS[name].family]
    assert type(forecast.pipe).__name__ == CLASSES.get(name, family.pipelines[0])
    wanted = CogVideoXMap(4, 2) if name == "cogvideox1.5-5b" else MAPS[family.name]
    assert forecast.facts.frame_map == wanted
    told = preview(config, units_of(config), width=100, colour=False)
    # once, or once for each expert
    assert told.count("\nmodel evaluations: ") == (2 if "a14b" in name else 1)
    low, high = family.usual_range
    assert low <= max(config.guidance.terms[0].numbers) <= high


@pytest.mark.parametrize("name", [name for name in PRESETS if name not in OURS])
def test_preset_of_the_embedded_model_tells_surface_and_cost(name):
    config = load_render_config(name)
    assert "\nmodel evaluations: " in preview(config, units_of(config), width=80, colour=False)


@pytest.mark.parametrize("name", OURS)
def test_head_says_what_for_and_what_it_needs(name):
    preset, config = OURS[name], load_render_config(name)
    assert [*preset.head] == ["Run", "For", "Evidence", "Needs", "Writes", "Source"]
    assert preset.head["Run"].startswith(f'vidcfg render {name} --prompt "..."')
    assert ("--image" in preset.head["Run"]) == bool(config.prompts[0].image)
    # Nothing has been measured on these models.
    assert preset.head["Evidence"].startswith("untested")
    assert preset.head["Writes"].startswith(f"{config.output.dir}/ ")
    assert (config.name, config.output.dir) == (name, f"out/{name}")
    assert config.model.checkpoint in preset.head["Needs"]


def test_every_family_of_the_configurations_has_a_plain_preset_and_one_by_frames():
    kinds = {}
    for name, preset in OURS.items():
        frames = load_render_config(name).guidance.frames
        kinds.setdefault(preset.family, set()).add(frames.is_uniform)
    assert set(kinds) == set(MAPS) <= set(FAMILIES)
    for family, found in kinds.items():
        assert found == ({True} if FAMILIES[family].is_image else {True, False}), family
