"""`vidcfg families check`: a declaration is held against the pipeline that it is for."""

import functools
import re
from dataclasses import replace

import kites
import pytest
import torch
from kite_family import FAMILY as KITE

import vidcfg
from vidcfg.families import main
from vidcfg.guidance.frame_map import CausalMap
from vidcfg.pipelines.families import FAMILIES

EMBEDS = {
    "prompt_embeds": torch.randn(2, 6, 7, generator=torch.Generator().manual_seed(1)),
    "negative_prompt_embeds": torch.randn(2, 6, 7, generator=torch.Generator().manual_seed(2)),
}
FUNCTION = """\
import torch
from kites import kite

def make():
    names = "prompt_embeds", "negative_prompt_embeds"
    return kite(), {name: torch.randn(2, 6, 7) for name in names}
"""


@pytest.fixture
def checked():
    """Declares the kite with changes, and checks it: a line by its name."""

    def run(**changes) -> dict:
        vidcfg.register_family(replace(KITE, **changes))
        return {line.name: line for line in vidcfg.check_pipeline(kites.kite(), **EMBEDS)}

    yield run
    FAMILIES.pop("kite", None)


def test_right_declaration_passes_every_line_from_a_function_in_a_file(tmp_path, capsys, checked):
    checked()
    (tmp_path / "mine.py").write_text(FUNCTION)
    assert main(["check", f"{tmp_path / 'mine.py'}:make", "--steps", "2", "--frames", "10"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0].split(maxsplit=1) for line in lines[:-1]] == [
        ["ok", "tensor x"],
        ["ok", "tensor t"],
        ["ok", "tensor context"],
        ["ok", "uniform scale"],
        ["ok", "random surface"],
        ["ok", "plan"],
        ["ok", "afterwards"],
    ]
    assert lines[3].endswith("exact")
    # two prompts, two passes, two steps, twice
    assert "2 steps, 4 latent frames, num_frames=10 and 13 make x [2, 5, 4, 2, 4]" in lines[4]
    assert "16 model evaluations" in lines[5]


@pytest.mark.parametrize(
    ("changes", "name", "line"),
    [
        ({"per_sample": ()}, "t", "has rows for 2 samples. Write per_sample=('t',)"),
        ({"texts": {}}, "context", "pass sees another. Write texts={'context': 'prompt_embeds'}"),
    ],
)
def test_tensor_left_out_of_a_declaration_is_named_with_the_line_to_write(
    checked, changes, name, line
):
    found = checked(**changes)
    assert found[f"tensor {name}"].passed is False
    assert line in found[f"tensor {name}"].text
    assert found["uniform scale"].passed is False
    assert found["random surface"].passed is False


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        # 9 frames are 3 latents by either map, 13 are not.
        ({"frame_map": lambda pipe: CausalMap(4)}, "5 latent frames, but .* says 3 and 4. Write"),
        ({"layout": "BFCHW"}, "frames lie on axis 2, but the layout BFCHW has them on axis 1"),
        # Both samples run together in the pipeline's own passes, alone under the surface.
        ({"per_sample": (), "constants": ("t",)}, "one row per input row"),
    ],
)
def test_what_a_uniform_scale_hides_fails_on_the_random_surface(checked, changes, match):
    found = checked(**changes)
    assert found["uniform scale"].text == "exact"
    assert found["random surface"].passed is False
    assert re.search(match, found["random surface"].text)


def test_pipeline_that_forgets_a_step_is_far(checked, monkeypatch):
    """The comparison itself: the stock loop does not do what the declaration says."""
    step = kites.KiteDenoiser.forward
    monkeypatch.setattr(
        kites.KiteDenoiser,
        "forward",
        lambda self, x, t, context, scale_of_time=1.0: step(self, x, t, context * len(x)),
    )
    found = checked()
    assert found["random surface"].passed is False
    assert found["random surface"].text.startswith("far: by")


def test_pipeline_without_guidance_of_its_own_is_not_called_far(checked, monkeypatch):
    stock = kites.KitePipeline.__call__

    @functools.wraps(stock)
    def plain(self, *args, guidance_scale=1.0, **kwargs):
        return stock(self, *args, guidance_scale=1.0, **kwargs)

    monkeypatch.setattr(kites.KitePipeline, "__call__", plain)
    line = checked()["uniform scale"]
    assert line.passed is None
    assert "cannot be told: its own guidance" in line.text


@pytest.mark.parametrize(
    ("target", "match"),
    [
        ("nowhere", "there is no folder nowhere. Type mini, a folder, a repository"),
        ("kites:no_such", "kites:no_such fails: AttributeError"),
        ("kites:kite", "cannot guide a KitePipeline.*register_family"),
        ("builtins:int", "cannot guide a int"),
    ],
)
def test_what_cannot_be_checked_says_what_to_type(target, match, capsys):
    assert main(["check", target]) == 2
    assert re.search(match, capsys.readouterr().err)


def test_call_that_the_pipeline_does_not_take_names_its_arguments(checked):
    checked()
    with pytest.raises(ValueError, match="takes no hight. It takes prompt_embeds, "):
        vidcfg.check_pipeline(kites.kite(), hight=16)
    with pytest.raises(ValueError, match="KitePipeline itself fails with these arguments: "):
        vidcfg.check_pipeline(kites.kite(), prompt_embeds=torch.zeros(2, 3))
    # A prompt that is given as none is none: there is nothing to take a negative side for.
    with pytest.raises(ValueError, match="KitePipeline itself fails with these arguments: "):
        vidcfg.check_pipeline(kites.kite(), prompt=None, prompt_embeds=EMBEDS["prompt_embeds"])


def test_what_bfloat16_may_explain_is_not_known(checked, monkeypatch):
    vidcfg.register_family(KITE)
    pipe, step = kites.kite(), kites.KiteDenoiser.forward
    pipe.denoiser.bfloat16()
    monkeypatch.setattr(
        kites.KiteDenoiser,
        "forward",
        lambda self, x, t, context: step(self, x.bfloat16(), t.bfloat16(), context),
    )
    embeds = {name: tensor.bfloat16() for name, tensor in EMBEDS.items()}
    found = {line.name: line for line in vidcfg.check_pipeline(pipe, **embeds)}
    assert found["uniform scale"].text == "exact"
    assert found["random surface"].passed is None
    assert found["random surface"].text.startswith("rounding or not, load it in float32")
