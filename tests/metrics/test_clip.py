"""CLIP plumbing with tiny random models: ranges, limits and arithmetic."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from vidcfg.metrics.clip import MEAN, STD, ClipMeter, ClipModel, load_clip
from vidcfg.metrics.meters import measure
from vidcfg.metrics.record import Backend
from vidcfg.metrics.weight_files import MissingWeightsError

LIMIT = 8


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny random CLIP in the layout of transformers, with a letter tokenizer."""
    from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

    path = tmp_path_factory.mktemp("tiny-clip")
    letters = list("abcdefghijklmnopqrstuvwxyz")
    words = [*letters, *(c + "</w>" for c in letters), "<|startoftext|>", "<|endoftext|>"]
    (path / "vocab.json").write_text(json.dumps({w: i for i, w in enumerate(words)}))
    (path / "merges.txt").write_text("#version: 0.2\n")
    tower = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    tower |= {"num_attention_heads": 2, "projection_dim": 12}
    ends = {"bos_token_id": len(words) - 2, "eos_token_id": len(words) - 1}
    text = {"vocab_size": len(words), "max_position_embeddings": LIMIT, **tower, **ends}
    vision = {"image_size": 32, "patch_size": 8, **tower}
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=12)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        CLIPModel(config).save_pretrained(path)
    CLIPTokenizer(str(path / "vocab.json"), str(path / "merges.txt")).save_pretrained(path)
    return path


def frames(num=5, height=40, width=52, *, seed=0):
    return np.random.default_rng(seed).random((num, 3, height, width), dtype=np.float32)


def stub(**changes):
    """A model whose image vector is the mean colour and whose text vector is (1, 0, 0)."""
    made = {
        "backend": Backend("stub", "1" * 64),
        "image_size": 16,
        "context_length": LIMIT,
        "encode_images": lambda images: _unscaled(images).mean(dim=(2, 3)),
        "encode_ids": lambda ids: torch.tensor([[1.0, 0.0, 0.0]]),
        "tokenize": lambda text: [0, *range(1, len(text.split()) + 1), 99],
    }
    return ClipModel(**made | changes)


def _unscaled(images):
    mean, std = (torch.tensor(v).reshape(3, 1, 1) for v in (MEAN, STD))
    return images * std + mean


def coloured(*colours):
    return np.stack([np.full((18, 20, 3), c, dtype=np.float32) for c in colours]).transpose(
        0, 3, 1, 2
    )


def score(model, clip, prompt="a", *, fps=8, batch_size=16):
    meter = ClipMeter(model, prompt, fps=fps, batch_size=batch_size)
    measure(clip, [meter])
    return meter.finish()


def test_score_is_a_hundred_times_the_mean_cosine():
    clip = coloured((1, 0, 0), (0, 1, 0), (0.6, 0.8, 0))
    points, steady = score(stub(), clip)
    # Resizing a flat picture and going through mean and spread costs a few float32 roundings.
    assert points.trace == pytest.approx((1, 0, 0.6), abs=1e-5)
    assert points.value == pytest.approx(100 * 1.6 / 3, abs=1e-3)
    assert points.extra["lowest"] == pytest.approx(0, abs=1e-5)
    assert points.extra["last_minus_first"] == pytest.approx(-0.4, abs=1e-5)
    assert steady.trace == pytest.approx((0, 0.8), abs=1e-5)
    assert points.backend.sha256 == "1" * 64


@pytest.mark.parametrize("cosine", [1.0, 0.25, -0.2])
def test_cosines_are_stored_raw(cosine):
    direction = torch.tensor([[cosine, (1 - cosine**2) ** 0.5, 0.0]])
    model = stub(encode_images=lambda images: direction.repeat(len(images), 1))
    points, _ = score(model, coloured((0.5, 0.5, 0.5)))
    assert points.trace == pytest.approx((cosine,), abs=1e-6)
    assert points.value == pytest.approx(100 * cosine, abs=1e-4)


