"""Open vocabularies of a corpus: training a tokenizer, and tokenizing blocks of lines with it."""

import numpy as np

from engine.config import DataConfig
from engine.data.encoding import DataMode
from engine.data.lines import Lines
from engine.data.token_indexer import TokenizedBlock
from engine.data.tokenizers.base import Tokenizer
from engine.data.tokenizers.characters import CharacterTokenizer


def train_tokenizer(lines: Lines, config: DataConfig) -> Tokenizer:
    """Train the characters or bpe tokenizer that `config` names on the lines of the training split."""
    texts = (line.text for line in lines)
    if config.tokenizer == "characters":
        return CharacterTokenizer.from_lines(texts, config.min_count)
    # Imported here: it loads Hugging Face's tokenizers, which models of words do not need.
    from engine.data.tokenizers.bpe import BPETokenizer

    return BPETokenizer.train(texts, config.vocabulary_size)


class OpenIndexer:
    """Tokenizer of blocks of lines for an open vocabulary, with the ids of the model."""

    def __init__(self, tokenizer: Tokenizer, mode: DataMode) -> None:
        """Prepare to tokenize lines; in stream mode, each line includes its line feed."""
        self.tokens = tokenizer.tokens
        self._tokenizer = tokenizer
        self._keeps_line_feed = mode == "stream"

    def index_block(self, text: str) -> TokenizedBlock:
        """Tokenize a block of clean lines, each ended by a line feed. All punctuation classes are "none"."""
        # Not splitlines, which also splits at other characters that a line may contain.
        lines = text.removesuffix("\n").split("\n")
        ids = self._tokenizer.encode_lines([f"{line}\n" for line in lines] if self._keeps_line_feed else lines)
        all_ids = np.concatenate(ids)
        return TokenizedBlock(
            ids=all_ids,
            line_lengths=np.array([len(line_ids) for line_ids in ids], np.int64),
            punctuation=np.zeros(len(all_ids), np.uint8),
        )
