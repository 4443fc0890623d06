"""The checks of shapes and types that run under the tests, at half their price.

`--jaxtyping-packages` puts `@jaxtyping.jaxtyped` on every function of the package. Its own version
binds the signature of each call and checks the arguments twice, which takes most of the time of a
test on small tensors. Here beartype checks arguments and result once, and only functions whose
annotations name an array open a scope in which an axis has one size.
"""

import dataclasses
import functools
import inspect
import typing

import jaxtyping
from beartype import beartype

_scope = jaxtyping.jaxtyped
_COMPILED = ("vidcfg.guidance.loops", "vidcfg.guidance.kernels")
"""Whose functions others compile from their source."""


def checked(what):
    """`what`, a function, method, property or class, with its annotations checked by beartype.

    Of a class the `__init__` that `dataclass` wrote is checked, as jaxtyping does; its methods
    come here by themselves.
    """
    if getattr(what, "__module__", "") in _COMPILED:
        return what
    if inspect.isclass(what):
        if dataclasses.is_dataclass(what) and "__init__" in vars(what):
            what.__init__ = checked(what.__init__)
        return what
    if isinstance(what, (classmethod, staticmethod)):
        return type(what)(checked(what.__func__))
    if isinstance(what, property):
        return property(*(f and checked(f) for f in (what.fget, what.fset, what.fdel)))
    check = beartype(what)
    if not any(map(_names_an_array, getattr(what, "__annotations__", {}).values())):
        return check

    @functools.wraps(what)
    def in_one_scope(*args, **kwargs):
        with _scope("context"):
            return check(*args, **kwargs)

    return in_one_scope


def _names_an_array(annotation):
    if inspect.isclass(annotation) and issubclass(annotation, jaxtyping.AbstractArray):
        return True
    # Text that only the running program can look up may name one.
    return isinstance(annotation, str) or any(map(_names_an_array, typing.get_args(annotation)))
