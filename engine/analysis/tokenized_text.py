"""Tokenized texts: the tokens of a text, the words that they form, and the sentences that these form."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from operator import itemgetter
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from engine.analysis.labelled_lines import LINE_END, LINE_END_PATTERN, ScriptTokens, encode_script
from engine.data.arrays import Int32Array
from engine.data.tokenizers.base import EOS_ID, UNK_ID, TokenIds, Tokenizer
from engine.data.tokenizers.bytes import ByteTokenizer
from engine.data.tokenizers.words import WordTokenizer, skipped_spans

# The lookbehind and the possessive quantifiers avoid quadratic time on long runs of punctuation.
_SENTENCE_END = re.compile(r"""(?<![.!?…])[.!?…]++["'”’»)\]]*+(?:\s++|$)|[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]+""")

# An apostrophe belongs to the letters after it, except after other punctuation. No token of bpe is in two words then.
_WRITTEN_WORD = re.compile(
    rf"(?P<line_end>{LINE_END_PATTERN})|(?P<word>(?:(?<![^\w\s])['’])?[^\W_]++(?:['’][^\W_]++)*+)|(?:[^\w\s]|_)++"
)


class WrittenWord(NamedTuple):
    """A word of a text as written, a run of punctuation, or a line end."""

    start: int
    end: int
    kind: str
    """"word" for letters and digits, "punctuation" or "line_end"."""


def written_words(text: str) -> Iterator[WrittenWord]:
    """Yield all words, runs of punctuation and line ends of a text. They leave out only white space."""
    for match in _WRITTEN_WORD.finditer(text):
        yield WrittenWord(match.start(), match.end(), match.lastgroup or "punctuation")


