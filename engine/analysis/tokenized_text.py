"""Texts that are typed or shown: their tokens, the words and sentences that these form, and the speakers of lines."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from operator import itemgetter
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from engine.data import tokenizers
from engine.data.arrays import Int32Array
from engine.data.scripts import SCENE_END, NameCase, encode_speaker, split_head, split_name
from engine.data.speakers import SOMEONE, STRANGER, find_member, normalize_speaker
from engine.data.tokenizers import EOS_ID, UNK_ID, ByteTokenizer, TokenIds, Tokenizer, WordTokenizer, skipped_spans

LINE_END_PATTERN = "\r\n|[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]"
LINE_END = re.compile(LINE_END_PATTERN)  # line ends as in `str.splitlines`

# The lookbehind and the possessive quantifiers avoid quadratic time on long runs of punctuation.
_SENTENCE_END = re.compile(r"""(?<![.!?…])[.!?…]++["'”’»)\]]*+(?:\s++|$)|[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]+""")

# An apostrophe belongs to the letters after it, except after other punctuation. No token of bpe is in two words then.
# Words as written, runs of punctuation and line ends, which leave out only white space.
WRITTEN_WORD = re.compile(
    rf"(?P<line_end>{LINE_END_PATTERN})|(?P<word>(?:(?<![^\w\s])['’])?[^\W_]++(?:['’][^\W_]++)*+)|(?:[^\w\s]|_)++"
)


@dataclass(frozen=True)
class TokenizedText:
    """The tokens of a text, with their spans in the text and the words and sentences that they form.

    In a closed vocabulary, each token is a word. In an open one, a word has one or more tokens, begins with the white
    space before it, and may be a run of punctuation or a line end. The names of a script are in no word.
    """

    text: str
    start_offsets: Int32Array
    end_offsets: Int32Array  # after the last character; the start for a later byte of the character before
    ids: TokenIds  # `[tokens]`; an `<eos>` spans a line end, in a closed vocabulary only after a line with a word
    word_starts: Int32Array  # first token `[words]` of each word
    sentence_starts: Int32Array  # first word `[sentences]` of each sentence. Sentences end at . ! ? … and at line ends.
    unk_id: int | None = UNK_ID
    # Start and end `[runs, 2]` of each run of characters that the tokenizer cannot read.
    skipped_spans: Int32Array = field(default_factory=lambda: np.empty((0, 2), np.int32))
    # Ids that a model reads before a token, by its index: the name before the first one of each line of a script, and
    # an empty line before that where a scene starts.
    heads: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    speakers: Mapping[int, str] = field(default_factory=dict)  # canonical, by the index of the first token of a line
    # Start and end `[labels, 2]` of the names of speakers, with the colon and the white space after it.
    label_spans: Int32Array = field(default_factory=lambda: np.empty((0, 2), np.int32))

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> str:
        return self.text[self.start_offsets[index] : self.end_offsets[index]]

    @cached_property
    def unknown_mask(self) -> npt.NDArray[np.bool_]:
        unknown: npt.NDArray[np.bool_] = self.ids == (-1 if self.unk_id is None else self.unk_id)
        return unknown

    def read_ids(self, start: int = 0, stop: int | None = None) -> tuple[list[int], list[int]]:
        """Return the ids that a model reads for some tokens, with names, and the position of each token in them."""
        ids, positions = list[int](), list[int]()
        for index, token in enumerate(self.ids[start:stop].tolist(), start):
            ids += self.heads.get(index, ())
            positions.append(len(ids))
            ids.append(token)
        return ids, positions

    def speaker_of(self, token: int) -> str | None:
        starts = [start for start in self.speakers if start <= token]
        return self.speakers[max(starts)] if starts else None

    def num_shared(self, other: "TokenizedText") -> int:
        """Return the number of tokens that both texts start with, after the same names."""
        size = min(len(self), len(other))
        different = np.flatnonzero(self.ids[:size] != other.ids[:size])
        names = self.heads.keys() | other.heads.keys()
        other_names = (index for index in names if self.heads.get(index) != other.heads.get(index))
        return min([size, *other_names, *map(int, different[:1])])

    def skipped_texts(self) -> list[str]:
        return list(dict.fromkeys(self.text[start:end] for start, end in self.skipped_spans.tolist()))

    @property
    def num_words(self) -> int:
        return len(self.word_starts)

    @cached_property
    def word_ends(self) -> Int32Array:
        """`[words]`, exclusive."""
        return np.append(self.word_starts[1:], len(self)).astype(np.int32)[: self.num_words]

    @cached_property
    def word_spans(self) -> tuple[Int32Array, Int32Array]:
        """Start and end of the characters of each word, both `[words]`, without the spaces before it."""
        starts, ends = self.start_offsets[self.word_starts], self.end_offsets[self.word_ends - 1]
        code_points = np.frombuffer(self.text.encode("utf-32-le", "surrogatepass"), np.uint32)
        visible = np.append(np.flatnonzero(code_points != ord(" ")), len(self.text))
        visible_starts = visible[np.searchsorted(visible, starts)].astype(np.int32)
        return np.where(visible_starts < ends, visible_starts, starts), ends

    def word(self, index: int) -> str:
        starts, ends = self.word_spans
        return self.text[starts[index] : ends[index]]

    def word_index(self, token: int) -> int:
        return int(np.searchsorted(self.word_starts, token, side="right")) - 1

    @property
    def unknown_words(self) -> npt.NDArray[np.bool_]:
        return self.unknown_mask[self.word_starts]

    @cached_property
    def counts_as_word(self) -> npt.NDArray[np.bool_]:
        """`[words]`: False for line ends, and in an open vocabulary for punctuation."""
        if self.unk_id is not None:
            is_word: npt.NDArray[np.bool_] = self.ids != EOS_ID
            return is_word
        return np.array([self.text[end - 1].isalnum() for end in self.word_spans[1].tolist()], np.bool_)

    def sentence_index(self, word: int) -> int:
        return int(np.searchsorted(self.sentence_starts, word, side="right")) - 1

    def sentence_span(self, index: int) -> tuple[int, int]:
        starts = [*self.sentence_starts[index : index + 2].tolist(), self.num_words]
        return starts[0], starts[1]


