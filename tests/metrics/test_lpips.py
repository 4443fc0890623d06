"""LPIPS plumbing with a random backbone: identities and ranges, not published values."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from vidcfg.metrics.lpips import Lpips, LpipsMeter, empty_lpips, load_backbone, load_lpips
from vidcfg.metrics.meters import measure
from vidcfg.metrics.record import Backend, ClipInfo
from vidcfg.metrics.weight_files import MissingWeightsError


@pytest.fixture(scope="module")
def net():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = empty_lpips("squeeze")
    return Lpips(model, net="squeeze", backend=Backend("random", "0" * 64))


def frames(num=4, size=40, *, seed=0):
    return np.random.default_rng(seed).random((num, 3, size, size + 8), dtype=np.float32)


def test_distance_of_a_frame_to_itself_is_exactly_zero_and_order_does_not_matter(net):
    first, second = frames(), frames(seed=1)
    assert net.distance(first, first) == [0, 0, 0, 0]
    forth, back = net.distance(first, second), net.distance(second, first)
    assert min(forth) > 0
    assert forth == pytest.approx(back, rel=1e-6)


def test_unit_range_is_stretched_to_that_of_the_net(net):
    first, second = frames(), frames(seed=1)
    with torch.inference_mode():
        stretched = (torch.from_numpy(x) * 2 - 1 for x in (first, second))
        expected = net._model(*stretched, normalize=False).flatten().tolist()
    assert net.distance(first, second) == pytest.approx(expected, rel=1e-5)
    levels = (np.rint(x * 255).astype(np.uint8) for x in (first, second))
    assert net.distance(*levels) == pytest.approx(expected, rel=0.05)


def test_frames_in_another_range_are_refused(net):
    with pytest.raises(ValueError, match=r"metrics take \[0, 1\]"):
        net.distance(frames() * 2 - 1, frames())
    with pytest.raises(ValueError, match="float64"):
        net.distance(frames().astype(np.float64), frames())


def test_batches_do_not_change_the_trace(net):
    clip = frames(num=6)
    traces = []
    for batch_size in (1, 2, 16):
        meter = LpipsMeter(net, batch_size=batch_size)
        measure(clip, [meter])
        traces.append(meter.finish(ClipInfo())[0].trace)
    # A convolution may round differently in another batch size.
    for trace in traces[1:]:
        assert trace == pytest.approx(traces[0], rel=1e-5)
    assert traces[0] == pytest.approx(net.distance(clip[:-1], clip[1:]), rel=1e-5)


def test_motion_compensation_forgives_a_pan(net, panning):
    meter = LpipsMeter(net)
    measure(panning(3, num_frames=4, size=64), [meter])
    plain, warped = meter.finish(ClipInfo())
    assert (plain.name, warped.name) == ("lpips_adjacent[squeeze]", "lpips_warp[squeeze]")
    assert warped.value < 0.3 * plain.value
    assert plain.backend.sha256 == "0" * 64


def test_a_pair_over_a_cut_is_not_measured(net, texture):
    clip = np.stack([texture(48, 64, seed=seed, sigma=1.0) for seed in (0, 1)])
    clip = np.repeat(np.repeat(clip, (3, 2), axis=0)[:, None], 3, axis=1)
    meter = LpipsMeter(net)
    measure(clip, [meter])
    assert [record.trace for record in meter.finish(ClipInfo())] == [(0, 0, None, 0)] * 2


def test_what_cannot_be_measured_is_null_with_the_reason(net):
    for clip, words in ((frames(num=1), "2 frames"), (frames(size=20), "32 pixels")):
        meter = LpipsMeter(net)
        measure(clip, [meter])
        assert all(words in record.skipped_reason for record in meter.finish(ClipInfo()))
    meter = LpipsMeter(net)
    measure(frames(size=64), [meter])
    plain, warped = meter.finish(ClipInfo())
    assert plain.value > 0
    assert warped.status == "invalid"


def checkpoint(model):
    """The backbone as torchvision would store it."""
    return {"features." + k.partition(".")[2]: v + 1 for k, v in model.net.state_dict().items()}


def test_backbone_file_fills_every_tensor(tmp_path):
    from vidcfg.metrics import weight_files as weights

    model = empty_lpips("alex")
    stored = checkpoint(model)
    torch.save(stored | {"classifier.1.weight": torch.zeros(2)}, tmp_path / "net.pth")
    loaded = load_lpips("alex", paths={"lpips-alex": tmp_path / "net.pth"})
    for key, tensor in loaded._model.net.state_dict().items():
        assert torch.equal(tensor, stored["features." + key.partition(".")[2]])
    assert loaded.backend.sha256 == weights.sha256_of(tmp_path / "net.pth")
    assert torch.equal(loaded._model.lin0.model[1].weight, model.lin0.model[1].weight)


@pytest.mark.parametrize("broken", ["missing", "shape", "pickle", "text"])
def test_file_that_is_no_backbone_is_refused(tmp_path, broken):
    model, path = empty_lpips("squeeze"), tmp_path / "net.pth"
    stored = checkpoint(model)
    key = next(iter(stored))
    if broken == "missing":
        del stored[key]
    if broken == "shape":
        stored[key] = stored[key][:1]
    torch.save(stored if broken != "pickle" else {"x": replace}, path)
    if broken == "text":
        path.write_text("no weights")
    with pytest.raises(MissingWeightsError, match=r"net\.pth"):
        load_backbone(model, path)


def test_unknown_backbone_is_named():
    with pytest.raises(ValueError, match="Known: alex, squeeze, vgg"):
        load_lpips("resnet")
