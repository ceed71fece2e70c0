"""Bits that models of different vocabularies need for the same lines as they are written.

Models of words leave out capitals and punctuation, which would make their task easier. An `OrthographyModel` pays for
them, so that all models account for the same characters.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from engine.analysis.bits_per_character import EncodedText, convert_text, native_form
from engine.data.encoding import DataMode
from engine.data.script_form import Turn, turn_text
from engine.data.speakers import SOMEONE
from engine.data.tokenizers.words import WordTokenizer, WordTokenizerName, split_words
from engine.models.base import LanguageModel, score_sequence
from engine.models.orthography import OrthographyModel


@dataclass(frozen=True)
class WrittenBits:
    """Bits of lines as they are written."""

    token_bits: float
    """Bits of the tokens, with the spelling of unknown words."""
    orthography_bits: float
    """Bits of the capitals, punctuation and spaces that the tokens leave out; 0 for an open vocabulary."""
    num_characters: int
    """Characters of the lines, line ends included."""

    @property
    def bits_per_character(self) -> float:
        """Bits per character of the lines."""
        return (self.token_bits + self.orthography_bits) / self.num_characters


def lines_with_words(lines: Iterable[str], name: WordTokenizerName) -> Iterator[str]:
    """Yield the lines in which a tokenizer of words finds a word; models of words do not read the others."""
    return (line for line in lines if split_words(line, name))


def measure_written_bits(
    model: LanguageModel, mode: DataMode, lines: Sequence[str], orthography: OrthographyModel | None
) -> WrittenBits:
    """Return the bits that a model needs for lines that it reads one after the other.

    A model of a dialogue reads each line as said by someone. That name is given, not predicted: the lines do not name
    their speakers.

    Args:
        model: The model.
        mode: Mode of its training text.
        lines: Lines as they are written, each with a word.
        orthography: Model of what the model's tokens leave out. An open vocabulary needs none.
    """
    tokenizer = model.tokenizer
    script = "".join(turn_text(Turn(SOMEONE, line)) if mode == "dialogue" else f"{line}\n" for line in lines)
    encoded = EncodedText(convert_text(script, native_form(tokenizer), mode), tokenizer, mode)
    token_bits = math.fsum(encoded.token_bits(score_sequence(model, encoded.ids)))
    orthography_bits = 0.0
    if isinstance(tokenizer, WordTokenizer):
        assert orthography is not None, "tokens of words leave out capitals and punctuation"
        orthography_bits = math.fsum(map(orthography.bits, lines))
    return WrittenBits(token_bits, orthography_bits, sum(len(line) + 1 for line in lines))
