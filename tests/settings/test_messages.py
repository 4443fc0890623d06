"""Errors by their text: file, line, path, value, what is allowed, what to type."""

import pickle
import time

import pytest

from vidcfg.render.config import RenderConfig
from vidcfg.settings.base import ConfigModel
from vidcfg.settings.document import read_document, validate
from vidcfg.settings.errors import ConfigError

FRAME_KINDS = "uniform, keyframes, decay, ramp, triangle, trapezoid, list, knots"
SCALE_KINDS = "constant, linear, cosine, step, interval, knots, list, matrix"


@pytest.mark.parametrize(
    ("key", "ours"),
    [
        ("guidance_scale", "guidance.scale"),
        ("cfg", "guidance.scale"),
        ("cfg_scale", "guidance.scale"),
        ("num_inference_steps", "sampling.num_steps"),
        ("guidance_rescale", "guidance.rescale"),
        ("negative_prompt", "prompts.0.negative"),
        ("prompt", "prompts"),
        ("seed", "seeds"),
        ("fps", "video.fps"),
        ("num_frames", "video.num_frames"),
        ("frames", "guidance.frames"),
        ("scheduler", "sampling.scheduler"),
        ("output_dir", "output.dir"),
        ("torch_dtype", "model.dtype"),
        ("promts", "prompts"),
        ("Guidance", "guidance"),
    ],
)
def test_an_unknown_key_leads_to_ours(kite, key, ours):
    message = kite.error(old="seeds: 0-1", new=f"seeds: 0-1\n{key}: 3")
    assert message == f"kite.yaml:9: unknown key '{key}'. Did you mean '{ours}'?"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("scal: 3", "unknown key 'guidance.scal'. Did you mean 'guidance.scale'?"),
        ("num_frames: 3", "unknown key 'guidance.num_frames'. Did you mean 'video.num_frames'?"),
        (
            "guidance_scale: 3",
            "unknown key 'guidance.guidance_scale'. Did you mean",
        ),
        ("<<: 3", "unknown key 'guidance.<<'. Merge keys are not supported: write the keys out."),
    ],
)
def test_an_unknown_key_inside_a_part_is_named_with_its_path(kite, line, message):
    text = kite.error(old="  rescale: 0.7", new=f"  rescale: 0.7\n  {line}")
    assert text.startswith(f"kite.yaml:16: {message}")


def test_a_key_like_no_other_lists_what_is_allowed(kite):
    assert kite.error("video.qqq=3") == (
        "--set video.qqq=3: unknown key 'video.qqq'. Allowed here: num_frames, height, width, fps."
    )


def test_a_misnamed_key_is_not_also_reported_as_missing(kite):
    message = kite.error(old="  scale: {kind: cosine, start: 10.0, end: 2.0}", new="  scal: 3.0")
    assert message == "kite.yaml:13: unknown key 'guidance.scal'. Did you mean 'guidance.scale'?"


def test_all_errors_of_a_file_are_listed_in_line_order(kite):
    message = kite.error(scale="x", frames="decai", old="num_frames: 17", new="num_frames: -17")
    assert message.split("\n") == [
        "kite.yaml:9: video.num_frames is -17, but must be from 1 to 100000.",
        "kite.yaml:13: guidance.scale is the text 'x', but must be a number (1.0 = off), a list "
        "with one number (or row) per step, an .npy file, or a schedule such as "
        "{kind: cosine, start: 10.0, end: 2.0}.",
        f"kite.yaml:14: guidance.frames is 'decai', but must be one of {FRAME_KINDS}. "
        "Did you mean 'decay'?",
    ]


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (
            "{kind: keyframe, at: [first]}",
            f"guidance.frames.kind is 'keyframe', but must be one of {FRAME_KINDS}. "
            "Did you mean 'keyframes'?",
        ),
        (
            "{end: 0.2}",
            "guidance.frames is {end: 0.2}, but has no 'kind'. "
            f"Write 'kind:' with one of {FRAME_KINDS}.",
        ),
        (
            "{kind: decay}",
            "guidance.frames.end is missing. "
            "Write 'end:' with the weight of the last frame, from 0 to 1.",
        ),
        ("{kind: decay, end: 1.2}", "guidance.frames.end is 1.2, but must be from 0 to 1."),
        (
            "{kind: decay, end: 0.2, curve: exp}",
            "guidance.frames.curve is 'exp', but must be one of linear, cosine, exponential.",
        ),
        (
            "{kind: decay, end: 0.2, start: 1}",
            "unknown key 'guidance.frames.start'. Allowed here: kind, end, curve.",
        ),
        (
            "[0.5, -2]",
            "guidance.frames.1 is -2, but must be from 0 to 1000.",
        ),
        (
            "3",
            "guidance.frames is 3, but must be uniform, a list with one weight per frame, or a "
            "mapping such as {kind: decay, end: 0.2}.",
        ),
        (
            "{kind: keyframes, at: [frist], floor: 0, reach: 1}",
            "guidance.frames.at.0 is the text 'frist', but must be one of first, middle, last. "
            "Did you mean 'first'? Also allowed: a frame number such as 8, or a time such as "
            "1.5s.",
        ),
        (
            "{kind: keyframes, at: ['8'], floor: 0, reach: 1}",
            "guidance.frames.at.0 is the text '8', but a frame number is written without quotes. "
            "Write 8.",
        ),
        (
            "{kind: keyframes, at: [1.5], floor: 0, reach: 1}",
            "guidance.frames.at.0 is 1.5, but must be first, middle, last, a frame number such as "
            "8, or a time such as 1.5s.",
        ),
    ],
)
def test_wrong_frames_are_explained(kite, frames, message):
    assert kite.error(frames=frames) == f"kite.yaml:14: {message}"


