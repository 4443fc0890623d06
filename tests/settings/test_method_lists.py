"""`guidance.method` as a list of rules, each with strengths of its own."""

import pytest

from vidcfg.guidance.frames import Decay, Uniform
from vidcfg.guidance.schedule import Constant
from vidcfg.guidance.setting import Guidance
from vidcfg.settings.errors import ConfigError

DECAY = {"kind": "decay", "end": 0.2}


def error_of(**values):
    with pytest.raises(ConfigError) as caught:
        Guidance(**values)
    return str(caught.value)


def run_errors(guidance, *, num_steps=4, num_frames=17):
    found = guidance.check_run(num_steps=num_steps, num_frames=num_frames, fps=8.0)
    return [f"{'.'.join(map(str, f.path))} {f.message}" for f in found if f.is_error]


def test_term_without_strengths_takes_those_of_guidance():
    guidance = Guidance(
        scale=6.0,
        frames=DECAY,
        method=["cfg", {"kind": "apg", "scale": 2.0, "frames": "uniform"}],
    )
    first, second = guidance.terms
    assert (first.scale, first.frames) == (Constant(value=6.0), Decay(end=0.2))
    assert (second.scale, second.frames) == (Constant(value=2.0), Uniform())
    assert (first.at["scale"], second.at["scale"]) == (("scale",), ("method", 1, "scale"))
    assert guidance.kind == "cfg+apg"


def test_one_rule_is_written_as_before_and_lists_load_back():
    assert Guidance(scale=6.0).to_dict()["method"] == {"kind": "cfg", "convention": "scale"}
    guidance = Guidance(scale=6.0, method=["cfg", {"kind": "tcfg", "scale": [1.0, 2.0]}])
    assert Guidance(**guidance.to_dict()) == guidance
    assert "scale" not in guidance.to_dict()["method"][0]


def test_strengths_of_a_single_rule_belong_to_guidance():
    assert error_of(scale=2.0, method={"kind": "apg", "scale": 3.0}) == (
        "Guidance: method.scale belongs to a rule in a list. Write it as guidance.scale."
    )


def test_an_unknown_rule_or_value_in_a_list_is_named_by_its_place():
    assert error_of(scale=2.0, method=["cfg", "apgg"]).endswith("Did you mean 'apg'?")
    assert "'method.1.eta_'" in error_of(scale=2.0, method=["cfg", {"kind": "apg", "eta_": 1}])
    assert "list of at least one item" in error_of(scale=2.0, method=[])


def test_a_scale_that_no_rule_reads_is_noted():
    method = [{"kind": "cfg", "scale": 3.0}, {"kind": "apg", "scale": 2.0}]
    assert Guidance(scale=6.0, method=method).notes == [
        "scale has no effect: every rule of the list has a scale of its own."
    ]
    assert Guidance(scale=6.0, method=method[:1] + ["apg"]).notes == []


def test_a_list_is_off_when_every_rule_is():
    off = [{"kind": "cfg", "scale": 1.0}, {"kind": "mambo", "convention": "w", "scale": 0.0}]
    assert Guidance(scale=1.0, method=off).is_off
    assert not Guidance(scale=1.0, method=[*off, {"kind": "apg", "scale": 2.0}]).is_off
    assert not Guidance(scale=1.0, method=["cfg", "cfg_pp"]).is_off


def test_findings_name_the_place_of_the_term():
    method = ["cfg", {"kind": "apg", "scale": [1.0, 2.0], "frames": {"kind": "triangle"}}]
    guidance = Guidance(scale=6.0, method=method)
    assert run_errors(guidance, num_frames=2) == [
        "method.1.scale has 2 numbers, but sampling.num_steps is 4. "
        "Give one number per step, or use kind: knots.",
        "method.1.frames gives both of 2 frames weight 0. Use 3 frames or more, or another kind.",
    ]
    window = {"kind": "apg", "windows": [{"frames": [0, 40], "to": 0.5}]}
    (found,) = run_errors(Guidance(scale=6.0, method=["cfg", window]))
    assert found.startswith(
        "method.1.windows.0.frames is [0, 40], but the clip has frames 0 to 16"
    )


def test_frames_without_effect_in_a_term_are_refused():
    wrong = {"kind": "apg", "frames": {"kind": "decay", "end": 1.0}}
    assert "method.1.frames has no effect" in error_of(scale=6.0, method=["cfg", wrong])
    idle = {"kind": "apg", "scale": 1.0, "frames": DECAY}
    assert Guidance(scale=6.0, method=["cfg", idle]).notes == [
        "method.1.frames has no effect: guidance.method.1.scale is 1 (off) on every step. "
        "Write uniform, or another scale."
    ]


def test_zeroing_every_step_is_refused():
    guidance = Guidance(scale=6.0, method={"kind": "zero_star", "zero_init_steps": 4})
    assert run_errors(guidance) == [
        "method.zero_init_steps is 4, but sampling.num_steps is 4, so that no step is left. "
        "Write at most 3."
    ]
    assert run_errors(guidance, num_steps=5) == []
    assert "Write 0." in run_errors(Guidance(scale=2.0, method="zero_star"), num_steps=1)[0]


def test_a_lambda_above_one_is_noted():
    assert Guidance(scale=0.8, method="cfg_pp").notes == []
    assert Guidance(scale=6.0, method="cfg_pp").notes == [
        "scale reaches 6, but CFG++ takes a lambda from 0 to 1."
    ]
