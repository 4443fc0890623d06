"""Rules that change the model: formula, branch names, off values, what is refused."""

import math

import numpy as np
import pytest
import torch
from guidance_cases import SURFACE_BF, WEIGHT_BF, B, F, bits, video

from vidcfg.guidance.apply import combine
from vidcfg.guidance.composite import Composite
from vidcfg.guidance.frame_map import OneToOneMap
from vidcfg.guidance.perturbation import Perturbation
from vidcfg.guidance.rules import RULES
from vidcfg.guidance.rules.autoguidance import Autoguidance
from vidcfg.guidance.rules.cads import Cads
from vidcfg.guidance.rules.classifier import Classifier
from vidcfg.guidance.rules.embedded import Embedded
from vidcfg.guidance.rules.pag import Pag
from vidcfg.guidance.rules.sag import Sag
from vidcfg.guidance.rules.seg import Seg
from vidcfg.guidance.rules.slg import Slg
from vidcfg.guidance.rules.stg import Stg
from vidcfg.guidance.setting import Guidance
from vidcfg.settings.errors import ConfigError

AWAY = {"pag": Pag(), "slg": Slg(), "stg": Stg(), "seg": Seg(), "sag": Sag()}
AWAY["autoguidance"] = Autoguidance(skip=(3,))


def guided_by(method, frames, strength_BF=SURFACE_BF, weight_BF=WEIGHT_BF):
    combination = method.combination(None, strength=strength_BF, weight=weight_BF)
    return combine(frames, combination)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", list(AWAY))
def test_formula_frame_by_frame(name, dtype):
    method = AWAY[name]
    cond, worse = video(1).to(dtype), video(2).to(dtype)
    guided = guided_by(method, {"cond": cond, method.branches[1]: worse})
    # bfloat16 rounds to 8 bits after each of three operations on numbers up to 72: 3 x 0.25
    atol = 2e-5 if dtype == torch.float32 else 0.75
    for b in range(B):
        for f in range(F):
            c, p = cond[b, f].double(), worse[b, f].double()
            want = c + (SURFACE_BF[b, f] - 1) * (c - p)
            torch.testing.assert_close(guided[b, f].double(), want, rtol=0, atol=atol)


@pytest.mark.parametrize("name", list(AWAY))
def test_frame_of_strength_one_is_cond_to_the_bit(name):
    method = AWAY[name]
    frames = {"cond": video(1), method.branches[1]: video(2)}
    guided = guided_by(method, frames)
    assert torch.equal(bits(guided[0, 1]), bits(frames["cond"][0, 1]))
    assert torch.equal(bits(guided[1, 0]), bits(frames["cond"][1, 0]))


@pytest.mark.parametrize("name", list(AWAY))
def test_passes_by_strength(name):
    method = AWAY[name]
    worse = method.branches[1]
    ones = np.ones(3)
    assert method.required(ones, ones) == {"cond"}
    assert method.required(np.array([1.0, 2.0, 1.0]), ones) == {"cond", worse}
    # the degraded latents of sag are made from cond, whose pass therefore runs
    assert method.required(0 * ones, ones) == ({"cond", worse} if name == "sag" else {worse})
    assert method.isolated == {worse}
    assert method.sources() == {worse: "cond"}


def test_classifier_adds_its_shift_and_embedded_mixes_two_passes():
    cond, other = video(1), video(2)
    added = guided_by(Classifier(), {"cond": cond, "classifier": other})
    mixed = guided_by(Embedded(), {"cond": cond, "embedded": other})
    for b in range(B):
        for f in range(F):
            c, o = cond[b, f].double(), other[b, f].double()
            s = SURFACE_BF[b, f]
            w = 0.0 if s == 1 else WEIGHT_BF[b, f]
            torch.testing.assert_close(added[b, f].double(), c + (s - 1) * o, rtol=0, atol=5e-5)
            torch.testing.assert_close(mixed[b, f].double(), c + w * (o - c), rtol=0, atol=2e-5)


def test_embedded_runs_one_pass_where_all_frames_agree():
    full, none = np.full(3, 4.0), np.ones(3)
    assert Embedded().required(full, np.ones(3)) == {"embedded"}
    assert Embedded().required(none, np.ones(3)) == {"cond"}
    assert Embedded().required(np.array([4.0, 1.0, 2.5]), np.array([1.0, 0.0, 0.5])) == {
        "cond",
        "embedded",
    }


