"""How a branch changes a transformer's forward, for the length of one model call."""

from vidcfg.models.perturbations.grid import token_grid
from vidcfg.models.perturbations.hooks import perturbed
from vidcfg.models.perturbations.layers import Layer, find_layers
from vidcfg.models.perturbations.saliency import Saliency, watched

__all__ = ["Layer", "Saliency", "find_layers", "perturbed", "token_grid", "watched"]
