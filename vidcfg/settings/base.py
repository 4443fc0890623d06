"""What every configuration model shares: frozen, strict, nothing extra, errors in plain words."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from inspect import Parameter, Signature, get_annotations
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    ValidationError,
    model_serializer,
    model_validator,
)
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from vidcfg.plugins import load_plugins
from vidcfg.settings.errors import Path, dotted
from vidcfg.settings.strict_yaml import dump_yaml
from vidcfg.settings.validation import number_advice, python_error


@dataclass(frozen=True)
class Finding:
    """What one setting makes of another: an error, or a note where it is harmless.

    `message` follows the dotted path: `is 1.0, so ...`.
    """

    path: Path
    message: str
    is_error: bool = True

    def below(self, *above: str | int) -> "Finding":
        return Finding((*above, *self.path), self.message, self.is_error)

    def __str__(self) -> str:
        return f"{dotted(self.path)} {self.message}".lstrip()


class Shown(type(BaseModel)):
    """`help` of a setting, and completion, leave out what every pydantic model has.

    The signature has names and defaults, without the annotations that check them.
    """

    def __dir__(cls) -> list[str]:
        known = {name for base in cls.__mro__[:-2] for name in vars(base)}
        return [name for name in known - {"model_config", *dir(BaseModel)} if name[0] != "_"]

    @property
    def __signature__(cls) -> Signature:
        shown = []
        for name, field in cls.model_fields.items():
            default = getattr(field.default, "kind", field.default)
            given = {} if field.is_required() else {"default": default}
            kind = Parameter.KEYWORD_ONLY if shown else Parameter.POSITIONAL_OR_KEYWORD
            shown.append(Parameter(name, kind, **given))
        return Signature(shown)

    @__signature__.setter
    def __signature__(cls, made: Any) -> None:
        """The one that pydantic makes is not kept."""


class ConfigModel(BaseModel, metaclass=Shown):
    """A part of a configuration. Values are checked when it is made and never change after.

    Made in Python it takes the same shorthands as in YAML, values without a name in the order in
    which its class writes them, and raises `ConfigError`.
    """

    model_config = ConfigDict(
        frozen=True,
        strict=True,
        extra="forbid",
        allow_inf_nan=False,
        validate_by_name=True,
        validate_by_alias=True,
        protected_namespaces=(),
        defer_build=True,
    )

    def __init__(self, /, *values: Any, **data: Any) -> None:
        if values:
            order = [n for c in type(self).__mro__ for n in get_annotations(c)]
            names = [name for name in order if name in type(self).model_fields]
            data = dict(zip(names[: len(values)], values, strict=True)) | data
        data = plain(data)
        try:
            self.__pydantic_validator__.validate_python(data, self_instance=self)
        except ValidationError as error:
            raise python_error(error, data, type(self)) from None

    # Without this mark pydantic calls __init__ for nested parts too, and their location is lost.
    __init__.__pydantic_base_init__ = True

    def findings(self) -> Iterator[Finding]:
        """What this part's values make of each other; parts inside report their own."""
        return iter(())

    @model_validator(mode="after")
    def _refuse_errors(self) -> "ConfigModel":
        errors = [finding for finding in self.findings() if finding.is_error]
        if errors:
            raise PydanticCustomError("findings", "inconsistent values", {"findings": errors})
        return self

    @property
    def notes(self) -> list[str]:
        """What is set but harmless to ignore, one sentence each, parts inside included."""
        return [str(finding) for finding in _all_findings(self) if not finding.is_error]

    def to_dict(self) -> dict[str, Any]:
        """Plain data in the words of the YAML file, every default written out."""
        return self.model_dump(mode="json", by_alias=True)

    def to_yaml(self) -> str:
        """`to_dict` as YAML, which loads back to an equal configuration."""
        return dump_yaml(self.to_dict())

    def replace(self, **changes: Any) -> "ConfigModel":
        """A checked copy with some values changed."""
        kept = {name: getattr(self, name) for name in type(self).model_fields}
        return type(self)(**{**kept, **changes})

    def model_copy(
        self, *, update: dict[str, Any] | None = None, deep: bool = False
    ) -> "ConfigModel":
        """A copy with some values changed unchecked; what was derived from the old ones is not
        copied."""
        copied = super().model_copy(update=update, deep=deep)
        for name in copied.__dict__.keys() - type(self).model_fields.keys():
            del copied.__dict__[name]
        return copied


