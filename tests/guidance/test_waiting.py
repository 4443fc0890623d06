"""A step on a device that runs by itself waits for nothing that the device computes."""

import numpy as np
import pytest
import torch
from guidance_cases import SURFACE_BF, F
from packaging.version import Version
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from vidcfg.guidance.layout import FrameLayout
from vidcfg.guidance.passes import Passes, StepInputs
from vidcfg.guidance.plan import Memory, SampleRows
from vidcfg.guidance.setting import Guidance
from vidcfg.guidance.step import GuidedDenoiser

SETTINGS = {
    "cfg": {},
    "rescale": {"rescale": 0.7},
    "apg": {"method": {"kind": "apg", "norm": 0.5, "momentum": -0.3}},
    "clip": {"method": "tcfg", "rescale": 0.7, "statistics": "clip"},
    "clamp": {"clamp": 3.0},
}


needs_fakes = pytest.mark.skipif(
    Version(torch.__version__) < Version("2.10"),
    reason="fake tensors of CUDA ask the driver in torch below 2.10",
)


class OnlyCopiesThatWaitForNothing(TorchDispatchMode):
    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        made = operator(*args, **kwargs)
        tensors = (t for t in tree_leaves((args, made)) if isinstance(t, torch.Tensor))
        is_copy = operator.overloadpacket in (torch.ops.aten.copy_, torch.ops.aten._to_copy)
        if is_copy and len({t.device for t in tensors}) > 1:
            assert kwargs.get("non_blocking"), f"{operator} between devices waits"
        return made


@needs_fakes
@pytest.mark.parametrize("name", list(SETTINGS))
def test_no_number_is_read_from_the_device(name, monkeypatch):
    """Tensors without data on a GPU that is not there: a number of theirs cannot be read."""
    monkeypatch.setattr(torch.Tensor, "cpu", lambda tensor: pytest.fail("waits for a number"))
    rows = np.repeat(SURFACE_BF[:, None], 2, axis=1)
    guided, trace = step_without_data(SETTINGS[name], rows, OnlyCopiesThatWaitForNothing())
    assert guided.device.type == trace.std_guided_BF.device.type == "cuda"


def step_without_data(setting, rows, watched):
    """One step on fake CUDA tensors, under a dispatch mode."""
    samples = SampleRows((Guidance(scale=3.0, **setting),) * len(rows), rows, np.ones_like(rows))
    denoiser = GuidedDenoiser(FrameLayout("BCFHW"), samples, Passes(share=False))
    with FakeTensorMode(allow_non_fake_inputs=True):
        noisy = torch.empty(len(rows), 3, F, 4, 6, device="cuda")
        inputs = StepInputs(
            shared={"x": noisy},
            by_branch={"cond": {}, "uncond": {}},
            num_frames=F,
            step=0,
            level=(0.4, 0.6),
        )
        with watched:
            return denoiser.predict(inputs, lambda *_: torch.empty_like(noisy), Memory())


class Launches(TorchDispatchMode):
    """Counts the operations that compute or copy on the device: all but views and allocations."""

    count = 0

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        made = operator(*args, **kwargs or {})
        writes = "empty" not in operator.name() and not operator.is_view
        found = [t for t in tree_leaves(made) if isinstance(t, torch.Tensor)]
        self.count += writes and any(t.device.type == "cuda" for t in found)
        return made


MOST = {
    "cfg": ({}, 8),
    "rescale": ({"rescale": 0.7}, 83),
    "zero_star": ({"method": {"kind": "zero_star", "zero_init_steps": 0}}, 63),
    "apg": ({"method": "apg"}, 96),
    "threshold": ({"threshold": {"percentile": 99.0}, "statistics": "clip"}, 30),
    "threshold by frame": ({"threshold": {"percentile": 99.0}}, 30),
    "clamp": ({"clamp": 3.0}, 19),
}
"""A setting, and the launches of a step of one sample: on a GPU they are what it costs."""


@needs_fakes
@pytest.mark.parametrize("name", list(MOST))
def test_a_step_of_one_sample_launches_no_more_than(name):
    setting, most = MOST[name]
    launches = Launches()
    step_without_data(setting, np.full((1, 2, F), 3.0), launches)
    assert 3 < launches.count <= most
