"""Open vocabularies of a corpus: training a tokenizer, and tokenizing blocks of lines with it."""

from collections.abc import Iterable

import numpy as np

from engine.config import DataConfig
from engine.data.encoding import DataMode
from engine.data.lines import Lines
from engine.data.script_form import said_text, speaker_head
from engine.data.speakers import SOMEONE
from engine.data.token_indexer import TokenizedBlock
from engine.data.tokenizers.base import Tokenizer
from engine.data.tokenizers.characters import CharacterTokenizer


def train_tokenizer(lines: Lines, config: DataConfig) -> Tokenizer:
    """Train the characters or bpe tokenizer that `config` names on the lines of the training split."""
    texts: Iterable[str] = (line.text for line in lines)
    if config.mode == "dialogue":
        texts = (part for line in lines for part in (speaker_head(line.speaker or SOMEONE), said_text(line.text)))
    if config.tokenizer == "characters":
        return CharacterTokenizer.from_lines(texts, config.min_count)
    # Imported here: it loads Hugging Face's tokenizers, which models of words do not need.
    from engine.data.tokenizers.bpe import BPETokenizer

    return BPETokenizer.train(texts, config.vocabulary_size)


class OpenIndexer:
    """Tokenizer of blocks of lines for an open vocabulary, with the ids of the model."""

    def __init__(self, tokenizer: Tokenizer, mode: DataMode) -> None:
        """Prepare to tokenize lines.

        In stream mode, each line includes its line feed. In dialogue mode, a line is what follows the head of a line of
        a script; an empty line has no token.
        """
        self.tokens = tokenizer.tokens
        self._tokenizer, self._mode = tokenizer, mode

    def index_block(self, text: str) -> TokenizedBlock:
        """Tokenize a block of clean lines, each ended by a line feed. All punctuation classes are "none"."""
        # Not splitlines, which also splits at other characters that a line may contain.
        lines = text.removesuffix("\n").split("\n")
        if self._mode == "stream":
            lines = [f"{line}\n" for line in lines]
        elif self._mode == "dialogue":
            lines = [said_text(line) if line else "" for line in lines]
        ids = self._tokenizer.encode_lines(lines)
        all_ids = np.concatenate(ids)
        return TokenizedBlock(
            ids=all_ids,
            line_lengths=np.array([len(line_ids) for line_ids in ids], np.int64),
            punctuation=np.zeros(len(all_ids), np.uint8),
        )