def _all_findings(part: Any) -> Iterator[Finding]:
    parts = part.items() if isinstance(part, dict) else ()
    if isinstance(part, ConfigModel):
        yield from part.findings()
        fields = type(part).model_fields.items()
        parts = [(field.alias or name, getattr(part, name)) for name, field in fields]
    elif isinstance(part, tuple | list):
        parts = enumerate(part)
    for key, inner in parts:
        yield from (finding.below(key) for finding in _all_findings(inner))


def refuse(message: str) -> PydanticCustomError:
    """An error for a validator to raise; `message` follows `<path> is <value>, `."""
    return PydanticCustomError("advice", message)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Range:
    """Checks that a number is from `low` to `high`; `above` makes the lower end open.

    Written in the type: `Annotated[float, Range(0, 1)]`.
    """

    low: float | int = -math.inf
    high: float | int = math.inf
    above: bool = False

    def __call__(self, value):
        if value < self.low or value > self.high or (self.above and value == self.low):
            raise refuse(f"but must be {self.words}.")
        return value

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler):
        return core_schema.no_info_after_validator_function(self, handler(source))

    @property
    def words(self) -> str:
        if self.above:
            top = "" if self.high == math.inf else f" and at most {self.high:g}"
            return f"above {self.low:g}{top}"
        bounded = f"from {self.low:g} to {self.high:g}"
        return f"at least {self.low:g}" if self.high == math.inf else bounded


def as_tuple(value: Any) -> Any:
    """Lists become tuples, which strict mode would refuse."""
    return tuple(value) if isinstance(value, list) else value


def plain(value: Any) -> Any:
    """Numbers and lists for arrays and tensors, those in lists and dictionaries too."""
    if isinstance(value, dict):
        return {name: plain(part) for name, part in value.items()}
    if type(value) in (list, tuple):
        return type(value)(map(plain, value))
    return value.tolist() if hasattr(value, "tolist") else value


AsTuple = BeforeValidator(as_tuple)
First, Second = TypeVar("First"), TypeVar("Second")
Several = Annotated[tuple[First, ...], Field(strict=False), AsTuple]
AtLeastOne = Annotated[tuple[First, ...], Field(strict=False, min_length=1), AsTuple]
Pair = Annotated[tuple[First, Second], Field(strict=False), AsTuple]
Number = Annotated[float, Range(-1000, 1000)]
"""A scale or weight as a reader writes it: finite and of a sensible size."""
Fraction = Annotated[float, Range(0, 1)]
Positive = Annotated[float, Range(0, 1e9, above=True)]


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
        """The mapping that a shorter way of writing stands for; other values as they are.

        Arrays and tensors come as numbers and lists.
        """
        return {"kind": value} if isinstance(value, str) else value

    @classmethod
    def knows(cls, kind: Any) -> bool:
        """Whether there is such a kind, among those of installed plugins too."""
        if isinstance(kind, str) and kind not in cls.kinds:
            load_plugins()
        return isinstance(kind, str) and kind in cls.kinds

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
        kind = value.get("kind")
        if not cls.knows(kind):
            context = {"kind": kind, "kinds": list(cls.kinds)}
            what = ("unknown_kind", "no kind") if "kind" in value else ("no_kind", "has no kind")
            raise PydanticCustomError(*what, context)
        given = {name: part for name, part in value.items() if name != "kind"}
        # A file writes keys alone; in Python the names of fields serve too.
        return cls.kinds[kind].__pydantic_validator__.validate_python(
            given, context=info.context, by_alias=True, by_name=info.context is None
        )

    @model_serializer(mode="wrap")
    def _written(self, handler: Callable) -> dict[str, Any]:
        return {"kind": self.kind, **handler(self)}

    @classmethod
    def named(cls, kind: str) -> Callable[[type], type]:
        """The decorator that enters a class under its name in the YAML: `@register_rule("half")`.

        Raises:
            ValueError: if another class has the name.
        """

        def enter(made: type) -> type:
            taken = cls.kinds.get(kind)
            if taken is not None and taken.__qualname__ != made.__qualname__:
                raise ValueError(f"'{kind}' is taken by {taken.__qualname__}. Use another name.")
            cls.kinds[kind] = made
            made.kind = kind
            return made

        return enter
