"""A perturbed forward against the same model, its attention written out by hand in float64."""

import copy
import inspect
import math

import pytest
import torch
from explicit_attention import EXPLICIT, MiniExplicit, Skipped
from tiny_pipelines import BUILDERS, generators, ltx2

from vidcfg.guidance.perturbation import Perturbation
from vidcfg.guidance.rules.sag import Sag
from vidcfg.pipelines.changes.layers import blur_tokens, find_layers, token_grid
from vidcfg.pipelines.changes.perturbed import perturbed
from vidcfg.pipelines.changes.sag import watched
from vidcfg.pipelines.families import FAMILIES, family_of

GRIDS = {
    "wan": (3, 1, 2),
    "ltx": (3, 8, 16),
    "cogvideox": (2, 1, 2),
    "hunyuan_video": (3, 2, 4),
    "mochi": (2, 1, 2),
}
"""Frames, rows, columns of the tokens, worked out by hand from the calls of the tiny pipelines."""
LISTS = {"wan": "blocks", "hunyuan_video": "transformer_blocks"}
CASES = [(name, 0) for name in EXPLICIT] + [("hunyuan_video", 1)]
KINDS = {
    "identity": Perturbation("identity", rule="pag"),
    "drop": Perturbation("drop", rule="stg"),
    "skip": Perturbation("skip", rule="slg"),
    "blur": Perturbation("blur", rule="seg", sigma=0.8),
    "mean": Perturbation("blur", rule="seg"),
}


@pytest.fixture(scope="module")
def calls():
    """Family -> its tiny denoiser and the arguments of one call with two samples."""
    kept = {}

    def call_of(name):
        if name not in kept:
            tiny = (BUILDERS | {"ltx2": ltx2})[name]()
            kept[name] = (tiny.denoiser, recorded(tiny), family_of(tiny.pipe))
        return kept[name]

    return call_of


def recorded(tiny) -> dict:
    """The arguments of the denoiser's first call."""
    module, found = tiny.denoiser, []
    signature = inspect.signature(type(module).forward)
    forward = module.forward

    def spy(*args, **kwargs):
        found.append(dict(signature.bind(module, *args, **kwargs).arguments))
        return forward(*args, **kwargs)

    module.forward = spy
    try:
        tiny.unguided(generator=generators(0, 1))
    finally:
        del module.forward
    return {n: v for n, v in found[0].items() if n not in ("self", "kwargs")}


def output(module, arguments):
    with torch.no_grad():
        made = module(**arguments)
    return made[0] if isinstance(made, tuple) else made.sample


def same(ours, plain) -> None:
    """Equal but for the order of float32 sums, which on CPUs depends on where memory lies."""
    torch.testing.assert_close(ours, plain, rtol=0, atol=2e-6)


def in_float64(arguments: dict) -> dict:
    def wide(value):
        if isinstance(value, tuple):
            return tuple(map(wide, value))
        is_float = isinstance(value, torch.Tensor) and value.is_floating_point()
        return value.double() if is_float else value

    return {name: wide(value) for name, value in arguments.items()}


def block_of(module, name: str, layer: int):
    if name == "hunyuan_video" and layer == 1:
        return module.single_transformer_blocks, 0
    return getattr(module, LISTS.get(name, "transformer_blocks")), layer


def by_hand(name: str, layer: int, kind: str, module, arguments):
    """The output of a float64 copy whose layer is written out, and how often it was called."""
    module = copy.deepcopy(module).double()
    blocks, index = block_of(module, name, layer)
    if kind == "skip":
        blocks[index] = Skipped(joint=name not in ("wan", "ltx"))
        return output(module, in_float64(arguments)), 1
    edit = "blur" if kind == "mean" else kind
    sigma = math.inf if kind == "mean" else 0.8
    attention = getattr(blocks[index], "attn" if name == "hunyuan_video" else "attn1")
    attention.processor = EXPLICIT[name](edit, grid=GRIDS[name], sigma=sigma)
    return output(module, in_float64(arguments)), attention.processor.calls


