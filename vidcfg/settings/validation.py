"""Say in plain words what a model finds wrong with data, and where."""

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, ValidationError

from vidcfg.plugins import raised_in
from vidcfg.settings.errors import ConfigError, Path, Place, Problem, dotted
from vidcfg.settings.schema_walk import (
    ANY_INDEX,
    all_paths,
    field_at,
    keys_of,
    kind_of,
    models_at,
)

MOST_PROBLEMS = 50
"""So many are told at a time: more have one cause, such as a file of something else."""


def python_error(error: ValidationError, data: Any, model: type[BaseModel]) -> ConfigError:
    """The error for a model made in Python, named after its class."""
    place = Place(model.__name__)
    return ConfigError([Problem(place, message) for _, message in explain(error, data, model)])


def explain(error: ValidationError, data: Any, model: type[BaseModel]) -> list[tuple[Path, str]]:
    """The path and message of each error, without pydantic's names of union members."""
    found: list[tuple[Path, str]] = []
    misnamed, known = set(), [dotted(path) for path in all_paths(model)]
    details = error.errors(include_url=False)
    details.sort(key=lambda detail: detail["type"] == "missing")
    for detail in details[:MOST_PROBLEMS]:
        kind = detail["type"]
        path = _written_path(detail["loc"], data, kind)
        if kind == "too_short" and len(detail["input"]) >= detail["ctx"]["min_length"]:
            continue  # pydantic does not count wrong items, which have errors of their own
        if kind == "findings":
            below = [finding.below(*path) for finding in detail["ctx"]["findings"]]
            found += [(finding.path, str(finding)) for finding in below]
        elif kind == "extra_forbidden":
            near = nearest_key(model, data, path, known)
            misnamed.add(near)
            found.append((path, _unknown_key(path, near, data, model)))
        elif dotted(path) not in misnamed:
            found.append((path, _message(detail, path, data, model)))
    if (more := len(details) - MOST_PROBLEMS) > 0:
        found.append(((), f"{more} more problems are not listed."))
    return list(dict.fromkeys(found))


def nearest_key(model: type[BaseModel], data: Any, path: Path, known: list[str]) -> str | None:
    """The path that a reader most likely meant by the unknown `path`, None if nothing is near.

    `known` are all paths of the model.
    """
    word = str(path[-1])
    governing = models_at(model, data, path[:-1])
    for found in governing:
        if word in found.model_fields:  # the name in Python of a key that files call otherwise
            return dotted((*path[:-1], found.model_fields[word].alias or word))
    elsewhere = _foreign_key(word, known) or _same_key(word, known)
    siblings = [key for found in governing for key in keys_of(found)]
    near = nearest(word, siblings, cutoff=0.6 if not elsewhere else 0.9)
    if near:
        return dotted((*path[:-1], near))
    return elsewhere.replace(ANY_INDEX, "0") if elsewhere else None


def _foreign_key(word: str, known: list[str]) -> str | None:
    """Our path for another project's key, as far as the model has it."""
    target = KEYS.get(word) or KEYS.get(word.lower().replace("-", "_"))
    if target is None:
        return None
    wanted = target.replace(".0.", f".{ANY_INDEX}.")
    fits = (p for p in known if f".{p}".endswith(f".{wanted}") or wanted.endswith(f".{p}"))
    return next(fits, None)


def _same_key(word: str, known: list[str]) -> str | None:
    """A path elsewhere that ends in this key: right word, wrong place.

    Keys of one kind among several (such as `start` of some schedules) mean nothing elsewhere.
    """
    paths = (p for p in known if f".{p}".endswith(f".{word}"))
    return next((p for p in paths if f"{p.removesuffix(word)}kind" not in known), None)


def show(value: Any) -> str:
    """A value as a reader wrote it, cut short where it is long."""
    if value is None:
        return "empty"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f"the text {value!r}" if len(value) <= 60 else f"the text {value[:57]!r}..."
    if isinstance(value, Mapping):
        text = "{" + ", ".join(f"{k}: {_brief(v)}" for k, v in value.items()) + "}"
    elif isinstance(value, list | tuple):
        text = "[" + ", ".join(_brief(v) for v in value) + "]"
    else:
        text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _brief(value: Any) -> str:
    return value if isinstance(value, str) else "null" if value is None else show(value)


def choose(value: Any, allowed: Iterable[str]) -> str:
    """`but must be one of a, b, c. Did you mean 'b'?`"""
    words = [str(word) for word in allowed]
    near = None
    if isinstance(value, str):
        ours = VALUES.get(value)
        near = ours if ours in words else nearest(value.lower(), words, cutoff=0.5)
    guess = f" Did you mean '{near}'?" if near else ""
    if len(words) == 1:
        return f"but must be {words[0]}."
    return f"but must be one of {', '.join(words)}.{guess}"


