"""What a model accepts at a path: to name the nearest key and to tell what is missing."""

import types
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from vidcfg.settings.errors import Path

ANY_INDEX = "*"


def keys_of(model: type[BaseModel]) -> list[str]:
    """The keys that a file uses for a model, `kind` first."""
    keys = [field.alias or name for name, field in model.model_fields.items()]
    return keys if kind_of(model) is None or "kind" in keys else ["kind", *keys]


def kind_of(model: type[BaseModel]) -> str | None:
    """The word that picks this model among several, None for a model that stands alone."""
    field = model.model_fields.get("kind")
    if field and get_origin(field.annotation) is Literal:
        return get_args(field.annotation)[0]
    return model.kind if hasattr(model, "kinds") else None


def models_in(annotation: Any) -> list[type[BaseModel]]:
    """The models that a value of this annotation can be, not those inside lists and mappings."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        kinds = vars(annotation).get("kinds")
        return [annotation] if kinds is None else list(kinds.values())
    if get_origin(annotation) is Annotated:
        return models_in(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return [model for part in get_args(annotation) for model in models_in(part)]
    return []


def items_in(annotation: Any, *, of_mappings: bool = True) -> list[Any]:
    """The annotations that the items of a list, or the values of a mapping, can have."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Annotated, Union, types.UnionType):
        parts = arguments[:1] if origin is Annotated else arguments
        return [i for part in parts for i in items_in(part, of_mappings=of_mappings)]
    if origin in (tuple, list):
        return [part for part in arguments if part is not Ellipsis]
    return [arguments[1]] if origin in (dict, Mapping) and of_mappings else []


def models_at(model: type[BaseModel], data: Any, path: Path) -> list[type[BaseModel]]:
    """The models that may govern the mapping at `path`; `kind` in the data narrows the choice."""
    annotations, node = [model], data
    for part in path:
        fields = [_field(found, part) for found in _narrowed(annotations, node)]
        inner = [field.annotation for field in fields if field]
        annotations = inner or [item for a in annotations for item in items_in(a)]
        try:
            node = node[part]
        except (LookupError, TypeError):
            node = None
    return _narrowed(annotations, node)


def field_at(model: type[BaseModel], data: Any, path: Path) -> FieldInfo | None:
    """The field that a key at `path` fills, None where no model has it."""
    fields = (_field(found, path[-1]) for found in models_at(model, data, path[:-1]))
    return next(filter(None, fields), None)


def all_paths(model: type[BaseModel]) -> list[Path]:
    """Every path that some file could have, list indices as `*`, shortest first."""
    return sorted(set(_paths(model, ())), key=len)


def _paths(model: type[BaseModel], above: Path) -> Iterator[Path]:
    if len(above) > 12:
        return
    yield from ((*above, key) for key in keys_of(model))
    for name, field in model.model_fields.items():
        here = (*above, field.alias or name)
        for inner in models_in(field.annotation):
            yield from _paths(inner, here)
        for item in items_in(field.annotation, of_mappings=False):
            for inner in models_in(item):
                yield from _paths(inner, (*here, ANY_INDEX))


def _field(model: type[BaseModel], key: str | int) -> FieldInfo | None:
    fields = model.model_fields.items()
    return next((field for name, field in fields if key in (name, field.alias)), None)


def _narrowed(annotations: list[Any], node: Any) -> list[type[BaseModel]]:
    models = list(dict.fromkeys(m for a in annotations for m in models_in(a)))
    kind = node.get("kind") if isinstance(node, Mapping) else None
    chosen = [model for model in models if kind is not None and kind_of(model) == kind]
    return chosen or models