@pytest.mark.parametrize(("name", "layer"), CASES)
@pytest.mark.parametrize("kind", [None, *KINDS])
def test_a_perturbed_pass_equals_the_attention_written_out(name, layer, kind, calls):
    module, arguments, family = calls(name)
    want, count = by_hand(name, layer, kind, module, arguments)
    assert count
    plain = output(module, arguments)
    if kind is None:
        torch.testing.assert_close(plain.double(), want, rtol=0, atol=2e-5)
        return
    change = KINDS[kind]
    change = Perturbation(change.kind, (layer,), change.rule, change.sigma)
    with perturbed(module, family, change, arguments):
        ours = output(module, arguments)
    # float32 against float64 over a few layers; what a perturbation does is a hundred times more
    torch.testing.assert_close(ours.double(), want, rtol=0, atol=2e-5)
    assert float((ours - plain).abs().max()) > 2e-3


@pytest.mark.parametrize("attention", ["full", "factorised"])
@pytest.mark.parametrize("backend", ["sdpa", "math"])
@pytest.mark.parametrize("kind", list(KINDS))
def test_the_mini_model_equals_its_attention_written_out(kind, attention, backend, wake):
    from vidcfg.mini.model import STDiT

    torch.manual_seed(0)
    size = {"in_channels": 4, "width": 24, "num_layers": 3, "num_heads": 2, "text_width": 16}
    model = wake(STDiT(**size, attention=attention, attention_backend=backend)).eval()
    arguments = {
        "hidden_states": torch.randn(2, 4, 5, 3, 6),
        "timestep": torch.tensor([700.0, 300.0]),
        "encoder_hidden_states": torch.randn(2, 7, 16),
    }
    grids = {"full": [(5, 3, 6)] * 3, "factorised": [(1, 3, 6), (5, 1, 1), (1, 3, 6)]}[attention]
    reference = copy.deepcopy(model).double()
    for layer in (1, 2):
        block = reference.transformer_blocks[layer]
        if kind == "skip":
            block.forward = lambda x, *rest: x
            continue
        edit, sigma = ("blur", math.inf) if kind == "mean" else (kind, 0.8)
        block.attn1 = MiniExplicit(block.attn1, edit, grid=grids[layer], sigma=sigma)
    change = KINDS[kind]
    change = Perturbation(change.kind, (1, "transformer_blocks.2"), change.rule, change.sigma)
    with perturbed(model, FAMILIES["mini"], change, arguments):
        ours = output(model, arguments)
    want = output(reference, in_float64(arguments))
    torch.testing.assert_close(ours.double(), want, rtol=0, atol=2e-5)


@pytest.mark.parametrize("name", [*BUILDERS, "ltx2"])
def test_every_family_takes_every_perturbation_and_is_as_before_after_it(name, calls):
    module, arguments, family = calls(name)
    state = {n: dict(vars(m)) for n, m in module.named_modules()}
    plain = output(module, arguments)
    for change in KINDS.values():
        first = Perturbation(change.kind, (0,), change.rule, change.sigma)
        with perturbed(module, family, first, arguments):
            assert not torch.equal(output(module, arguments), plain)
        assert {n: dict(vars(m)) for n, m in module.named_modules()} == state
        same(output(module, arguments), plain)


def test_an_exception_inside_leaves_the_model_as_it_was(calls):
    module, arguments, family = calls("wan")
    plain = output(module, arguments)
    for change in KINDS.values():
        with (
            pytest.raises(RuntimeError, match="inside"),
            perturbed(module, family, Perturbation(change.kind, (0, 1), "stg"), arguments),
        ):
            raise RuntimeError("inside")
        assert torch.equal(output(module, arguments), plain)
        assert not any("forward" in vars(child) for child in module.modules())


def test_a_processor_keeps_the_kernel_that_the_user_chose(calls):
    module, arguments, family = calls("wan")
    processor = module.blocks[0].attn1.processor
    module.set_attention_backend("_native_math")
    try:
        chosen = processor._attention_backend
        with perturbed(module, family, Perturbation("identity", (0,), "pag"), arguments):
            assert processor._attention_backend == "native"
        assert processor._attention_backend is chosen
    finally:
        module.reset_attention_backend()


def test_a_blur_much_narrower_than_a_token_changes_nothing(calls):
    module, arguments, family = calls("hunyuan_video")
    plain = output(module, arguments)
    with perturbed(module, family, Perturbation("blur", (0, 1), "seg", 0.01), arguments):
        ours = output(module, arguments)
    # only the memory layout of the queries differs, and with it the order of float32 sums
    same(ours, plain)