@pytest.mark.parametrize(
    ("scale", "message"),
    [
        ("'6.0'", "Write 6.0 without quotes."),
        ("\uff16.5", "Write 6.5."),
        ("12:30", "':' makes it text. Write one plain number."),
        ("nan", "Write a finite number."),
        ("true", "guidance.scale is true, but must be a number (1.0 = off)"),
        ("", "guidance.scale is empty, but must be a number (1.0 = off)"),
        ("off", "guidance.scale: 'off' is neither true nor false."),
        ("1001", "guidance.scale is 1001, but must be from -1000 to 1000."),
        ("[1, x]", "guidance.scale.1 is the text 'x', but must be a number."),
        ("{high: 3, low: {kind: linear, start: 1, end: x}}", "guidance.scale.low.end is the text"),
        (
            "{kind: cosin, start: 3, end: 4}",
            f"guidance.scale.kind is 'cosin', but must be one of {SCALE_KINDS}. "
            "Did you mean 'cosine'?",
        ),
        (
            "{start: 3, end: 4}",
            f"guidance.scale is {{start: 3, end: 4}}, but has no 'kind'. "
            f"Write 'kind:' with one of {SCALE_KINDS}.",
        ),
        ("{kind: linear, start: 3}", "guidance.scale.end is missing. Write 'end:' with the scale"),
        (
            "{kind: interval, value: 5, from: 0.2, stop: 0.8}",
            "unknown key 'guidance.scale.stop'. Did you mean 'guidance.scale.to'?",
        ),
        (
            "{kind: interval, value: 5, from: 0.8, to: 0.2}",
            "guidance.scale.to is 0.2, but must not be below 'from', 0.8. Swap them.",
        ),
        (
            "{kind: knots, points: [[0.5, 1], [0.5, 2]]}",
            "but its positions must increase, and 0.5 follows 0.5.",
        ),
        (
            "{kind: knots, points: [[1.5, 1]]}",
            "guidance.scale.points.0.0 is 1.5, but must be from 0",
        ),
        (
            "{kind: list, values: [1], over: sigma}",
            "guidance.scale.over is 'sigma', but a list has one number per step",
        ),
    ],
)
def test_a_wrong_scale_is_explained(kite, scale, message):
    text = kite.error(scale=scale)
    assert text.startswith("kite.yaml:13: ")
    assert message in text
    assert "\n" not in text


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("guidanc.scale=3", "unknown key 'guidanc'. Did you mean 'guidance'?"),
        ("scale=3", "unknown key 'scale'. Did you mean 'guidance.scale'?"),
        (
            "sampling.num_steps=30.0",
            "sampling.num_steps is 30.0, but must be a whole number. Write 30.",
        ),
        (
            "sampling.num_steps='30'",
            "is the text '30', but must be a whole number. Write 30 without",
        ),
        ("guidance.share=0", "guidance.share is 0, but must be true or false."),
        ("guidance.clamp=false", "guidance.clamp is false, but must be a number or null."),
        ("guidance.rescale=1.7", "guidance.rescale is 1.7, but must be from 0 to 1."),
        (
            "guidance.rescale=false",
            "guidance.rescale is false, but must be a number from 0 (off) to 1",
        ),
        ("guidance.threshold.percentile=50", "is 50, but must be above 50 and at most 100."),
        ("guidance.micro_batch=0", "guidance.micro_batch is 0, but must be from 1 to 4096."),
        ("guidance.reduce=avg", "guidance.reduce is 'avg', but must be one of auto, mean, max."),
        ("guidance.method=dul", "Did you mean 'dual'?"),
        ("guidance.method=agp", "Did you mean 'apg'?"),  # and not sag, two changes away
        (
            "guidance.method=multi",
            "guidance.method.conditions is missing. Write 'conditions:' with",
        ),
        ("prompts.0.text=3", 'prompts.0.text is 3, but must be text. Write "3" in quotes.'),
        ("prompts.0.text=' '", "prompts.0.text is the text ' ', but must be text of at least one"),
        ("prompts.1=3", "prompts.1 is 3, but must be text or a mapping such as {text: ...,"),
        ("prompts=[]", "prompts is [], but must be a list of at least one item."),
        (
            "model.dtype=fp16",
            "model.dtype is 'fp16', but must be one of auto, float32, bfloat16, float16. "
            "Did you mean 'float16'?",
        ),
        ("model.device=gpu", "but must be one of auto, cpu, cuda, cuda:0. Did you mean 'cuda'?"),
        ("model=mni", "model is the text 'mni', but must be mini or a mapping"),
        (
            "model={kind: diffusers}",
            "model.checkpoint is missing. Write 'checkpoint:' with a folder",
        ),
        (
            "video=17",
            "video is 17, but must be a mapping with the keys num_frames, height, width, fps.",
        ),
        ("video.fps=0", "video.fps is 0, but must be above 0 and at most 1000."),
        ("video.num_frames=0", "video.num_frames is 0, but must be from 1 to 100000."),
        (
            "output.video=mp4",
            "is 'mp4', but must be one of h264, h264_lossless, ffv1. Did you mean 'h264'?",
        ),
        ("name=a/b", "name is the text 'a/b', but it names files."),
        ("schema=2", "schema is 2, but must be 1."),
        ("seeds=3-1", "seeds is the text '3-1', but a range rises. Write 1-3."),
        ("seeds=[2, 2]", "seeds is [2, 2], but 2 is there twice."),
        ("seeds=-1", "seeds is -1, but a seed must be from 0 to 2**63 - 1"),
        (
            "seeds=1.5",
            "seeds is 1.5, but must be a whole number, a list such as [0, 5], or a range",
        ),
        ("seeds=[]", "seeds is [], but must be a whole number"),
        ("seeds=0-999999999", "which is 1000000000 seeds. Use at most 100000."),
    ],
)
def test_a_wrong_override_value_is_explained(kite, override, message):
    text = kite.error(override)
    assert text.startswith(f"--set {override}: ")
    assert message in text
    assert "\n" not in text


