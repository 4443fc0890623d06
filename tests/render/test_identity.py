"""What makes a video another one: content, wherever a setting names a file."""

import os

import numpy as np
import pytest

from vidcfg.render.config import Prompt
from vidcfg.render.identity import (
    cell_digest,
    commit_of,
    content_of,
    sources_of,
    unit_key,
    what_changed,
)

PARTS = [
    "transformer/diffusion_pytorch_model.safetensors",
    "transformer/diffusion_pytorch_model-00002-of-00003.safetensors",
    "transformer/diffusion_pytorch_model.safetensors.index.json",
    "vae/diffusion_pytorch_model.bin",
    "text_encoder/model.pt",
    "text_encoder_2/weights.ckpt",
    "transformer/model-Q4.gguf",
    "transformer/config.json",
    "tokenizer/spiece.model",
    "tokenizer/vocab.txt",
    "tokenizer/merges.txt",
    "scheduler/scheduler_config.json",
    "image_encoder/of-a-format-to-come.xyz",
    "lora/pytorch_lora_weights.safetensors",
    "model_index.json",
]


@pytest.fixture
def folder(tmp_path):
    """A model with a file of every kind, each of some hundred bytes."""
    for number, name in enumerate(PARTS):
        path = tmp_path / "model" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes([number]) * 300)
    return tmp_path / "model"


def other_byte(path):
    """One byte in the middle is another, size and time of change are those of before."""
    stat, data = path.stat(), bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


@pytest.mark.parametrize("are_large", [False, True])
def test_a_byte_of_any_file_of_a_model_makes_it_another(folder, tmp_path, monkeypatch, are_large):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("vidcfg.files.SETTLED_SECONDS", -1)
    if are_large:
        monkeypatch.setattr("vidcfg.files.REMEMBERED_BYTES", 1)
    seen = [content_of(folder)]
    assert content_of(folder) == seen[0]
    for name in PARTS:
        other_byte(folder / name)
        seen.append(content_of(folder))
    assert len(set(seen)) == len(PARTS) + 1
    (folder / PARTS[0]).rename(folder / "transformer" / "other.safetensors")
    assert content_of(folder) not in seen
    kept = list((tmp_path / "cache").rglob("*.json"))
    assert len(kept) == (len(PARTS) + 1 if are_large else 0)


def test_what_lies_beside_a_model_is_no_part_of_it_and_links_are(folder, tmp_path):
    before = content_of(folder)
    for name in ("README.md", "notes.txt", "sample.mp4", ".gitattributes", ".cache/x.json"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"beside")
    assert content_of(folder) == before
    # A part that is a link to a folder elsewhere, in which a link leads back.
    (folder / "vae").rename(tmp_path / "vae")
    (folder / "vae").symlink_to(tmp_path / "vae")
    (tmp_path / "vae" / "up").symlink_to(folder)
    assert content_of(folder) == before
    other_byte(tmp_path / "vae" / "diffusion_pytorch_model.bin")
    assert content_of(folder) != before


def test_a_setting_that_names_a_place_counts_by_what_is_there(config, folder, tmp_path):
    """The model, an adapter, a weak model alone and in a sum; moved, then changed."""
    copy = tmp_path / "copy"
    places = {
        "model": "model={kind: diffusers, checkpoint: PLACE}",
        "adapter": "model={kind: diffusers, checkpoint: some/video, motion_adapter: PLACE}",
        "weak": "guidance={scale: 2.0, method: {kind: autoguidance, checkpoint: PLACE}}",
        "weak in a sum": "guidance={scale: 2.0, method: [cfg, {kind: autoguidance, "
        "checkpoint: PLACE, scale: 3.0}]}",
    }

    def digests(place):
        configs = {
            name: config(text.replace("PLACE", str(place))) for name, text in places.items()
        }
        return {name: cell_digest(c, sources_of(c)) for name, c in configs.items()}

    (folder / "model_index.json").unlink()
    first = digests(folder)
    assert len(set(first.values())) == len(places)
    folder.rename(copy)
    assert digests(copy) == first
    other_byte(copy / PARTS[3])
    changed = digests(copy)
    assert {name for name in places if changed[name] != first[name]} == set(places)