def nearest(word: str, known: list[str], *, cutoff: float) -> str | None:
    """The known word that is most likely meant: two neighbouring letters swapped are one slip."""
    pairs = range(len(word) - 1)
    swapped = {word[:i] + word[i + 1] + word[i] + word[i + 2 :] for i in pairs}
    near = [ours for ours in known if ours in swapped]
    near = near or difflib.get_close_matches(word, known, n=1, cutoff=cutoff)
    return near[0] if near else None


def number_advice(value: Any) -> str:
    """What to type when a text stands where a number belongs."""
    if not isinstance(value, str):
        return ""
    if value.lower().strip("+-.") in ("nan", "inf", "infinity"):
        return " Write a finite number."
    if re.fullmatch(r"[-+]?[0-9][0-9_]*:[0-9:.]+", value):
        return " ':' makes it text. Write one plain number."
    try:
        number = float(value)
    except ValueError:
        return ""
    if not value.isascii():  # such as the digits of a Japanese keyboard
        return f" Write {number:.12g}."
    return f" Write {value.strip() if abs(number) < 1e18 else number} without quotes."


def _written_path(loc: tuple, data: Any, kind: str) -> Path:
    """The part of a pydantic location that the reader wrote, without tags of union members."""
    path: list[str | int] = []
    node = data
    for i, part in enumerate(loc):
        is_item = isinstance(node, list | tuple) and isinstance(part, int) and part < len(node)
        if is_item or (isinstance(node, Mapping) and part in node):
            path.append(part)
            node = node[part]
        elif i == len(loc) - 1 and kind == "missing":
            path.append(part)
    if kind in ("union_tag_invalid", "unknown_kind") and isinstance(node, Mapping):
        path.append("kind")
    return tuple(path)


def _message(detail: Mapping[str, Any], path: Path, data: Any, model: type[BaseModel]) -> str:
    kind, value, context = detail["type"], detail["input"], detail.get("ctx", {})
    name, shown = dotted(path) or model.__name__, show(value)
    if kind == "missing":
        return _missing(path, data, model)

    # Checks of our own, which say themselves what to type.
    if kind == "advice":
        return f"{name} is {shown}, {detail['msg']}"
    if kind in ("value_error", "assertion_error"):
        return f"{name} is {shown}, {context['error']}{raised_in(context['error'])}"

    # A word among others.
    if kind == "literal_error":
        plain = repr(value) if isinstance(value, str) else shown
        return f"{name} is {plain}, {choose(value, _quoted_words(context['expected']))}"
    if kind in ("unknown_kind", "union_tag_invalid"):
        tag = context.get("kind", context.get("tag"))
        kinds = context.get("kinds") or _quoted_words(context["expected_tags"])
        return f"{name} is '{tag}', {choose(tag, kinds)}"
    if kind in ("no_kind", "union_tag_not_found"):
        kinds = context.get("kinds") or filter(None, map(kind_of, models_at(model, data, path)))
        words = ", ".join(kinds)
        return f"{name} is {shown}, but has no 'kind'. Write 'kind:' with one of {words}."

    # A value of a wrong type.
    wanted = _wanted(kind, value, path, data, model)
    return f"{name} is {shown}" + (f", but must be {wanted}" if wanted else f": {detail['msg']}.")


_WANTED = {
    "finite_number": "a finite number.",
    "bool_type": "true or false.",
    "tuple_type": "a list such as [a, b].",
    "list_type": "a list such as [a, b].",
    "dict_type": "a mapping.",
    "too_short": "a list of at least one item.",
    "string_too_short": "text of at least one character.",
}


def _wanted(kind: str, value: Any, path: Path, data: Any, model: type[BaseModel]) -> str:
    """What belongs in the place of a value of a wrong type, and what to type; else nothing."""
    if kind in ("float_type", "int_type", "int_from_float"):
        what = "a number" if kind == "float_type" else "a whole number"
        if kind != "float_type" and isinstance(value, float) and value.is_integer():
            return f"{what}. Write {int(value)}."
        field = field_at(model, data, path) if path else None
        is_optional = field and type(None) in get_args(field.annotation)
        return f"{what}{' or null' if is_optional else ''}.{number_advice(value)}"
    if kind in ("string_type", "path_type"):
        quoted = f' Write "{show(value)}" in quotes.' if isinstance(value, int | float) else ""
        return f"text.{quoted}"
    if kind in ("model_type", "model_attributes_type"):
        models = models_at(model, data, path)
        if len(models) > 1:
            kinds = ", ".join(filter(None, map(kind_of, models)))
            return f"a mapping with a 'kind', one of {kinds}."
        return (
            f"a mapping with the keys {', '.join(keys_of(models[0])) if models else 'its parts'}."
        )
    return _WANTED.get(kind, "")