@dataclass(frozen=True)
class TokenizedText:
    """The tokens of a text, with their spans in the text and the words and sentences that they form.

    In a closed vocabulary, each token is a word. In an open one, a word has one or more tokens, begins with the white
    space before it, and may be a run of punctuation or a line end. The names of a script are in no word: a model reads
    them before the first token of a line.
    """

    text: str
    start_offsets: Int32Array
    """Index `[tokens]` of the first character of each token."""
    end_offsets: Int32Array
    """Index `[tokens]` after the last character of each token. It equals the index of the first one if the token is a
    later byte of the character before."""
    ids: TokenIds
    """Token ids `[tokens]`. If line ends are tokens, an `<eos>` spans each of them, but only after lines with a word in
    a closed vocabulary."""
    word_starts: Int32Array
    """First token `[words]` of each word."""
    sentence_starts: Int32Array
    """First word `[sentences]` of each sentence. Sentences end at . ! ? … and at line ends."""
    skipped_spans: Int32Array = field(default_factory=lambda: np.empty((0, 2), np.int32))
    """Start and end `[runs, 2]` of each run of characters that the tokenizer cannot read."""
    unk_id: int | None = UNK_ID
    """Id of `<unk>`; None in an open vocabulary."""
    heads: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    """Token ids that a model reads before a token, by the index of the token: the name before the first one of each
    line of a script, and an empty line before that where a scene starts. Empty without a cast."""
    speakers: Mapping[int, str] = field(default_factory=dict)
    """Canonical name of the speaker of each line of a script, by the index of its first token."""
    label_spans: Int32Array = field(default_factory=lambda: np.empty((0, 2), np.int32))
    """Start and end `[labels, 2]` of the names of speakers, with the colon."""

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> str:
        """Return a token as written in the text."""
        return self.text[self.start_offsets[index] : self.end_offsets[index]]

    @cached_property
    def unknown_mask(self) -> npt.NDArray[np.bool_]:
        """`[tokens]`: True for tokens that the model reads as `<unk>`."""
        if self.unk_id is None:
            return np.zeros(len(self.ids), np.bool_)
        unknown: npt.NDArray[np.bool_] = self.ids == self.unk_id
        return unknown

    def speaker_of(self, token: int) -> str | None:
        """Return the canonical name of the speaker who says a token; None without a cast."""
        starts = [start for start in self.speakers if start <= token]
        return self.speakers[max(starts)] if starts else None

    def num_shared(self, other: "TokenizedText") -> int:
        """Return the number of tokens that both texts start with, after the same names."""
        size = min(len(self), len(other))
        different = np.flatnonzero(self.ids[:size] != other.ids[:size])
        other_heads = [
            index for index in self.heads.keys() | other.heads.keys() if self.heads.get(index) != other.heads.get(index)
        ]
        first: int = min([size, *different[:1].tolist(), *other_heads])
        return first

    def skipped_texts(self) -> list[str]:
        """Return the distinct runs of characters that the tokenizer cannot read, in the order of the text."""
        return list(dict.fromkeys(self.text[start:end] for start, end in self.skipped_spans.tolist()))

    # Words

    @property
    def num_words(self) -> int:
        """Number of words, runs of punctuation and line ends included."""
        return len(self.word_starts)

    @cached_property
    def word_ends(self) -> Int32Array:
        """Token `[words]` after the last one of each word."""
        return np.append(self.word_starts[1:], len(self)).astype(np.int32)[: self.num_words]

    @cached_property
    def word_spans(self) -> tuple[Int32Array, Int32Array]:
        """Index of the first character and after the last character of each word, both `[words]`.

        White space before a word is left out.
        """
        starts, ends = self.start_offsets[self.word_starts], self.end_offsets[self.word_ends - 1]
        visible = np.append(np.flatnonzero(_code_points(self.text) != ord(" ")), len(self.text))
        visible_starts = visible[np.searchsorted(visible, starts)].astype(np.int32)
        return np.where(visible_starts < ends, visible_starts, starts), ends

    def word(self, index: int) -> str:
        """Return a word as written in the text, without the white space before it."""
        starts, ends = self.word_spans
        return self.text[starts[index] : ends[index]]

    def word_index(self, token: int) -> int:
        """Return the index of the word that contains a token."""
        return int(np.searchsorted(self.word_starts, token, side="right")) - 1

    @property
    def unknown_words(self) -> npt.NDArray[np.bool_]:
        """`[words]`: True for words that the model reads as `<unk>`."""
        return self.unknown_mask[self.word_starts]

    @cached_property
    def has_letters(self) -> npt.NDArray[np.bool_]:
        """`[words]`: True for words of letters and digits; False for punctuation and line ends that are tokens."""
        if self.unk_id is not None:
            is_word: npt.NDArray[np.bool_] = self.ids != EOS_ID
            return is_word
        return np.array([self.text[end - 1].isalnum() for end in self.word_spans[1].tolist()], np.bool_)

    # Sentences

    def sentence_index(self, word: int) -> int:
        """Return the index of the sentence that contains a word."""
        return int(np.searchsorted(self.sentence_starts, word, side="right")) - 1

    def sentence_span(self, index: int) -> tuple[int, int]:
        """Return the first word of a sentence and the word after its last."""
        is_last = index + 1 == len(self.sentence_starts)
        return int(self.sentence_starts[index]), self.num_words if is_last else int(self.sentence_starts[index + 1])


def tokenize_with_offsets(
    text: str, tokenizer: Tokenizer, *, eos_per_line: bool = False, cast: Sequence[str] = ()
) -> TokenizedText:
    """Split `text` into tokens, words and sentences.

    With `eos_per_line`, each line ends in `<eos>`, as in the training of line mode; a last line without a line end gets
    no `<eos>`, and neither does a line without a word in a closed vocabulary. Without, a closed vocabulary ignores line
    ends, and an open one reads them as characters, as in the training of stream mode. Models by others always do.

    For a model with a `cast`, the text is a script, whatever `eos_per_line` is: see `encode_script`.
    """
    script: ScriptTokens | None = None
    eos_per_line = eos_per_line and not tokenizer.reads_line_ends
    if cast:
        script = encode_script(text, tokenizer, cast)
        starts, ends, ids = script.start_offsets, script.end_offsets, script.ids
    elif isinstance(tokenizer, ByteTokenizer):
        starts, ends, ids = _read_bytes(text, tokenizer, eos_per_line=eos_per_line)
    else:
        assert isinstance(tokenizer, WordTokenizer), "all other tokenizers have a closed vocabulary of words"
        starts, ends, ids = _read_words(text, tokenizer, eos_per_line=eos_per_line)
    if isinstance(tokenizer, WordTokenizer):
        word_starts = np.arange(len(ids), dtype=np.int32)
        spans = [span[:2] for span in skipped_spans(text, tokenizer.name)]
        skipped = np.array(spans, np.int32).reshape(-1, 2)
    else:
        word_starts = _group_tokens(text, ends)
        skipped = np.empty((0, 2), np.int32)
    sentence_ends = np.array([match.end() for match in _SENTENCE_END.finditer(text)], np.int64)
    # A word belongs to the sentence of its last character; an <eos> belongs to the line it ends.
    last_characters = ends[np.append(word_starts[1:], len(ids))[: len(word_starts)] - 1] - 1
    sentence_of_word = np.searchsorted(sentence_ends, last_characters, side="right")
    sentence_starts = np.flatnonzero(np.diff(sentence_of_word, prepend=-1)).astype(np.int32)
    return TokenizedText(
        text,
        starts,
        ends,
        ids,
        word_starts,
        sentence_starts,
        skipped,
        tokenizer.unk_id,
        *(() if script is None else (script.heads, script.speakers, script.label_spans)),
    )


