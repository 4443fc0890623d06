"""Tiny untrained models, shared by the tests of vidcfg.mini."""

import pytest
import torch
from waking import wake as _wake


@pytest.fixture
def tiny_transformer():
    from vidcfg.mini.model import STDiT

    torch.manual_seed(0)
    model = STDiT(in_channels=4, width=24, num_layers=2, num_heads=2, text_width=16)
    return _wake(model).eval()


@pytest.fixture
def tiny_pipeline(tiny_transformer):
    from vidcfg.mini.codec import CausalVAE
    from vidcfg.mini.pipeline import MiniVideoPipeline
    from vidcfg.mini.scheduler import FlowMatchEuler
    from vidcfg.mini.text import TextEncoder, build_tokenizer

    torch.manual_seed(1)
    tokenizer = build_tokenizer()
    pipe = MiniVideoPipeline(
        transformer=tiny_transformer,
        vae=CausalVAE(latent_channels=4, decoder_width=8, decoder_layers=1),
        text_encoder=TextEncoder(tokenizer.get_vocab_size(), width=16, num_heads=2),
        tokenizer=tokenizer,
        scheduler=FlowMatchEuler(shift=2.0),
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe
