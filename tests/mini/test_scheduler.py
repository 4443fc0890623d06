import json

import diffusers
import pytest
import torch

from vidcfg.mini.pipeline import MINI_PATH
from vidcfg.mini.scheduler import SAME, FlowMatchEuler, load_scheduler
from vidcfg.pipelines.schedulers import is_flow, possible_schedulers


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("shift", "num_steps"), [(1.0, 1), (5.0, 30), (3.7, 17), (0.4, 7)])
def test_steps_are_those_of_diffusers_bit_for_bit(shift, num_steps, dtype):
    ours, theirs = FlowMatchEuler(shift=shift), getattr(diffusers, SAME)(shift=shift)
    for _ in range(2):  # a second run begins anew
        for scheduler in (ours, theirs):
            scheduler.set_timesteps(num_steps, device="cpu")
        assert torch.equal(ours.timesteps, theirs.timesteps)
        assert torch.equal(ours.sigmas, theirs.sigmas)
        a = b = torch.randn(2, 3, 5, 4, generator=torch.Generator().manual_seed(0)).to(dtype)
        for t in ours.timesteps[num_steps // 3 :]:
            velocity = torch.cos(3 * a.float() + t / 100).to(dtype)
            (a,), (b,) = ours.step(velocity, t, a), theirs.step(velocity, t, b, return_dict=False)
            assert a.dtype == dtype
            assert torch.equal(a, b)


def test_it_goes_through_the_file_that_diffusers_reads_too(tmp_path):
    ours = FlowMatchEuler(num_train_timesteps=500, shift=2.5)
    ours.save_pretrained(tmp_path)
    theirs = getattr(diffusers, SAME).from_pretrained(tmp_path)
    for scheduler in (load_scheduler(tmp_path), theirs):
        assert scheduler.config.shift == 2.5
        assert scheduler.config["num_train_timesteps"] == 500
    assert type(load_scheduler(tmp_path)) is FlowMatchEuler


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        (SAME, {"use_karras_sigmas": True}),
        ("UniPCMultistepScheduler", {"use_flow_sigmas": True, "flow_shift": 3.0}),
    ],
)
def test_what_it_cannot_do_is_left_to_diffusers(tmp_path, name, settings):
    getattr(diffusers, name)(**settings).save_pretrained(tmp_path)
    loaded = load_scheduler(tmp_path)
    assert type(loaded) is getattr(diffusers, name)
    assert settings.items() <= dict(loaded.config).items()


def test_the_embedded_checkpoint_is_stepped_by_it(tiny_pipeline):
    scheduler = load_scheduler(MINI_PATH / "scheduler")
    assert dict(scheduler.config) == {"num_train_timesteps": 1000, "shift": 5.0}
    named = json.loads((MINI_PATH / "scheduler" / "scheduler_config.json").read_text())
    assert named["_class_name"] == SAME
    assert is_flow(scheduler)
    tiny_pipeline.scheduler = scheduler
    assert "heun" in possible_schedulers(tiny_pipeline)
