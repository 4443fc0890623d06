"""`Guidance` made in Python, and what its values make of each other."""

import ast
import inspect
import pydoc
from pathlib import Path

import pytest
from pydantic import ValidationError

from vidcfg.guidance.frames import Decay, Keyframes, Uniform
from vidcfg.guidance.rules.cfg import Cfg
from vidcfg.guidance.schedule import (
    Constant,
    Cosine,
    IntervalSchedule,
    Listed,
)
from vidcfg.guidance.setting import Guidance, Rescale, Threshold
from vidcfg.settings.errors import ConfigError

DECAY = {"kind": "decay", "end": 0.2}


def error_of(**values):
    with pytest.raises(ConfigError) as caught:
        Guidance(**values)
    return str(caught.value)


def run_errors(guidance, *, num_steps=11, num_frames=17, fps=8.0):
    found = guidance.check_run(num_steps=num_steps, num_frames=num_frames, fps=fps)
    return [f"{'.'.join(map(str, f.path))} {f.message}" for f in found if f.is_error]


def test_shorthands_mean_their_long_forms():
    short = Guidance(scale=6, frames="uniform", rescale=0.7, method="cfg", threshold={})
    long = Guidance(
        scale=Constant(value=6.0),
        frames=Uniform(),
        rescale=Rescale(amount=0.7, by="std"),
        method=Cfg(convention="scale"),
        threshold=Threshold(percentile=99.5, floor=1.0),
    )
    assert short == long
    assert Guidance(scale=[3, 2.0]).scale == Listed(values=(3.0, 2.0))
    keys = Guidance(scale=2.0, frames={"kind": "keyframes", "at": "first", "floor": 0, "reach": 1})
    assert keys.frames == Keyframes(at=["first"], floor=0.0, reach=1.0)


def test_one_schedule_per_expert_by_name():
    guidance = Guidance(scale={"high": 4.0, "low": {"kind": "cosine", "start": 3.0, "end": 1.0}})
    assert guidance.scale == {
        "high": Constant(value=4.0),
        "low": Cosine(start=3.0, end=1.0),
    }


def test_interval_ends_are_written_from_and_to():
    by_yaml = Guidance(scale={"kind": "interval", "value": 5.0, "from": 0.2, "to": 0.8})
    assert by_yaml.scale == IntervalSchedule(value=5.0, start=0.2, stop=0.8)
    assert by_yaml.to_dict()["scale"]["from"] == 0.2


def test_a_wrong_value_in_python_is_named_after_its_class():
    assert error_of(scale=float("nan")) == "Guidance: scale is nan, but must be a finite number."
    assert error_of(guidance_scale=3.0) == (
        "Guidance: unknown key 'guidance_scale'. Did you mean 'scale'?"
    )
    assert error_of(scale=1.0, frames={"kind": "decay"}).startswith(
        "Guidance: frames.end is missing."
    )
    with pytest.raises(ConfigError, match="Decay: end is 2.0, but must be from 0 to 1"):
        Decay(end=2.0)


def test_a_misspelt_word_in_python_leads_to_the_nearest():
    for make in (lambda: Guidance(scal=6), lambda: Guidance.of({"scal": 6})):
        with pytest.raises(ConfigError) as caught:
            make()
        assert str(caught.value) == "Guidance: unknown key 'scal'. Did you mean 'scale'?"


def test_number_mapping_and_file_stand_for_the_same_setting(tmp_path):
    path = tmp_path / "my.yaml"
    path.write_text("name: other parts do not matter\nguidance: {scale: 6, rescale: 0.5}\n")
    setting = Guidance(6.0, rescale=0.5)
    for given in ({"scale": 6, "rescale": 0.5}, str(path), path, setting):
        assert Guidance.of(given) == setting
    assert Guidance.of(6) == Guidance(6.0) == Guidance(scale=6.0)
    assert Guidance.of("decay").frames == Decay(end=0.2, curve="exponential")
    path.write_text("name: x\nguidance:\n  scale: 6\n  frame: uniform\n")
    with pytest.raises(ConfigError) as caught:
        Guidance.of(path)
    near = "Did you mean 'guidance.frames'?"
    assert str(caught.value) == f"{path}:4: unknown key 'guidance.frame'. {near}"
    with pytest.raises(ConfigError, match="no such file or preset. Did you mean 'keyframes'"):
        Guidance.of("keyframe")


def test_help_is_one_page_that_names_every_value():
    page = pydoc.plain(pydoc.render_doc(Guidance))
    # pydantic alone brings more than 400 lines
    assert len(page.splitlines()) < 110
    assert "Guidance(scale, *, method='cfg', frames='uniform', windows=()," in page
    for name in Guidance.model_fields:
        assert f"{name}:" in page or f"{name}," in page
    assert "model_dump" not in page


