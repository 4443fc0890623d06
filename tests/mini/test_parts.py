import copy
import json
import shutil

import pytest
import torch

from vidcfg.mini.codec import CausalVAE
from vidcfg.mini.model import STDiT
from vidcfg.mini.pipeline import MINI_PATH, MiniVideoPipeline


def test_arguments_are_kept_with_their_defaults_by_key_and_by_attribute():
    codec = CausalVAE(5, patch=2)
    for config in (codec.config, copy.deepcopy(codec).config):
        assert (config.latent_channels, config["patch"], config.get("stride")) == (5, 2, 4)
        assert not hasattr(config, "attention")


def test_loading_leaves_the_random_state_and_gives_the_dtype_asked_for():
    before = torch.random.get_rng_state()
    codec = CausalVAE.from_pretrained(MINI_PATH, subfolder="vae", torch_dtype=torch.float16)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert {p.dtype for p in codec.parameters()} == {torch.float16}
    assert not codec.training


def test_on_the_meta_device_no_weight_is_read(tmp_path):
    shutil.copytree(MINI_PATH, tmp_path / "small", ignore=shutil.ignore_patterns("*.safetensors"))
    pipe = MiniVideoPipeline.from_pretrained(tmp_path / "small", device="meta")
    assert pipe.device.type == pipe.vae.device.type == "meta"
    with pytest.raises(FileNotFoundError):
        MiniVideoPipeline.from_pretrained(tmp_path / "small")


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("config.json", b'{"latent_channels": 4}', "holds no CausalVAE: .*refine.first"),
        ("config.json", b'{"width": 2}', "holds no CausalVAE: .*'width'"),
        ("config.json", b"{", "holds no CausalVAE: Expecting property name"),
        ("diffusion_pytorch_model.safetensors", b"none", "holds no CausalVAE: "),
    ],
)
def test_a_folder_of_something_else_is_named(tmp_path, name, content, says):
    shutil.copytree(MINI_PATH / "vae", tmp_path / "vae")
    (tmp_path / "vae" / name).write_bytes(content)
    with pytest.raises(ValueError, match=says):
        CausalVAE.from_pretrained(tmp_path, subfolder="vae")


def test_a_pipeline_is_moved_and_rebuilt_of_its_parts(tiny_pipeline):
    other = MiniVideoPipeline(**tiny_pipeline.components).to("cpu", torch.float64)
    assert other.transformer is tiny_pipeline.transformer
    for model in (other.transformer, other.vae, other.text_encoder):
        assert {p.dtype for p in model.parameters()} == {torch.float64}


def test_what_is_saved_names_its_class(tmp_path):
    STDiT(in_channels=4, width=24, num_layers=1, num_heads=2).save_pretrained(tmp_path / "a")
    named = json.loads((tmp_path / "a" / "config.json").read_text())
    assert (named["_class_name"], named["width"], named["attention"]) == ("STDiT", 24, "full")
