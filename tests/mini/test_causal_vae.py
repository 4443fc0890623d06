import numpy as np
import pytest
import torch

from vidcfg.mini.codec import CausalVAE, check_length
from vidcfg.mini.pipeline import MINI_PATH
from vidcfg.mini.shapes import sample_clip


def clips(count, seed=5, **sizes):
    frames = [sample_clip((seed, i), held_out=None, **sizes).frames for i in range(count)]
    return torch.from_numpy(np.stack(frames)).permute(0, 4, 1, 2, 3).float() / 127.5 - 1


def small(wake, **settings):
    torch.manual_seed(0)
    return wake(CausalVAE(latent_channels=5, decoder_width=6, decoder_layers=2, **settings)).eval()


@pytest.fixture(scope="module")
def codec():
    return CausalVAE.from_pretrained(MINI_PATH, subfolder="vae", torch_dtype=torch.float32).eval()


@pytest.mark.parametrize(("frames", "latent"), [(1, 1), (5, 2), (17, 5)])
def test_one_plus_four_k_frames_become_one_plus_k_latents(wake, frames, latent):
    vae = small(wake)
    video = torch.randn(2, 3, frames, 8, 12)
    z = vae.encode(video).latents
    assert z.shape == (2, 5, latent, 2, 3)
    assert vae.decode(z).sample.shape == video.shape


def test_changing_latent_k_changes_exactly_its_own_frames(wake):
    vae = small(wake)
    z = torch.randn(2, 5, 4, 2, 3)
    before = vae.decode(z).sample
    for k in range(4):
        changed = z.clone()
        changed[:, :, k] += 1.0
        difference = (vae.decode(changed).sample - before).abs().amax(dim=(0, 1, 3, 4))
        own = [0] if k == 0 else list(range(4 * (k - 1) + 1, 4 * k + 1))
        assert torch.nonzero(difference).flatten().tolist() == own


def test_changing_a_frame_changes_exactly_its_own_latent(wake):
    vae = small(wake)
    video = torch.randn(2, 3, 13, 8, 12)
    before = vae.encode(video).latents
    for frame, k in ((0, 0), (1, 1), (4, 1), (5, 2), (12, 3)):
        changed = video.clone()
        changed[:, :, frame] += 1.0
        difference = (vae.encode(changed).latents - before).abs().amax(dim=(0, 1, 3, 4))
        assert torch.nonzero(difference).flatten().tolist() == [k]


def test_embedded_codec_keeps_the_temporal_map(codec):
    z = codec.encode(clips(2)).latents
    before = codec.decode(z).sample
    z[:, :, 3] += 0.5
    difference = (codec.decode(z).sample - before).abs().amax(dim=(0, 1, 3, 4))
    assert torch.nonzero(difference).flatten().tolist() == [9, 10, 11, 12]


def test_embedded_codec_restores_clips_of_unseen_seeds_to_30_db(codec):
    video = clips(24)
    with torch.no_grad():
        error = (codec(video).sample.clamp(-1, 1) - video) / 2
    psnr = -10 * error.square().mean((1, 2, 3, 4)).log10()
    assert psnr.mean() >= 30


def test_embedded_latents_have_about_unit_variance(codec):
    spread = codec.encode(clips(64)).latents.std(dim=(0, 2, 3, 4))
    assert spread.min() > 0.5
    assert spread.max() < 2.0


def test_lengths_and_sizes_that_do_not_fit_name_the_fix(wake):
    vae = small(wake)
    with pytest.raises(ValueError, match="num_frames is 16, .* 4k \\+ 1 frames. Use 13 or 17"):
        vae.encode(torch.zeros(2, 3, 16, 8, 12))
    with pytest.raises(ValueError, match="9 x 12 pixels.*multiples of 4"):
        vae.encode(torch.zeros(2, 3, 5, 9, 12))


@pytest.mark.parametrize(("length", "near"), [(80, "77 or 81"), (2, "1 or 5")])
def test_nearest_lengths(length, near):
    check_length(81, 4)
    with pytest.raises(ValueError, match=f"num_frames is {length}, .* Use {near}"):
        check_length(length, 4)


def test_saved_codec_loads_with_the_same_weights(wake, tmp_path):
    vae = small(wake)
    vae.save_pretrained(tmp_path)
    loaded = CausalVAE.from_pretrained(tmp_path)
    for name, value in vae.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name
    video = torch.randn(2, 3, 5, 8, 12)
    # Convolutions choose their kernel by memory alignment.
    torch.testing.assert_close(loaded(video).sample, vae(video).sample, atol=1e-5, rtol=1e-5)