def test_what_a_type_checker_is_told_is_what_there_is():
    tree = ast.parse(Path(inspect.getfile(Guidance)).read_text())
    (cls,) = [n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == "Guidance"]
    (init,) = [n for n in ast.walk(cls) if getattr(n, "name", "") == "__init__"]
    told = dict(zip((a.arg for a in init.args.kwonlyargs), init.args.kw_defaults))
    assert ["scale", *told] == list(Guidance.model_fields)
    plain = {name: ast.literal_eval(default) for name, default in told.items()}
    assert Guidance(6.0, **plain) == Guidance(6.0)
    assert (Path(inspect.getfile(Guidance)).parents[1] / "py.typed").is_file()


def test_nothing_changes_after_construction():
    guidance = Guidance(scale=3.0)
    with pytest.raises(ValidationError, match="frozen"):
        guidance.share = False
    changed = guidance.replace(scale=4.0, frames=DECAY)
    assert (changed.scale.value, changed.frames.end, guidance.scale.value) == (4.0, 0.2, 3.0)
    with pytest.raises(ConfigError, match="rescale is 2.0"):
        guidance.replace(rescale=2.0)


def test_text_and_booleans_are_no_numbers():
    assert "Write 6.0 without quotes." in error_of(scale="6.0")
    assert "scale is true, but must be a number" in error_of(scale=True)


@pytest.mark.parametrize(
    "frames",
    [
        {"kind": "keyframes", "at": ["first"], "floor": 1.0, "reach": 4},
        {"kind": "decay", "end": 1.0},
        {"kind": "ramp", "first": 1.0, "last": 1.0},
        {"kind": "knots", "points": [[0.0, 1.0], [1.0, 1.0]]},
    ],
)
def test_frame_weights_that_are_all_one_are_refused(frames):
    message = error_of(scale=6.0, frames=frames)
    assert message.startswith(f"Guidance: frames has no effect: {frames['kind']} with ")
    assert message.endswith("gives every frame the full scale. Write uniform.")


@pytest.mark.parametrize(
    "scale",
    [
        1.0,
        [1.0, 1.0],
        {"kind": "linear", "start": 1.0, "end": 1.0},
        {"kind": "step", "start": 1.0, "end": 1.0, "switch": 0.5},
        {"kind": "interval", "value": 1.0, "from": 0.0, "to": 0.5},
        {"kind": "knots", "points": [[0.0, 1.0], [1.0, 1.0]]},
        {"high": 1.0, "low": 1.0},
    ],
)
def test_frame_weights_without_guidance_are_noted(scale):
    assert Guidance(scale=scale, frames=DECAY).notes == [
        "frames has no effect: guidance.scale is 1 (off) on every step. "
        "Write uniform, or another scale."
    ]


def test_off_is_zero_in_the_w_convention():
    method = {"kind": "cfg", "convention": "w"}
    (note,) = Guidance(scale=0.0, frames=DECAY, method=method).notes
    assert "guidance.scale is 0 (off)" in note
    assert Guidance(scale=1.0, frames=DECAY, method=method).is_off is False


def test_scale_one_is_not_off_for_methods_with_a_scale_of_their_own():
    assert Guidance(scale=1.0, frames=DECAY, method="dual").is_off is False


def test_weights_that_are_all_zero_are_refused():
    assert "turns guidance off on every frame" in error_of(
        scale=6.0, frames={"kind": "ramp", "first": 0.0, "last": 0.0}
    )


def test_limits_without_guidance_are_noted():
    guidance = Guidance(scale=1.0, rescale=0.7, clamp=4.0, threshold={}, windows=[
        {"frames": [0, 3], "to": 0.5}
    ])  # fmt: skip
    assert [note.split(" ")[0] for note in guidance.notes] == [
        "rescale",
        "threshold",
        "clamp",
        "windows",
    ]
    assert Guidance(scale=2.0, rescale=0.7, clamp=4.0, threshold={}).notes == []


def test_an_exponential_never_reaches_zero():
    assert "which an exponential never reaches" in error_of(
        scale=6.0, frames={"kind": "decay", "end": 0.0, "curve": "exponential"}
    )


def test_conditions_are_told_apart():
    sky = {"name": "sky", "prompt": "a red sky", "scale": 2.0}
    assert error_of(scale=6.0, method={"kind": "multi", "conditions": [sky, sky]}) == (
        "Guidance: method.conditions.1.name is 'sky', like that of condition 0. Name them apart."
    )


def test_a_list_needs_one_number_per_step():
    assert run_errors(Guidance(scale=[3.0] * 10)) == [
        "scale has 10 numbers, but sampling.num_steps is 11. "
        "Give one number per step, or use kind: knots."
    ]
    assert run_errors(Guidance(scale=[3.0] * 11)) == []


