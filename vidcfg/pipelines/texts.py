"""What the branches of a run see: texts, encoded by the pipeline itself or given by the user."""

import functools
import inspect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from vidcfg.guidance.rule import Rule
from vidcfg.pipelines.arguments import by_sample, images_of, tensors_of
from vidcfg.pipelines.family import Family

BLANK = ("negative", "empty")
"""Sources of the unconditional side."""
_LIKE_THE_CALL = ("max_sequence_length", "prompt_template", "clip_skip", "clean_caption")


Arguments = Mapping[str, Any]
Inputs = Mapping[str, Tensor]
"""What a call has by name; rows for the denoiser, or what `encode_prompt` makes."""


@dataclass(eq=False)
class BranchTexts:
    """What the branches other than `cond` see in the calls of a pipeline.

    Args:
        pipe: the pipeline, by which texts are encoded.
        family: its family.
        negative: the negative prompt, one for all or one per prompt.
        conditions: condition name -> prompt, for rules with several conditions.
        inputs: source -> text inputs that the user encoded (`prompt_embeds`, masks, ...).
        early: sources to encode while the pipeline encodes its prompt.
        encoded: source -> text inputs as the denoiser takes them, kept for one pipeline call.
    """

    pipe: Any
    family: Family
    negative: str | list[str]
    conditions: Mapping[str, str]
    inputs: Mapping[str, Inputs]
    early: Iterable[str]
    encoded: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    is_encoding: bool = False

    def of_branches(
        self, sources: Mapping[str, str], *, call: Arguments, arguments: Arguments, cond: Inputs
    ) -> dict[str, dict[str, Tensor]]:
        """What every branch that a run needs, and that sees other than `cond`, has in its places.

        None of them sees an image prompt: the image is part of what `cond` has before the others.

        Raises:
            ValueError: if a text cannot be encoded or does not fit the samples.
        """
        # A model without a text has inputs of its own there.
        if not self.family.texts:
            for branch, source in sources.items():
                if source not in BLANK:
                    raise ValueError(
                        f"the {branch} branch needs a prompt, but a {self.family.pipelines[0]} is "
                        f"conditioned on an image. Use guidance.method: cfg."
                    )
            return {b: self.unconditional(arguments, cond, s) for b, s in sources.items()}
        repeats, num_samples = rows_per_prompt(call), len(arguments[self.family.hidden])
        if repeats > 1 and num_prompts(call) == num_samples:
            raise ValueError(
                f"this call asks for {repeats} samples of every prompt, but a "
                f"{type(self.pipe).__name__} makes one, whatever it is told. Give every prompt "
                f"{repeats} times in its place."
            )
        self.encode(sources.values(), call, num_samples // repeats)
        no_image = self._without_image(call, arguments)
        found = {}
        for branch, source in sources.items():
            found[branch] = no_image | self.unconditional(arguments, cond, source)
            found[branch] |= {
                path: as_rows(tensor, cond[path], name, repeats=repeats)
                for argument, name in self.family.texts.items()
                for path, tensor in tensors_of(self.encoded[source][name], argument)
                if path in cond
            }
            if missing := cond.keys() - found[branch]:
                names = ", ".join(sorted(missing))
                raise ValueError(f"the {branch} branch has nothing that stands for {names}.")
        return found

    def unconditional(self, arguments: Arguments, cond: Inputs, source: str) -> dict[str, Tensor]:
        """What a branch of this text sees where the unconditional one sees other than `cond`."""
        if self.family.unconditional is None:
            return {}
        blank, count = self.family.unconditional(arguments), len(arguments[self.family.hidden])
        is_blank = source in BLANK
        return {n: by_sample(n, t, count) if is_blank else cond[n] for n, t in blank.items()}

    def _without_image(self, call: Arguments, arguments: Arguments) -> dict[str, Tensor]:
        """What stands for the image prompts on the unconditional side, as in diffusers."""
        images, count = images_of(self.family, arguments), len(arguments[self.family.hidden])
        if not images:
            return {}
        unconditional = self.family.image_prompt.unconditional
        made = unconditional(self.pipe, call, list(images.values()), count)
        return {
            path: as_rows(new, images[path][:count], "ip_adapter_image_embeds")
            for path, new in zip(images, made)
        }

    def encode_early(self, call: Arguments) -> None:
        """Encode what the branches see while the pipeline encodes its prompt.

        Within its loop, offloading would keep text encoders on the device beside the denoiser.
        What cannot be told or encoded so early is left to the first step, if that needs it.
        """
        count = num_prompts(call)
        if self.is_encoding or count is None or not self.family.texts:
            return
        has_encoder = getattr(self.pipe, "text_encoder", None) is not None
        sources = [s for s in self.early if s in self.inputs or (has_encoder and s != "cond")]
        self.is_encoding = True
        try:
            self.encode(sources, call, count)
        finally:
            self.is_encoding = False

    def encode(self, sources: Iterable[str], call: Arguments, num_prompts: int) -> None:
        """Fill `encoded`: each text once, to serve all branches that see it.

        Raises:
            ValueError: if a text cannot be encoded, or there are neither one nor `num_prompts`.
        """
        for source in dict.fromkeys(sources):
            if source in self.encoded:
                continue
            words = None if source in self.inputs else self._text(source, num_prompts)
            given = dict(self.inputs.get(source) or self._encoded(source, words, call))
            finish = self.family.finish_texts
            self.encoded[source] = given if finish is None else finish(self.pipe, given, words)

    def _text(self, source: str, num_prompts: int) -> list[str]:
        """The text of "negative", "empty" or "condition:<name>" for every prompt."""
        known = {"empty": "", "negative": self.negative}
        text = known[source] if source in known else self.conditions[source.partition(":")[2]]
        texts = [text] * num_prompts if isinstance(text, str) else list(text)
        if len(texts) != num_prompts:
            raise ValueError(
                f"negative_prompt holds {len(texts)} texts for {num_prompts} prompts. "
                f"Give one text, or one per prompt."
            )
        return texts

    def _encoded(self, source: str, texts: list[str], call: Arguments) -> dict[str, Tensor]:
        """The text inputs of a source, encoded as the pipeline encodes a prompt of this call."""
        pipe, family = self.pipe, self.family
        # Only diffusers calls it so; somebody else's pipeline has its own name for it, or none.
        if getattr(pipe, "text_encoder", ...) is None or not hasattr(pipe, "encode_prompt"):
            names = ", ".join(f"negative_{name}" for name in family.encoded if name)
            raise ValueError(
                f"this {type(pipe).__name__} has no text encoder, so a negative prompt cannot be "
                f"encoded. Pass {names} to vidcfg.guide."
            )
        parameters = inspect.signature(pipe.encode_prompt).parameters
        kwargs = (call.get(f"{kind}attention_kwargs") or {} for kind in ("cross_", "joint_", ""))
        wanted = {
            "prompt": texts,
            "batch_size": len(texts),
            "do_classifier_free_guidance": False,
            "device": getattr(pipe, "_execution_device", None) or family.parameter_of(pipe).device,
            "num_videos_per_prompt": rows_per_prompt(call),
            "num_images_per_prompt": rows_per_prompt(call),
            # A LoRA of the text encoder is as strong as in the prompt.
            "lora_scale": next((given["scale"] for given in kwargs if "scale" in given), None),
        }
        if family.encodes_beside_prompt:
            wanted |= {"prompt": call["prompt"], "do_classifier_free_guidance": True}
            wanted["negative_prompt"] = texts
        if "image" in parameters:  # HunyuanVideo reads it with the text
            from PIL import Image

            black = Image.new("RGB", (call["width"], call["height"]))
            wanted["image"] = black if source in BLANK else call["image"]
            if source not in BLANK:  # of whose image every n-th token is seen, as of the prompt's
                every = {"latent_concat": 2, "token_replace": 4}
                every = every.get(pipe.transformer.config.get("image_condition_type"), 1)
                wanted["image_embed_interleave"] = call.get("image_embed_interleave") or every
        wanted |= {name: call[name] for name in _LIKE_THE_CALL if call.get(name) is not None}
        if source in BLANK:  # as in the stock pipelines, for which it is one of the prompt
            wanted.pop("clip_skip", None)
        unset = {n: None for n, p in parameters.items() if p.default is p.empty}
        encoded = pipe.encode_prompt(
            **unset | {n: v for n, v in wanted.items() if n in parameters}
        )
        return {name: value for name, value in zip(family.encoded, encoded) if name is not None}


def negative_texts(given: Any) -> str | list[str]:
    """The negative prompt of `guide`: a text, or a list of them; None is the empty text.

    Raises:
        ValueError: for anything else.
    """
    texts = list(given) if isinstance(given, list | tuple) else [given]
    wrong = next((text for text in texts if not isinstance(text, str | None)), None)
    if wrong is not None:
        raise ValueError(
            f"guide() got the negative_prompt {wrong!r}. Pass a text, or a list with a text for "
            f"each prompt."
        )
    texts = [text or "" for text in texts]
    return texts if isinstance(given, list | tuple) else texts[0]


def negative_inputs(
    family: Family, given: Inputs, negative_prompt: str | list[str]
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


def kept_from_negative(callback: Any) -> Any:
    """A callback of the steps that raises ValueError where it changes the negative side.

    None, and the ones of diffusers, which pipelines know by their class, are handed back.
    """
    if not callable(callback) or hasattr(callback, "tensor_inputs"):
        return callback

    @functools.wraps(callback)
    def kept(*args: Any) -> Any:
        made = callback(*args)
        changed = [n for n, v in (made or {}).items() if v is not None and "negative_" in n]
        if changed:
            raise ValueError(
                f"a callback changed {', '.join(changed)}, which has no effect inside "
                f"vidcfg.guide: the negative side is the one that guide was given."
            )
        return made

    return kept


def num_prompts(call: Arguments) -> int | None:
    """How many prompts a call has, told or encoded; None where it does not tell."""
    told = (call.get(name) for name in ("prompt", "prompt_embeds"))
    prompt = next((value for value in told if value is not None), None)
    return 1 if isinstance(prompt, str) else None if prompt is None else len(prompt)


def rows_per_prompt(call: Arguments) -> int:
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


def conditions_of(rules: Iterable[Rule]) -> dict[str, str]:
    """Condition name -> prompt over all rules."""
    prompts: dict[str, str] = {}
    for rule in rules:
        for condition in getattr(rule, "conditions", ()):
            known = prompts.setdefault(condition.name, condition.prompt)
            if known != condition.prompt:
                raise ValueError(
                    f"condition '{condition.name}' stands for '{known}' and for "
                    f"'{condition.prompt}'. Give the second one another name."
                )
    return prompts
