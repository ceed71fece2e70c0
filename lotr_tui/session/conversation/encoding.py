"""Token ids of the text of a conversation, for models with and without a cast."""

from collections.abc import Sequence

from engine.analysis.tokenized_text import tokenize_with_offsets
from engine.data.scripts import Turn, encode_turns
from engine.data.tokenizers.base import Tokenizer
from engine.models.base import LanguageModel
from lotr_tui.session.model_abilities import find_cast


def encode_lines(tokenizer: Tokenizer, text: str) -> list[int]:
    """Return the token ids of a text in which each line break is read as `<eos>`.

    In a closed vocabulary, a line without words has no `<eos>`.
    """
    ids: list[int] = tokenize_with_offsets(text, tokenizer, eos_per_line=True).ids.tolist()
    return ids


def encode_said(model: LanguageModel, turns: Sequence[Turn]) -> list[int]:
    """Return the token ids of complete lines: a script, or for a model without a cast the texts without their names."""
    if find_cast(model):
        return list(encode_turns(model.tokenizer, turns))
    return encode_lines(model.tokenizer, "".join(f"{turn.text}\n" for turn in turns))