def tokenize_with_offsets(
    text: str, tokenizer: Tokenizer, *, eos_per_line: bool = False, cast: Sequence[str] = ()
) -> TokenizedText:
    """Split `text` into tokens, words and sentences.

    With `eos_per_line`, each line end is `<eos>`, as in the training of line mode. Without, and by models by others, a
    closed vocabulary ignores line ends, and an open one reads them. For a model with a `cast`, the text is a script: a
    line without a name is said by SOMEONE, and empty lines between two others end a scene.
    """
    heads, speakers, labels = dict[int, tuple[int, ...]](), dict[int, str](), list[tuple[int, int]]()
    eos_per_line = eos_per_line and not tokenizer.reads_line_ends
    if cast:
        spans = np.array(list(_iter_script(text, tokenizer, cast, heads, speakers, labels)), np.int32)
        starts, ends, ids = map(np.ascontiguousarray, spans.reshape(-1, 3).T)
    elif isinstance(tokenizer, ByteTokenizer):
        starts, ends, ids = _read_bytes(text, tokenizer, eos_per_line=eos_per_line)
    else:
        assert isinstance(tokenizer, WordTokenizer), "all other tokenizers have a closed vocabulary of words"
        starts, ends, ids = _read_words(text, tokenizer, eos_per_line=eos_per_line)
    skipped = []
    if isinstance(tokenizer, WordTokenizer):
        word_starts = np.arange(len(ids), dtype=np.int32)
        skipped = [span[:2] for span in skipped_spans(text, tokenizer.name)]
    else:
        # A token belongs to the word of its last character, and white space to the word after it.
        word_ends = np.array([match.end() for match in WRITTEN_WORD.finditer(text)], np.int64)
        word_of_token = np.searchsorted(word_ends, ends - 1, side="right")
        word_starts = np.flatnonzero(np.diff(word_of_token, prepend=-1)).astype(np.int32)
    sentence_ends = np.array([match.end() for match in _SENTENCE_END.finditer(text)], np.int64)
    # A word belongs to the sentence of its last character; an <eos> belongs to the line it ends.
    last_characters = ends[np.append(word_starts[1:], len(ids))[: len(word_starts)] - 1] - 1
    sentence_of_word = np.searchsorted(sentence_ends, last_characters, side="right")
    return TokenizedText(
        text,
        starts,
        ends,
        ids,
        word_starts,
        np.flatnonzero(np.diff(sentence_of_word, prepend=-1)).astype(np.int32),
        tokenizer.unk_id,
        np.array(skipped, np.int32).reshape(-1, 2),
        heads,
        speakers,
        np.array(labels, np.int32).reshape(-1, 2),
    )


def _read_words(text: str, tokenizer: WordTokenizer, *, eos_per_line: bool) -> tuple[Int32Array, Int32Array, TokenIds]:
    spans: list[tuple[int, int, int]] = list(tokenizer.spans(text))
    if eos_per_line and spans:
        line_ends = [match.span() for match in LINE_END.finditer(text)]
        starts = np.array([start for start, _, _ in spans])
        num_words_before = np.searchsorted(starts, [start for start, _ in line_ends])
        is_line_with_word = np.diff(num_words_before, prepend=0) > 0
        spans += [(*span, EOS_ID) for span, has_word in zip(line_ends, is_line_with_word, strict=True) if has_word]
        spans.sort(key=itemgetter(0))
    starts, ends, ids = map(np.ascontiguousarray, np.array(spans, np.int32).reshape(-1, 3).T)
    return starts, ends, ids


def _read_bytes(text: str, tokenizer: ByteTokenizer, *, eos_per_line: bool) -> tuple[Int32Array, Int32Array, TokenIds]:
    # Lines are encoded one by one, as in training, but for models by others, which have tokens of several line breaks.
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


