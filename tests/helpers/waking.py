"""Weights that start as zero, given a value: every input then has an effect on the output."""

import torch


def wake(model):
    """The model itself, with the weights that are all zero replaced by small random ones."""
    for parameter in model.parameters():
        if float(parameter.detach().abs().max()) == 0:
            torch.nn.init.normal_(parameter, std=0.2)
    return model