def test_a_blur_under_autocast_is_computed_in_float32(calls):
    x = torch.randn(2, 3, 30, 7)
    with torch.autocast("cpu", torch.bfloat16):
        ours = blur_tokens(x, (2, 3, 5), 1.3)
    assert torch.equal(ours, blur_tokens(x, (2, 3, 5), 1.3))


@pytest.mark.parametrize(("name", "grid"), list(GRIDS.items()))
def test_token_grid(name, grid, calls):
    module, arguments, family = calls(name)
    assert token_grid(family, module, arguments) == grid


def test_a_layer_that_does_not_exist_is_an_error_that_lists_the_layers(calls):
    module, _, family = calls("hunyuan_video")
    expected = (
        r"stg perturbs layer 9, blocks.7, but this HunyuanVideoTransformer3DModel has the layers "
        r"0 \(transformer_blocks.0\), 1 \(single_transformer_blocks.0\)"
    )
    with pytest.raises(ValueError, match=expected):
        find_layers(module, family.blocks, Perturbation("skip", (0, 9, "blocks.7"), "stg"))


def test_usual_layers_that_a_small_model_lacks_are_not_replaced_by_others(calls):
    module, _, family = calls("cogvideox")
    with pytest.raises(ValueError, match="stg perturbs layer 11, which is the usual one"):
        find_layers(module, family.blocks, Perturbation("identity", rule="stg"))


def test_published_layers_of_the_families():
    usual = {name: FAMILIES[name].blocks.layers["stg"] for name in ("wan", "ltx", "mochi", "ltx2")}
    assert usual == {"wan": (2,), "ltx": (19,), "mochi": (34,), "ltx2": (28,)}
    assert FAMILIES["cogvideox"].blocks.layers["stg"] == (11,)
    assert FAMILIES["hunyuan_video"].blocks.layers["stg"] == (2,)
    assert FAMILIES["sd3"].blocks.layers["slg"] == (7, 8, 9)


def test_attention_that_cannot_be_reached_is_refused(calls):
    module, arguments, family = calls("wan")
    attention = module.blocks[0].attn1
    own = attention.forward
    attention.forward = lambda x, *rest, **more: x  # a kernel of somebody else
    try:
        with (
            perturbed(module, family, Perturbation("identity", (0,), "pag"), arguments),
            pytest.raises(ValueError, match=r"blocks.0 computes .*set_attention_backend"),
        ):
            output(module, arguments)
    finally:
        del attention.forward
    assert attention.forward == own


def test_tokens_that_are_not_the_videos_are_never_left_unperturbed_in_silence(calls):
    module, arguments, family = calls("wan")
    smaller = arguments | {"hidden_states": arguments["hidden_states"][:, :, :2]}
    with (
        perturbed(module, family, Perturbation("identity", (0,), "pag"), smaller),
        pytest.raises(ValueError, match="6 queries and 6 keys, where 4 video tokens"),
    ):
        output(module, arguments)


@pytest.mark.parametrize("name", ["cogvideox", "hunyuan_video", "mochi"])
def test_saliency_is_what_the_map_written_out_gives_each_token(name, calls):
    module, arguments, family = calls(name)
    plain = output(module, arguments)
    with watched(module, family, Sag(layers=(0,)), arguments) as seen:
        same(output(module, arguments), plain)
    reference = copy.deepcopy(module).double()
    blocks, index = block_of(reference, name, 0)
    attention = getattr(blocks[index], "attn" if name == "hunyuan_video" else "attn1")
    maps = []

    class Kept(EXPLICIT[name]):
        def attend(self, q, k, v, video, mask=None):
            scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
            if mask is not None:
                scores = scores.masked_fill(~mask, float("-inf"))
            maps.append(scores.softmax(-1)[..., video, video])
            return super().attend(q, k, v, video, mask)

    attention.processor = Kept()
    output(reference, in_float64(arguments))
    mass = torch.cat([m.mean(1).sum(1) for m in maps])
    want = (mass / mass.mean(1, keepdim=True)).unflatten(1, GRIDS[name])
    torch.testing.assert_close(torch.cat(seen).double(), want, rtol=0, atol=1e-5)
