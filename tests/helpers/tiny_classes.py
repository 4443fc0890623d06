"""Every further pipeline class with tiny random weights, by its name and what is particular."""

from collections.abc import Callable

from class_checks import TinyClass
from tiny_cosmos import COSMOS
from tiny_more import MORE
from tiny_twins import TWINS

CLASSES: dict[str, Callable[[], TinyClass]] = TWINS | MORE | COSMOS
