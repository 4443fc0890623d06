"""The arguments of a denoiser call: every tensor in them found, told apart, and put back by rows.

Tensors lie in nested dicts, lists, tuples and dataclasses, and go by their path:
`added_cond_kwargs.image_embeds.0`. A declared name covers all that lies below it.
"""

import dataclasses
import inspect
import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from torch import Tensor

from vidcfg.pipelines.family import Family


def call_signature(cls: type) -> inspect.Signature:
    """The parameters of a pipeline's call; its **kwargs are those of the call that it overrides.

    What then is left of them is named `kwargs`.
    """
    found: dict[str, inspect.Parameter] = {}
    rest, by_keyword = (), False
    for base in (base for base in cls.__mro__ if "__call__" in vars(base)):
        parameters = inspect.signature(base.__call__).parameters.values()
        for each in parameters:
            if each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD):
                new = each.replace(kind=each.KEYWORD_ONLY) if by_keyword else each
                found.setdefault(each.name, new)
        rest = [each for each in parameters if each.kind == each.VAR_KEYWORD]
        if not rest:
            break
        by_keyword |= all(each.kind != each.VAR_POSITIONAL for each in parameters)
    named = sorted(found.values(), key=lambda each: each.kind)
    return inspect.Signature([*named, *(each.replace(name="kwargs") for each in rest)])


