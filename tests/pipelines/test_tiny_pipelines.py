"""The tiny pipelines of the tests are what they say: what a helper changes has an effect."""

from pathlib import Path

import pytest
from tiny_base import rebuilt
from tiny_pipelines import BUILDERS
from tiny_wan import wan_first_last

HELPERS = Path(__file__).parents[1] / "helpers"


@pytest.mark.parametrize(
    ("build", "changed"),
    [
        (BUILDERS["wan_i2v"], {"in_channels": 36, "image_dim": 6, "added_kv_proj_dim": 24}),
        (wan_first_last, {"image_dim": 6, "pos_embed_seq_len": 10}),
        (BUILDERS["wan_ti2v_5b"], {"in_channels": 48, "out_channels": 48}),
        (
            BUILDERS["cogvideox_i2v"],
            {"in_channels": 8, "attention_head_dim": 16, "use_rotary_positional_embeddings": True},
        ),
        (BUILDERS["cogvideox15"], {"patch_size_t": 2, "use_rotary_positional_embeddings": True}),
    ],
)
def test_a_variant_has_what_it_changes(build, changed):
    config = build(batch=1).denoiser.config
    assert {name: config[name] for name in changed} == changed


def test_rebuilt_keeps_a_change_whose_old_value_was_the_default():
    model = BUILDERS["wan"](batch=1).denoiser
    changed = {"image_dim": 6, "added_kv_proj_dim": 24}
    assert model.config.image_dim is None
    other = rebuilt(model, **changed)
    assert {name: other.config[name] for name in changed} == changed
    assert other.condition_embedder.image_embedder is not None
    # What this is for: diffusers' own way forgets it.
    assert type(model).from_config(dict(model.config) | changed).config.image_dim is None


def test_no_helper_overrides_through_a_config():
    users = [p.name for p in HELPERS.glob("*.py") if ".from_config(" in p.read_text("utf-8")]
    assert not users
