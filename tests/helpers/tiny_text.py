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


def clip_text(
    *, projected: bool = False, width: int = 32, projection: int = 16, max_length: int = 16
):
    """A CLIP text encoder for the vocabulary of `tokenizer`."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    config = CLIPTextConfig(
        vocab_size=32,
        hidden_size=width,
        intermediate_size=37,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=max_length,
        projection_dim=projection,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=0,
    )
    cls = CLIPTextModelWithProjection if projected else CLIPTextModel
    return seeded(lambda: cls(config).eval())


_DECODER = {
    "vocab_size": 32,
    "intermediate_size": 37,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 0,
}


def llama(width: int):
    from transformers import LlamaConfig, LlamaModel

    return seeded(lambda: LlamaModel(LlamaConfig(hidden_size=width, **_DECODER)).eval())


def qwen_vl_text(width: int):
    from transformers.models.qwen2_5_vl import modeling_qwen2_5_vl as qwen

    settings = _DECODER | {"rope_scaling": {"rope_type": "default", "mrope_section": [1, 1, 2]}}
    config = qwen.Qwen2_5_VLTextConfig(hidden_size=width, **settings)
    return seeded(lambda: qwen.Qwen2_5_VLTextModel(config).eval())


def gemma(width: int):
    from transformers import Gemma3TextConfig, Gemma3TextModel

    config = Gemma3TextConfig(hidden_size=width, head_dim=4, **_DECODER)
    return seeded(lambda: Gemma3TextModel(config).eval())


def chatting(tokenizer):
    """`tokenizer` with a template that keeps what the user says."""
    tokenizer.chat_template = "{{ messages[1]['content'] }}"
    return tokenizer


def _t5_only() -> dict:
    return {"text_encoder": t5(), "tokenizer": tokenizer()}


def _clip_only() -> dict:
    return {"text_encoder": clip_text(), "tokenizer": tokenizer()}


def _sdxl() -> dict:
    return {
        "text_encoder": clip_text(width=16),
        "tokenizer": tokenizer(),
        "text_encoder_2": clip_text(projected=True, width=16),
        "tokenizer_2": tokenizer(),
    }


def _sd3() -> dict:
    clips = {
        f"text_encoder{i}": clip_text(projected=True, width=16, projection=8) for i in ("", "_2")
    }
    tokenizers = {f"tokenizer{i}": tokenizer() for i in ("", "_2", "_3")}
    return clips | tokenizers | {"text_encoder_3": t5()}


def _flux() -> dict:
    return {
        "text_encoder": clip_text(width=16),
        "tokenizer": tokenizer(),
        "text_encoder_2": t5(),
        "tokenizer_2": tokenizer(),
    }


def _hunyuan_video() -> dict:
    return {
        "text_encoder": llama(16),
        "tokenizer": tokenizer(),
        "text_encoder_2": clip_text(width=8, max_length=77),
        "tokenizer_2": tokenizer(77),
    }


def _hunyuan_video15() -> dict:
    return {
        "text_encoder": qwen_vl_text(16),
        "tokenizer": chatting(tokenizer()),
        "text_encoder_2": t5(),
        "tokenizer_2": tokenizer(),
    }


def _ltx2() -> dict:
    return {"text_encoder": gemma(8), "tokenizer": tokenizer()}


_PARTS = {
    "StableDiffusionPipeline": _clip_only,
    "AnimateDiffPipeline": _clip_only,
    "StableDiffusionXLPipeline": _sdxl,
    "StableDiffusion3Pipeline": _sd3,
    "FluxPipeline": _flux,
    "HunyuanVideoPipeline": _hunyuan_video,
    "HunyuanVideo15Pipeline": _hunyuan_video15,
    "LTX2Pipeline": _ltx2,
}
_LENGTH = {"max_sequence_length": 16}
_CALL = {
    "StableDiffusion3Pipeline": _LENGTH,
    "FluxPipeline": _LENGTH,
    "LTX2Pipeline": _LENGTH,
    "HunyuanVideoPipeline": _LENGTH | {"prompt_template": {"template": "a {}", "crop_start": 1}},
}
"""Arguments of the call that fit texts of 16 tokens."""


def with_prompts(tiny: TinyPipeline) -> TinyPipeline:
    """`tiny` with text encoders, prompts in place of embeddings; one prompt has quoted words."""
    name = type(tiny.pipe).__name__
    tiny.pipe.register_modules(**_PARTS.get(name, _t5_only)())
    tiny.pipe.tokenizer_max_length = 16
    tiny.pipe.tokenizer_2_max_length = 8
    tiny.pipe.prompt_template_encode_start_idx = 2
    prompts = ["a red circle moving left", "a blue square"]
    if name == "HunyuanVideo15Pipeline":
        prompts[1] = 'a blue square over "green left"'
    return replace(
        tiny,
        shape=tiny.shape | _CALL.get(name, {}),
        positive={n: t for n, t in tiny.positive.items() if "prompt" not in n}
        | {"prompt": prompts},
        negative={"negative_prompt": ["blurry", "blurry"]},
    )