@pytest.mark.parametrize(("cosine", "published"), [(1.0, 2.5), (0.25, 0.625), (-0.2, 0.0)])
def test_published_score_stands_beside_the_raw_one(cosine, published):
    direction = torch.tensor([[cosine, (1 - cosine**2) ** 0.5, 0.0]])
    model = stub(encode_images=lambda images: direction.repeat(len(images), 1))
    points, _ = score(model, coloured((0.5, 0.5, 0.5)))
    assert points.extra["hessel"] == pytest.approx(published, abs=1e-5)


def test_published_score_clamps_each_frame():
    pair = torch.tensor([[0.3, 0.91**0.5, 0.0], [-0.1, 0.99**0.5, 0.0]])
    points, _ = score(stub(encode_images=lambda images: pair), coloured((0, 0, 0), (1, 1, 1)))
    assert points.extra["hessel"] == pytest.approx(2.5 * 0.15, abs=1e-5)


def test_mean_is_taken_before_any_clamp():
    pair = torch.tensor([[0.3, 0.91**0.5, 0.0], [-0.1, 0.99**0.5, 0.0]])
    points, _ = score(stub(encode_images=lambda images: pair), coloured((0, 0, 0), (1, 1, 1)))
    assert points.value == pytest.approx(10, abs=1e-4)


def test_prompt_beyond_the_limit_is_cut_and_named():
    seen = []
    model = stub(encode_ids=lambda ids: (seen.append(ids), torch.ones(1, 3))[1])
    points, _ = score(model, coloured((1, 0, 0)), "one two three four five six seven eight nine")
    assert seen == [[0, 1, 2, 3, 4, 5, 6, 99]]
    assert points.extra["note"] == "prompt cut: 11 tokens, stub reads 8"
    points, _ = score(model, coloured((1, 0, 0)), "one two")
    assert "note" not in points.extra


@pytest.mark.parametrize(("fps", "used"), [(8, 12), (16, 6), (24.0, 4), (30, 3), (4, 12)])
def test_at_most_eight_frames_a_second_are_looked_at(fps, used):
    clip = coloured(*[(0.1, 0.2, 0.3)] * 12)
    assert score(stub(), clip, fps=fps)[0].n == used


def test_pictures_are_cropped_in_the_middle_and_normalised():
    seen = []
    model = stub(encode_images=lambda images: (seen.append(images), torch.ones(len(images), 3))[1])
    clip = np.zeros((1, 3, 16, 48), dtype=np.uint8)
    clip[..., 20:28] = 255
    score(model, clip)
    (images,) = seen
    assert images.shape == (1, 3, 16, 16)
    column = _unscaled(images)[0, 0, 0]
    assert column[4:12].tolist() == pytest.approx([1] * 8, abs=1e-5)
    assert column[:4].tolist() == pytest.approx([0] * 4, abs=1e-5)


def test_every_frame_size_is_cropped_as_by_torchvision():
    from PIL import Image
    from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize

    seen = []
    model = stub(encode_images=lambda images: (seen.append(images), torch.ones(len(images), 3))[1])
    oracle = Compose([Resize(16, InterpolationMode.BICUBIC), CenterCrop(16)])
    sizes = [(h, w) for h in (17, 21, 33) for w in range(9, 40)]
    for height, width in sizes:
        picture = np.random.default_rng(width).integers(90, 166, (height, width, 3), np.uint8)
        model.image_vectors(picture.transpose(2, 0, 1)[None])
        expected = np.asarray(oracle(Image.fromarray(picture)))
        found = _unscaled(seen.pop())[0].permute(1, 2, 0) * 255
        # Pillow rounds to a level after each of two passes; another size costs tens.
        assert np.abs(np.asarray(found) - expected).max() < 3, (height, width)


def test_frames_in_another_range_are_refused():
    with pytest.raises(ValueError, match=r"have to be in \[0, 1\]"):
        stub().image_vectors(frames() * 255)


