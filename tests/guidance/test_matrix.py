"""A whole surface as a matrix, against loops over its entries."""

import itertools

import numpy as np
import pytest
import torch
from rule_runs import every_rule

from vidcfg.guidance.frame_map import CausalMap, CogVideoXMap
from vidcfg.guidance.rules.embedded import scale_at
from vidcfg.guidance.setting import Guidance
from vidcfg.settings.document import load_document, validate
from vidcfg.settings.errors import ConfigError

EVERY = every_rule()
K, F, T = 4, 3, 9
RUN = {"num_steps": K, "num_frames": T, "frame_map": CausalMap(4)}
MATRIX = [[6.0, 3.0, 1.0], [0.5, -1.0, 2.5], [1.0, 1.0, 1.0], [7.25, 0.1, -2.0]]


def latent_of(pixel):
    return 0 if pixel == 0 else 1 + (pixel - 1) // 4


def check(surface, weights_KT, matrix=MATRIX):
    """Every strength is 1 + (entry - 1) w, also as 1 + (scale - 1) of the weights."""
    for k, t in itertools.product(range(K), range(T)):
        want = 1 + (matrix[k][latent_of(t)] - 1) * weights_KT[k][t]
        assert surface.strength_KT[k, t] == pytest.approx(want, abs=1e-15)
    for strength, weights in (
        (surface.strength_KT, surface.weights_KT),
        (surface.strength_KF, surface.weights_KF),
    ):
        again = 1 + (surface.scale_K[:, None] - 1) * weights
        np.testing.assert_allclose(again, strength, rtol=1e-14)


@pytest.fixture(params=["list", "array", "tensor", "file in Python", "file in YAML", "mapping"])
def written(request, tmp_path, monkeypatch):
    path = tmp_path / "strength.npy"
    np.save(path, np.array(MATRIX))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    (tmp_path / "a.yaml").write_text("scale: strength.npy\n")
    return {
        "list": lambda: Guidance(MATRIX),
        "array": lambda: Guidance(np.array(MATRIX)),
        "tensor": lambda: Guidance(torch.tensor(MATRIX, dtype=torch.float64)),
        "file in Python": lambda: Guidance(str(path)),
        "file in YAML": lambda: validate(load_document("../a.yaml"), Guidance),
        "mapping": lambda: Guidance({"kind": "matrix", "values": np.array(MATRIX)}),
    }[request.param]()


def test_every_way_to_write_a_matrix_gives_its_entries_as_strengths(written):
    surface = written.surface(**RUN)
    assert surface.strength_KF.tolist() == MATRIX
    check(surface, np.ones((K, T)))
    # once read it is its numbers, wherever the file goes
    assert Guidance(**written.to_dict()) == written == Guidance(MATRIX)


def test_frame_weights_and_windows_act_on_a_matrix_as_on_a_scale():
    weights = [0.0, 0.5, 1.0, 0.25, 0.75, 1.5, 0.5, 0.0, 1.0]
    guidance = Guidance(
        MATRIX, frames=weights, windows=[{"frames": [5, 8], "from": 0.0, "to": 0.5}]
    )
    masked = np.repeat([weights], K, axis=0)
    masked[2:, 5:9] = 0
    check(guidance.surface(**RUN), masked)


def test_one_column_is_a_list_and_one_row_holds_on_every_step():
    column = [6.0, 1.0, 0.0, 2.5]
    for given in ([[s] for s in column], np.array(column)[:, None], np.array(column)):
        surface, plain = (Guidance(g).surface(**RUN) for g in (given, column))
        assert surface.to_dict() == plain.to_dict()
    row = Guidance(np.array([[6.0, 1.0, 2.0]])).surface(**RUN)
    assert row.strength_KF.tolist() == [[6.0, 1.0, 2.0]] * K


def test_padding_latents_have_columns_too():
    # 17 frames of CogVideoX 1.5 are 5 latents and one in front
    rows = np.arange(2 * 6.0).reshape(2, 6)
    run = {"num_steps": 2, "num_frames": 17, "frame_map": CogVideoXMap(4, patch_frames=2)}
    surface = Guidance(rows).surface(**run)
    assert np.array_equal(surface.strength_KF, rows)
    assert surface.strength_KT[0].tolist() == [1.0] + [2.0] * 4 + [3.0] * 4 + [4.0] * 4 + [5.0] * 4


