"""The mini model's text side: a word-level tokenizer and a small transformer encoder."""

import torch
from jaxtyping import Bool, Float, Int
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import Tensor, nn

from vidcfg.mini.attention import Attention
from vidcfg.mini.parts import Part, keeps_arguments
from vidcfg.mini.shapes import ATTRIBUTES, FAULTS

MAX_LENGTH = 28
"""Tokens of a prompt, end mark included; the longest caption has as many."""

_SMALL = ("a", "the", "moving", "turning", "then", "over", "on", "background", "in", "light")

WORDS = (
    *("<pad>", "<unk>", "</s>"),
    *dict.fromkeys(word for values in ATTRIBUTES.values() for word in values),
    *(*_SMALL, "with", "dot", "shape", *FAULTS, ","),
)
"""The special tokens and every word of the captions, in the order of their numbers."""


def build_tokenizer() -> Tokenizer:
    """A word-level tokenizer (lower case, punctuation apart); every prompt ends in `</s>`."""
    index = {word: i for i, word in enumerate(WORDS)}
    tokenizer = Tokenizer(models.WordLevel(index, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Whitespace(), pre_tokenizers.Punctuation()]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", index["</s>"])]
    )
    tokenizer.add_special_tokens(list(WORDS[:3]))
    return tokenizer


def tokenize(
    tokenizer: Tokenizer, prompts: list[str]
) -> tuple[Int[Tensor, "B L"], Bool[Tensor, "B L"]]:
    """Token numbers, padded to the longest allowed, and which of them are real.

    Of a prompt that is too long the first words are kept, and the end mark.
    """
    found = [encoding.ids for encoding in tokenizer.encode_batch(list(prompts))]
    found = [[*ids[:-1][: MAX_LENGTH - 1], ids[-1]] for ids in found]
    pad = [tokenizer.token_to_id("<pad>")]
    padded = [ids + pad * (MAX_LENGTH - len(ids)) for ids in found]
    lengths = torch.tensor([len(ids) for ids in found])
    mask = torch.arange(MAX_LENGTH) < lengths[:, None]
    return torch.tensor(padded).reshape(mask.shape), mask


NULLS = ("text", "zeros", "learned")
"""What stands for no prompt: the states of the empty text, zeros, or a vector of its own."""


class TextEncoder(Part):
    """Token embeddings, learned positions and `num_layers` self-attention blocks.

    Raises:
        ValueError: `null` is none of NULLS.
    """

    @keeps_arguments
    def __init__(
        self,
        vocab_size: int = 64,
        width: int = 128,
        num_layers: int = 1,
        num_heads: int = 4,
        max_length: int = MAX_LENGTH,
        null: str = "text",
    ):
        super().__init__()
        if null not in NULLS:
            raise ValueError(f"null is '{null}'. Use one of: {', '.join(NULLS)}.")
        self.token = nn.Embedding(vocab_size, width)
        self.position = nn.Parameter(torch.randn(max_length, width) * 0.1)
        self.blocks = nn.ModuleList(_TextBlock(width, num_heads) for _ in range(num_layers))
        self.norm = nn.LayerNorm(width)
        if null == "learned":
            self.null = nn.Parameter(torch.randn(width) * 0.1)

    def forward(
        self, input_ids: Int[Tensor, "B L"], attention_mask: Bool[Tensor, "B L"]
    ) -> Float[Tensor, "B L D"]:
        """One state per token; real tokens do not depend on padding."""
        x = self.token(input_ids) + self.position[: input_ids.shape[1]]
        for block in self.blocks:
            x = block(x, attention_mask)
        x = self.norm(x)
        if self.config.null == "text":
            return x
        # The empty text is its end mark alone.
        is_empty = attention_mask.sum(dim=1) == 1
        null = self.null if self.config.null == "learned" else torch.zeros_like(x[0, 0])
        return torch.where(is_empty[:, None, None], null.to(x.dtype), x)


class _TextBlock(nn.Module):
    def __init__(self, width: int, num_heads: int):
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn = Attention(width, num_heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x), mask=mask)
        return x + self.mlp(self.norm2(x))


def pooled(states: Float[Tensor, "B L D"], mask: Bool[Tensor, "B L"]) -> Float[Tensor, "B D"]:
    """The mean state of the real tokens."""
    weight = mask.to(states.dtype)[:, :, None]
    return (states * weight).sum(1) / weight.sum(1)
