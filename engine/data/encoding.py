"""Encoding of the splits of a corpus: their token ids, and the vocabulary of the training split."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from engine.config import DataConfig
from engine.data.arrays import LINE_BLOCK, Int32Array, Int64Array, iter_slices
from engine.data.lines import Lines
from engine.data.punctuation import LINE_END, NONE, PunctuationIds
from engine.data.script_form import SCENE_END, encode_speaker, said_text, speaker_head
from engine.data.speakers import SOMEONE
from engine.data.token_indexer import TokenIndexer, TokenizedBlock
from engine.data.tokenizers.base import EOS, EOS_ID, MAX_TOKEN_CHARACTERS, UNK, UNK_ID, TokenIds, Tokenizer
from engine.data.tokenizers.characters import CharacterTokenizer
from engine.data.tokenizers.words import WordTokenizer, WordTokenizerName

DataMode = Literal["line", "stream", "dialogue"]
"""line: `<eos>` ends every line; stream: one `<eos>` ends each split; dialogue: so too, and each split is a script."""


@dataclass(frozen=True)
class EncodedSplit:
    """Token ids of a split."""

    ids: TokenIds  # token ids `[time]`, with `<eos>` as the mode says
    punctuation: PunctuationIds  # punctuation class after each token `[time]`; "none" in an open vocabulary
    lines: Int32Array
    """Index of each line in the corpus `[lines]`. Lines without a word of a closed vocabulary are left out."""
    offsets: Int64Array  # start of each line in `ids`, and the end of the last one `[lines + 1]`


def encode_words(
    lines: Lines, splits: Sequence[Int32Array], mode: DataMode, name: WordTokenizerName
) -> tuple[list[EncodedSplit], list[str]]:
    """Encode the lines with the indices `splits`, first the training lines, as words in order of first appearance.

    Returns:
        The splits, and the words by id. The first two are `<unk>` and `<eos>`, also where the text has them.
    """
    indexer = TokenIndexer(name)

    def index(texts: list[str]) -> TokenizedBlock:
        return indexer.index_block("\n".join([*texts, ""]))

    encoded = [_encode(lines, split, index, mode) for split in splits]
    return encoded, indexer.tokens


def limit_vocabulary(
    splits: Sequence[EncodedSplit], words: Sequence[str], min_count: int, name: WordTokenizerName
) -> tuple[list[EncodedSplit], WordTokenizer]:
    """Replace rare words by `<unk>`: the result has the vocabulary of the training split, the first of `splits`.

    Other words have at least `min_count` occurrences in it. The other arguments are what `encode_words` returns.
    """
    counts = np.bincount(splits[0].ids, minlength=len(words))
    counts[[UNK_ID, EOS_ID]] = 0
    kept = [id for id in np.flatnonzero(counts >= min_count).tolist() if len(words[id]) <= MAX_TOKEN_CHARACTERS]
    new_ids = np.full(len(words), UNK_ID, np.int32)
    new_ids[[EOS_ID, *kept]] = np.arange(EOS_ID, EOS_ID + 1 + len(kept))
    tokenizer = WordTokenizer((UNK, EOS, *(words[id] for id in kept)), name)
    return [replace(split, ids=new_ids[split.ids]) for split in splits], tokenizer


def train_tokenizer(lines: Lines, config: DataConfig) -> Tokenizer:
    """Train the characters or bpe tokenizer that `config` names on the lines of the training split."""
    texts: Iterable[str] = lines.texts
    if config.mode == "dialogue":
        texts = (part for line in lines for part in (speaker_head(line.speaker or SOMEONE), said_text(line.text)))
    if config.tokenizer == "characters":
        return CharacterTokenizer.from_lines(texts, config.min_count)
    # Imported here: it loads Hugging Face's tokenizers, which models of words do not need.
    from engine.data.tokenizers.bpe import BPETokenizer

    return BPETokenizer.train(texts, config.vocabulary_size)


def encode_open(lines: Lines, split: Int32Array, tokenizer: Tokenizer, mode: DataMode) -> EncodedSplit:
    """Encode the lines with the indices `split` in an open vocabulary.

    In stream mode, each line includes its line feed. In dialogue mode, each line gets its head, and each scene but the
    first an empty line before it (see `engine.data.script_form`).
    """
    names = lines.speaker_names if mode == "dialogue" else ()
    heads = [np.array(encode_speaker(tokenizer, name or SOMEONE), np.int32) for name in names]
    scene_end, scene_starts = tokenizer.encode(SCENE_END), set(find_scene_starts(lines.scene_ids[split])[1:].tolist())
    speakers, num_done = lines.speaker_ids[split].tolist(), 0

    def index(texts: list[str]) -> TokenizedBlock:
        nonlocal num_done
        if mode != "dialogue":
            ids = tokenizer.encode_lines([f"{text}\n" for text in texts] if mode == "stream" else texts)
        else:
            ids = tokenizer.encode_lines(list(map(said_text, texts)))
            for index, number in enumerate(range(num_done, num_done + len(texts))):
                before = [scene_end] if number in scene_starts else []
                ids[index] = np.concatenate([*before, heads[speakers[number]], ids[index]])
            num_done += len(texts)
        return TokenizedBlock(np.concatenate(ids), np.array(list(map(len, ids))), None)

    return _encode(lines, split, index, mode)


def find_scene_starts(scene_ids: Int32Array) -> Int64Array:
    """Return the indices of the first lines of all scenes, given the number of the scene of each line."""
    return np.flatnonzero(np.diff(scene_ids, prepend=-1))


def _encode(
    lines: Lines, split: Int32Array, index_lines: Callable[[list[str]], TokenizedBlock], mode: DataMode
) -> EncodedSplit:
    """Encode lines in blocks, and add `<eos>` as `mode` says."""
    ids, punctuation = bytearray(), bytearray()  # grow without a copy
    kept, lengths = [], []
    for part in iter_slices(len(split), LINE_BLOCK):
        block = index_lines([lines.texts[line] for line in split[part].tolist()])
        is_kept = block.line_lengths >= (0 if block.punctuation is None else 1)
        ends = np.cumsum(block.line_lengths)[is_kept] if mode == "line" else np.empty(0, np.int64)
        ids += np.insert(block.ids, ends, EOS_ID).tobytes()
        if block.punctuation is not None:
            punctuation += np.insert(block.punctuation, ends, LINE_END).tobytes()
        kept.append(split[part][is_kept])
        lengths.append(block.line_lengths[is_kept] + (mode == "line"))
    if mode != "line":
        ids += np.array([EOS_ID], np.int32).tobytes()
        punctuation += bytes([LINE_END])
    all_ids = np.frombuffer(ids, np.int32)
    classes = np.frombuffer(punctuation, np.uint8)
    if len(classes) < len(all_ids):  # an open vocabulary
        classes = np.zeros(len(all_ids), np.uint8)
        classes[all_ids == EOS_ID] = NONE if mode == "dialogue" else LINE_END
    return EncodedSplit(all_ids, classes, np.concatenate(kept), np.concatenate([[0], *lengths]).cumsum())
