"""What the branches of a run see: texts, encoded by the pipeline itself or given by the user.

Arguments of a denoiser call go by name; some lie in a dict: `added_cond_kwargs.time_ids`.
"""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from vidcfg.pipelines.family import Family

BLANK = ("negative", "empty")
"""Sources of the unconditional side."""
_LIKE_THE_CALL = ("max_sequence_length", "prompt_template", "clip_skip", "clean_caption")


@dataclass(frozen=True)
class BranchTexts:
    """What the branches other than `cond` see.

    Args:
        negative: the negative prompt, one for all or one per prompt.
        conditions: condition name -> prompt, for rules with several conditions.
        inputs: source -> text inputs that the user encoded (`prompt_embeds`, masks, ...).
    """

    negative: str | list[str]
    conditions: Mapping[str, str]
    inputs: Mapping[str, Mapping[str, Tensor]]

    def text(self, source: str, num_prompts: int) -> list[str]:
        """The text of a source ("negative", "empty" or "condition:<name>") for every prompt.

        Raises:
            ValueError: if there are neither one nor `num_prompts` negative prompts.
        """
        if source == "empty":
            return [""] * num_prompts
        if source != "negative":
            return [self.conditions[source.removeprefix("condition:")]] * num_prompts
        if isinstance(self.negative, str):
            return [self.negative] * num_prompts
        if len(self.negative) != num_prompts:
            raise ValueError(
                f"negative_prompt holds {len(self.negative)} texts for {num_prompts} prompts. "
                f"Give one text, or one per prompt."
            )
        return list(self.negative)


def tensor_at(arguments: Mapping[str, Any], path: str) -> Tensor | None:
    """The tensor that `path` names, or None where there is no tensor with rows."""
    value: Any = arguments
    for name in path.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value if isinstance(value, Tensor) and value.ndim > 0 else None


def with_rows(arguments: Mapping[str, Any], rows: Mapping[str, Tensor]) -> dict[str, Any]:
    """`arguments` with rows in their places, repeated per frame where the pipeline passed it so.

    Nothing that was passed in is changed.
    """
    result = dict(arguments)
    for path, tensor in rows.items():
        if tensor.ndim > tensor_at(arguments, path).ndim:
            tensor = tensor.flatten(0, 1)
        *outer, name = path.split(".")
        place = result
        for key in outer:
            place[key] = dict(place[key])
            place = place[key]
        place[name] = tensor
    return result


def shared_inputs(family: Family, arguments: Mapping[str, Any]) -> dict[str, Tensor]:
    """The arguments with one row per sample that all branches see; the noisy latents first."""
    found = {name: tensor_at(arguments, name) for name in (family.hidden, *family.per_sample)}
    return {name: tensor for name, tensor in found.items() if tensor is not None}


def cond_inputs(family: Family, arguments: Mapping[str, Any]) -> dict[str, Tensor]:
    """What `cond` sees in the places that other branches fill anew, one entry per sample.

    Rows repeated per frame, [B * F, ...], become [B, F, ...].
    """
    num_samples = arguments[family.hidden].shape[0]
    found = {name: tensor_at(arguments, name) for name in family.texts}
    return {
        name: tensor if len(tensor) == num_samples else tensor.unflatten(0, (num_samples, -1))
        for name, tensor in found.items()
        if tensor is not None
    } | unconditional_inputs(family, arguments, "cond")


def unconditional_inputs(
    family: Family, arguments: Mapping[str, Any], source: str
) -> dict[str, Tensor]:
    """What a branch with this text sees where the unconditional one sees other than `cond`."""
    if family.unconditional is None:
        return {}
    blank = family.unconditional(arguments)
    is_blank = source in BLANK
    return blank if is_blank else {name: arguments[name] for name in blank}


def branch_inputs(
    pipe: Any,
    family: Family,
    texts: BranchTexts,
    sources: Mapping[str, str],
    *,
    call: Mapping[str, Any],
    arguments: Mapping[str, Any],
) -> dict[str, dict[str, Tensor]]:
    """The text arguments of every branch that the run needs and that sees other than `cond`.

    Raises:
        ValueError: if a text cannot be encoded or does not fit the samples, or where two rules
            read a branch from different texts.
    """
    # A model without a text has inputs of its own there.
    if not family.texts:
        for branch, source in sources.items():
            if source not in BLANK:
                raise ValueError(
                    f"the {branch} branch needs a prompt, but a {family.pipelines[0]} is "
                    f"conditioned on an image. Use guidance.method: cfg."
                )
        return {b: unconditional_inputs(family, arguments, s) for b, s in sources.items()}
    # Each text is encoded once, and then serves all branches that see it.
    cond, repeats = cond_inputs(family, arguments), rows_per_prompt(call)
    num_prompts = arguments[family.hidden].shape[0] // repeats
    inputs: dict[str, dict[str, Tensor]] = {}
    for source in dict.fromkeys(sources.values()):
        words = None if source in texts.inputs else texts.text(source, num_prompts)
        given = texts.inputs.get(source) or _encoded(pipe, family, source, words, call)
        finish = family.finish_texts
        inputs[source] = dict(given) if finish is None else finish(pipe, dict(given), words)
    return {
        branch: {
            argument: as_rows(inputs[source][name], cond[argument], name, repeats=repeats)
            for argument, name in family.texts.items()
            if argument in cond
        }
        | unconditional_inputs(family, arguments, source)
        for branch, source in sources.items()
    }


