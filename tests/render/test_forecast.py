"""What a dry run tells of a checkpoint folder is what the loaded pipeline then does."""

import inspect
import json
import re
import subprocess
import sys
from pathlib import Path

import kite_family
import kites
import numpy as np
import pytest
from tiny_images import flux, sd15
from tiny_text import with_prompts
from tiny_wan import wan22

import vidcfg
from vidcfg.guidance.frame_map import BlockMap, CausalMap, CogVideoXMap, OneToOneMap
from vidcfg.pipelines.families import FAMILIES
from vidcfg.pipelines.load import load_pipeline
from vidcfg.pipelines.schedulers import make_scheduler
from vidcfg.render import __main__ as cli
from vidcfg.render.checks import check_before_loading
from vidcfg.render.config import load_render_config, units_of
from vidcfg.render.forecast import forecast_of
from vidcfg.render.preview import preview
from vidcfg.render.sampling import sample_units

ROOT = Path(__file__).parents[2]
SETTINGS = """\
schema: 1
name: forecast
model: {{kind: diffusers, checkpoint: "{folder}", device: cpu}}
prompts: [a red circle moving left]
video: {{num_frames: 9, height: 16, width: 32, fps: 8}}
sampling: {{num_steps: 5, scheduler: pipeline}}
guidance: {{scale: 4.0}}
output: {{dir: out, video: ffv1}}
"""


def _settings(folder, tmp_path, *overrides):
    path = tmp_path / "forecast.yaml"
    path.write_text(SETTINGS.format(folder=folder))
    return load_render_config(path, overrides)


@pytest.fixture(scope="module")
def experts(tmp_path_factory):
    """Wan 2.2: two experts that change between the second and the third of four steps."""
    folder = tmp_path_factory.mktemp("wan22")
    with_prompts(wan22()).pipe.save_pretrained(folder)
    return folder


def _without_weights(folder, monkeypatch):
    """Loading anything from a file of weights is an error."""
    import safetensors.torch

    def refuse(*arguments, **options):
        raise AssertionError("weights are read")

    monkeypatch.setattr(safetensors.torch, "load_file", refuse)
    monkeypatch.setattr("diffusers.ModelMixin.from_pretrained", refuse)


def _traced(settings):
    pipe = load_pipeline(settings.model)
    pipe.scheduler = make_scheduler(pipe, settings.sampling)
    return sample_units([settings], pipe, units_of(settings)[0]).videos[0].trace


@pytest.mark.parametrize("scheduler", ["pipeline", "flow_euler", "heun"])
def test_experts_and_noise_levels_are_those_of_the_run(experts, tmp_path, scheduler):
    settings = _settings(
        experts,
        tmp_path,
        "guidance.scale={high: {kind: linear, start: 6.0, end: 2.0, over: sigma}, low: 1.5}",
        f"sampling.scheduler={scheduler}",
    )
    steps = forecast_of(settings).facts
    trace = _traced(settings)
    assert set(steps.experts) == {"high", "low"}
    scales = trace.surfaces[0].scale_K
    want = [
        1.5 if expert == "low" else 6 - 4 * (1 - sigma / steps.sigmas_K[0])
        for expert, sigma in zip(steps.experts, steps.sigmas_K)
    ]
    np.testing.assert_allclose(scales, want, rtol=1e-12)
    assert sum(steps.calls) == len(trace.steps)
    for step in trace.steps:
        if steps.calls[step.step] == 1:
            assert step.sigma == steps.sigmas_K[step.step]


def test_dry_run_shows_the_scale_of_every_expert_before_weights_are_read(
    experts, tmp_path, monkeypatch
):
    _without_weights(experts, monkeypatch)
    settings = _settings(experts, tmp_path, "guidance.scale={high: 4.0, low: 1.0}")
    text = preview(settings, units_of(settings), width=80, colour=False)
    rows = re.findall(r"^ +(\d) +(\d\.\d\d) +(0\.\d+|1\.000) +(high|low)$", text, re.M)
    assert [int(row[0]) for row in rows] == [0, 1, 2, 3, 4]
    assert {row[3]: row[1] for row in rows} == {"high": "4.00", "low": "1.00"}
    high = [row[3] for row in rows].count("high")
    assert 0 < high < 5
    assert f"({5} cond, {high} uncond)" in text