def _iter_script(
    text: str,
    tokenizer: Tokenizer,
    cast: Sequence[str],
    heads: dict[int, tuple[int, ...]],
    speakers: dict[int, str],
    labels: list[tuple[int, int]],
) -> Iterator[tuple[int, int, int]]:
    # The tokens of a text begin with the space before it, which is no part of their spans.
    num_tokens, scene_end = 0, tuple[int, ...]()
    for line in labelled_lines(text, cast):
        if line.is_blank:
            scene_end = tuple(tokenizer.encode(SCENE_END).tolist()) if num_tokens else ()
            continue
        if line.start < line.text_start:
            labels.append((line.start, line.text_start))
        if line.text_start == line.text_end:
            continue
        has_end = line.next_start > line.end
        written = f" {text[line.text_start : line.text_end]}" + ("\n" if has_end else "")
        speakers[num_tokens] = line.speaker or SOMEONE
        heads[num_tokens] = (*scene_end, *encode_speaker(tokenizer, speakers[num_tokens]))
        scene_end = ()
        # Place in the text of each character of `written`, and of its end.
        starts = [max(line.text_start, line.text_start - 1 + index) for index in range(len(written) + 1)]
        ends = [*starts[:-1], line.next_start if has_end else starts[-1]]
        if has_end:
            starts[len(written) - 1] = line.end
        for start, end, id in tokenizer.spans(written):
            yield min(starts[start], ends[end]), ends[end], id  # a later byte before spaces stands where they begin
            num_tokens += 1


class LabelledLine(NamedTuple):
    speaker: str  # canonical name of the speaker of the line, as in the cast if it is a member; empty if none is named
    start: int  # first character of the name, or of the text if there is no name
    text_start: int
    text_end: int  # the text has no white space before `text_start` and after `text_end`
    end: int  # start of the line end
    next_start: int  # start of the next line. It equals `end` if the text ends with this line.

    @property
    def is_blank(self) -> bool:
        return not self.speaker and self.text_start == self.text_end


def labelled_lines(text: str, cast: Sequence[str]) -> Iterator[LabelledLine]:
    """Yield the lines of a text, of which some begin with a name: a member of `cast`, or one in capitals as in "MAN:".

    After a name alone on its line, the lines up to the next name or blank line are of this speaker.
    """
    start, name_alone = 0, ""
    for line_end, next_start in [*(match.span() for match in LINE_END.finditer(text)), (len(text), len(text))]:
        line = text[start:line_end]
        speaker, name_length = read_label(line, cast)
        said = line[name_length:]
        text_start = start + name_length + len(said) - len(said.lstrip())
        text_end = max(text_start, start + len(line.rstrip()))
        first = start + len(line) - len(line.lstrip()) if speaker else text_start
        if speaker or text_start == text_end:
            name_alone = speaker if text_start == text_end else ""
        else:
            speaker = name_alone
        yield LabelledLine(speaker, first, text_start, text_end, line_end, next_start)
        start = next_start


def read_label(line: str, cast: Sequence[str]) -> tuple[str, int]:
    """Return the canonical name that a line begins with, or "", and the length of the name with its colon."""
    head = split_head(line)
    length, name = len(head) + 1, normalize_speaker(head)
    if line[len(head) : length] != ":" or not (len(line) == length or line[length].isspace()):
        return "", 0
    # A user without a name is written so also where the training text has no stranger.
    if (member := find_member(name, (*cast, STRANGER))) is not None:
        return member, length
    named = split_name(" ".join(line[:length].split()))
    return (name, length) if named is not None and named.case == NameCase.UPPER else ("", 0)


class VocabularyCutoffs:
    """Vocabularies of a training text by cut-off: the occurrences that a word of the vocabulary has at least."""

    def __init__(
        self, train: Iterable[str], held_out: Iterable[str], name: tokenizers.WordTokenizerName = "words"
    ) -> None:
        self._name = name
        self._counts = Counter(word for line in train for word in tokenizers.split_words(line, name))
        held_out_counts = [self._counts[word] for line in held_out for word in tokenizers.split_words(line, name)]
        self._sorted_held_out_counts = np.sort(np.array(held_out_counts, np.int64))
        self._sorted_counts = np.sort(np.array(list(self._counts.values()), np.int64))
        self.num_held_out_words = len(held_out_counts)

    def vocabulary_size(self, cutoff: int) -> int:
        return len(self._sorted_counts) - int(np.searchsorted(self._sorted_counts, cutoff))

    def unknown_rate(self, cutoff: int) -> float:
        """Return the fraction of the held-out words that are unknown; 0 for an empty text."""
        return int(np.searchsorted(self._sorted_held_out_counts, cutoff)) / max(1, self.num_held_out_words)

    def tokenizer(self, cutoff: int) -> WordTokenizer:
        """Return the tokenizer of a vocabulary, with its words in order of first appearance."""
        words = (
            word
            for word, count in self._counts.items()
            if count >= cutoff and word not in (tokenizers.UNK, tokenizers.EOS)
        )
        return WordTokenizer((tokenizers.UNK, tokenizers.EOS, *words), self._name)
