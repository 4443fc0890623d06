"""Feature nets with random weights: shapes, ranges, loading, protocols."""

import numpy as np
import pytest
import torch

from vidcfg.metrics.features.base import (
    area_to_side,
    check_clips,
    load_net,
    stretch,
)
from vidcfg.metrics.features.i3d import I3D, I3DNet, load_i3d
from vidcfg.metrics.features.mini import MiniNet, shares_right
from vidcfg.metrics.features.r3d18 import R3D18Net
from vidcfg.metrics.record import Backend
from vidcfg.metrics.weight_files import MissingWeightsError
from vidcfg.mini.shapes import ATTRIBUTES


def frames(num=3, height=20, width=28, *, seed=0):
    return np.random.default_rng(seed).random((num, 3, height, width), dtype=np.float32)


@pytest.fixture(scope="module")
def i3d():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return I3D().eval()


def test_i3d_has_its_published_number_of_parameters(i3d):
    assert sum(p.numel() for p in i3d.parameters()) == 12_697_264


def test_i3d_gives_400_logits_from_nine_frames_on(i3d):
    with torch.inference_mode():
        assert i3d(torch.zeros(2, 3, 9, 193, 193)).shape == (2, 400)
        for shape in ((1, 3, 8, 193, 193), (1, 3, 9, 192, 193)):
            with pytest.raises(ValueError, match="9 frames and 193 x 193"):
                i3d(torch.zeros(shape))


def test_i3d_file_fills_every_tensor_and_another_file_is_refused(i3d, tmp_path):
    stored = {k: v for k, v in i3d.state_dict().items() if "num_batches" not in k}
    torch.save(stored, tmp_path / "i3d.pt")
    loaded = load_i3d(tmp_path / "i3d.pt").state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in stored.items())
    del stored["logits.conv3d.bias"]
    torch.save(stored, tmp_path / "less.pt")
    with pytest.raises(MissingWeightsError, match=r"missing \['logits\.conv3d\.bias'\]"):
        load_i3d(tmp_path / "less.pt")
    torch.save({"x": load_i3d}, tmp_path / "code.pt")
    with pytest.raises(MissingWeightsError, match="no state_dict of I3D"):
        load_i3d(tmp_path / "code.pt")


def test_protocols_differ_in_resize_and_covariance_and_say_so(i3d):
    made = {
        name: I3DNet(i3d, protocol=name, backend=Backend("i3d-k400"))
        for name in ("google", "styleganv")
    }
    assert made["google"].protocol != made["styleganv"].protocol
    assert (made["google"].is_biased_covariance, made["styleganv"].is_biased_covariance) == (0, 1)
    clips = [net.prepare(frames()) for net in made.values()]
    assert clips[0].shape == clips[1].shape == (3, 3, 224, 224)
    assert not np.array_equal(*clips)
    with pytest.raises(ValueError, match="'google' and 'styleganv'"):
        I3DNet(i3d, protocol="tf", backend=Backend("i3d-k400"))


def test_protocol_of_i3d_names_the_batch_norm_epsilon(i3d):
    net = I3DNet(i3d, protocol="google", backend=Backend("x"))
    norms = [m for m in i3d.modules() if isinstance(m, torch.nn.BatchNorm3d)]
    assert {m.eps for m in norms} == {1e-3}
    assert net.protocol.endswith(";bn-eps=0.001")


def test_i3d_sees_minus_one_to_one():
    seen = []

    class Probe(torch.nn.Module):
        def forward(self, video):
            seen.append(video)
            return video.mean(dim=(2, 3, 4))

    net = I3DNet(Probe(), protocol="google", backend=Backend("x"))
    clips = np.stack([np.zeros((4, 3, 2, 2)), np.ones((4, 3, 2, 2))]).astype(np.float32)
    assert net.features(clips).tolist() == [[-1, -1, -1], [1, 1, 1]]
    assert seen[0].shape == (1, 3, 4, 2, 2)


@pytest.mark.parametrize("wrong", [-0.01, 1.01, 255.0])
def test_clips_out_of_range_are_refused(wrong):
    clips = np.full((1, 2, 3, 4, 5), 0.5, dtype=np.float32)
    clips[0, 0, 0, 0, 0] = wrong
    with pytest.raises(ValueError, match=r"take \[0, 1\]"):
        check_clips(clips)
    with pytest.raises(ValueError, match=r"\[B, T, 3, H, W\]"):
        check_clips(clips[0])


def test_legacy_resize_samples_at_multiples_of_the_scale():
    row = np.linspace(0, 1, 4, dtype=np.float32)
    clip = np.broadcast_to(row, (1, 3, 2, 4)).copy()
    # 4 -> 8: positions 0, 0.5, 1, ... 3.5; the last one repeats the edge.
    expected = np.minimum(np.arange(8) / 2, 3) / 3
    np.testing.assert_allclose(stretch(clip, 2, 8, is_legacy=True)[0, 0, 0], expected, atol=1e-6)


@pytest.mark.parametrize("size", [(31, 45), (10, 14), (224, 224)])
def test_centred_resize_is_that_of_torch(size):
    clip = frames()
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(clip), size, mode="bilinear", align_corners=False
    )
    np.testing.assert_allclose(stretch(clip, *size), expected.numpy(), atol=1e-5)


