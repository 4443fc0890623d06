"""Words of the YAML that name one of several classes: schedules, frame weights, rules."""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from pydantic import GetCoreSchemaHandler, model_serializer
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from vidcfg.settings.base import ConfigModel, refuse
from vidcfg.settings.validation import number_advice


class Kinds(ConfigModel):
    """A setting that comes in kinds, written `{kind: name, ...}`.

    A direct subclass that has `kinds` opens a registry: a field of that type takes every class
    that `named` has entered, those of user code included, with the same errors as for our own.

    kind    the name of a class that was entered
    shapes  what a value may look like, for the error of one that looks like nothing
    """

    kinds: ClassVar[dict[str, type["Kinds"]]]
    kind: ClassVar[str] = ""
    shapes: ClassVar[str] = "a mapping with a 'kind'."

    @classmethod
    def from_short(cls, value: Any) -> Any:
        """The mapping that a shorter way of writing stands for; other values as they are."""
        return {"kind": value} if isinstance(value, str) else value

    @classmethod
    def __get_pydantic_core_schema__(
        cls, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        if "kinds" not in vars(cls):
            return handler(source)
        return core_schema.with_info_plain_validator_function(
            cls._read,
            serialization=core_schema.plain_serializer_function_ser_schema(ConfigModel.to_dict),
        )

    @classmethod
    def _read(cls, value: Any, info: Any) -> "Kinds":
        """The checked setting that a value of the file, or of Python, stands for."""
        value = cls.from_short(value)
        if isinstance(value, cls):
            return value
        if not isinstance(value, Mapping):
            raise refuse(f"but must be {cls.shapes}{number_advice(value)}")
        known = list(cls.kinds)
        if "kind" not in value:
            raise PydanticCustomError("no_kind", "has no kind", {"kinds": known})
        kind = value["kind"]
        if not isinstance(kind, str) or kind not in known:
            raise PydanticCustomError("unknown_kind", "no kind", {"kind": kind, "kinds": known})
        given = {name: part for name, part in value.items() if name != "kind"}
        # A file writes keys alone; in Python the names of fields serve too.
        return cls.kinds[kind].__pydantic_validator__.validate_python(
            given, context=info.context, by_alias=True, by_name=info.context is None
        )

    @model_serializer(mode="wrap")
    def _written(self, handler: Callable) -> dict[str, Any]:
        return {"kind": self.kind, **handler(self)}


def named(base: type[Kinds]) -> Callable[[str], Callable[[type], type]]:
    """The decorator that enters a class under its name in the YAML: `@rule("half")`.

    Raises:
        ValueError: if another class has the name.
    """

    def with_name(kind: str) -> Callable[[type], type]:
        def enter(cls: type) -> type:
            taken = base.kinds.get(kind)
            if taken is not None and taken.__qualname__ != cls.__qualname__:
                raise ValueError(f"'{kind}' is taken by {taken.__qualname__}. Use another name.")
            base.kinds[kind] = cls
            cls.kind = kind
            return cls

        return enter

    return with_name
