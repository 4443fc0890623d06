import numpy as np
import pytest
import torch

from vidcfg.mini.scorer import Scorer, load_scorer
from vidcfg.mini.shapes import ATTRIBUTES, sample_clip


@pytest.fixture(scope="module")
def scorer():
    return load_scorer().eval()


@pytest.fixture(scope="module")
def clips():
    drawn = [sample_clip((77, i), held_out=None) for i in range(96)]
    video = torch.from_numpy(np.stack([c.frames for c in drawn])).permute(0, 1, 4, 2, 3) / 255
    return video, drawn


def test_each_attribute_of_real_clips_is_read_at_97_percent(scorer, clips):
    video, drawn = clips
    with torch.no_grad():
        logits = scorer.read(scorer.states(video))
    assert list(logits) == list(ATTRIBUTES)
    for name, values in ATTRIBUTES.items():
        assert logits[name].shape == (len(drawn), 5, len(values))
        wanted = torch.tensor([c.scene.labels()[name] for c in drawn])
        assert (logits[name].argmax(-1) == wanted).float().mean() >= 0.97, name


def test_right_prompts_align_better_than_prompts_of_other_clips(scorer, clips):
    video, drawn = clips
    prompts = [c.caption for c in drawn]
    with torch.no_grad():
        right = scorer.alignment(video, prompts)
        wrong = scorer.alignment(video, prompts[7:] + prompts[:7])
    assert (right > wrong).float().mean() > 0.95


def test_embeddings_have_length_one_and_the_same_width(scorer, clips):
    with torch.no_grad():
        video = scorer.encode_video(clips[0][:3])
        text = scorer.encode_text(["a red circle", "growing"])
    assert video.shape[1] == text.shape[1]
    torch.testing.assert_close(video.norm(dim=-1), torch.ones(3))
    torch.testing.assert_close(text.norm(dim=-1), torch.ones(2))


def test_a_video_does_not_depend_on_its_batch_neighbours(scorer, clips):
    video = clips[0]
    with torch.no_grad():
        together, alone = scorer.encode_video(video[:5]), scorer.encode_video(video[2:3])
    # Convolutions of another batch size may sum in another order.
    torch.testing.assert_close(alone, together[2:3], atol=1e-5, rtol=1e-4)


def test_any_length_and_size_is_taken():
    model = Scorer(width=8, embed=16, text_width=16).eval()
    assert model.encode_video(torch.rand(2, 5, 3, 24, 40)).shape == (2, 16)
    assert model.encode_video(torch.rand(2, 9, 3, 64, 48)).shape == (2, 16)


def test_values_outside_0_to_1_are_refused_with_the_fix(scorer):
    with pytest.raises(ValueError, match="takes 0..1. Divide uint8 by 255"):
        scorer.encode_video(torch.full((2, 5, 3, 8, 12), 200.0))


def test_a_missing_prompt_is_refused(scorer, clips):
    with pytest.raises(ValueError, match="1 prompts for 2 videos"):
        scorer.alignment(clips[0][:2], ["a red circle"])


def test_saved_scorer_loads_bit_for_bit(tmp_path):
    model = Scorer(width=8, embed=16, text_width=16).eval()
    model.save_pretrained(tmp_path)
    loaded = Scorer.from_pretrained(tmp_path).eval()
    for name, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name
    prompts = ["a red circle", "a blue square growing"]
    torch.testing.assert_close(loaded.encode_text(prompts), model.encode_text(prompts))
