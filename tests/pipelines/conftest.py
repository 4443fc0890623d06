import pytest
import torch


def _wake(model):
    """Replace weights that start as zero, so that every input has an effect on the output."""
    for parameter in model.parameters():
        if float(parameter.detach().abs().max()) == 0:
            torch.nn.init.normal_(parameter, std=0.2)
    return model


@pytest.fixture
def wake():
    return _wake
