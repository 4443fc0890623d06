"""What a model accepts at a path: to name the nearest key and to tell what is missing."""

import types
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from vidcfg.settings.errors import Path

ANY_INDEX = "*"


def key_of(name: str, field: FieldInfo) -> str:
    """The key that a file uses for a field."""
    return field.alias or name


def keys_of(model: type[BaseModel]) -> list[str]:
    return [key_of(name, field) for name, field in model.model_fields.items()]


def kind_of(model: type[BaseModel]) -> str | None:
    """The word that picks this model out of a union, None for a model without `kind`."""
    field = model.model_fields.get("kind")
    return (
        get_args(field.annotation)[0]
        if field and get_origin(field.annotation) is Literal
        else None
    )


def models_in(annotation: Any) -> list[type[BaseModel]]:
    """The models that a value of this annotation can be, not those inside lists and mappings."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if get_origin(annotation) is Annotated:
        return models_in(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return [model for part in get_args(annotation) for model in models_in(part)]
    return []


def items_in(annotation: Any, *, of_mappings: bool = True) -> list[Any]:
    """The annotations that the items of a list, or the values of a mapping, can have."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return items_in(arguments[0], of_mappings=of_mappings)
    if origin in (Union, types.UnionType):
        return [i for part in arguments for i in items_in(part, of_mappings=of_mappings)]
    if origin in (tuple, list):
        return [part for part in arguments if part is not Ellipsis]
    if origin in (dict, Mapping) and of_mappings:
        return [arguments[1]]
    return []


def models_at(model: type[BaseModel], data: Any, path: Path) -> list[type[BaseModel]]:
    """The models that may govern the mapping at `path`; `kind` in the data narrows the choice."""
    annotations, node = [model], data
    for part in path:
        models = _narrowed(annotations, node)
        inner = [
            field.annotation
            for found in models
            for name, field in found.model_fields.items()
            if part in (name, field.alias)
        ]
        annotations = inner or [item for a in annotations for item in items_in(a)]
        node = _child(node, part)
    return _narrowed(annotations, node)


def field_at(model: type[BaseModel], data: Any, path: Path) -> FieldInfo | None:
    """The field that a key at `path` fills, None where no model has it."""
    for found in models_at(model, data, path[:-1]):
        for name, field in found.model_fields.items():
            if path[-1] in (name, field.alias):
                return field
    return None


def all_paths(model: type[BaseModel]) -> list[Path]:
    """Every path that some file could have, list indices as `*`, shortest first."""
    return sorted(set(_paths(model, ())), key=len)


def _paths(model: type[BaseModel], above: Path) -> Iterator[Path]:
    if len(above) > 12:
        return
    for name, field in model.model_fields.items():
        here = (*above, key_of(name, field))
        yield here
        for inner in models_in(field.annotation):
            yield from _paths(inner, here)
        for item in items_in(field.annotation, of_mappings=False):
            for inner in models_in(item):
                yield from _paths(inner, (*here, ANY_INDEX))


def _narrowed(annotations: list[Any], node: Any) -> list[type[BaseModel]]:
    models = list(dict.fromkeys(m for a in annotations for m in models_in(a)))
    kind = node.get("kind") if isinstance(node, Mapping) else None
    chosen = [model for model in models if kind is not None and kind_of(model) == kind]
    return chosen or models


def _child(node: Any, part: str | int) -> Any:
    if isinstance(node, Mapping):
        return node.get(part)
    if isinstance(node, list | tuple) and isinstance(part, int) and part < len(node):
        return node[part]
    return None