def test_consistency_is_not_taken_over_a_cut():
    clip = coloured((1, 0, 0), (0.6, 0.8, 0), (0, 0, 1), (0, 0, 1))
    meter = ClipMeter(stub(), None, fps=8)
    for index, frame in enumerate(clip):
        if index == 2:
            meter.start_shot(2)
        meter.add_frame(frame)
    steady = meter.finish()[1]
    assert steady.trace[1] is None
    assert (steady.trace[0], steady.trace[2]) == pytest.approx((0.6, 1), abs=1e-5)
    assert steady.value == pytest.approx(0.8, abs=1e-5)


def test_no_prompt_and_one_frame_are_null_with_the_reason():
    points, steady = score(stub(), coloured((1, 0, 0)), None)
    assert points.skipped_reason == "the video has no prompt"
    assert steady.skipped_reason == "the clip has fewer than 2 frames"


def test_transformers_folder_is_loaded_and_batches_do_not_matter(folder):
    model = load_clip(str(folder))
    assert (model.image_size, model.context_length) == (32, LIMIT)
    assert len(model.backend.sha256) == 64
    whole = score(model, frames(), "a cat")
    for batch_size in (1, 2):
        for one, other in zip(score(model, frames(), "a cat", batch_size=batch_size), whole):
            # A matrix product may round differently in another batch size.
            assert one.trace == pytest.approx(other.trace, abs=1e-5)
    assert whole[0].name == f"clip_score[{folder.name}]"
    vectors = model.image_vectors(frames())
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)


def test_scores_of_the_transformers_folder_are_those_of_transformers(folder):
    from transformers import AutoTokenizer, CLIPModel

    net, tokenizer = (
        CLIPModel.from_pretrained(folder).eval(),
        AutoTokenizer.from_pretrained(folder),
    )
    clip = frames(height=32, width=32)
    mean, std = (torch.tensor(v).reshape(3, 1, 1) for v in (MEAN, STD))
    with torch.inference_mode():
        inputs = tokenizer(["a cat"], return_tensors="pt")
        out = net(pixel_values=(torch.from_numpy(clip) - mean) / std, **inputs)
    expected = (out.image_embeds @ out.text_embeds.T)[:, 0]
    expected = expected / out.image_embeds.norm(dim=-1) / out.text_embeds.norm(dim=-1)
    assert score(load_clip(str(folder)), clip, "a cat")[0].trace == pytest.approx(
        expected.tolist(), abs=1e-5
    )


@pytest.fixture
def copied(folder, tmp_path):
    """A copy of the folder, to be changed."""
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def test_half_precision_files_are_read_in_float32(copied):
    from transformers import CLIPModel

    CLIPModel.from_pretrained(copied).half().save_pretrained(copied)
    rounded = CLIPModel.from_pretrained(copied).float()
    model = load_clip(str(copied))
    image = torch.from_numpy(frames(2, 32, 32))
    expected = rounded.get_image_features(image).pooler_output
    # In half precision these differ by 1e-3.
    torch.testing.assert_close(model.encode_images(image), expected, rtol=0, atol=1e-6)


def of_another_kind(path):
    (path / "config.json").write_text(json.dumps({"model_type": "clip_text_model"}))


def without_words(path):
    for name in ("tokenizer.json", "vocab.json"):
        (path / name).unlink(missing_ok=True)


def without_a_tensor(path):
    stored = load_file(path / "model.safetensors")
    del stored["visual_projection.weight"]
    save_file(stored, path / "model.safetensors", metadata={"format": "pt"})


def cut_short(path):
    whole = (path / "model.safetensors").read_bytes()
    (path / "model.safetensors").write_bytes(whole[: len(whole) // 2])


def with_another_mean(path):
    made_ready = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (path / "preprocessor_config.json").write_text(json.dumps(made_ready))


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (of_another_kind, "says clip_text_model, not clip"),
        (without_words, "no tokenizer"),
        (without_a_tensor, "lack visual_projection.weight"),
        (cut_short, "cannot be loaded as CLIP"),
        (with_another_mean, "mean or spread"),
    ],
)
def test_folder_that_would_give_random_scores_is_refused(copied, broken, words):
    broken(copied)
    with pytest.raises(MissingWeightsError, match=words):
        load_clip(str(copied))


