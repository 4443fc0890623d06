"""Every tensor that a denoiser gets is dealt out as its family declares it, or refused by name."""

import inspect
from collections import namedtuple
from dataclasses import dataclass, replace

import pytest
import torch
from kite_family import FAMILY as KITE
from kites import kite
from tiny_classes import CLASSES, MODULAR, tiny_class
from tiny_pipelines import BUILDERS, generators, ltx2
from torch import Tensor

import vidcfg
from vidcfg.pipelines.arguments import inputs_of, tensors_of, with_rows
from vidcfg.pipelines.families import FAMILIES

Pair = namedtuple("Pair", "left right")


class SeenEnoughError(Exception):
    """Ends a pipeline call."""


@dataclass(frozen=True)
class Hints:
    depth: Tensor
    scale: float


def guided(tiny, change, **settings) -> Tensor:
    """Latents of a run with `change(call, arguments, run)` in the place of denoiser calls."""
    with vidcfg.guide(tiny.pipe, vidcfg.Guidance(scale=3.0, **settings), **tiny.negative):
        session, calls = type(tiny.pipe)._vidcfg_session, []
        forward = session.forward

        def changed(module, original, expert, arguments):
            calls.append(module)
            run = lambda given: forward(module, original, expert, given)  # noqa: E731
            return change(len(calls) - 1, arguments, run)

        session.forward = changed
        return tiny.unguided(generator=generators(0)[0])


classes = [name for name in CLASSES if "," not in name and name not in MODULAR]


@pytest.mark.parametrize("name", [*BUILDERS, "ltx2", *classes])
def test_a_tensor_that_a_family_does_not_declare_is_refused_wherever_it_lies(name):
    first, refused = BUILDERS | {"ltx2": ltx2}, []
    tiny = first[name](num_steps=2) if name in first else tiny_class(name).tiny
    parameters = list(inspect.signature(type(tiny.denoiser).forward).parameters)[1:]

    def with_an_extra_tensor(call, arguments, run):
        family = type(tiny.pipe)._vidcfg_session.family
        declared = (*family.per_sample, *family.texts, *family.constants)
        for parameter in set(parameters) - set(declared):
            own = arguments.get(parameter)
            if own is not None and not isinstance(own, dict):
                continue
            # A row for all, a row per sample, and as many rows as both branches have.
            for rows in (1, 2, 4):
                extra = (own or {}) | {"hint": ["", {"deep": torch.ones(rows, 3)}]}
                with pytest.raises(ValueError, match=rf"{parameter}.hint.1.deep \[{rows}, 3\]"):
                    run(arguments | {parameter: extra})
            refused.append(parameter)
        raise SeenEnoughError

    with pytest.raises(SeenEnoughError):
        guided(tiny, with_an_extra_tensor, passes="batched", share=True)
    assert refused or name == "svd"  # its model takes nothing else


def test_a_tensor_that_comes_with_a_later_step_is_refused_with_what_to_do():
    def later(call, arguments, run):
        late = {"attention_kwargs": {"residual": torch.ones(2, 3)}}
        return run(arguments | (late if call == 1 else {}))

    match = r"gets attention_kwargs.residual \[2, 3\], which the family wan .* in per_sample"
    with pytest.raises(ValueError, match=match):
        guided(BUILDERS["wan"](), later)


@pytest.mark.parametrize("passes", ["sequential", "batched"])
def test_one_number_is_the_same_for_all_and_a_declared_tensor_goes_with_its_sample(passes):
    FAMILIES["kite"] = replace(KITE, per_sample=("t", "scale_of_time"))
    try:
        pipe, texts = kite(), torch.randn(2, 6, 7, generator=torch.Generator().manual_seed(1))
        for scale in (torch.tensor([1.5]), torch.tensor([1.5, 0.5])):
            own = pipe.denoiser.forward
            pipe.denoiser.forward = lambda *a, own=own, scale=scale, **k: own(
                *a, scale_of_time=scale, **k
            )
            stock = pipe(texts, texts.flip(0), 3.0, torch.Generator().manual_seed(0))
            del pipe.denoiser.forward
            settings = [vidcfg.Guidance(scale=3.0, passes=passes)] * 2
            with vidcfg.guide(pipe, settings, negative_prompt_embeds=texts.flip(0)):
                session = type(pipe)._vidcfg_session
                forward = session.forward
                session.forward = lambda m, o, e, given, forward=forward, scale=scale: forward(
                    m, o, e, given | {"scale_of_time": scale}
                )
                ours = pipe(texts, guidance_scale=1.0, generator=torch.Generator().manual_seed(0))
            torch.testing.assert_close(ours, stock, rtol=1e-6, atol=1e-6)
    finally:
        del FAMILIES["kite"]


def test_tensors_are_found_in_every_container_and_put_back_into_one_of_its_kind():
    deep = [Pair(torch.arange(12.0).reshape(6, 2), 1)]
    hints = Hints(torch.arange(8.0).reshape(2, 4), 0.5)
    arguments = {
        "x": torch.zeros(2, 3),
        "t": torch.tensor(5.0),
        "own": {"hints": hints, "deep": deep, "flags": (True, None)},
        "context": torch.ones(1, 5),
    }
    found = dict(tensors_of(arguments))
    assert list(found) == ["x", "own.hints.depth", "own.deep.0.0", "context"]

    family = replace(KITE, per_sample=("own",))
    shared, cond = inputs_of(family, arguments)
    # Three rows of a sample stand together; one row serves both samples.
    assert {n: tuple(t.shape) for n, t in shared.items()} == {
        "x": (2, 3),
        "own.hints.depth": (2, 4),
        "own.deep.0.0": (2, 3, 2),
    }
    assert {n: tuple(t.shape) for n, t in cond.items()} == {"context": (2, 5)}

    swapped = with_rows(arguments, {n: t.flip(0) for n, t in shared.items()})
    assert swapped["own"]["hints"] == replace(hints, depth=swapped["own"]["hints"].depth)
    assert torch.equal(swapped["own"]["hints"].depth, hints.depth.flip(0))
    assert isinstance(swapped["own"]["deep"][0], Pair)
    assert swapped["own"]["deep"][0].left[:, 0].tolist() == [6, 8, 10, 0, 2, 4]
    assert swapped["own"]["flags"] == (True, None)
    assert arguments["own"]["deep"] is deep
    assert arguments["own"]["deep"][0].left[0, 0] == 0


def test_rows_that_fit_no_sample_are_refused():
    arguments = {"x": torch.zeros(2, 3), "t": torch.zeros(3), "context": torch.ones(2, 5)}
    with pytest.raises(ValueError, match=r"gets t \[3\] for 2 samples. Pass one row for all, or"):
        inputs_of(KITE, arguments)


def test_a_negative_size_is_refused_with_what_guide_takes():
    tiny = BUILDERS["sdxl"](num_steps=1)
    with (
        vidcfg.guide(tiny.pipe, 3.0, **tiny.negative),
        pytest.raises(ValueError, match="guide takes negative_prompt,.*Leave the rest out"),
    ):
        tiny.unguided(generator=generators(0, 1), negative_original_size=(64, 48))
