"""Tiny text encoders with word-level tokenizers, so that prompts work without a download."""

from dataclasses import replace

from tiny_base import TinyPipeline, seeded

WORDS = ["a", "red", "blue", "circle", "square", "moving", "left", "right"]
WORDS += ["over", "green", "blurry", "static"]


def tokenizer(max_length: int = 16):
    """One token a word; `</s>` ends a text as in T5."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: i for i, word in enumerate(["<pad>", "</s>", "<unk>", *WORDS])}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=words,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=max_length,
    )


def t5():
    """A T5 encoder of width 32 for the vocabulary of `tokenizer`."""
    from transformers import T5Config, T5EncoderModel

    config = T5Config(
        vocab_size=32,
        d_model=32,
        d_kv=8,
        d_ff=37,
        num_layers=2,
        num_heads=4,
        relative_attention_num_buckets=8,
    )
    return seeded(lambda: T5EncoderModel(config).eval())


def clip_text(*, projected: bool = False, projection: int = 16):
    """A CLIP text encoder of width 32 (16 with a projection) for the vocabulary of `tokenizer`."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    config = CLIPTextConfig(
        vocab_size=32,
        hidden_size=16 if projected else 32,
        intermediate_size=37,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=16,
        projection_dim=projection,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=0,
    )
    cls = CLIPTextModelWithProjection if projected else CLIPTextModel
    return seeded(lambda: cls(config).eval())


def with_prompts(tiny: TinyPipeline) -> TinyPipeline:
    """`tiny` with text encoders, prompts in place of embeddings."""
    parts = {"text_encoder": t5(), "tokenizer": tokenizer()}
    name = type(tiny.pipe).__name__
    if name in ("StableDiffusionPipeline", "AnimateDiffPipeline"):
        parts = {"text_encoder": clip_text(), "tokenizer": tokenizer()}
    tiny.pipe.register_modules(**parts)
    tiny.pipe.tokenizer_max_length = 16
    prompts = ["a red circle moving left", "a blue square"]
    return replace(
        tiny, positive={"prompt": prompts}, negative={"negative_prompt": ["blurry", "blurry"]}
    )