def test_weights_in_shards_are_known_by_all_of_them(copied):
    from transformers import CLIPModel

    known, net = set(), CLIPModel.from_pretrained(copied)
    (copied / "model.safetensors").unlink()
    for change in (0.0, 0.5):
        net.vision_model.post_layernorm.bias.data += change
        net.save_pretrained(copied, max_shard_size="20KB")
        load_clip.cache_clear()
        known.add(load_clip(str(copied)).backend.sha256)
    shards = sorted(copied.glob("model-*.safetensors"))
    assert len(shards) > 2
    assert len(known) == 2


def test_the_file_that_is_loaded_is_the_one_that_is_named(copied):
    (copied / "adapter.safetensors").write_bytes(b"of something else")
    loaded = hashlib.sha256((copied / "model.safetensors").read_bytes()).hexdigest()
    backend = load_clip(str(copied)).backend
    assert (backend.sha256, backend.source) == (loaded, "model.safetensors")


def test_long_prompt_is_cut_by_the_real_tokenizer_too(folder):
    points, _ = score(load_clip(str(folder)), frames(), "abcdefghijkl")
    assert points.extra["note"].startswith("prompt cut: 14 tokens")


def test_models_that_are_not_here_come_with_their_command(tmp_path, monkeypatch):
    with pytest.raises(MissingWeightsError, match="hf download nobody/nothing"):
        load_clip("nobody/nothing")
    with pytest.raises(MissingWeightsError, match="holds no weights"):
        load_clip(str(tmp_path))
    with pytest.raises(MissingWeightsError, match="open_clip:ViT-B-32@FILE"):
        load_clip("open_clip:ViT-B-32@" + str(tmp_path / "gone.pt"))


@pytest.mark.parametrize("name", ["ViT-B-16-SigLIP", "MobileCLIP-S1", "ViT-L-14-CLIPA"])
def test_open_clip_models_that_want_other_pictures_are_refused(tmp_path, name):
    (tmp_path / "weights.pt").write_bytes(b"")
    with pytest.raises(MissingWeightsError, match="mean or spread"):
        load_clip(f"open_clip:{name}@{tmp_path / 'weights.pt'}")


def test_open_clip_file_that_is_none_is_refused_in_one_line(tmp_path):
    for name in ("page.pt", "page.safetensors"):
        (tmp_path / name).write_text("<html>not found</html>")
        with pytest.raises(MissingWeightsError, match="cannot be loaded as RN50") as error:
            load_clip(f"open_clip:RN50@{tmp_path / name}")
        assert len(str(error.value).splitlines()) == 1


def test_open_clip_weights_are_loaded_by_name_and_file(tmp_path):
    import open_clip

    text = {"context_length": 9, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
    vision = {"image_size": 32, "layers": 1, "width": 16, "patch_size": 16, "head_width": 8}
    config = tmp_path / "tiny-test.json"
    config.write_text(json.dumps({"embed_dim": 12, "vision_cfg": vision, "text_cfg": text}))
    open_clip.add_model_config(config)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = open_clip.create_model("tiny-test").eval()
    torch.save(net.state_dict(), tmp_path / "tiny.pt")
    name = f"open_clip:tiny-test@{tmp_path / 'tiny.pt'}"
    model = load_clip(name)
    clip = frames(height=32, width=32)
    points, _ = score(model, clip, "a cat")
    assert points.name == "clip_score[open_clip:tiny-test]"
    mean, std = (torch.tensor(v).reshape(3, 1, 1) for v in (MEAN, STD))
    with torch.inference_mode():
        images = net.encode_image((torch.from_numpy(clip) - mean) / std, normalize=True)
        texts = open_clip.get_tokenizer("tiny-test")(["a cat"], context_length=9)
        expected = (images @ net.encode_text(texts, normalize=True).T)[:, 0]
    assert points.trace == pytest.approx(expected.tolist(), abs=1e-5)
    cut, _ = score(model, clip, "a cat " * 9)
    assert cut.extra["note"].startswith("prompt cut: 20 tokens")