def negative_inputs(
    family: Family, given: Mapping[str, Tensor], negative_prompt: str | list[str]
) -> dict[str, Tensor]:
    """`negative_<text input>` arguments of `guide` as text inputs of the family.

    Raises:
        ValueError: for an argument that this family does not take, a set that is incomplete, or a
            negative prompt beside it.
    """
    if not family.texts and (given or negative_prompt):
        names = ", ".join(given) or "negative_prompt"
        raise ValueError(
            f"a {family.pipelines[0]} is conditioned on an image, not on a text: its "
            f"unconditional side is an image of zeros. Leave {names} out."
        )
    wanted = {f"negative_{name}": name for name in family.encoded if name is not None}
    unknown = [name for name in given if name not in wanted]
    if unknown:
        raise ValueError(
            f"guide() got {', '.join(unknown)}, but a {family.pipelines[0]} takes "
            f"{', '.join(wanted)} (or negative_prompt)."
        )
    missing = [name for name in wanted if name not in given]
    if given and missing:
        raise ValueError(f"guide() got {', '.join(given)}; {', '.join(missing)} is missing too.")
    if given and negative_prompt:
        raise ValueError(
            "guide() got a negative_prompt and negative embeddings. Pass one of them."
        )
    return {wanted[name]: tensor for name, tensor in given.items()}


def _encoded(
    pipe: Any, family: Family, source: str, texts: list[str], call: Mapping[str, Any]
) -> dict[str, Tensor]:
    """The text inputs of a source, encoded as the pipeline encodes a prompt of this call.

    Raises:
        ValueError: if the pipeline has no text encoder.
    """
    if getattr(pipe, "text_encoder", None) is None:
        names = ", ".join(f"negative_{name}" for name in family.encoded if name)
        raise ValueError(
            f"this {type(pipe).__name__} has no text encoder, so a negative prompt cannot be "
            f"encoded. Pass {names} to vidcfg.guide."
        )
    parameters = inspect.signature(pipe.encode_prompt).parameters
    wanted = {
        "prompt": texts,
        "batch_size": len(texts),
        "do_classifier_free_guidance": False,
        "device": pipe._execution_device,
        "num_videos_per_prompt": rows_per_prompt(call),
        "num_images_per_prompt": rows_per_prompt(call),
    }
    if family.encodes_beside_prompt:
        wanted |= {"prompt": call["prompt"], "do_classifier_free_guidance": True}
        wanted["negative_prompt"] = texts
    if "image" in parameters:  # HunyuanVideo reads it with the text
        wanted["image"] = _black(call) if source in BLANK else call["image"]
    wanted |= {name: call[name] for name in _LIKE_THE_CALL if call.get(name) is not None}
    unset = {n: None for n, p in parameters.items() if p.default is p.empty}
    encoded = pipe.encode_prompt(**unset | {n: v for n, v in wanted.items() if n in parameters})
    return {name: value for name, value in zip(family.encoded, encoded) if name is not None}


def _black(call: Mapping[str, Any]) -> Any:
    """The image that stands beside a negative text."""
    from PIL import Image

    return Image.new("RGB", (call["width"], call["height"]))


def rows_per_prompt(call: Mapping[str, Any]) -> int:
    """How many samples a call makes of every prompt."""
    return call.get("num_videos_per_prompt") or call.get("num_images_per_prompt") or 1


def as_rows(tensor: Tensor, like: Tensor, name: str, *, repeats: int = 1) -> Tensor:
    """`tensor` with the dtype, device and rows of `like`.

    One row serves all samples, one per prompt serves the `repeats` samples of that prompt. Where
    `like` holds a row per frame, [B, F, ...], every frame gets the same.

    Raises:
        ValueError: for another number of rows.
    """
    tensor = tensor.to(device=like.device, dtype=like.dtype)
    if tensor.ndim < like.ndim:
        tensor = tensor.unsqueeze(1).expand(-1, like.shape[1], *[-1] * (tensor.ndim - 1))
    if tensor.shape[0] == like.shape[0]:
        return tensor
    if tensor.shape[0] == 1:
        return tensor.expand(like.shape[0], *tensor.shape[1:])
    if tensor.shape[0] * repeats == like.shape[0]:
        return tensor.repeat_interleave(repeats, dim=0)
    raise ValueError(
        f"negative_{name} has {tensor.shape[0]} rows, but the call has {like.shape[0]} samples. "
        f"Pass one row, or {like.shape[0]}."
    )
