"""How a branch changes a transformer's forward, for the length of one model call."""

from vidcfg.pipelines.changes.grid import token_grid
from vidcfg.pipelines.changes.hooks import perturbed
from vidcfg.pipelines.changes.layers import Layer, find_layers
from vidcfg.pipelines.changes.saliency import Saliency, watched

__all__ = ["Layer", "Saliency", "find_layers", "perturbed", "token_grid", "watched"]
