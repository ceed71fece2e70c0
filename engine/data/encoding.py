"""Encoding of a corpus: the vocabulary of the training split, and the token ids of all splits."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from engine.data import arrays
from engine.data.arrays import AppendableArray, Int32Array, Int64Array
from engine.data.lines import Lines
from engine.data.punctuation import LINE_END, NONE, PunctuationIds
from engine.data.script_form import SCENE_END, encode_speaker
from engine.data.speakers import SOMEONE
from engine.data.token_indexer import TokenizedBlock
from engine.data.tokenizers.base import EOS, EOS_ID, MAX_TOKEN_CHARACTERS, UNK, UNK_ID, TokenIds, Tokenizer
from engine.data.tokenizers.words import WordTokenizer, WordTokenizerName

DataMode = Literal["line", "stream", "dialogue"]
"""line: `<eos>` ends every line; stream: one `<eos>` ends each split; dialogue: so too, and each split is a script."""
NUM_MOST_FREQUENT = 20


@dataclass(frozen=True)
class CorpusStats:
    """Statistics of all tokens of a corpus, known or unknown."""

    num_tokens: int
    num_distinct_tokens: int
    most_frequent: tuple[tuple[str, int], ...]
    longest_line_index: int
    longest_line_tokens: int


@dataclass(frozen=True)
class EncodedCorpus:
    """Token ids of the training, validation and test split, one after the other."""

    ids: TokenIds
    punctuation: PunctuationIds
    """Punctuation class after each token `[time]`."""
    train_line_offsets: Int64Array
    """Start of each training line in `ids`, and the end of the last one `[lines + 1]`."""
    train_line_indices: Int32Array
    """Index of each training line in the corpus `[lines]`."""
    train_scene_offsets: Int64Array
    """Start of each training scene in `ids`, and the end of the last one `[scenes + 1]`; empty except in dialogues."""
    split_ends: tuple[int, int]
    """End of the training split and of the validation split in `ids`."""


class BlockIndexer(Protocol):
    """Tokenizer of blocks of lines, which numbers the distinct tokens."""

    @property
    def tokens(self) -> Sequence[str]:
        """All distinct tokens so far, by id."""

    def index_block(self, text: str) -> TokenizedBlock:
        """Tokenize a block of clean lines, each ended by a line feed."""


class TokenizedCorpus:
    """All tokens of a corpus, in file order, as the ids of an indexer."""

    def __init__(self, lines: Lines, indexer: BlockIndexer, folder: Path | None) -> None:
        """Tokenize all lines. The arrays are kept in `folder`, or in memory if it is None.

        Raises:
            OSError: If the folder cannot be written; `encode_splits` raises it too.
        """
        self._folder = folder
        ids = AppendableArray(np.int32, folder and folder / "tokens")
        punctuation = AppendableArray(np.uint8, folder and folder / "token_punctuation")
        line_lengths = AppendableArray(np.int32)
        for text in lines.iter_blocks():
            block = indexer.index_block(text)
            ids.extend(block.ids)
            punctuation.extend(block.punctuation)
            line_lengths.extend(block.line_lengths.astype(np.int32))
        self.line_lengths = line_lengths.to_array()
        """Number of tokens of each line `[lines]`."""
        self._tokens = indexer.tokens
        self._ids, self._punctuation = ids.to_array(), punctuation.to_array()
        self._offsets = np.concatenate([[0], np.cumsum(self.line_lengths, dtype=np.int64)])

    def build_word_tokenizer(
        self, line_indices: Int32Array, min_count: int, name: WordTokenizerName
    ) -> tuple[WordTokenizer, TokenIds]:
        """Build the vocabulary of the training lines `line_indices`, as `WordTokenizer.from_words` does.

        Returns:
            The tokenizer, and its id of each distinct token of the corpus.
        """
        counts = np.zeros(len(self._tokens), np.int64)
        seen = np.zeros(len(self._tokens), np.bool_)
        first_appearances = [np.empty(0, np.int32)]
        for chunk in arrays.iter_line_chunks(self._offsets, line_indices):
            tokens = self._ids[arrays.line_positions(self._offsets, chunk)]
            counts += arrays.chunked_bincount(tokens, len(counts))
            new, first_positions = np.unique(tokens[~seen[tokens]], return_index=True)
            first_appearances.append(new[np.argsort(first_positions)])
            seen[new] = True
        appeared = np.concatenate(first_appearances)
        special = {UNK: UNK_ID, EOS: EOS_ID}
        frequent = appeared[counts[appeared] >= min_count].tolist()
        kept = [
            token
            for token in frequent
            if self._tokens[token] not in special and len(self._tokens[token]) <= MAX_TOKEN_CHARACTERS
        ]
        vocabulary_ids = np.full(len(self._tokens), UNK_ID, np.int32)
        vocabulary_ids[np.array(kept, np.int64)] = np.arange(len(special), len(special) + len(kept))
        if name == "whitespace" and EOS in self._tokens:
            vocabulary_ids[self._tokens.index(EOS)] = EOS_ID
        return WordTokenizer((UNK, EOS, *(self._tokens[token] for token in kept)), name), vocabulary_ids

    def encode_splits(
        self, split_indices: Sequence[Int32Array], vocabulary_ids: TokenIds, mode: Literal["line", "stream"]
    ) -> EncodedCorpus:
        """Encode the training, validation and test split, given by line indices, and insert `<eos>` as `mode` says.

        `vocabulary_ids` is the id of each token of the indexer in the vocabulary of the model.
        """
        ids = AppendableArray(np.int32, self._folder and self._folder / "ids")
        punctuation = AppendableArray(np.uint8, self._folder and self._folder / "punctuation")
        split_ends = []
        for line_indices in split_indices:
            for chunk in arrays.iter_line_chunks(self._offsets, line_indices):
                positions = arrays.line_positions(self._offsets, chunk)
                line_ends = np.cumsum(self.line_lengths[chunk]) if mode == "line" else np.empty(0, np.int64)
                ids.extend(np.insert(vocabulary_ids[self._ids[positions]], line_ends, EOS_ID))
                punctuation.extend(np.insert(self._punctuation[positions], line_ends, LINE_END))
            if mode == "stream":
                ids.extend(np.array([EOS_ID], np.int32))
                punctuation.extend(np.array([LINE_END], np.uint8))
            split_ends.append(ids.size)
        train_lengths = self.line_lengths[split_indices[0]].astype(np.int64) + (mode == "line")
        return EncodedCorpus(
            ids=ids.to_array(),
            punctuation=punctuation.to_array(),
            train_line_offsets=np.concatenate([[0], np.cumsum(train_lengths)]),
            train_line_indices=split_indices[0],
            train_scene_offsets=np.empty(0, np.int64),
            split_ends=(split_ends[0], split_ends[1]),
        )

    def encode_dialogue(self, split_indices: Sequence[Int32Array], tokenizer: Tokenizer, lines: Lines) -> EncodedCorpus:
        """Encode the training, validation and test split as scripts (see `engine.data.script_form`).

        The tokens of the corpus are those of the texts with their line ends. Each line gets its head, and each scene
        but the first of a split an empty line before it.

        Args:
            split_indices: Indices of the lines of each split, in file order.
            tokenizer: Tokenizer of the corpus.
            lines: All lines of the corpus.
        """
        ids = AppendableArray(np.int32, self._folder and self._folder / "ids")
        heads = [np.array(encode_speaker(tokenizer, name or SOMEONE), np.int32) for name in lines.speaker_names]
        scene_end = tokenizer.encode(SCENE_END)
        beginnings = [heads, [np.concatenate([scene_end, head]) for head in heads]]
        split_ends, line_offsets, scene_offsets = [], np.empty(0, np.int64), np.empty(0, np.int64)
        for split, line_indices in enumerate(split_indices):
            speakers, scenes = lines.speaker_ids[line_indices], lines.scene_ids[line_indices]
            starts_scene = np.diff(scenes, prepend=scenes[:1]) != 0
            inserted = [
                beginnings[starts][speaker]
                for starts, speaker in zip(starts_scene.tolist(), speakers.tolist(), strict=True)
            ]
            num_inserted = np.array([len(part) for part in inserted], np.int64)
            num_done = 0
            for chunk in arrays.iter_line_chunks(self._offsets, line_indices):
                part = slice(num_done, num_done + len(chunk))
                num_done += len(chunk)
                starts = np.cumsum(self.line_lengths[chunk]) - self.line_lengths[chunk]
                places = np.repeat(starts, num_inserted[part])
                texts = self._ids[arrays.line_positions(self._offsets, chunk)]
                ids.extend(np.insert(texts, places, np.concatenate(inserted[part])))
            if split == 0:
                line_offsets = np.concatenate([[0], np.cumsum(self.line_lengths[line_indices] + num_inserted)])
                scene_offsets = np.concatenate([[0], line_offsets[:-1][starts_scene], line_offsets[-1:]])
            ids.extend(np.array([EOS_ID], np.int32))
            split_ends.append(ids.size)
        punctuation = AppendableArray(np.uint8, self._folder and self._folder / "punctuation")
        for chunk_slice in arrays.iter_slices(ids.size):
            punctuation.extend(np.full(chunk_slice.stop - chunk_slice.start, NONE, np.uint8))
        return EncodedCorpus(
            ids=ids.to_array(),
            punctuation=punctuation.to_array(),
            train_line_offsets=line_offsets,
            train_line_indices=split_indices[0],
            train_scene_offsets=scene_offsets,
            split_ends=(split_ends[0], split_ends[1]),
        )

    def stats(self) -> CorpusStats:
        """Return statistics of all lines."""
        counts = arrays.chunked_bincount(self._ids, len(self._tokens))
        most_frequent = np.argsort(-counts, kind="stable")[:NUM_MOST_FREQUENT]
        longest = int(np.argmax(self.line_lengths))
        return CorpusStats(
            num_tokens=len(self._ids),
            num_distinct_tokens=int(np.count_nonzero(counts)),
            most_frequent=tuple((self._tokens[token], int(counts[token])) for token in most_frequent),
            longest_line_index=longest,
            longest_line_tokens=int(self.line_lengths[longest]),
        )
