"""What is told before a model is loaded."""

import json

from vidcfg.render.config import describe, units_of
from vidcfg.render.preview import preview
from vidcfg.render.prompts import prompt_warnings
from vidcfg.render.record import to_json


def _preview(config):
    return preview(config, units_of(config), width=80, colour=False)


def test_checkpoint_that_is_not_here_leaves_the_surface_for_later(config):
    settings = config("model={kind: diffusers, checkpoint: Somebody/Video-5B}")
    text = _preview(settings)
    assert "surface and cost: told when the model is loaded" in text
    assert "weights: not here yet" in text


def test_keyframes_in_every_latent_frame_are_told_to_have_no_effect(config):
    frames = "guidance.frames={kind: keyframes, at: [0, %s], floor: 0.0, reach: 1}"
    told = ["has no effect" in _preview(config(frames % at)) for at in ("2, 8", "8")]
    assert told == [True, False]


def test_settings_in_one_line(config):
    settings = config(
        "guidance={scale: {kind: cosine, start: 10.0, end: 2.0}, rescale: 0.7, clamp: 3.0, "
        "frames: {kind: decay, end: 0.2}}"
    )
    assert describe(settings) == (
        "scale cosine 10 → 2 · frames decay · rescale 0.7 · clamp 3 · 3 steps flow_euler"
    )


def test_cut_text_is_shown_from_the_first_word_that_is_not_read():
    from vidcfg.mini.text import build_tokenizer

    tokenizer = build_tokenizer()
    texts = {"prompts.0.text": "A red circle, moving Left over the moon"}
    unknown, cut = prompt_warnings(texts, tokenizer, 7)
    assert "does not know 'moon'." in unknown
    assert cut.endswith("It does not see: 'over the moon'")
    assert prompt_warnings({"x": "a red circle"}, tokenizer, None) == []
    (long,) = prompt_warnings({"x": "red circle " * 3000}, tokenizer, 7)
    assert len(long) < 400
    assert long.endswith("...'")


def test_a_word_that_many_prompts_have_is_told_once():
    from vidcfg.mini.text import build_tokenizer

    tokenizer = build_tokenizer()
    texts = ["a moon over a sea", "a red moon", "a sea over a moon", "a tree on a hill"]
    told = prompt_warnings({f"prompts.{i}": text for i, text in enumerate(texts)}, tokenizer, None)
    assert told == [
        "prompts.0 and 2 more: the model does not know 'moon'.",
        "prompts.0 and 1 more: the model does not know 'sea'.",
        "prompts.3: the model does not know 'tree', 'hill'.",
    ]


def test_record_text_reads_back_and_keeps_rows_on_one_line():
    record = {"a": {"rows": [[1.5, 2.0], [0.1, 3.0]]}, "b": "ü\n", "empty": {}, "list": []}
    text = to_json(record)
    assert json.loads(text) == record
    assert "    [0.1, 3.0]\n" in text


def test_modality_guidance_without_sound_is_refused_in_a_dry_run(render, capsys):
    guidance = "guidance={scale: 2.0, method: [cfg, modality]}"
    assert render("--dry-run", "--set", guidance) == 2
    assert "for models that make video and sound, which mini does not" in capsys.readouterr().err
