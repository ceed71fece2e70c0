"""Token ids of the text of a conversation, for models with and without speakers."""

from collections.abc import Sequence

from engine.analysis.tokenized_text import tokenize_with_offsets
from engine.data.tokenizers.base import Tokenizer
from engine.generation.turns import Turn, encode_turns
from lotr_tui.session.conversation.cast import speaker_in


def encode_lines(tokenizer: Tokenizer, text: str) -> list[int]:
    """Return the token ids of a text in which each line break is read as `<eos>`.

    In a closed vocabulary, a line without words has no `<eos>`.
    """
    ids: list[int] = tokenize_with_offsets(text, tokenizer, eos_per_line=True).ids.tolist()
    return ids


def encode_spoken_lines(tokenizer: Tokenizer, lines: Sequence[Turn]) -> list[int]:
    """Return the token ids of complete lines, each with its `<eos>`.

    For a model with a cast, the token of its speaker precedes each line, and speakers outside the cast are someone. A
    model without a cast reads the lines without their speakers.
    """
    cast = tokenizer.cast
    if not cast:
        return encode_lines(tokenizer, "".join(f"{line.text}\n" for line in lines))
    return list(encode_turns(tokenizer, [Turn(speaker_in(cast, line.speaker), line.text) for line in lines]))