def test_w_convention_and_experts_read_a_matrix():
    as_w = np.array(MATRIX) - 1
    method = {"kind": "cfg", "convention": "w"}
    surface = Guidance(as_w, method=method).surface(**RUN)
    np.testing.assert_allclose(surface.strength_KF, MATRIX, rtol=1e-15)
    both = Guidance({"high": MATRIX, "low": 2.0}).surface(
        **RUN, experts=("high", "high", "low", "low")
    )
    assert both.strength_KF.tolist() == [*MATRIX[:2], [2.0] * F, [2.0] * F]


@pytest.mark.parametrize("name", sorted(EVERY))
def test_every_rule_is_off_where_the_entry_is_one_and_finds_its_scale(name):
    method = EVERY[name]
    surface = Guidance(MATRIX).surface(**RUN)
    for k in range(K):
        strength_F, weight_F = surface.strength_KF[k], surface.weights_KF[k]
        off_F = method.is_off(strength_F, weight_F)
        assert off_F[np.array(MATRIX[k]) == 1].all()
        farthest = max(MATRIX[k], key=lambda entry: abs(entry - 1))
        assert scale_at(strength_F, weight_F) == pytest.approx(farthest)


def test_matrix_that_does_not_fit_the_run_says_which_shape_does():
    surface = Guidance(MATRIX).surface
    what = (
        r"guidance.scale has 3 columns, but the run has 5 latent frames \(17 frames of video\). "
        r"Give a matrix of shape \(4, 5\), \(4, 1\) or \(1, 5\)."
    )
    with pytest.raises(ValueError, match=what):
        surface(**RUN | {"num_frames": 17})
    what = r"guidance.scale has shape \(4, 3\), but there are 6 steps. Give 6 rows, or one"
    with pytest.raises(ValueError, match=what):
        surface(**RUN | {"num_steps": 6})
    with pytest.raises(ValueError, match="guidance.method.1.scale has 3 columns"):
        Guidance(2.0, method=["cfg", {"kind": "pag", "scale": MATRIX}]).terms[1].surface(
            **RUN | {"num_frames": 13}
        )
    with pytest.raises(ValueError, match="makes the video in parts"):
        surface(**RUN | {"num_frames": 21}, part_T=np.arange(9))


@pytest.mark.parametrize(
    ("given", "what"),
    [
        ([[1.0, 2.0], [3.0]], "has rows of 1 and 2 numbers. Give each step one number per frame"),
        ([[1.0, "x"]], "scale.0.1 is the text 'x', but must be a number"),
        ([[1.0, float("nan")]], "scale.0.1 is nan, but must be a finite number"),
        ([[]], "scale.0 is \\[\\], but must be a list of at least one item"),
        (np.ones((2, 3, 4)), "must be a number"),
        ("absent.npy", "cannot be read: No such file.*as numpy.save writes it"),
        ("objects.npy", "holds no numbers as numpy.save writes them"),
        ("text.npy", "holds no numbers"),
        ("empty.npy", "holds no numbers"),
        ("open.npy", "holds no numbers"),
        ("cube.npy", r"holds float64 of shape \(2, 3, 4\). Save numbers of shape \(steps, latent"),
        ("words.npy", "holds <U1 of shape"),
        ("archive.npy", "holds no array of steps and frames"),
    ],
)
def test_wrong_matrix_is_refused_in_a_sentence(given, what, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    np.save("cube.npy", np.ones((2, 3, 4)))
    np.save("words.npy", np.array([["a"]]))
    (tmp_path / "text.npy").write_text("1 2 3")
    (tmp_path / "empty.npy").touch()
    # a head without its end, which Python's parser does not take either
    np.save("open.npy", np.ones(3))
    head = (tmp_path / "open.npy").read_bytes()
    (tmp_path / "open.npy").write_bytes(head.replace(b"}", b"("))
    with open("archive.npy", "wb") as file:
        np.savez(file, a=np.ones(3))
    with pytest.raises(ConfigError, match=what):
        Guidance(given)