def test_an_interval_that_guides_no_step_is_refused():
    # With 11 steps the progress is 0, 0.1, ..., 1.
    interval = {"kind": "interval", "value": 5.0, "from": 0.41, "to": 0.49}
    assert run_errors(Guidance(scale=interval)) == [
        "scale guides no step: none of the 11 steps lies from 0.41 to 0.49; "
        "the nearest are at 0.4 and 0.5. Widen the interval."
    ]
    assert run_errors(Guidance(scale={**interval, "over": "sigma"})) == []
    for edge in ({"from": 0.4}, {"to": 0.5}):
        assert run_errors(Guidance(scale={**interval, **edge})) == []
    assert len(run_errors(Guidance(scale={"low": interval, "high": 3.0}))) == 1


def test_one_step_is_at_progress_zero():
    late = {"kind": "interval", "value": 5.0, "from": 0.1, "to": 1.0}
    assert "none of the 1 steps" in run_errors(Guidance(scale=late), num_steps=1)[0]


def test_a_window_needs_a_step_and_frames_of_the_clip():
    windows = [
        {"frames": [0, 3], "from": 0.01, "to": 0.02},
        {"frames": [0, 17], "to": 0.5},
        {"frames": [-1, 3], "to": 0.5},
        {"frames": [-4, -1], "to": 0.5},
    ]
    assert run_errors(Guidance(scale=3.0, windows=windows)) == [
        "windows.0 guides no step: none of the 11 steps lies from 0.01 to 0.02; "
        "the nearest are at 0 and 0.1. Widen the interval.",
        "windows.1.frames is [0, 17], but the clip has frames 0 to 16 "
        "(or -17 to -1 from the end).",
        "windows.2.frames is [-1, 3], but frame 16 is after frame 3. Swap them.",
    ]


@pytest.mark.parametrize(("stop", "count"), [(0.3, 1), (0.5, 0)])
def test_a_window_on_steps_that_the_scale_does_not_guide_is_refused(stop, count):
    scale = {"kind": "interval", "value": 5.0, "from": 0.0, "to": stop}
    window = {"frames": [0, 8], "from": 0.5, "to": 0.8}
    told = "windows.0 guides no step: the scale is off from 0.5 to 0.8. Let both overlap."
    assert run_errors(Guidance(scale=scale, windows=[window])) == [told] * count
    own = {"kind": "pag", "scale": scale, "windows": [window]}
    assert run_errors(Guidance(3.0, method=["cfg", own])) == [f"method.1.{told}"] * count
    # One for all rules of a list serves those that run there.
    shared = {"method": ["cfg", {"kind": "pag", "scale": scale}], "windows": [window]}
    assert run_errors(Guidance(3.0, **shared)) == []


def test_a_window_that_runs_backwards_is_refused_at_once():
    assert "the first frame must not be after the last" in error_of(
        scale=3.0, windows=[{"frames": [5, 3], "to": 0.5}]
    )


def test_a_window_over_all_steps_is_noted():
    notes = Guidance(scale=3.0, windows=[{"frames": [0, 3]}]).notes
    assert notes == ["windows.0 covers every step, so it has no effect."]


@pytest.mark.parametrize(
    ("place", "is_inside"),
    [
        (16, True),
        (17, False),
        (-17, True),
        (-18, False),
        ("2s", True),
        ("2.06s", True),
        ("2.07s", False),
    ],
)
def test_keyframes_lie_in_the_clip(place, is_inside):
    # 17 frames at 8 fps: frame 16 is at 2 s, and a time belongs to the nearest frame.
    frames = {"kind": "keyframes", "at": [place], "floor": 0.4, "reach": 4}
    errors = run_errors(Guidance(scale=3.0, frames=frames))
    assert (errors == []) is is_inside
    assert all(error.startswith("frames.at.0 is ") for error in errors)


def test_a_time_beyond_the_clip_names_the_last_one():
    frames = {"kind": "keyframes", "at": ["3s"], "floor": 0.4, "reach": 4}
    assert run_errors(Guidance(scale=3.0, frames=frames)) == [
        "frames.at.0 is '3s', but the last of 17 frames at 8 fps is at 2s. "
        "Write an earlier time, or last."
    ]


@pytest.mark.parametrize(
    ("frames", "num_frames", "message"),
    [
        (DECAY, 1, "frames has no effect: video.num_frames is 1. Write uniform."),
        (
            {"kind": "keyframes", "at": [0, "middle", -1], "floor": 0.4, "reach": 4},
            3,
            "frames has no effect: every frame is a keyframe. Write uniform.",
        ),
        (
            "triangle",
            2,
            "frames gives both of 2 frames weight 0. Use 3 frames or more, or another kind.",
        ),
    ],
)
def test_frame_weights_without_effect_at_this_length_are_refused(frames, num_frames, message):
    guidance = Guidance(scale=3.0, frames=frames)
    assert run_errors(guidance, num_frames=num_frames) == [message]
    assert run_errors(guidance, num_frames=4) == []