def by_name(module: Any, args: tuple, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a call of `module` by their names."""
    signature = inspect.signature(type(module).forward)
    bound = signature.bind(module, *args, **kwargs).arguments
    arguments = dict(list(bound.items())[1:])
    rest = next((p.name for p in signature.parameters.values() if p.kind == p.VAR_KEYWORD), "")
    return arguments | arguments.pop(rest, {})


def tensors_of(value: Any, path: str = "") -> Iterator[tuple[str, Tensor | np.ndarray]]:
    """Every array with rows in an argument, with its path."""
    if isinstance(value, Tensor | np.ndarray):
        if value.ndim > 0:
            yield path, value
        return
    for key, item in _items(value):
        yield from tensors_of(item, f"{path}.{key}" if path else str(key))


def with_rows(arguments: Mapping[str, Any], rows: Mapping[str, Tensor]) -> dict[str, Any]:
    """`arguments` with rows in their places, several per sample where the pipeline passed it so.

    Nothing that was passed in is changed, and no dict of it is handed on: some models take out of
    theirs what they have used.
    """
    return {name: _replaced(value, name, rows) for name, value in arguments.items()}


def inputs_of(
    family: Family, arguments: Mapping[str, Any]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The tensors that all branches see alike, the noisy latents first, and those of `cond`.

    Those of `cond` stand where other branches see something else. Each has one entry per sample:
    rows that a pipeline repeats, [B * n, ...], become [B, n, ...], one row for all is repeated.

    Raises:
        ValueError: for a tensor that the family does not declare, and for one whose rows do not
            belong to samples, with what to do.
    """
    num_samples = len(arguments[family.hidden])
    shared, cond = {family.hidden: arguments[family.hidden]}, {}
    for path, (role, tensor) in roles_of(family, arguments).items():
        if role == "image_prompt":
            cond[path] = _image_rows(family, path, tensor, num_samples)
        elif role in ("texts", "unconditional"):
            cond[path] = by_sample(path, tensor, num_samples)
        elif role == "per_sample":
            shared[path] = by_sample(path, tensor, num_samples)
        elif role is None:
            raise ValueError(
                f"the denoiser gets {path} {list(tensor.shape)}, which the family {family.name} "
                f"does not declare, so the sample and the branch of its rows cannot be told. "
                f"Leave out what brings it, or register a family that names it in per_sample "
                f"(rows of samples), texts (replaced on the negative side) or constants (the same "
                f"for all): see docs/families.md. `vidcfg families check` says which of them."
            )
    return shared, cond


def roles_of(
    family: Family, arguments: Mapping[str, Any]
) -> dict[str, tuple[str | None, Tensor | np.ndarray]]:
    """Every array of a denoiser call by its path: the field of the family that declares it.

    "single" is one number, which needs no declaration; None is an array that no field names.
    """
    blank = {} if family.unconditional is None else family.unconditional(arguments)
    fields = {
        "image_prompt": tuple(images_of(family, arguments)),
        "texts": tuple(family.texts),
        "unconditional": tuple(blank),
        "per_sample": family.per_sample,
        "hidden": (family.hidden,),
        "constants": family.constants,
        "from_texts": tuple(family.from_texts),
    }
    found = {}
    for path, tensor in tensors_of(arguments):
        role = next((role for role, names in fields.items() if _is_below(path, names)), None)
        found[path] = "single" if role is None and tensor.shape == (1,) else role, tensor
    return found


def images_of(family: Family, arguments: Mapping[str, Any]) -> dict[str, Tensor]:
    """The image prompts of a call as the denoiser gets them, by path; one for each adapter."""
    if family.image_prompt is None:
        return {}
    top, _, _ = (name := family.image_prompt.argument).partition(".")
    return {path: t for path, t in tensors_of(arguments.get(top), top) if _is_below(path, (name,))}


def _is_below(path: str, names: Iterable[str]) -> bool:
    """Whether a path is one of `names`, or lies in the container that one of them names."""
    return any(path == name or path.startswith(f"{name}.") for name in names)


def by_sample(path: str, tensor: Tensor, num_samples: int) -> Tensor:
    """`tensor` with one entry per sample; rows of a sample that stand together become one."""
    count = len(tensor)
    if count == num_samples:
        return tensor
    if count == 1:
        return tensor.expand(num_samples, *tensor.shape[1:])
    if count > 0 and count % num_samples == 0:
        return tensor.unflatten(0, (num_samples, -1))
    raise ValueError(
        f"the denoiser gets {path} {list(tensor.shape)} for {num_samples} samples. Pass one row "
        f"for all, or as many for each sample."
    )


def _image_rows(family: Family, path: str, tensor: Tensor, num_samples: int) -> Tensor:
    """The row of each sample, the second where an unconditional one stands before it.

    Of r rows in a call, diffusers makes r for every sample, so that each would see all of them.
    """
    if len(tensor) == num_samples:
        return tensor
    if len(tensor) == 2 * num_samples and family.image_prompt.in_halves:
        return tensor[1::2]
    raise ValueError(
        f"the image prompt {path} {list(tensor.shape)} has {len(tensor)} rows for {num_samples} "
        f"samples, of which diffusers would show several to each. For an image per sample, make a "
        f"call for each; for several images in every sample, pass ip_adapter_image_embeds of the "
        f"shape [1, images, ...]."
    )


def _items(value: Any) -> Iterable[tuple[Any, Any]]:
    """Names and contents of a container; none for anything else."""
    if isinstance(value, Mapping):
        return value.items()
    if isinstance(value, list | tuple):
        return enumerate(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return ((field.name, getattr(value, field.name)) for field in dataclasses.fields(value))
    return ()


def _replaced(value: Any, path: str, rows: Mapping[str, Tensor]) -> Any:
    """`value`, at `path` of the arguments, with rows in their places."""
    if isinstance(value, Tensor):
        new = rows.get(path, value)
        return new.flatten(0, 1) if new.ndim > value.ndim else new
    items = {key: _replaced(item, f"{path}.{key}", rows) for key, item in _items(value)}
    if isinstance(value, Mapping):
        return items
    if not items:
        return value
    if dataclasses.is_dataclass(value):
        return dataclasses.replace(value, **items)
    made = items.values()
    return type(value)(*made) if hasattr(value, "_fields") else type(value)(made)


def without_own_guidance(
    family: Family, given: dict[str, Any], signature: inspect.Signature
) -> dict[str, Any]:
    """The arguments of a call with the pipeline's own guidance off."""
    on_by_default = {}
    for name, off in family.own_guidance.items():
        if name not in signature.parameters:
            continue
        if name in given and given[name] is not None and given[name] != off:
            experts = "" if family.expert_of is None else " as scale={'high': 4.0, 'low': 3.0}"
            raise ValueError(
                f"this call has {name}={given[name]}, so guidance would be applied twice: "
                f"by the pipeline and by vidcfg. Pass {name}={off}; what guides is set in "
                f"vidcfg.Guidance{experts}."
            )
        default = signature.parameters[name].default
        if given.get(name) is None and default is None:
            continue  # none of its own: it follows another argument, which is off
        if name not in given and default != off:
            on_by_default[name] = default
        given[name] = off
    if on_by_default:
        was = ", ".join(f"{name}={value}" for name, value in on_by_default.items())
        off = ", ".join(f"{name}={family.own_guidance[name]}" for name in on_by_default)
        warnings.warn(
            f"inside vidcfg.guide the pipeline's own {was} is switched off ({off}).", stacklevel=4
        )
    read = family.image_prompt.negative if family.image_prompt else ()
    negative = [n for n, v in given.items() if n.startswith("negative_") and v is not None]
    negative = [name for name in negative if name not in read]
    if negative:
        taken = ["negative_prompt", *(f"negative_{name}" for name in family.encoded if name)]
        advice = "Pass it to vidcfg.guide(...)."
        if not set(negative) <= set(taken):
            advice = (
                f"vidcfg.guide takes {', '.join(taken)}. Leave the rest out: it is the prompt's."
            )
        raise ValueError(
            f"this call has {', '.join(negative)}, which has no effect while the pipeline's own "
            f"guidance is off. {advice}"
        )
    return given
