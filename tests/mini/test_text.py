import pytest
import torch
from every_scene import all_scenes
from tokenizers import Tokenizer

from vidcfg.mini import MINI_PATH
from vidcfg.mini.shapes import caption
from vidcfg.mini.text import MAX_LENGTH, TextEncoder, build_tokenizer, tokenize
from vidcfg.render.prompts import prompt_warnings


def warnings(prompt: str) -> list[str]:
    return prompt_warnings({"prompt": prompt}, build_tokenizer(), MAX_LENGTH)


def test_every_caption_is_known_and_fits():
    tokenizer = build_tokenizer()
    captions = {str(scene): caption(scene) for scene in all_scenes()}
    assert len(captions) == 576
    assert prompt_warnings(captions, tokenizer, MAX_LENGTH) == []


def test_unknown_words_are_named_once_in_order():
    (warning,) = warnings("A shiny RED circle over a shiny lake")
    assert warning == "prompt: the model does not know 'shiny', 'lake'."


def test_a_prompt_is_truncated_from_the_first_word_that_does_not_fit():
    assert warnings(" ".join(["red"] * (MAX_LENGTH - 1))) == []
    (warning,) = warnings(" ".join(["red"] * MAX_LENGTH))
    assert warning.endswith("It does not see: 'red'")


def test_empty_prompt_is_the_end_mark_alone():
    tokenizer = build_tokenizer()
    ids, mask = tokenize(tokenizer, ["", "a red circle"])
    assert mask.sum(1).tolist() == [1, 4]
    assert ids[0, 0] == tokenizer.token_to_id("</s>")
    assert (ids[0, 1:] == tokenizer.token_to_id("<pad>")).all()


def test_case_and_punctuation_do_not_matter_to_words():
    tokenizer = build_tokenizer()
    a, _ = tokenize(tokenizer, ["Red circle, growing"])
    b, _ = tokenize(tokenizer, ["red circle , growing"])
    assert torch.equal(a, b)


def test_states_of_real_tokens_do_not_depend_on_padding():
    torch.manual_seed(0)
    tokenizer = build_tokenizer()
    encoder = TextEncoder(tokenizer.get_vocab_size(), width=16, num_heads=2).eval()
    ids, mask = tokenize(tokenizer, ["a red circle", "a blue square moving left"])
    full = encoder(ids, mask)
    short = encoder(ids[:, :8], mask[:, :8])
    torch.testing.assert_close(full[:, :8][mask[:, :8]], short[mask[:, :8]], atol=1e-6, rtol=1e-5)


def test_word_order_changes_the_states():
    torch.manual_seed(0)
    tokenizer = build_tokenizer()
    encoder = TextEncoder(tokenizer.get_vocab_size(), width=16, num_heads=2).eval()
    ids, mask = tokenize(tokenizer, ["red circle", "circle red"])
    states = encoder(ids, mask)
    assert (states[0, 0] - states[1, 1]).abs().max() > 1e-3


@pytest.mark.parametrize("null", ["zeros", "learned"])
def test_the_null_stands_for_the_empty_text_alone(tmp_path, null):
    torch.manual_seed(0)
    tokenizer = build_tokenizer()
    encoder = TextEncoder(tokenizer.get_vocab_size(), width=16, num_heads=2, null=null).eval()
    plain = TextEncoder(tokenizer.get_vocab_size(), width=16, num_heads=2).eval()
    plain.load_state_dict(encoder.state_dict(), strict=False)
    ids, mask = tokenize(tokenizer, ["a red circle", "", "circle"])
    states, want = encoder(ids, mask), plain(ids, mask)
    vector = encoder.null if null == "learned" else torch.zeros(16)
    assert torch.equal(states[[0, 2]], want[[0, 2]])
    assert torch.equal(states[1], vector.expand(states.shape[1], -1))
    assert not torch.equal(states[1], want[1])
    encoder.save_pretrained(tmp_path)
    assert torch.equal(TextEncoder.from_pretrained(tmp_path)(ids, mask), states)


def test_an_unknown_null_is_refused():
    with pytest.raises(ValueError, match="null is 'noise'. Use one of: text, zeros, learned"):
        TextEncoder(null="noise")


def test_saved_encoder_loads_bit_for_bit(tmp_path):
    tokenizer = build_tokenizer()
    encoder = TextEncoder(tokenizer.get_vocab_size(), width=16, num_heads=2).eval()
    encoder.save_pretrained(tmp_path)
    ids, mask = tokenize(tokenizer, ["a red circle", "a blue square moving left"])
    assert torch.equal(TextEncoder.from_pretrained(tmp_path)(ids, mask), encoder(ids, mask))


def test_tokens_are_those_that_transformers_makes_of_the_same_file(tmp_path):
    from transformers import PreTrainedTokenizerFast

    path = str(MINI_PATH / "tokenizer" / "tokenizer.json")
    marks = {"pad_token": "<pad>", "unk_token": "<unk>", "eos_token": "</s>"}
    theirs = PreTrainedTokenizerFast(tokenizer_file=path, **marks, model_max_length=MAX_LENGTH)
    prompts = ["", "A RED circle, moving!", "a <pad> kite </s> red", "red " * 40, "red " * 27]
    want = theirs(prompts, padding="max_length", truncation=True, return_tensors="pt")
    for ours in (build_tokenizer(), Tokenizer.from_file(path)):
        ids, mask = tokenize(ours, prompts)
        assert torch.equal(ids, want.input_ids)
        assert torch.equal(mask, want.attention_mask.bool())
