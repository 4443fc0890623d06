"""One view with the frame axis second, for every model's layout."""

import pytest
import torch
from guidance_cases import LAYOUTS, B, C, F, H, W, into, out_of, video

from vidcfg.guidance.layout import FrameLayout, elements_per_frame, per_frame


@pytest.mark.parametrize("axes", LAYOUTS)
def test_view_holds_each_frame_of_each_sample(axes):
    frames = video(0)
    view = FrameLayout(axes).frames(into(axes, frames), F)
    for b in range(B):
        for f in range(F):
            want = frames[b, f].flatten().sort().values
            assert torch.equal(view[b, f].flatten().sort().values, want)
    assert elements_per_frame(view) == C * H * W


@pytest.mark.parametrize("axes", LAYOUTS)
def test_view_is_no_copy_and_restore_is_its_inverse(axes):
    latents = into(axes, video(1))
    layout = FrameLayout(axes)
    view = layout.frames(latents, F)
    assert view.data_ptr() == latents.data_ptr()
    assert torch.equal(layout.restore(view), latents)
    assert layout.restore(view + 0).is_contiguous()
    assert torch.equal(out_of(axes, layout.restore(view)), video(1))


def test_an_image_is_one_frame():
    image = torch.randn(2, 3, 4, 6)
    layout = FrameLayout("BCHW")
    assert layout.num_frames(image) == 1
    assert torch.equal(layout.frames(image, 1)[:, 0], image)
    assert torch.equal(layout.restore(layout.frames(image, 1)), image)


def test_number_of_frames_is_read_from_the_tensor_where_it_tells():
    counts = {axes: FrameLayout(axes).num_frames(into(axes, video(0))) for axes in LAYOUTS}
    assert counts == {"BCFHW": F, "BFCHW": F, "tokens": None}


@pytest.mark.parametrize("axes", ["BCFHW", "BFCHW"])
def test_wrong_number_of_frames_is_refused(axes):
    with pytest.raises(ValueError, match="expected 4 latent frames, the tensor has 5"):
        FrameLayout(axes).frames(into(axes, video(0)), 4)


def test_tokens_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="120 tokens do not divide into 7 latent frames"):
        FrameLayout("tokens").frames(into("tokens", video(0)), 7)


def test_unknown_layout_names_the_known_ones():
    with pytest.raises(ValueError, match="unknown latent layout 'BHWC'. Use one of: BCFHW, BFCHW"):
        FrameLayout("BHWC")


@pytest.mark.parametrize("axes", LAYOUTS)
def test_per_frame_values_multiply_their_own_frame(axes):
    view = FrameLayout(axes).frames(into(axes, video(2)), F)
    values = torch.arange(B * F, dtype=torch.float32).reshape(B, F)
    scaled = per_frame(values, view) * view
    for b in range(B):
        for f in range(F):
            assert torch.equal(scaled[b, f], float(b * F + f) * view[b, f])
