import diffusers
import pytest

from vidcfg.pipelines.schedulers import Sampling, make_scheduler, possible_schedulers


class WanPipelineLike:
    def __init__(self, scheduler):
        self.scheduler = scheduler

    def __call__(self):
        self.scheduler.set_timesteps(3)


class PipelineThatPassesSigmas(WanPipelineLike):
    def __call__(self):
        return self.retrieve_timesteps(self.scheduler, 3, sigmas=None)


def _flow(**settings):
    return WanPipelineLike(diffusers.FlowMatchEulerDiscreteScheduler(**settings))


def _make(pipe, name, shift=None):
    return make_scheduler(pipe, Sampling(num_steps=8, scheduler=name, shift=shift))


@pytest.mark.parametrize("name", ["flow_euler", "unipc", "dpm++", "heun", "pipeline"])
def test_every_flow_solver_steps_from_full_noise_with_the_shift_of_the_checkpoint(name):
    scheduler = _make(_flow(shift=3.0), name)
    scheduler.set_timesteps(8)
    sigmas = scheduler.sigmas.unique().flip(0).tolist()
    plain = _make(_flow(shift=3.0), name, shift=1.0)
    plain.set_timesteps(8)
    unshifted = plain.sigmas.unique().flip(0).tolist()
    assert sigmas[0] == pytest.approx(1.0, abs=1.1e-3)
    assert sigmas[-1] == 0
    # shift s maps sigma to s sigma / (1 + (s - 1) sigma); the smallest sigma above 0 is moved
    # once more by diffusers, so that it is left out here.
    expected = [3 * s / (1 + 2 * s) for s in unshifted[:4]]
    assert sigmas[:4] == pytest.approx(expected, abs=5e-3)


def test_shift_of_a_multistep_checkpoint_carries_over():
    own = diffusers.UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=5.0
    )
    pipe = WanPipelineLike(own)
    assert _make(pipe, "flow_euler").config.shift == 5.0
    assert _make(pipe, "dpm++").config.flow_shift == 5.0
    assert _make(pipe, "pipeline").config.flow_shift == 5.0
    assert _make(pipe, "pipeline", shift=2.0).config.flow_shift == 2.0
    assert _make(pipe, "pipeline") is not own


def test_solver_for_another_prediction_names_those_that_fit():
    with pytest.raises(ValueError, match="predicts a flow.*pipeline, flow_euler, unipc, dpm"):
        _make(_flow(), "ddim")
    diffusion = WanPipelineLike(diffusers.DDIMScheduler(prediction_type="v_prediction"))
    with pytest.raises(ValueError, match="predicts v_prediction.*pipeline, ddim"):
        _make(diffusion, "flow_euler")


def test_shift_of_a_diffusion_model_is_refused_as_without_effect():
    diffusion = WanPipelineLike(diffusers.DDIMScheduler())
    with pytest.raises(ValueError, match="sampling.shift is 2.*Delete it"):
        _make(diffusion, "ddim", shift=2.0)


def test_solver_that_takes_no_noise_levels_is_not_offered_where_they_are_passed():
    pipe = PipelineThatPassesSigmas(diffusers.FlowMatchEulerDiscreteScheduler())
    assert possible_schedulers(pipe) == ("pipeline", "flow_euler")
    assert possible_schedulers(_flow(use_dynamic_shifting=True)) == ("pipeline", "flow_euler")


def test_cogvideox_keeps_its_own_noise_schedule():
    own = diffusers.CogVideoXDDIMScheduler(snr_shift_scale=1.0, prediction_type="v_prediction")
    pipe = WanPipelineLike(own)
    assert possible_schedulers(pipe) == ("pipeline", "ddim", "dpm++")
    made = _make(pipe, "dpm++")
    assert isinstance(made, diffusers.CogVideoXDPMScheduler)
    assert made.config.snr_shift_scale == 1.0
    assert made.config.prediction_type == "v_prediction"
