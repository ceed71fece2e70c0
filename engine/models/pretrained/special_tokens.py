"""Special tokens of models by others: where a text starts, and where a text or a reply ends."""

from collections.abc import Iterable
from typing import Any, NamedTuple

END_TOKENS = ("<|im_end|>", "<|eot_id|>", "<end_of_turn>", "<|end|>", "<|endoftext|>", "<|end_of_text|>", "</s>")
"""Special tokens that end a text or a reply in well-known models."""
TEXT_START_TOKEN = "<|endoftext|>"
_MARK = "MESSAGE0X"


class SpecialTokens(NamedTuple):
    """The model's ids of the tokens that start and end texts."""

    start_id: int
    """Token that starts a text."""
    end_id: int
    """Token that ends a reply in the model's chat template, or else a text."""
    end_ids: tuple[int, ...]
    """All tokens that end a text or a reply, `end_id` among them."""
    special_ids: frozenset[int]
    """All special tokens."""


def find_special_tokens(tokenizer: Any, model_end_ids: Iterable[int], size: int) -> SpecialTokens | None:
    """Return the special tokens of a tokenizer of transformers; None if no token ends a text.

    Args:
        tokenizer: Tokenizer of transformers.
        model_end_ids: End tokens in the model's settings.
        size: Number of tokens that the model has.
    """
    added = {id: token for id, token in tokenizer.added_tokens_decoder.items() if id < size}
    ids_of_text = {token.content: id for id, token in added.items()}
    special_ids = {id for id, token in added.items() if token.special}
    known_ends = [ids_of_text[text] for text in END_TOKENS if text in ids_of_text]
    turn_end = _find_turn_end(tokenizer, ids_of_text)
    candidates = [turn_end, tokenizer.eos_token_id, *model_end_ids, *known_ends]
    end_ids = list(dict.fromkeys(id for id in candidates if id is not None and 0 <= id < size))
    if not end_ids:
        return None
    special_ids.update(end_ids)
    start_id = _find_start(tokenizer, ids_of_text, special_ids)
    if start_id is None or start_id >= size:
        start_id = end_ids[0]
    return SpecialTokens(start_id, end_ids[0], tuple(end_ids), frozenset(special_ids | {start_id}))


def _find_start(tokenizer: Any, ids_of_text: dict[str, int], special_ids: set[int]) -> int | None:
    """Return the token that the tokenizer puts before a text, or else the token that separates texts, or else bos.

    Chat models often name the start of a message as bos, which starts no text and is not put before one.
    """
    ids = tokenizer("a")["input_ids"]
    added = int(ids[0]) if len(ids) and ids[0] in {*special_ids, tokenizer.bos_token_id} else None
    if TEXT_START_TOKEN in ids_of_text and (added is None or _starts_messages(tokenizer, added, ids_of_text)):
        return ids_of_text[TEXT_START_TOKEN]
    bos: int | None = tokenizer.bos_token_id
    return bos if added is None else added


def _starts_messages(tokenizer: Any, id: int, ids_of_text: dict[str, int]) -> bool:
    """Return True if the chat template writes a special token more than once, so before each message."""
    text = next((text for text, special_id in ids_of_text.items() if special_id == id), None)
    return text is not None and _render_conversation(tokenizer).count(text) > 1


def _find_turn_end(tokenizer: Any, ids_of_text: dict[str, int]) -> int | None:
    """Return the special token that the chat template writes after a reply; None if it writes none."""
    after = _render_conversation(tokenizer).partition(_MARK)[2].lstrip()
    found = [special for special in ids_of_text if after.startswith(special)]
    return ids_of_text[max(found, key=len)] if found else None


def _render_conversation(tokenizer: Any) -> str:
    """Return a conversation in the chat template, with `_MARK` as the reply; "" if there is no usable template."""
    if not getattr(tokenizer, "chat_template", None):
        return ""
    messages = [("user", "x"), ("assistant", _MARK), ("user", "y")]
    try:
        text: str = tokenizer.apply_chat_template(
            [{"role": role, "content": content} for role, content in messages], tokenize=False
        )
    except Exception:  # a template is a program, which can raise anything
        return ""
    return text
