"""Frame maps against loops, and against what the decoders and pipelines of diffusers do."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vidcfg.guidance.frame_map import CausalMap, CogVideoXMap, OneToOneMap
from vidcfg.guidance.frames import Keyframes

MAPS = [
    CausalMap(4),
    CausalMap(6),
    CausalMap(8),
    CogVideoXMap(),
    CogVideoXMap(patch_frames=2),
    CogVideoXMap(patch_frames=3),
    OneToOneMap(),
]
ANY_MAP = st.sampled_from(MAPS)


def valid_length(frame_map, seed):
    """A length that the map makes, found by asking for the neighbours of `seed`."""
    for length in range(seed, seed + 2 * 8 + 1):
        try:
            frame_map.check(length)
        except ValueError:
            continue
        return length
    raise AssertionError("no valid length in two strides")


def lengths_of(frame_map, num_latents):
    """Every length of a clip whose latents, padding included, are so many."""
    made = filter(frame_map.makes, range(1, 8 * num_latents + 2))
    return [length for length in made if frame_map.num_latents(length) == num_latents]


def test_causal_latents_cover_one_pixel_and_then_a_stride_each():
    pixels = CausalMap(4).pixels_of(13)
    assert [list(group) for group in pixels] == [
        [0],
        [1, 2, 3, 4],
        [5, 6, 7, 8],
        [9, 10, 11, 12],
    ]


def test_cogvideox_latents_cover_four_pixels_each_when_even_and_one_first_when_odd():
    assert [len(group) for group in CogVideoXMap().pixels_of(16)] == [4, 4, 4, 4]
    assert [len(group) for group in CogVideoXMap().pixels_of(17)] == [1, 4, 4, 4, 4]
    assert [len(group) for group in CogVideoXMap().pixels_of(1)] == [1]


def test_cogvideox_padding_is_in_front_and_takes_the_first_decoded_weight():
    frame_map = CogVideoXMap(patch_frames=2)
    assert [len(group) for group in frame_map.pixels_of(9)] == [0, 1, 4, 4]
    curve = np.arange(9, dtype=np.float64)
    assert frame_map.reduce(curve, "mean").tolist() == [0.0, 0.0, 2.5, 6.5]
    assert frame_map.reduce(curve, "max").tolist() == [0.0, 0.0, 4.0, 8.0]
    assert frame_map.num_latents(81) == 22
    assert frame_map.num_latents(88) == 22


def test_a_padded_count_of_cogvideox_has_two_lengths_and_the_odd_one_is_the_answer():
    frame_map = CogVideoXMap(patch_frames=2)
    assert lengths_of(frame_map, 22) == [81, 88]
    assert frame_map.num_pixels(22) == 81
    assert frame_map.num_pixels(42) == 161
    with pytest.raises(ValueError, match="num_latents is 21.*multiples of 2.*Use 22"):
        frame_map.num_pixels(21)


@settings(deadline=None)
@given(frame_map=ANY_MAP, seed=st.integers(1, 120))
def test_every_pixel_belongs_to_exactly_one_latent(frame_map, seed):
    length = valid_length(frame_map, seed)
    groups = frame_map.pixels_of(length)
    assert [pixel for group in groups for pixel in group] == list(range(length))
    assert len(groups) == frame_map.num_latents(length)


@settings(deadline=None)
@given(frame_map=ANY_MAP, seed=st.integers(1, 120))
def test_lengths_and_latents_lead_back_to_each_other(frame_map, seed):
    length = valid_length(frame_map, seed)
    latents = frame_map.num_latents(length)
    options = lengths_of(frame_map, latents)
    assert length in options
    assert frame_map.num_pixels(latents) in options
    assert frame_map.num_latents(frame_map.num_pixels(latents)) == latents


@settings(deadline=None)
@given(
    frame_map=ANY_MAP,
    seed=st.integers(1, 60),
    value=st.floats(-1e6, 1e6),
    reducer=st.sampled_from(["mean", "max"]),
)
def test_a_constant_curve_stays_that_constant_to_the_bit(frame_map, seed, value, reducer):
    length = valid_length(frame_map, seed)
    reduced = frame_map.reduce(np.full((2, length), value), reducer)
    assert reduced.shape == (2, frame_map.num_latents(length))
    assert (reduced == value).all()


@pytest.mark.parametrize("value", [0.1, 0.7, 0.4])
def test_a_mean_of_six_equal_weights_is_not_rounded_away(value):
    # A plain float64 mean of six such numbers ends one bit off.
    assert (CausalMap(6).reduce(np.full((2, 13), value), "mean") == value).all()


@settings(deadline=None)
@given(
    frame_map=ANY_MAP,
    seed=st.integers(1, 60),
    picks=st.sets(st.integers(0, 10**6), min_size=1, max_size=5),
    reach=st.floats(0.5, 9),
)
def test_max_keeps_every_keyframe_at_full_weight(frame_map, seed, picks, reach):
    length = valid_length(frame_map, seed)
    keyframes = sorted({pick % length for pick in picks})
    reduced = frame_map.reduce(Keyframes(keyframes, 0.2, reach).weights(length), "max")
    for latent, group in enumerate(frame_map.pixels_of(length)):
        if any(key in group for key in keyframes):
            assert reduced[latent] == 1.0


@pytest.mark.parametrize("frame_map", MAPS, ids=repr)
def test_reduction_of_many_curves_equals_a_loop(frame_map):
    length = valid_length(frame_map, 20)
    curves = np.random.default_rng(3).random((3, length))
    groups = [list(group) for group in frame_map.pixels_of(length)]
    first = next(group for group in groups if group)
    for reducer, operation in (("mean", np.mean), ("max", np.max)):
        expected = [[operation(row[group or first]) for group in groups] for row in curves]
        # The order of the sum within a latent may differ by the last bit.
        np.testing.assert_allclose(frame_map.reduce(curves, reducer), expected, rtol=3e-16)


@pytest.mark.parametrize(
    ("frame_map", "length", "message"),
    [
        (CausalMap(4), 80, r"^video.num_frames is 80, but .* 4k \+ 1 frames. Use 77 or 81.$"),
        (CausalMap(6), 20, r"6k \+ 1 frames. Use 19 or 25.$"),
        (CausalMap(8), 2, r"8k \+ 1 frames. Use 1 or 9.$"),
        (CausalMap(4), 0, r"Use 1.$"),
        (CausalMap(4), -5, r"Use 1.$"),
        (CogVideoXMap(), 13, r"8k or 8k \+ 1 frames. Use 9 or 16.$"),
        (CogVideoXMap(patch_frames=2), 85, r"Use 81 or 88.$"),
        (OneToOneMap(), 0, r"Use 1.$"),
    ],
)
def test_a_length_that_the_vae_cannot_make_names_the_nearest_two(frame_map, length, message):
    with pytest.raises(ValueError, match=message):
        frame_map.check(length)
    with pytest.raises(ValueError, match="^num_frames is"):
        frame_map.num_latents(length)


def test_an_unknown_reducer_lists_the_known_ones():
    with pytest.raises(ValueError, match="reduce is 'min'. Use one of: mean, max"):
        CausalMap(4).reduce(np.ones(5), "min")


WAN = {
    "base_dim": 3,
    "z_dim": 16,
    "dim_mult": [1, 1, 1, 1],
    "num_res_blocks": 1,
    "temperal_downsample": [False, True, True],
}
LTX = {
    "latent_channels": 8,
    "block_out_channels": (8,) * 4,
    "decoder_block_out_channels": (8,) * 4,
    "layers_per_block": (1,) * 5,
    "decoder_layers_per_block": (1,) * 5,
    "spatio_temporal_scaling": (True, True, False, False),
    "decoder_spatio_temporal_scaling": (True, True, False, False),
    "decoder_inject_noise": (False,) * 5,
    "upsample_residual": (False,) * 4,
    "upsample_factor": (1,) * 4,
    "timestep_conditioning": False,
    "patch_size": 1,
    "patch_size_t": 1,
}
COGVIDEOX = {
    "down_block_types": ("CogVideoXDownBlock3D",) * 4,
    "up_block_types": ("CogVideoXUpBlock3D",) * 4,
    "block_out_channels": (8,) * 4,
    "latent_channels": 4,
    "layers_per_block": 1,
    "norm_num_groups": 2,
}
HUNYUAN = {
    "latent_channels": 4,
    "down_block_types": ("HunyuanVideoDownBlock3D",) * 4,
    "up_block_types": ("HunyuanVideoUpBlock3D",) * 4,
    "block_out_channels": (8,) * 4,
    "layers_per_block": 1,
    "norm_num_groups": 4,
}
MOCHI = {
    "latent_channels": 12,
    "encoder_block_out_channels": (32,) * 4,
    "decoder_block_out_channels": (32,) * 4,
    "layers_per_block": (1,) * 5,
}
# The LTX decoder of this size has a stride of 4; the published one has 8.
DECODERS = [
    ("AutoencoderKLWan", WAN, CausalMap(4)),
    ("AutoencoderKLLTXVideo", LTX, CausalMap(4)),
    ("AutoencoderKLHunyuanVideo", HUNYUAN, CausalMap(4)),
    ("AutoencoderKLMochi", MOCHI, CausalMap(6)),
    ("AutoencoderKLCogVideoX", COGVIDEOX, CogVideoXMap()),
]


def decoder(name, config):
    """A decoder of random weights that turns latents into a video, with its channel count."""
    diffusers = pytest.importorskip("diffusers")
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    vae = getattr(diffusers, name)(**config).eval()
    channels = config.get("latent_channels", config.get("z_dim"))
    vae.use_framewise_decoding = False

    def decode(latents):
        with torch.no_grad():
            return vae.decode(latents).sample

    return decode, channels


@pytest.mark.parametrize(("name", "config", "frame_map"), DECODERS, ids=[d[0] for d in DECODERS])
def test_a_map_has_the_lengths_that_the_decoder_makes(name, config, frame_map):
    import torch

    decode, channels = decoder(name, config)
    for num_latents in (1, 2, 3, 4):
        video = decode(torch.randn(1, channels, num_latents, 2, 2))
        assert video.shape[2] == frame_map.num_pixels(num_latents)


@pytest.mark.parametrize(
    ("name", "config", "frame_map"),
    [DECODERS[0], DECODERS[3], DECODERS[4]],
    ids=["wan", "mochi", "cogvideox"],
)
def test_a_latent_leaves_the_frames_before_its_chunk_untouched(name, config, frame_map):
    import torch

    decode, channels = decoder(name, config)
    latents = torch.randn(1, channels, 4, 2, 2)
    video = decode(latents)
    pixels = frame_map.pixels_of(video.shape[2])
    # CogVideoX decodes two latents at a time, so a latent may touch its chunk from its start.
    chunk = 2 if isinstance(frame_map, CogVideoXMap) else 1
    for changed in (1, 2, 3):
        other = latents.clone()
        other[:, :, changed] += 1.0
        difference = (decode(other) - video).abs().amax(dim=(0, 1, 3, 4)).tolist()
        start = pixels[changed - changed % chunk].start
        assert max(difference[:start], default=0.0) == 0.0
        assert min(difference[pixels[changed].start : pixels[changed].stop]) > 0.0


def test_cogvideox_with_temporal_patches_pads_and_drops_as_the_map_says():
    diffusers = pytest.importorskip("diffusers")
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    transformer = diffusers.CogVideoXTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=16,
        in_channels=4,
        out_channels=4,
        time_embed_dim=2,
        text_embed_dim=32,
        num_layers=1,
        sample_width=2,
        sample_height=2,
        sample_frames=9,
        patch_size=2,
        patch_size_t=2,
        max_text_seq_length=16,
        use_rotary_positional_embeddings=True,
        patch_bias=False,
    ).eval()
    vae = diffusers.AutoencoderKLCogVideoX(**COGVIDEOX).eval()
    pipe = diffusers.CogVideoXPipeline(
        tokenizer=None,
        text_encoder=None,
        vae=vae,
        transformer=transformer,
        scheduler=diffusers.DDIMScheduler(),
    )
    pipe.set_progress_bar_config(disable=True)

    def run(num_frames, output_type):
        return pipe(
            prompt_embeds=torch.zeros(1, 16, 32),
            num_frames=num_frames,
            height=16,
            width=16,
            guidance_scale=1.0,
            num_inference_steps=1,
            max_sequence_length=16,
            generator=torch.Generator().manual_seed(1),
            output_type=output_type,
        ).frames

    frame_map = CogVideoXMap(patch_frames=2)
    for num_frames in (1, 8, 9, 16, 17):
        assert run(num_frames, "latent").shape[1] == frame_map.num_latents(num_frames)
        assert run(num_frames, "pt").shape[1] == num_frames
    padded = run(9, "latent")
    from_the_back = pipe.video_processor.postprocess_video(
        pipe.decode_latents(padded[:, 1:]), "pt"
    )
    assert torch.equal(from_the_back, run(9, "pt"))
