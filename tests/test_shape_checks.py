"""Wrong shapes and types in the package are errors under the tests (helpers/shape_checks.py)."""

from dataclasses import dataclass

import pytest
import torch
from beartype.roar import BeartypeCallHintViolation
from jaxtyping import Float
from shape_checks import checked
from torch import Tensor

from vidcfg.guidance.layout import FrameLayout


@checked
def pair(a: Float[Tensor, "B F"], b: Float[Tensor, "B C"]) -> Float[Tensor, "C F"]:
    return a if len(a) == 3 else b.T @ a


@checked
@dataclass
class Box:
    side: int
    rows_BF: Float[Tensor, "B F"] | None = None

    @staticmethod
    @checked
    def halves(side: int) -> int:
        return side / 2


def test_an_axis_has_one_size_in_a_call_and_another_in_the_next():
    assert pair(torch.ones(2, 3), torch.ones(2, 4)).shape == (4, 3)
    assert pair(torch.ones(4, 2), torch.ones(4, 5)).shape == (5, 2)
    with pytest.raises(BeartypeCallHintViolation, match="parameter b"):
        pair(torch.ones(2, 3), torch.ones(4, 2))
    with pytest.raises(BeartypeCallHintViolation, match="return"):
        pair(torch.ones(3, 2), torch.ones(3, 4))


def test_fields_and_types_without_an_array_are_checked_too():
    assert Box(2, torch.ones(2, 3)).side == 2
    for wrong in ({"side": "2"}, {"side": 2, "rows_BF": torch.ones(3)}):
        with pytest.raises(BeartypeCallHintViolation):
            Box(**wrong)
    with pytest.raises(BeartypeCallHintViolation, match="return"):
        Box.halves(3)


def test_the_package_is_checked():
    with pytest.raises(BeartypeCallHintViolation):
        FrameLayout("BCFHW").frames(torch.ones(2, 3, 4, 5, 6), "4")