def test_missing_parts_are_each_named(kite):
    text = kite.error(text="name: a\nmodel: mini\nprompts: b\nvideo: {num_frames: 5, height: 8}\n")
    assert text.split("\n") == [
        "kite.yaml: schema is missing. Write 'schema: 1'.",
        "kite.yaml: sampling is missing. Write 'sampling:' with num_steps and a scheduler.",
        "kite.yaml: guidance is missing. Write 'guidance:' with scale and what goes with it.",
        "kite.yaml: output is missing. Write 'output:' with dir and how to encode.",
        "kite.yaml:4: video.width is missing. Write 'width:' with pixels.",
        "kite.yaml:4: video.fps is missing. Write 'fps:' with frames per second.",
    ]


def test_an_error_can_cross_a_process_border(kite):
    with pytest.raises(ConfigError) as caught:
        kite.load(scale="x", frames="y")
    again = pickle.loads(pickle.dumps(caught.value))
    assert str(again) == str(caught.value)
    assert again.problems == caught.value.problems


class Inner(ConfigModel):
    steps: int


class Outer(ConfigModel):
    base: Inner
    grid: dict[str, list[int]]


def test_other_models_get_the_same_checks():
    document = read_document("base: {stps: 3}\ngrid: {a: [1, x]}", source="sweep.yaml")
    with pytest.raises(ConfigError) as caught:
        validate(document, Outer)
    assert str(caught.value).split("\n") == [
        "sweep.yaml:1: unknown key 'base.stps'. Did you mean 'base.steps'?",
        "sweep.yaml:2: grid.a.1 is the text 'x', but must be a whole number.",
    ]


def test_a_file_of_something_else_is_told_in_a_moment(kite):
    """Two hundred thousand unknown keys; each took a walk through all paths of the model."""
    strange = ", ".join(f"k{i}: 1" for i in range(2000))
    begin = time.perf_counter()
    message = kite.error(old="seeds: 0-1", new=f"seeds: 0-1\nextra: 1\nvideos: {{{strange}}}")
    lines = message.splitlines()
    assert "unknown key 'extra'" in message
    data = "schema: 1\n" + "".join(f"k{i}: 1\n" for i in range(2000))
    with pytest.raises(ConfigError, match="kite.yaml: 195. more problems are not listed") as told:
        validate(read_document(data, source="kite.yaml"), RenderConfig)
    assert len(told.value.problems) == 51
    assert len(lines) == 2
    assert time.perf_counter() - begin < 20