def test_the_weak_checkpoint_of_the_package_counts_beside_another_training(config, folder):
    asked = config(f"model.checkpoint={folder}", "guidance={scale: 2.0, method: autoguidance}")
    assert sources_of(asked)["guidance: weak"] is not None
    assert "guidance: weak" not in sources_of(config(f"model.checkpoint={folder}"))


def test_an_image_counts_by_its_content_and_not_by_its_place(tmp_path):
    first, second = tmp_path / "a.png", tmp_path / "b.png"
    for path in (first, second):
        path.write_bytes(b"picture" * 9)
    keys = [unit_key("cell", Prompt(text="x", image=str(path)), 3) for path in (first, second)]
    assert keys[0] == keys[1]
    other_byte(first)
    assert unit_key("cell", Prompt(text="x", image=str(first)), 3) != keys[0]
    assert unit_key("cell", Prompt(text="x", image=str(second)), 4) != keys[1]


def test_a_revision_is_the_commit_that_the_hub_cache_has(config, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    cached = tmp_path / "models--some--video"
    assert commit_of("some/video") is None
    assert commit_of("some/video", "a" * 40) == f"commit {'a' * 40}"
    asked = config("model={kind: diffusers, checkpoint: some/video}")
    unknown = cell_digest(asked, sources_of(asked))
    seen = {unknown}
    for commit in ("b" * 40, "c" * 40):
        (cached / "snapshots" / commit).mkdir(parents=True)
        (cached / "refs").mkdir(exist_ok=True)
        (cached / "refs" / "main").write_text(commit)
        assert sources_of(asked)["model.checkpoint"] == f"commit {commit}"
        seen.add(cell_digest(asked, sources_of(asked)))
    assert len(seen) == 3
    # A reference to a snapshot that is gone says nothing.
    (cached / "refs" / "main").write_text("d" * 40)
    assert sources_of(asked)["model.checkpoint"] is None


def test_our_own_numerics_count(config, monkeypatch):
    asked = config()
    before = sources_of(asked)
    monkeypatch.setattr("vidcfg.render.identity.NUMERICS", 99)
    after = sources_of(asked)
    assert cell_digest(asked, before) != cell_digest(asked, after)
    assert what_changed(before, after).startswith("the numerics of vidcfg are version 99, not ")
    assert what_changed(before, before) == ""
    assert "did not note" in what_changed(None, after)
    other = {**before, "model.checkpoint": "x"}
    assert what_changed(other, before) == "the content of model.checkpoint is another"
    # As a stranger may write it.
    odd = {**before, "model.checkpoint": ["x"]}
    assert what_changed(odd, before) == "the content of model.checkpoint is another"


def test_matrix_in_a_file_counts_by_its_numbers_and_not_by_its_name(config, tmp_path):
    def key(name, matrix):
        np.save(tmp_path / name, np.array(matrix))
        made = config(f"guidance.scale={name}")
        return cell_digest(made, sources_of(made))

    first = key("a.npy", [[6.0, 3.0, 2.0]])
    assert key("b.npy", [[6.0, 3.0, 2.0]]) == first
    assert key("a.npy", [[6.0, 3.0, 2.5]]) != first


def test_what_was_taught_to_the_embedded_model_is_told_by_its_content(
    config, tmp_path, monkeypatch
):
    from vidcfg.render import identity

    student = config("model.checkpoint=few_steps")
    adapter = config("guidance.method={kind: distilled, adapter: mini}")
    assert not {"model.few_steps", "guidance: adapter"} & set(sources_of(config()))
    for asked, name, constant in (
        (student, "model.few_steps", "FEW_STEPS"),
        (adapter, "guidance: adapter", "STRENGTH_ADAPTER"),
    ):
        before = sources_of(asked)
        assert before[name] is not None
        # Another training of it, elsewhere.
        path = tmp_path / f"{constant}.safetensors"
        path.write_bytes(b"other weights")
        with monkeypatch.context() as other:
            other.setattr(identity, constant, path)
            after = sources_of(asked)
        assert after[name] != before[name]
        assert cell_digest(asked, after) != cell_digest(asked, before)