def test_area_resize_averages_blocks_and_leaves_small_frames():
    clip = frames(height=64, width=96)
    blocks = clip.reshape(3, 3, 32, 2, 48, 2).mean(axis=(3, 5))
    np.testing.assert_allclose(area_to_side(clip, 32), blocks, atol=1e-5)
    small = frames(height=32, width=40)
    assert area_to_side(small, 32) is small
    levels = np.full((2, 3, 16, 16), 51, dtype=np.uint8)
    assert area_to_side(levels, 32)[0, 0, 0, 0] == np.float32(0.2)


def test_r3d18_gives_512_features_that_do_not_depend_on_the_batch():
    from torchvision.models.video import r3d_18

    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = R3D18Net(r3d_18(weights=None), backend=Backend("r3d18-k400"))
    clips = np.stack([net.prepare(frames(num=4, seed=seed)) for seed in (0, 1)])
    assert clips.shape == (2, 4, 3, 112, 112)
    features = net.features(clips)
    assert features.shape == (2, 512)
    assert np.array_equal(net.features(clips[1:]), features[1:])


@pytest.fixture(scope="module")
def mini():
    from vidcfg.mini.scorer import Scorer

    with torch.random.fork_rng():
        torch.manual_seed(0)
        scorer = Scorer(width=8, embed=12, text_width=16)
    return MiniNet(scorer, sha256="2" * 64, source="test")


def test_mini_features_are_unit_vectors_that_do_not_depend_on_the_batch(mini):
    clips = np.stack([mini.prepare(frames(num=5, height=64, width=64, seed=s)) for s in (0, 1, 2)])
    assert clips.shape == (3, 5, 3, 32, 32)
    features = mini.features(clips)
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, rtol=1e-5)
    assert np.array_equal(mini.features(clips[2:]), features[2:])


def test_mini_alignment_is_the_scorers_cosine(mini):
    clips = np.stack([frames(num=5, height=32, width=32, seed=s) for s in (0, 1)])
    prompts = ["a red circle moving left over a navy background", None]
    found = [mini.judge(clip, prompt)[1] for clip, prompt in zip(clips, prompts)]
    (align, accuracy), (no_align, no_accuracy) = found
    scorer = mini.scorer
    with torch.inference_mode():
        expected = scorer.alignment(torch.from_numpy(clips[:1]), prompts[:1]).item()
    assert align.value == pytest.approx(expected, abs=1e-6)
    assert align.backend.sha256 == "2" * 64
    assert set(accuracy.extra) == {"shape", "colour", "motion", "background"}
    assert accuracy.value == sum(accuracy.extra.values()) / 4
    assert no_align.value is None
    assert no_accuracy.value is None


def test_a_clip_goes_through_the_scorer_once_for_features_and_records(mini, monkeypatch):
    clips = np.stack([frames(num=5, height=32, width=32, seed=s) for s in (0, 1)])
    features, states, seen = mini.features(clips), mini.scorer.states, []
    monkeypatch.setattr(mini.scorer, "states", lambda video: seen.append(1) or states(video))
    for clip, prompt, expected in zip(clips, ["a red circle moving left", None], features):
        assert np.array_equal(mini.judge(clip, prompt)[0], expected)
    assert len(seen) == 2


def test_an_attribute_is_right_on_the_share_of_readings_that_are_as_the_prompt_says():
    seen = {name: [values[0]] * 5 for name, values in ATTRIBUTES.items()}
    seen["colour"] = ["red", "red", "green", "green", "blue"]
    prompt = "a red square turning green moving left then up"
    shares = shares_right(seen, prompt, 17)
    assert shares == {"shape": 0.0, "colour": 3 / 5, "motion": 3 / 5}
    # Only the second half is spoken of: readings 3 and 4.
    assert shares_right(seen, "turning green", 17) == {"colour": 0.5}
    assert shares_right(seen, "a kite", 17) == {}


def test_unknown_nets_and_absent_scorers_are_named(tmp_path):
    with pytest.raises(ValueError, match="Known: mini, i3d-k400, r3d18-k400"):
        load_net("i3d")
    with pytest.raises(MissingWeightsError, match="scripts/train_mini"):
        load_net("mini", paths={"mini": tmp_path})
    # Said of the weights: each video would be called unreadable otherwise.
    (tmp_path / "model.safetensors").write_bytes(b"of something else")
    with pytest.raises(MissingWeightsError, match="cannot be loaded as the scorer"):
        load_net("mini", paths={"mini": tmp_path})


def test_embedded_scorer_recognises_drawn_clips_and_their_captions():
    from vidcfg.mini.shapes import sample_clip

    net = load_net("mini")
    drawn = [sample_clip((55, index)) for index in range(24)]
    clips = np.stack([net.prepare(c.frames.transpose(0, 3, 1, 2)) for c in drawn])
    captions = [c.caption for c in drawn]
    right = [net.judge(*pair)[1] for pair in zip(clips, captions)]
    wrong = [net.judge(*pair)[1] for pair in zip(clips, captions[1:] + captions[:1])]
    accuracy = np.mean([found[1].value for found in right])
    assert accuracy > 0.95
    for index in range(24):
        if captions[index] != captions[(index + 1) % 24]:
            assert right[index][0].value > wrong[index][0].value
