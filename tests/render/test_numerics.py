"""The same configuration gives the same pixels as when its numerics were recorded.

Run as a program, this file records them anew: after `NUMERICS` was raised, or a case was added.
"""

import base64
import json
import zlib
from pathlib import Path

import numpy as np
import pytest

from vidcfg.render.identity import NUMERICS

RECORDED = Path(__file__).with_name("numerics.json")

CASES = {
    "cfg": "{scale: {kind: cosine, start: 7.0, end: 3.0}, "
    "frames: {kind: ramp, first: 0.2, last: 1.0}}",
    "limits": "{scale: 6.0, frames: {kind: decay, end: 0.3}, rescale: 0.7, "
    "threshold: {percentile: 95.0, floor: 1.0}}",
    "apg": "{scale: 6.0, method: {kind: apg, momentum: -0.4}}",
    "zero_star": "{scale: 5.0, method: zero_star}",
    "weak": "{scale: 2.5, method: [cfg, {kind: autoguidance, scale: 2.0}]}",
    "perturbed": "{scale: 3.0, method: {kind: stg, layers: [1]}}",
    "cfg_pp": "{scale: 0.6, method: cfg_pp}",
}
"""A part of the engine each: schedule and frames, limits, rules with and without other passes."""

MOST, MEAN = 1, 0.004
"""Levels of 255. Processors and libraries round float32 in their own order, about 1e-6 of a value:
a pixel close to the middle between two levels falls to the other one (1 of 5,760 with kernels of
another instruction set). A thousandth more in `rescale` moves the mean by 0.0125."""

CONFIG = """\
schema: 1
name: numerics
model: {kind: mini, device: cpu, dtype: float32}
prompts: [{text: a red circle moving left over a navy background, negative: blurry}]
seeds: 5
video: {num_frames: 5, height: 8, width: 12, fps: 8}
sampling: {num_steps: 3, scheduler: flow_euler}
guidance: GUIDANCE
output: {dir: out}
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return render_all(tmp_path_factory.mktemp("numerics") / "config.yaml")


def render_all(path: Path) -> dict[str, np.ndarray]:
    """The uint8 frames [5, 8, 12, 3] of every case."""
    from vidcfg.pipelines.load import load_pipeline
    from vidcfg.pipelines.schedulers import make_scheduler
    from vidcfg.render.config import load_render_config, units_of
    from vidcfg.render.sampling import sample_units

    made, pipe = {}, None
    for name, guidance in CASES.items():
        path.write_text(CONFIG.replace("GUIDANCE", guidance))
        config = load_render_config(path)
        pipe = pipe or load_pipeline(config.model)
        pipe.scheduler = make_scheduler(pipe, config.sampling)
        (unit,) = units_of(config)
        made[name] = sample_units([config], pipe, unit).videos[0].frames_THWC
    return made


@pytest.mark.parametrize("name", CASES)
def test_pixels_are_those_that_were_recorded_under_this_version(made, name):
    recorded = json.loads(RECORDED.read_text())
    assert recorded["numerics"] == NUMERICS, f"record anew: python {Path(__file__).name}"
    data = zlib.decompress(base64.b64decode(recorded["frames"][name]))
    before = np.frombuffer(data, np.uint8).reshape(made[name].shape)
    off = np.abs(made[name].astype(int) - before)
    told = (
        f"the pixels of {name} changed by up to {off.max()} levels, {off.mean():.3g} in the mean. "
        "If they are meant to, raise NUMERICS in vidcfg/render/identity.py, then record anew: "
        "python tests/render/test_numerics.py"
    )
    assert off.max() <= MOST, told
    assert off.mean() <= MEAN, told


def test_cases_differ_by_far_more_than_what_is_forgiven(made):
    frames = [made[name].astype(int) for name in CASES]
    pairs = [(a, b) for i, a in enumerate(frames) for b in frames[:i]]
    assert min(np.abs(a - b).mean() for a, b in pairs) > 20 * MEAN


def record() -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        frames = render_all(Path(folder) / "config.yaml")
    packed = {
        n: base64.b64encode(zlib.compress(f.tobytes(), 9)).decode() for n, f in frames.items()
    }
    text = json.dumps({"numerics": NUMERICS, "frames": packed}, indent=1)
    RECORDED.write_text(text + "\n")


if __name__ == "__main__":
    record()
