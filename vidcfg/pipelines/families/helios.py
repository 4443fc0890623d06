"""Helios: Wan in chunks of a fixed number of latents, each in a loop of its own, decoded alone."""

from dataclasses import replace

import numpy as np

from vidcfg.pipelines.families import wan
from vidcfg.pipelines.family import ONE_MODEL, modular

_HISTORY = ("latents_history_short", "latents_history_mid", "latents_history_long")


def _chunk(pipe, call, number: int) -> tuple[int, np.ndarray]:
    length = pipe.vae_scale_factor_temporal * (call["num_latent_frames_per_chunk"] - 1) + 1
    num_chunks = max(1, -(-call["num_frames"] // length))
    return num_chunks * length, np.arange(length) + number * length


FAMILY = replace(
    wan.FAMILY,
    name="helios",
    pipelines=("HeliosPipeline",),
    frame_rule="4k + 1 in a chunk",
    **ONE_MODEL,
    per_sample=("timestep", *_HISTORY),
    constants=("indices_hidden_states", *(f"indices_{name}" for name in _HISTORY)),
    part=_chunk,
)

MODULAR = modular(FAMILY, "HeliosModularPipeline")
