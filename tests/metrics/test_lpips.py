"""LPIPS: identities and ranges with a random backbone; published values where weights are."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from vidcfg.metrics import weight_files as weights
from vidcfg.metrics.lpips import Lpips, LpipsMeter, empty_lpips, load_backbone, load_lpips
from vidcfg.metrics.meters import measure
from vidcfg.metrics.record import Backend
from vidcfg.metrics.weight_files import MissingWeightsError


@pytest.fixture(scope="module")
def net():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = empty_lpips("squeeze")
    return Lpips(model, net="squeeze", backend=Backend("random", "0" * 64))


def frames(num=4, size=40, *, seed=0):
    return np.random.default_rng(seed).random((num, 3, size, size + 8), dtype=np.float32)


def distance(net, first, second):
    return net.between(list(zip(net.features(first), net.features(second))))


def test_distance_of_a_frame_to_itself_is_exactly_zero_and_order_does_not_matter(net):
    first, second = frames(), frames(seed=1)
    assert distance(net, first, first) == [0, 0, 0, 0]
    forth, back = distance(net, first, second), distance(net, second, first)
    assert min(forth) > 0
    assert forth == pytest.approx(back, rel=1e-6)


def test_values_are_those_of_the_package_on_the_range_of_the_net(net):
    first, second = frames(), frames(seed=1)
    with torch.inference_mode():
        stretched = (torch.from_numpy(x) * 2 - 1 for x in (first, second))
        expected = net.model(*stretched, normalize=False).flatten().tolist()
    assert distance(net, first, second) == pytest.approx(expected, rel=1e-6)
    levels = (np.rint(x * 255).astype(np.uint8) for x in (first, second))
    assert distance(net, *levels) == pytest.approx(expected, rel=0.05)


def test_frames_in_another_range_are_refused(net):
    with pytest.raises(ValueError, match=r"have to be in \[0, 1\]"):
        net.features(frames() * 2 - 1)
    with pytest.raises(ValueError, match="float64"):
        net.features(frames().astype(np.float64))


def test_batches_do_not_change_the_trace_and_each_frame_is_passed_once(net, monkeypatch):
    clip, passed, plain = frames(num=6), [], net.features
    monkeypatch.setattr(net, "features", lambda x: passed.append(len(x)) or plain(x))
    traces = []
    for batch_size in (1, 2, 16):
        meter = LpipsMeter(net, batch_size=batch_size)
        measure(clip, [meter])
        traces.append(meter.finish()[0].trace)
    # Noise does not move, so there are no moved frames.
    assert passed == [2, 1, 1, 1, 1, 3, 2, 1, 6]
    # A convolution may round differently in another batch size.
    for trace in traces[1:]:
        assert trace == pytest.approx(traces[0], rel=1e-5)
    assert traces[0] == pytest.approx(distance(net, clip[:-1], clip[1:]), rel=1e-5)


def test_motion_compensation_forgives_a_pan(net, panning):
    meter = LpipsMeter(net)
    measure(panning(3, num_frames=4, size=64), [meter])
    plain, warped = meter.finish()
    assert (plain.name, warped.name) == ("lpips_adjacent[squeeze]", "lpips_warp[squeeze]")
    assert warped.value < 0.3 * plain.value
    assert plain.backend.sha256 == "0" * 64


def test_a_pair_over_a_cut_is_not_measured(net, texture):
    clip = np.stack([texture(48, 64, seed=seed, sigma=1.0) for seed in (0, 1)])
    clip = np.repeat(np.repeat(clip, (3, 2), axis=0)[:, None], 3, axis=1)
    meter = LpipsMeter(net)
    measure(clip, [meter])
    plain, warped = (record.trace for record in meter.finish())
    assert plain == (0, 0, None, 0)
    # A convolution may round differently in another batch size.
    assert warped[2] is None
    assert np.delete(warped, 2).astype(float) == pytest.approx([0, 0, 0], abs=1e-9)


def test_what_cannot_be_measured_is_null_with_the_reason(net):
    for clip, words in ((frames(num=1), "2 frames"), (frames(size=20), "32 pixels")):
        meter = LpipsMeter(net)
        measure(clip, [meter])
        assert all(words in record.skipped_reason for record in meter.finish())
    meter = LpipsMeter(net)
    measure(frames(size=64), [meter])
    plain, warped = meter.finish()
    assert plain.value > 0
    assert warped.status == "invalid"


def checkpoint(model):
    """The backbone as torchvision would store it."""
    return {"features." + k.partition(".")[2]: v + 1 for k, v in model.net.state_dict().items()}


@pytest.mark.parametrize("name", ["net.pth", "net.safetensors"])
def test_backbone_file_fills_every_tensor(tmp_path, name):
    model, path = empty_lpips("alex"), tmp_path / name
    stored = checkpoint(model)
    write = torch.save if path.suffix == ".pth" else save_file
    write(stored | {"classifier.1.weight": torch.zeros(2)}, path)
    loaded = load_lpips("alex", path)
    for key, tensor in loaded.model.net.state_dict().items():
        assert torch.equal(tensor, stored["features." + key.partition(".")[2]])
    assert loaded.backend.sha256 == weights.remembered_sha256(path)
    assert torch.equal(loaded.model.lin0.model[1].weight, model.lin0.model[1].weight)


def test_values_are_comparable_where_the_weights_are_those_that_were_tried(
    net, tmp_path, monkeypatch
):
    path = tmp_path / "net.safetensors"
    save_file(checkpoint(net.model), path)
    weight = weights.named("lpips-squeeze")
    right = {"sha256": weights.remembered_sha256(path), "tried": "yes"}
    for facts in (right, right | {"tried": None}, right | {"sha256": "0" * 64}):
        monkeypatch.setitem(weights.WEIGHTS, "lpips-squeeze", replace(weight, **facts))
        load_lpips.cache_clear()
        loaded = load_lpips("squeeze", path)
        assert loaded.is_published is (facts is right)
    loaded.is_published = True
    meter = LpipsMeter(loaded)
    measure(frames(size=64), [meter])
    # What our own flow took the motion out of is nobody else's quantity.
    comparable = [record.comparable_to_literature for record in meter.finish()]
    assert comparable == [True, False]


@pytest.mark.weights
@pytest.mark.parametrize(("net", "values"), [("alex", (0.722, 0.138)), ("vgg", (0.569, 0.422))])
def test_fetched_weights_reach_the_values_of_the_published_example(
    tmp_path, monkeypatch, net, values
):
    """The three pictures of the LPIPS repository; of VGG no values are published."""
    if "LPIPS_EXAMPLE" not in os.environ:
        pytest.skip("LPIPS_EXAMPLE has to name the folder of ex_ref.png, ex_p0.png, ex_p1.png")
    folder = Path(os.environ["LPIPS_EXAMPLE"])
    monkeypatch.setenv("VIDCFG_WEIGHTS_DIR", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    weights.fetch(f"lpips-{net}")
    reference, *others = (
        np.asarray(Image.open(folder / f"ex_{name}.png").convert("RGB")).transpose(2, 0, 1)
        for name in ("ref", "p0", "p1")
    )
    loaded = load_lpips(net, weights.find_weights(f"lpips-{net}"))
    found = distance(loaded, np.stack([reference, reference]), np.stack(others))
    assert found == pytest.approx(values, abs=0.0005)
    assert loaded.is_published


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
    with pytest.raises(MissingWeightsError, match="lpips-resnet.*Known: .*lpips-alex.*lpips-vgg"):
        weights.find_weights("lpips-resnet")
