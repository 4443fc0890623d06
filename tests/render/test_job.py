"""The frames of a unit depend on (prompt, seed, config) and on nothing else."""

import numpy as np
import pytest
import torch

import vidcfg.render.job as job
from vidcfg.pipelines.schedulers import make_scheduler
from vidcfg.render.config import units_of
from vidcfg.render.job import render_units
from vidcfg.render.sampling import sample_units


@pytest.fixture(autouse=True)
def _write_nothing(monkeypatch):
    monkeypatch.setattr(job, "_write", lambda *arguments, **options: None)
    monkeypatch.setattr(job, "_write_surface", lambda *arguments, **options: None)


def _render(config, pipe, units):
    """Frames by (prompt, seed) of a run over these units."""
    found = {}

    def keep(unit, rendered):
        found[unit.prompt.text, unit.seed] = rendered.frames_THWC

    render_units(config, pipe, units, overwrite=True, on_finished=keep)
    return found


@pytest.mark.parametrize("scheduler", ["flow_euler", "unipc", "dpm++", "heun", "pipeline"])
def test_a_video_is_bitwise_the_same_alone_and_in_any_batch(config, tiny_pipeline, scheduler):
    settings = config(f"sampling.scheduler={scheduler}")
    units = units_of(settings)
    together = _render(settings, tiny_pipeline, units)
    reversed_order = _render(settings, tiny_pipeline, units[::-1])
    alone = _render(settings, tiny_pipeline, units[2:3])
    for key, frames in together.items():
        assert np.array_equal(frames, reversed_order[key])
    ((key, frames),) = alone.items()
    assert np.array_equal(frames, together[key])
    assert len({frames.tobytes() for frames in together.values()}) == 4


def test_global_random_state_has_no_part_in_it(config, tiny_pipeline):
    settings = config()
    unit = units_of(settings)[0]
    torch.manual_seed(1)
    first = sample_units([settings], tiny_pipeline, unit).videos[0].frames_THWC
    torch.manual_seed(2)
    state = torch.random.get_rng_state()
    assert np.array_equal(
        sample_units([settings], tiny_pipeline, unit).videos[0].frames_THWC, first
    )
    assert torch.equal(torch.random.get_rng_state(), state)


def test_unguided_render_is_the_pipeline_itself(config, tiny_pipeline):
    settings = config("guidance={scale: 1.0}")
    unit = units_of(settings)[1]
    expected = tiny_pipeline(
        unit.prompt.text,
        num_frames=9,
        height=8,
        width=12,
        num_inference_steps=3,
        guidance_scale=1.0,
        generator=torch.Generator().manual_seed(unit.seed),
    ).frames[0]
    frames = sample_units([settings], tiny_pipeline, unit).videos[0].frames_THWC
    assert np.array_equal(frames, np.rint(expected * 255))


def test_every_solver_step_is_reported(config, tiny_pipeline):
    settings = config()
    steps = []
    sample_units(
        [settings],
        tiny_pipeline,
        units_of(settings)[0],
        on_step=lambda done, total: steps.append((done, total)),
    )
    assert steps == [(1, 3), (2, 3), (3, 3)]


def test_strengths_on_the_sheet_are_those_of_each_frame_s_latent(config, tiny_pipeline):
    settings = config()
    rendered = sample_units([settings], tiny_pipeline, units_of(settings)[0]).videos[0]
    strengths = rendered.strength_KT
    used = np.stack([step.strength_BF[0] for step in rendered.trace.steps])
    assert strengths.shape == (3, 9)
    assert np.array_equal(strengths[:, [0, 1, 5]], used)
    assert np.array_equal(strengths[:, 4], strengths[:, 1])


def test_pipeline_keeps_its_own_scheduler_after_a_render(config, tiny_pipeline):
    own = tiny_pipeline.scheduler
    _render(config("sampling.scheduler=unipc"), tiny_pipeline, units_of(config())[:1])
    assert tiny_pipeline.scheduler is own


def test_solvers_approach_the_same_video_with_more_steps(config, tiny_pipeline):
    frames = {}
    for name in ("flow_euler", "unipc", "dpm++", "heun"):
        settings = config(
            f"sampling={{num_steps: 30, scheduler: {name}}}", "guidance={scale: 1.5}"
        )
        tiny_pipeline_scheduler = tiny_pipeline.scheduler
        tiny_pipeline.scheduler = make_scheduler(tiny_pipeline, settings.sampling)
        try:
            unit = units_of(settings)[0]
            frames[name] = (
                sample_units([settings], tiny_pipeline, unit).videos[0].frames_THWC.astype(float)
            )
        finally:
            tiny_pipeline.scheduler = tiny_pipeline_scheduler
    spread = max(np.abs(f - frames["heun"]).mean() for f in frames.values())
    # The solvers cut the last stretch to sigma 0 differently, which leaves a few levels of 255.
    assert spread < 4