def _read_words(text: str, tokenizer: WordTokenizer, *, eos_per_line: bool) -> tuple[Int32Array, Int32Array, TokenIds]:
    """Return start, end and id of each word of a closed vocabulary, and of each `<eos>`: three arrays `[tokens]`."""
    spans: list[tuple[int, int, int]] = list(tokenizer.spans(text))
    if eos_per_line and spans:
        line_ends = [match.span() for match in LINE_END.finditer(text)]
        starts = np.array([start for start, _, _ in spans])
        num_words_before = np.searchsorted(starts, [start for start, _ in line_ends])
        is_line_with_word = np.diff(num_words_before, prepend=0) > 0
        spans += [(*span, EOS_ID) for span, has_word in zip(line_ends, is_line_with_word, strict=True) if has_word]
        spans.sort(key=itemgetter(0))
    columns = np.array(spans, np.int32).reshape(-1, 3).T
    return np.ascontiguousarray(columns[0]), np.ascontiguousarray(columns[1]), np.ascontiguousarray(columns[2])


def _read_bytes(text: str, tokenizer: ByteTokenizer, *, eos_per_line: bool) -> tuple[Int32Array, Int32Array, TokenIds]:
    """Return start, end and id of each token of an open vocabulary: three arrays `[tokens]`.

    Lines are encoded one by one, as in training, but models by others have tokens of several line breaks, so that they
    read a text as a whole. The tokens cover the text without a gap.
    """
    matches = [] if tokenizer.reads_line_ends else [match.span() for match in LINE_END.finditer(text)]
    line_ends = np.array(matches, np.int64).reshape(-1, 2)
    starts, stops = np.append(0, line_ends[:, 1]), np.append(line_ends[:, 0 if eos_per_line else 1], len(text))
    lines = [text[start:stop] for start, stop in zip(starts.tolist(), stops.tolist(), strict=True)]
    distinct = list(dict.fromkeys(lines))  # a text may have many empty lines
    ids_of_line = dict(zip(distinct, tokenizer.encode_lines(distinct), strict=True))
    encoded = [ids_of_line[line] for line in lines]
    num_tokens = np.array([len(ids) for ids in encoded])
    ids = np.concatenate(encoded)
    token_ends = tokenizer.end_offsets("".join(lines), ids)
    token_starts = np.append(0, token_ends[:-1])[: len(ids)]
    # The characters of line ends that are not in `lines`.
    num_skipped = np.repeat(starts - (np.cumsum(stops - starts) - (stops - starts)), num_tokens)
    token_starts, token_ends = token_starts + num_skipped, token_ends + num_skipped
    if eos_per_line:
        positions = np.cumsum(num_tokens)[:-1]
        ids = np.insert(ids, positions, EOS_ID)
        token_starts = np.insert(token_starts, positions, line_ends[:, 0])
        token_ends = np.insert(token_ends, positions, line_ends[:, 1])
    return token_starts.astype(np.int32), token_ends.astype(np.int32), ids.astype(np.int32)


def _group_tokens(text: str, token_ends: Int32Array) -> Int32Array:
    """Return the first token `[words]` of each written word, given the end offset of each token `[tokens]`.

    A token belongs to the word of its last character, and white space to the word after it.
    """
    word_ends = np.array([match.end() for match in _WRITTEN_WORD.finditer(text)], np.int64)
    word_of_token = np.searchsorted(word_ends, token_ends - 1, side="right")
    return np.flatnonzero(np.diff(word_of_token, prepend=-1)).astype(np.int32)


def _code_points(text: str) -> npt.NDArray[np.uint32]:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