def test_scale_over_sigma_of_the_mini_model_is_shown(config):
    settings = config("guidance.scale={kind: linear, start: 6.0, end: 2.0, over: sigma}")
    text = preview(settings, units_of(settings), width=80, colour=False)
    first, *_, last = re.findall(r"^ +\d+ +(\d\.\d\d) +(\d\.\d+)$", text, re.M)
    assert first == ("6.00", "1.000")
    # over sigma: 6 - 4 (1 - sigma_k / sigma_0)
    assert float(last[0]) == pytest.approx(2 + 4 * float(last[1]), abs=0.01)


@pytest.mark.parametrize("scheduler", ["flow_euler", "heun"])
def test_what_the_mini_model_tells_by_itself_is_what_its_pipeline_tells(config, scheduler):
    plain = config(f"sampling.scheduler={scheduler}")
    over = "guidance.scale={kind: linear, start: 6.0, end: 2.0, over: sigma}"
    asked = forecast_of(config(f"sampling.scheduler={scheduler}", over))
    alone = forecast_of(plain)
    assert alone.pipe is None
    assert type(asked.pipe).__name__ == "MiniVideoPipeline"
    assert asked.pipe.transformer.device.type == "meta"
    assert alone.facts.frame_map == asked.facts.frame_map
    assert alone.facts.calls == asked.facts.calls


def test_a_dry_run_of_the_mini_model_loads_neither_torch_nor_diffusers(tmp_path):
    code = """
import sys
from vidcfg.render.__main__ import main
assert main(["configs/quickstart.yaml", "--dry-run", "--set", f"output.dir={sys.argv[1]}"]) == 0
print(sorted({"torch", "diffusers", "transformers"} & set(sys.modules)))
"""
    command = [sys.executable, "-c", code, str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"
    assert not list(tmp_path.iterdir())


def test_cost_counts_the_further_call_of_pndm(tmp_path):
    tiny = with_prompts(sd15())
    tiny.pipe.save_pretrained(tmp_path / "sd15")
    shape = "video={num_frames: 1, height: 16, width: 32, fps: 8}"
    settings = _settings(tmp_path / "sd15", tmp_path, shape)
    assert forecast_of(settings).facts.calls == (2, 1, 1, 1, 1)
    text = preview(settings, units_of(settings), width=80, colour=False)
    assert "model evaluations: 12 (6 cond, 6 uncond)" in text
    assert ".png .json .image.png" in text
    assert _traced(settings).evaluations == {"cond": 6, "uncond": 6}


def test_what_a_pipeline_finds_while_it_runs_is_said_plainly(tmp_path):
    flux().pipe.save_pretrained(tmp_path / "flux")
    shape = "video={num_frames: 1, height: 16, width: 32, fps: 8}"
    scale = "guidance.scale={kind: linear, start: 6.0, end: 2.0, over: sigma}"
    settings = _settings(tmp_path / "flux", tmp_path, shape, scale)
    assert "FluxPipeline hands its own to the scheduler" in forecast_of(settings).why_not
    text = preview(settings, units_of(settings), width=80, colour=False)
    assert "told when the model is loaded (the scale follows" in text
    assert "the noise levels are found while it runs: FluxPipeline" in text


def test_a_published_checkpoint_tells_each_expert_before_it_is_here(tmp_path):
    name, scale = "Wan-AI/Wan2.2-T2V-A14B-Diffusers", "guidance.scale={high: 4.0, low: 1.0}"
    settings = _settings(name, tmp_path, scale)
    text = preview(settings, units_of(settings), width=80, colour=False)
    high, low = text[text.index("high on every step:") :].split("low on every step:")
    assert "model evaluations: 10 (5 cond, 5 uncond) for 1 videos" in high
    assert "model evaluations: 5 (5 cond) for 1 videos" in low
    by_noise = _settings(
        name,
        tmp_path,
        "guidance.scale={high: {kind: linear, start: 4.0, end: 2.0, over: sigma}, low: 3.0}",
    )
    text = preview(by_noise, units_of(by_noise), width=80, colour=False)
    assert "told when the model is loaded (the scale follows" in text


def test_a_repository_name_leaves_surface_and_cost_for_later(tmp_path):
    settings = _settings("Somebody/Video-5B", tmp_path)
    assert forecast_of(settings).pipe is None
    text = preview(settings, units_of(settings), width=80, colour=False)
    assert "its latent frames are not known" in text


@pytest.mark.parametrize(
    ("pipeline", "parts", "expected"),
    [
        ("WanPipeline", {}, CausalMap(4)),
        ("SkyReelsV2Pipeline", {}, CausalMap(4)),
        ("LTXPipeline", {}, CausalMap(8)),
        ("LTX2Pipeline", {}, CausalMap(8)),
        ("MochiPipeline", {}, CausalMap(6)),
        (
            "HunyuanVideo15Pipeline",
            {"vae": ("AutoencoderKLHunyuanVideo15", {"temporal_compression_ratio": 2})},
            CausalMap(2),
        ),
        (
            "CogVideoXPipeline",
            {
                "vae": ("AutoencoderKLCogVideoX", {"temporal_compression_ratio": 4}),
                "transformer": ("CogVideoXTransformer3DModel", {"patch_size_t": 2}),
            },
            CogVideoXMap(4, 2),
        ),
        ("StableVideoDiffusionPipeline", {}, OneToOneMap()),
        ("StableDiffusionXLPipeline", {}, OneToOneMap()),
        ("AnimateDiffPipeline", {}, OneToOneMap()),
        ("AllegroPipeline", {}, BlockMap(4)),
        ("LattePipeline", {}, OneToOneMap()),
        ("Kandinsky5T2VPipeline", {}, CausalMap(4)),
        ("EasyAnimatePipeline", {}, CausalMap(4)),
        ("WanVACEPipeline", {}, CausalMap(4)),
        ("SomethingElse", {}, None),
    ],
)
def test_latent_frames_of_a_checkpoint_folder_are_known_from_its_files(
    tmp_path, pipeline, parts, expected
):
    folder = _folder(tmp_path, pipeline, parts)
    facts = forecast_of(_settings(folder, tmp_path)).facts
    assert (None if facts is None else facts.frame_map) == expected


def _folder(tmp_path, pipeline, parts=None):
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    index = {"_class_name": pipeline}
    for name, (cls, values) in (parts or {}).items():
        index[name] = ["diffusers", cls]
        (folder / name).mkdir()
        (folder / name / "config.json").write_text(json.dumps({"_class_name": cls, **values}))
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


@pytest.mark.parametrize(
    ("pipeline", "override", "words"),
    [
        ("WanPipeline", "video.width=40", "video.width is 40, but wan makes multiples of 16"),
        ("WanPipeline", "video.num_frames=8", r"makes 4k \+ 1 frames. Use 5 or 9"),
        ("FluxPipeline", "video.num_frames=9", "flux makes one image. Use 1"),
        (
            "WanPipeline",
            "guidance.scale={high: 4, lo: 3}",
            "guidance.scale names the expert lo, but wan has high and low. Use one scale per",
        ),
        (
            "MochiPipeline",
            "guidance.method=[cfg, {kind: pag, scale: {high: 4, low: 3}}]",
            r"guidance.method.1.scale names the expert high, but mochi has one model",
        ),
        ("WanImageToVideoPipeline", "seeds=0", "has no image, but this pipeline starts from one"),
    ],
)
def test_settings_that_do_not_fit_a_folder_are_told_before_it_is_loaded(
    tmp_path, pipeline, override, words
):
    settings = _settings(_folder(tmp_path, pipeline), tmp_path, override)
    with pytest.raises(ValueError, match=words):
        check_before_loading(settings)


def test_a_motion_adapter_makes_an_animatediff_pipeline_of_a_checkpoint(tmp_path):
    folder = _folder(tmp_path, "StableDiffusionPipeline")
    settings = _settings(folder, tmp_path, "model.motion_adapter=somebody/motion")
    forecast = forecast_of(settings)
    assert type(forecast.pipe).__name__ == "AnimateDiffPipeline"
    from vidcfg.pipelines.families import family_of

    assert family_of(forecast.pipe).name == "animatediff"
    assert "num_frames" in inspect.signature(type(forecast.pipe).__call__).parameters


def test_a_motion_adapter_steps_a_checkpoint_as_its_own_ddim_does(tmp_path):
    from diffusers import MotionAdapter

    with_prompts(sd15()).pipe.save_pretrained(tmp_path / "sd15")
    shape = {"block_out_channels": (8, 16), "motion_layers_per_block": 1}
    heads = {"motion_norm_num_groups": 2, "motion_num_attention_heads": 2}
    adapter = MotionAdapter(**shape, **heads, use_motion_mid_block=False)
    adapter.save_pretrained(tmp_path / "adapter")
    settings = _settings(
        tmp_path / "sd15",
        tmp_path,
        f"model.motion_adapter={tmp_path / 'adapter'}",
        "guidance.scale={kind: linear, start: 6.0, end: 2.0, over: sigma}",
    )
    forecast, trace = forecast_of(settings), _traced(settings)
    assert type(forecast.pipe.scheduler).__name__ == "DDIMScheduler"
    np.testing.assert_array_equal(forecast.facts.sigmas_K, [s.sigma for s in trace.steps])
    np.testing.assert_array_equal(
        forecast.surfaces["cfg"].strength_KF, trace.surfaces[0].strength_KF
    )
    assert forecast.plan().evaluations == trace.evaluations


def test_a_declared_pipeline_has_its_surface_and_cost_in_a_dry_run(tmp_path, monkeypatch, capsys):
    """A pipeline of somebody else, in a folder, with a VAE of 3k + 1 frames."""
    kites.kite().save_pretrained(tmp_path / "kite")
    overrides = [
        "video={num_frames: 7, height: 16, width: 32, fps: 8}",
        "guidance.scale={kind: linear, start: 6.0, end: 2.0, over: sigma}",
        "guidance.frames={kind: ramp, first: 0.0, last: 1.0}",
    ]
    settings = _settings(tmp_path / "kite", tmp_path, *overrides)
    assert forecast_of(settings).facts is None
    vidcfg.register_family(kite_family.FAMILY)
    try:
        with monkeypatch.context() as patched:
            _without_weights(tmp_path / "kite", patched)
            forecast = forecast_of(settings)
            sets = [word for override in overrides for word in ("--set", override)]
            assert cli.main([str(tmp_path / "forecast.yaml"), "--dry-run", *sets]) == 0
        nine = "video={num_frames: 9, height: 16, width: 32, fps: 8}"
        with pytest.raises(ValueError, match=r"this VAE makes 3k \+ 1 frames. Use 7 or 10"):
            check_before_loading(_settings(tmp_path / "kite", tmp_path, nine))
        trace = _traced(settings)
    finally:
        FAMILIES.pop("kite")
    assert forecast.pipe.denoiser.mix.weight.is_meta
    assert trace.evaluations == forecast.plan().evaluations == {"cond": 5, "uncond": 5}
    surface = forecast.surfaces["cfg"]
    np.testing.assert_array_equal(surface.strength_KF, trace.surfaces[0].strength_KF)
    assert surface.strength_KF.shape == (5, 3)
    shown = capsys.readouterr().out
    assert "model evaluations: 10 (5 cond, 5 uncond) for 1 videos" in shown
    assert re.search(r"^ +0 +6\.00 +1\.000$", shown, re.M)
