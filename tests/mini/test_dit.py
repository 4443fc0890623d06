import pytest
import torch

from vidcfg.mini.model import STDiT, timestep_embedding


def batch(sizes=(3, 4, 5), size=2, seed=0, length=7):
    generator = torch.Generator().manual_seed(seed)
    latents = torch.randn(size, 4, *sizes, generator=generator)
    time = 1000 * torch.rand(size, generator=generator)
    text = torch.randn(size, length, 16, generator=generator)
    mask = torch.arange(length)[None] < torch.tensor([length - 3, length])[:size, None]
    return latents, time, text, mask


@pytest.mark.parametrize("attention", ["full", "factorised"])
@pytest.mark.parametrize("sizes", [(3, 4, 5), (1, 6, 2)])
def test_output_has_the_shape_of_the_latents(wake, attention, sizes):
    model = wake(STDiT(4, width=24, num_layers=2, num_heads=2, text_width=16, attention=attention))
    latents, time, text, mask = batch(sizes)
    assert model(latents, time, text, mask).sample.shape == latents.shape


def test_a_new_model_predicts_zero():
    model = STDiT(4, width=24, num_layers=2, num_heads=2, text_width=16)
    latents, time, text, mask = batch()
    assert model(latents, time, text, mask, return_dict=False)[0].abs().max() == 0


def test_padding_tokens_do_not_change_the_result(tiny_transformer):
    latents, time, text, mask = batch()
    before = tiny_transformer(latents, time, text, mask).sample
    text = torch.where(mask[:, :, None], text, torch.full_like(text, 5.0))
    longer = torch.cat([text, torch.ones(2, 4, 16)], dim=1)
    mask = torch.cat([mask, torch.zeros(2, 4, dtype=torch.bool)], dim=1)
    after = tiny_transformer(latents, time, longer, mask).sample
    # Sums over another number of zero terms round differently.
    torch.testing.assert_close(after, before, atol=1e-5, rtol=1e-4)


def test_a_sample_does_not_depend_on_its_batch_neighbours(tiny_transformer):
    latents, time, text, mask = batch()
    together = tiny_transformer(latents, time, text, mask).sample
    for b in range(2):
        alone = tiny_transformer(*(x[b : b + 1] for x in (latents, time, text, mask))).sample
        # Matrix products of another batch size may sum in another order.
        torch.testing.assert_close(alone, together[b : b + 1], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("what", ["time", "text", "latents"])
def test_every_input_has_an_effect(tiny_transformer, what):
    latents, time, text, mask = batch()
    values = {"latents": latents, "time": time, "text": text}
    before = tiny_transformer(latents, time, text, mask).sample
    values[what] = values[what] * 0.5
    after = tiny_transformer(values["latents"], values["time"], values["text"], mask).sample
    assert (after - before).abs().amax(dim=(1, 2, 3, 4)).min() > 1e-4


def reach(attention, layers, wake):
    """Which latent positions change when position (1, 2, 3) of the input changes."""
    torch.manual_seed(0)
    model = STDiT(4, width=24, num_layers=layers, num_heads=2, text_width=16, attention=attention)
    model = wake(model).eval()
    latents, time, text, mask = batch()
    changed = latents.clone()
    changed[:, :, 1, 2, 3] += 1.0
    difference = model(changed, time, text, mask).sample - model(latents, time, text, mask).sample
    return difference.abs().amax(dim=(0, 1)) > 0


def test_first_factorised_block_stays_within_its_frame(wake):
    changed = reach("factorised", 1, wake)
    assert changed[1].all()
    assert not changed[0].any()
    assert not changed[2].any()


def test_two_factorised_blocks_and_one_full_block_reach_every_position(wake):
    assert reach("factorised", 2, wake).all()
    assert reach("full", 1, wake).all()


def test_unknown_layout_and_backend_list_what_is_allowed():
    with pytest.raises(ValueError, match="Use one of: full, factorised"):
        STDiT(attention="both")
    with pytest.raises(ValueError, match="Use one of: sdpa, math, xformers"):
        STDiT(attention_backend="flash")


def test_choosing_xformers_for_a_model_on_cpu_says_what_to_do(tiny_transformer):
    with pytest.raises(ValueError, match="Use attention_backend: sdpa, or move the model to CUDA"):
        tiny_transformer.set_attention_backend("xformers")


def test_math_and_sdpa_backends_agree(tiny_transformer):
    values = batch()
    before = tiny_transformer(*values).sample
    tiny_transformer.set_attention_backend("math")
    torch.testing.assert_close(tiny_transformer(*values).sample, before, atol=1e-5, rtol=1e-4)


def test_saved_transformer_loads_bit_for_bit(tiny_transformer, tmp_path):
    tiny_transformer.save_pretrained(tmp_path)
    loaded = STDiT.from_pretrained(tmp_path)
    values = batch()
    assert torch.equal(loaded(*values).sample, tiny_transformer(*values).sample)


def test_timestep_embedding_opens_with_the_cosine_of_one_radian_per_thousand():
    embedding = timestep_embedding(torch.tensor([0.0, 250.0, 1000.0]), 8)
    expected = torch.cos(torch.tensor([0.0, 0.25, 1.0]))
    torch.testing.assert_close(embedding[:, 0], expected)
    torch.testing.assert_close(embedding[:, 4] ** 2 + embedding[:, 0] ** 2, torch.ones(3))
