"""Arguments of a denoiser call by name; some lie in a dict: `added_cond_kwargs.time_ids`."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor


def tensor_at(arguments: Mapping[str, Any], path: str) -> Tensor | None:
    """The tensor that `path` names, or None where there is no tensor with rows."""
    value: Any = arguments
    for name in path.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value if isinstance(value, Tensor) and value.ndim > 0 else None


def with_tensors(arguments: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """`arguments` with the tensors in their places; nothing that was passed in is changed."""
    result = dict(arguments)
    for path, tensor in tensors.items():
        *outer, name = path.split(".")
        place = result
        for key in outer:
            place[key] = dict(place[key])
            place = place[key]
        place[name] = tensor
    return result


def grouped(tensor: Tensor, num_samples: int) -> Tensor:
    """Rows repeated per frame, [B * F, ...], as [B, F, ...]; other tensors as they are."""
    if tensor.shape[0] == num_samples:
        return tensor
    return tensor.unflatten(0, (num_samples, -1))


def ungrouped(tensor: Tensor, like: Tensor) -> Tensor:
    """The inverse of `grouped`; `like` is the tensor as the pipeline passed it."""
    return tensor.flatten(0, 1) if tensor.ndim > like.ndim else tensor
