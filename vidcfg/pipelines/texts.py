"""The texts of the branches: encoded by the pipeline itself, or taken from the user."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from vidcfg.pipelines.family import Family

_LIKE_THE_CALL = ("max_sequence_length", "prompt_template", "clip_skip")


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


def negative_inputs(
    family: Family, given: Mapping[str, Tensor], negative_prompt: str | list[str]
) -> dict[str, Tensor]:
    """`negative_<text input>` arguments of `guide` as text inputs of the family.

    Raises:
        ValueError: for an argument that this family does not take, or a set that is incomplete.
    """
    if family.unconditional is not None and (given or negative_prompt):
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
    return {wanted[name]: tensor for name, tensor in given.items()}


def encode(
    pipe: Any, family: Family, texts: list[str], call: Mapping[str, Any]
) -> dict[str, Tensor]:
    """The text inputs of `texts`, encoded as the pipeline encodes a prompt of this call.

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
    wanted |= {name: call[name] for name in _LIKE_THE_CALL if call.get(name) is not None}
    unset = {n: None for n, p in parameters.items() if p.default is p.empty}
    encoded = pipe.encode_prompt(**unset | {n: v for n, v in wanted.items() if n in parameters})
    return {name: value for name, value in zip(family.encoded, encoded) if name is not None}


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
