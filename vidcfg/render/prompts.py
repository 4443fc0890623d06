"""What a text encoder cannot carry over: unknown words, and the end of a long prompt."""

import inspect
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

from vidcfg.progress import listed


def prompt_warnings(texts: dict[str, str], tokenizer: Any, max_length: int | None) -> list[str]:
    """Sentences on unknown words, and on texts whose end lies beyond `max_length` tokens.

    `texts` maps a name such as `prompts.0.text` to the text; `tokenizer` is a
    `tokenizers.Tokenizer`; `max_length` counts special tokens. A word, or an end, that many texts
    share is told once.
    """
    names_of_word, names_of_end, together = (defaultdict(list) for _ in range(3))
    for name, text in texts.items():
        unknown, cut = _lost(text, tokenizer, max_length)
        for word in unknown:
            names_of_word[word].append(name)
        if cut:
            names_of_end[cut].append(name)
    # Words of the same texts stand in one sentence.
    for word, names in names_of_word.items():
        together[tuple(names)].append(f"'{word}'")
    return [
        f"{listed(names, 1)}: the model does not know {', '.join(words)}."
        for names, words in together.items()
    ] + [
        f"{listed(names, 1)}: longer than the {max_length} tokens that the model reads. "
        f"It does not see: '{cut if len(cut) <= 300 else cut[:300] + '...'}'"
        for cut, names in names_of_end.items()
    ]


def _lost(text: str, tokenizer: Any, max_length: int | None) -> tuple[list[str], str]:
    encoding = tokenizer.encode(text)
    unknown_id = _unknown_id(tokenizer)
    tokens = zip(encoding.ids, encoding.offsets, encoding.special_tokens_mask, strict=True)
    spans = [(token, span) for token, span, is_special in tokens if not is_special]
    unknown = [text[start:end] for token, (start, end) in spans if token == unknown_id]
    room = len(spans) if max_length is None else max_length - (len(encoding.ids) - len(spans))
    cut = text[spans[room][1][0] :] if len(spans) > room else ""
    return list(dict.fromkeys(word for word in unknown if word.strip())), cut


def _unknown_id(tokenizer: Any) -> int | None:
    model = json.loads(tokenizer.to_str())["model"]
    if isinstance(model.get("unk_id"), int):
        return model["unk_id"]
    token = model.get("unk_token")
    return None if token is None else tokenizer.token_to_id(token)


def tokenizer_of(pipe: Any) -> tuple[Any, int | None] | None:
    """The pipeline's tokenizer without truncation, and its limit; None if it has no fast one."""
    backend = getattr(getattr(pipe, "tokenizer", None), "backend_tokenizer", None)
    if backend is None:
        return None
    default = inspect.signature(type(pipe).__call__).parameters.get("max_sequence_length")
    limit = default.default if default else pipe.tokenizer.model_max_length
    return _untruncated(backend.to_str(), limit)


def tokenizer_in(folder: Path) -> tuple[Any, int | None] | None:
    """The same from a checkpoint folder, without loading a model; None if there is none."""
    path = folder / "tokenizer" / "tokenizer.json"
    if not path.is_file():
        return None
    try:
        settings = json.loads((path.parent / "tokenizer_config.json").read_text("utf-8"))
        return _untruncated(path.read_text("utf-8"), settings.get("model_max_length"))
    except Exception:  # of whatever kind the tokenizer's library raises; loading tells it
        return None


def _untruncated(text: str, limit: int | None) -> tuple[Any, int | None]:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_str(text)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    # Libraries write a huge number for no limit.
    return tokenizer, limit if limit and limit < 10**6 else None


def early_prompt_warnings(config: Any) -> list[str]:
    """The warnings of a render before its model is loaded, if the model's folder is here."""
    folder = config.model.folder
    found = None if folder is None else tokenizer_in(folder)
    return prompt_warnings(texts_of(config), *found) if found else []


def texts_of(config: Any) -> dict[str, str]:
    """Every text of a config that a model reads, by its path."""
    texts = {}
    for i, prompt in enumerate(config.prompts):
        texts[f"prompts.{i}.text"] = prompt.text
        if prompt.negative:
            texts[f"prompts.{i}.negative"] = prompt.negative
    for term in config.guidance.terms:
        for i, condition in enumerate(getattr(term.rule, "conditions", ())):
            where = ".".join(map(str, ("guidance", *term.above, "conditions", i, "prompt")))
            texts[where] = condition.prompt
    return texts
