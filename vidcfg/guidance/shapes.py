"""Shape annotations that cost nothing where nothing checks them.

jaxtyping takes a fifth of the start-up of a command. Tests load it before vidcfg, and get its own
types from here; elsewhere the names stand for anything.
"""

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING or "jaxtyping" in sys.modules:
    from jaxtyping import Bool, Float, Float64
else:

    class _Anything:
        def __class_getitem__(cls, shape: Any) -> Any:
            return Any

    Bool = Float = Float64 = _Anything

__all__ = ["Bool", "Float", "Float64"]