def _quoted_words(text: str) -> list[str]:
    """`'a', 'b' or 'c'` -> [a, b, c]; numbers stand without quotes."""
    return re.findall(r"'([^']*)'", text) or re.split(r", | or ", text)


def _unknown_key(path: Path, near: str | None, data: Any, model: type[BaseModel]) -> str:
    text = f"unknown key '{dotted(path)}'."
    if path[-1] == "<<":
        return f"{text} Merge keys are not supported: write the keys out."
    if near:
        return f"{text} Did you mean '{near}'?"
    models = models_at(model, data, path[:-1])
    keys = list(dict.fromkeys(key for m in models for key in keys_of(m)))
    return f"{text} Allowed here: {', '.join(keys)}." if keys else f"{text} Delete it."


def _missing(path: Path, data: Any, model: type[BaseModel]) -> str:
    field = field_at(model, data, path)
    if field and get_origin(field.annotation) is Literal:
        return f"{dotted(path)} is missing. Write '{path[-1]}: {get_args(field.annotation)[0]}'."
    what = field.description if field and field.description else "a value"
    return f"{dotted(path)} is missing. Write '{path[-1]}:' with {what}."


def _by_word(words_of: dict[str, str]) -> dict[str, str]:
    """Words that other projects use -> what they are called here."""
    return {word: ours for ours, words in words_of.items() for word in words.split()}


KEYS = _by_word(
    {
        "guidance.scale": "guidance_scale cfg cfg_scale true_cfg_scale text_guidance_scale "
        "sample_guide_scale guide_scale guidance_scale_2 w guidance_interval cfg_interval "
        "schedule",
        "guidance.rescale": "guidance_rescale cfg_rescale rescale_cfg phi",
        "guidance.threshold": "dynamic_threshold dynamic_thresholding thresholding "
        "dynamic_thresholding_ratio",
        "guidance.frames": "frame_weights keyframes",
        "guidance.precision": "precision",
        "guidance.micro_batch": "batch_size",
        "sampling.num_steps": "num_inference_steps inference_steps sampling_steps sample_steps "
        "steps",
        "sampling.shift": "flow_shift sample_shift",
        "sampling.scheduler": "sampler sample_solver solver",
        "prompts": "prompt caption",
        "prompts.0.negative": "negative_prompt negative_prompts sample_neg_prompt",
        "prompts.0.image": "image_path",
        "seeds": "seed base_seed generator",
        "video.fps": "frame_rate framerate",
        "video.num_frames": "frame_num video_length num_video_frames n_frames length",
        "video.height": "resolution size",
        "model.dtype": "torch_dtype dtype variant",
        "model.device": "device",
        "model.checkpoint": "checkpoint pretrained_model_name_or_path model_id model_path ckpt "
        "ckpt_dir repo repo_id",
        "model.offload": "offload enable_model_cpu_offload offload_model",
        "model.attention": "attention attention_backend",
        "model.compile": "compile torch_compile",
        "model.vae_tiling": "enable_vae_tiling",
        "output.dir": "output_dir out_dir save_path save_dir output_path",
        "output.video": "output_type codec format",
        "output.enlarge": "upscale zoom",
        "schema": "version",
    }
)
"""A key of another project -> the path of ours. It counts only where the model has that path."""

VALUES = _by_word(
    {
        "float32": "fp32 float",
        "float16": "fp16 half",
        "bfloat16": "bf16",
        "cuda": "gpu",
        "flow_euler": "euler flow_match_euler FlowMatchEulerDiscreteScheduler",
        "unipc": "UniPCMultistepScheduler",
        "ddim": "DDIMScheduler",
        "dpm++": "dpm dpmpp dpm++2m dpmsolver++ DPMSolverMultistepScheduler",
        "h264": "mp4 x264 libx264",
        "h264_lossless": "lossless",
        "keyframes": "keyframe",
        "decay": "temporal_decay",
        "uniform": "flat",
        "cfg": "classifier_free classifier_free_guidance",
        "perp_neg": "perpneg perp-neg",
        "constant": "constant_scale",
        "cosine": "cos",
        "knots": "piecewise",
        "first": "start begin",
        "last": "end",
        "middle": "center centre mid",
    }
)
"""A value of another project -> ours. It counts only where ours is allowed."""
