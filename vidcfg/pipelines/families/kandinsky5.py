"""Kandinsky 5, text and image to video: channels last, text positions as long as each text."""

import torch

from vidcfg.pipelines.family import Family


def _text_positions(arguments) -> torch.Tensor:
    text = arguments["encoder_hidden_states"]
    return torch.arange(text.shape[1], device=text.device)


FAMILY = Family(
    name="kandinsky5",
    pipelines=("Kandinsky5T2VPipeline", "Kandinsky5I2VPipeline"),
    layout="BFHWC",
    frame_rule="4k + 1",
    tested="exact",
    texts={
        "encoder_hidden_states": "prompt_embeds_qwen",
        "pooled_projections": "prompt_embeds_clip",
    },
    encoded=("prompt_embeds_qwen", "prompt_embeds_clip", None),
    constants=("visual_rope_pos", "sparse_params.sta_mask"),
    from_texts={"text_rope_pos": _text_positions},
    size_multiple=16,
)