def test_a_composition_with_a_classifier_sums_what_each_rule_adds():
    method = Composite((RULES["cfg"](), Classifier(), Pag()))
    frames = {n: video(i) for i, n in enumerate(("cond", "uncond", "classifier", "perturbed:pag"))}
    strength = np.stack([np.array(SURFACE_BF), SURFACE_BF[:, ::-1], SURFACE_BF / 2 + 0.5], axis=1)
    guided = guided_by(method, frames, strength, np.ones_like(strength))
    for b in range(B):
        for f in range(F):
            c, u, d, p = (frames[n][b, f].double() for n in frames)
            s = strength[b, :, f] - 1
            want = c + s[0] * (c - u) + s[1] * d + s[2] * (c - p)
            torch.testing.assert_close(guided[b, f].double(), want, rtol=0, atol=1e-4)


def test_branch_names_tell_perturbations_apart_exactly_where_they_differ():
    same = [Stg(), Stg(mode="attention"), Stg(layers=())]
    assert {method.branches[1] for method in same} == {"perturbed:stg"}
    different = [
        Pag(),
        Stg(),
        Stg(mode="residual"),
        Stg(mode="block"),
        Stg(layers=(2,)),
        Stg(layers=("blocks.2",)),
        Seg(),
        Seg(sigma=2.0),
        Seg(sigma=2.5),
        Sag(),
        Sag(blur=2.0),
        Sag(threshold=2.0),
        Sag(layers=(1,)),
        Autoguidance(),
        Autoguidance(skip=(1,)),
        Autoguidance(noise=0.1),
        Autoguidance(noise=0.1, seed=1),
        Autoguidance(bits=4),
        Autoguidance(checkpoint="x"),
        Autoguidance(checkpoint="x", subfolder="y"),
    ]
    assert len({method.branches[1] for method in different}) == len(different)
    assert Stg(mode="residual", layers=(1, 2)).branches[1] == "perturbed:stg/residual/1,2"


def test_settings_become_rules():
    def made(**method):
        return Guidance(scale=3.0, method=method).method

    assert made(kind="pag", layers=[1, "blocks.2"]) == Pag(layers=(1, "blocks.2"))
    assert made(kind="stg", mode="block") == Stg(mode="block")
    assert made(kind="seg").change.sigma == math.inf
    assert made(kind="seg", sigma=1.5).change == Perturbation("blur", (), "seg", 1.5)
    assert made(kind="sag", blur=2.0, threshold=1.5) == Sag(blur=2.0, threshold=1.5)
    assert made(kind="autoguidance").source == "mini"
    assert made(kind="autoguidance", bits=6).source is None
    assert made(kind="cads", noise_scale=0.1) == Cads(noise_scale=0.1)


def test_pag_scale_of_peers_is_strength_minus_one():
    run = {"num_steps": 3, "num_frames": 5, "frame_map": OneToOneMap()}
    as_w = Guidance(scale=3.0, method={"kind": "pag", "convention": "w"})
    plain = Guidance(scale=4.0, method="pag")
    assert np.array_equal(as_w.surface(**run).scale_K, plain.surface(**run).scale_K)


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ({"kind": "stg", "mode": "values"}, "mode"),
        ({"kind": "seg", "sigma": 0.0}, "sigma"),
        ({"kind": "sag", "layers": [1, 2]}, "names 2 layers"),
        ({"kind": "cads", "tau1": 0.9, "tau2": 0.5}, "must not exceed tau2"),
        ({"kind": "autoguidance", "subfolder": "x"}, "has no effect without checkpoint"),
        ({"kind": "pag", "layers": [1.5]}, "layers"),
        ({"kind": "pag", "layer": [1]}, "layers"),
    ],
)
def test_settings_that_make_no_rule_are_refused(method, expected):
    with pytest.raises(ConfigError, match=expected):
        Guidance(scale=3.0, method=method)


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: Stg(mode="values"), "attention, residual, block"),
        (lambda: Seg(sigma=0.0), "above 0"),
        (lambda: Sag(blur=0.0), "above 0"),
        (lambda: Sag(layers=(1, 2)), "names 2 layers. Name the one"),
        (lambda: Cads(tau1=0.9, tau2=0.5), "must not exceed tau2"),
    ],
)
def test_values_that_make_no_rule_are_refused(make, expected):
    with pytest.raises(ValueError, match=expected):
        make()
