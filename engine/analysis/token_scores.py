"""What a model makes of a text, word by word: where each word stands, and how little it was expected there."""

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from engine.analysis.perplexity import Evaluation, perplexity, summarize
from engine.data.vocabulary import EOS_ID, UNK_ID, Ids, Vocabulary, spans
from engine.errors import CorpusError
from engine.generation.generate import ALTERNATIVES
from engine.models.base import LanguageModel

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int32]

MOST_BYTES = 4_000_000
"""Of a file; some 800,000 words, which take a minute or two."""
FIRST_CHUNK, CHUNK = 16, 256
"""Words read between two looks at the clock; few at first, so that something is seen at once."""

LINE_END = re.compile("\r\n|[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]")
"""As `str.splitlines` knows them."""

# Looking behind, and never giving back what was taken: else a long row of dots takes its square in time.
_SENTENCE_END = re.compile(r"""(?<![.!?…])[.!?…]++["'”’»)\]]*+(?:\s++|$)|[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]+""")


@dataclass(frozen=True)
class Words:
    """The words of a text as a model reads them, and where they stand in it."""

    text: str
    starts: Integers
    """`[words]`: of the first character of each."""
    ends: Integers
    """`[words]`: behind the last."""
    ids: Ids
    """`[words]`; where line ends are read, an `<eos>` stands on each line end behind a line with a word."""
    sentences: Integers
    """`[sentences]`: the first word of each. They end at . ! ? … and at line ends."""

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> str:
        """A word as it was written."""
        return self.text[self.starts[index] : self.ends[index]]

    @cached_property
    def unknown(self) -> npt.NDArray[np.bool_]:
        """`[words]`: whether the model reads `<unk>`."""
        unknown: npt.NDArray[np.bool_] = self.ids == UNK_ID
        return unknown

    def sentence_of(self, index: int) -> int:
        """The number of the sentence that a word stands in."""
        return int(np.searchsorted(self.sentences, index, side="right")) - 1

    def sentence(self, number: int) -> tuple[int, int]:
        """The first word of a sentence, and the one behind its last."""
        last = number + 1 == len(self.sentences)
        return int(self.sentences[number]), len(self) if last else int(self.sentences[number + 1])


def split(text: str, vocabulary: Vocabulary, *, line_ends: bool = False) -> Words:
    """Find the words and sentences of `text`.

    `line_ends`: read `<eos>` at the end of each line that has a word, as a model of line mode was trained. A last
    line that has no end yet gets none.
    """
    index = vocabulary.index
    found = [(start, end, index.get(word, UNK_ID)) for start, end, word in spans(text, vocabulary.tokenizer)]
    starts, ends, ids = np.array(found, np.int32).reshape(-1, 3).T
    if line_ends and len(ids):
        lines = np.array([match.span() for match in LINE_END.finditer(text)], np.int32).reshape(-1, 2)
        before = np.searchsorted(starts, lines[:, 0])  # words in front of each line end
        lines = lines[np.diff(before, prepend=0) > 0]
        order = np.argsort(np.concatenate([starts, lines[:, 0]]), kind="stable")
        starts, ends = np.concatenate([starts, lines[:, 0]])[order], np.concatenate([ends, lines[:, 1]])[order]
        ids = np.concatenate([ids, np.full(len(lines), EOS_ID, np.int32)])[order]
    breaks = np.array([match.end() for match in _SENTENCE_END.finditer(text)], np.int32)
    # By its last character: that of an <eos> is the line end, which still belongs to its line.
    number = np.searchsorted(breaks, ends - 1, side="right")
    sentences = np.flatnonzero(np.diff(number, prepend=-1))
    return Words(text, *(np.ascontiguousarray(part, np.int32) for part in (starts, ends, ids, sentences)))


@dataclass(frozen=True)
class Piece:
    """What a model made of some words that follow one another."""

    begin: int
    """The first of them."""
    scores: Floats
    """Natural-log probabilities `[words]`."""
    ranks: Integers
    """`[words]`; 1 is the model's likeliest word."""
    likeliest: Ids
    """`[words, alternatives]`: what it expected most, likeliest first."""
    likeliest_scores: npt.NDArray[np.float32]
    """Natural-log probabilities of those."""


def read(model: LanguageModel, ids: Ids, cancelled: Callable[[], bool] = lambda: False) -> Iterator[Piece]:
    """Read `ids`, the first one predicted after `<eos>`, the state carried from the first to the last.

    The alternatives come with it: finding them costs less than keeping the states to find them later.
    """
    log_probs, state = model.advance(model.start(), EOS_ID)
    most = min(ALTERNATIVES, len(model.vocabulary))
    begin, size = 0, FIRST_CHUNK
    while begin < len(ids) and not cancelled():
        chunk = ids[begin : begin + size]
        rows = np.empty((len(chunk), len(log_probs)), np.float32)
        for row, token in zip(rows, chunk, strict=True):
            row[:] = log_probs
            log_probs, state = model.advance(state, int(token))
            if cancelled():
                return
        scores = rows[np.arange(len(chunk)), chunk]
        ranks = 1 + np.count_nonzero(rows > scores[:, None], axis=1)
        likeliest = np.argpartition(rows, -most, axis=1)[:, -most:]
        values = np.take_along_axis(rows, likeliest, axis=1)
        order = np.argsort(-values, axis=1, kind="stable")
        yield Piece(
            begin,
            scores.astype(np.float64),
            ranks.astype(np.int32),
            np.take_along_axis(likeliest, order, axis=1).astype(np.int32),
            np.take_along_axis(values, order, axis=1),
        )
        begin, size = begin + len(chunk), min(2 * size, CHUNK)


@dataclass(frozen=True)
class Guess:
    """What a model made of one word."""

    bits: float
    prob: float
    rank: int
    """1 is the model's likeliest word."""
    likeliest: tuple[tuple[str, float], ...]
    """The likeliest words and their probabilities."""


class Reading:
    """What a model made of a text so far, put together of its pieces."""

    def __init__(self, words: Words, vocabulary: Vocabulary, before: "Reading | None" = None) -> None:
        """A reading of `words`; what they have in common with the start of those read `before` is known at once."""
        most = min(ALTERNATIVES, len(vocabulary))
        self.words = words
        self.vocabulary = vocabulary
        self.done = 0
        """Words read."""
        self.scores = np.full(len(words), np.nan)
        """Natural-log probabilities `[words]`; NaN where not read yet."""
        self._ranks = np.zeros(len(words), np.int32)
        self._likeliest = np.zeros((len(words), most), np.int32)
        self._likeliest_scores = np.zeros((len(words), most), np.float32)
        if before is not None:
            shorter = min(before.done, len(words))
            differing = np.flatnonzero(before.words.ids[:shorter] != words.ids[:shorter])
            same = int(differing[0]) if len(differing) else shorter
            self.add(
                Piece(
                    0,
                    before.scores[:same],
                    before._ranks[:same],
                    before._likeliest[:same],
                    before._likeliest_scores[:same],
                )
            )

    @property
    def complete(self) -> bool:
        """Whether all words were read."""
        return self.done == len(self.words)

    @property
    def bits(self) -> Floats:
        """Bits `[words]`: one for each time that the model's probability halves; NaN where not read yet."""
        return -self.scores / math.log(2)

    def add(self, piece: Piece) -> None:
        """Take in the next piece."""
        end = piece.begin + len(piece.scores)
        self.scores[piece.begin : end] = piece.scores
        self._ranks[piece.begin : end] = piece.ranks
        self._likeliest[piece.begin : end] = piece.likeliest
        self._likeliest_scores[piece.begin : end] = piece.likeliest_scores
        self.done = max(self.done, end)

    def guess(self, index: int) -> Guess | None:
        """What the model made of a word; None where it has not come so far."""
        if not 0 <= index < self.done:
            return None
        score, words = float(self.scores[index]), self.vocabulary.words
        pairs = zip(self._likeliest[index].tolist(), self._likeliest_scores[index].tolist(), strict=True)
        return Guess(
            bits=-score / math.log(2),
            prob=math.exp(score),
            rank=int(self._ranks[index]),
            likeliest=tuple((words[token], math.exp(value)) for token, value in pairs),
        )

    def summary(self) -> "Summary | None":
        """The words read so far in a few figures; None before the first."""
        if not self.done:
            return None
        scores, unknown = self.scores[: self.done], self.words.unknown[: self.done]
        known = scores[~unknown]
        return Summary(
            summarize(scores, self.words.ids[: self.done]),
            int(np.count_nonzero(unknown)),
            perplexity(float(-known.mean())) if len(known) else None,
        )

    def by_sentence(self) -> Floats:
        """Perplexity `[sentences]` of each; NaN where not read to its end."""
        if not len(self.words):
            return np.empty(0)
        sizes = np.diff(self.words.sentences, append=len(self.words))
        means = np.add.reduceat(-self.scores, self.words.sentences) / sizes
        with np.errstate(over="ignore"):
            perplexities: Floats = np.exp(means)
        return perplexities


@dataclass(frozen=True)
class Summary:
    """A reading in a few figures."""

    evaluation: Evaluation
    """All words, unknown ones counted like any other."""
    unknown: int
    """Words outside the vocabulary."""
    known_perplexity: float | None
    """That of the other words; they were still predicted from all. None where there is no other."""


@dataclass(frozen=True)
class Comparison:
    """Two models on the words that both have read."""

    words: int
    better: int
    """Words to which the first gave a higher probability."""
    worse: int
    bits: float
    """What the second needs more than the first, a word; negative where it needs less."""


def compare(first: Reading, second: Reading) -> Comparison | None:
    """Two readings of the same words; None before both have begun."""
    done = min(first.done, second.done)
    if not done:
        return None
    more = first.scores[:done] - second.scores[:done]
    better, worse = int(np.count_nonzero(more > 0)), int(np.count_nonzero(more < 0))
    return Comparison(done, better, worse, float(more.mean()) / math.log(2))


def read_file(path: Path) -> str:
    """The text of a file, in UTF-8 with or without byte order mark.

    Raises:
        CorpusError: there is none, it is no text, not in UTF-8, or too large.
    """
    try:
        path = path.expanduser()
        if path.is_dir():
            raise CorpusError(f"{path} is a folder; name a text file in it")
        if not path.exists():
            raise CorpusError(f"{path} does not exist; check the path")
        if not path.is_file():
            raise CorpusError(f"{path} is not a regular file; name a text file")
        if (size := path.stat().st_size) > MOST_BYTES:
            raise CorpusError(
                f"{path} has {size / 1e6:,.1f} MB; at most {MOST_BYTES / 1e6:g} are read, so open a part of it"
            )
        content = path.read_bytes()
    except (OSError, RuntimeError, ValueError) as error:  # ValueError: a NUL in the path; RuntimeError: no such home
        reason = getattr(error, "strerror", None) or str(error)
        raise CorpusError(f"{path} cannot be read: {reason}") from error
    if b"\0" in content:
        raise CorpusError(f"{path} holds NUL bytes, so it is not text; name a text file")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CorpusError(f"{path} is not UTF-8 (byte {error.start}); save it as UTF-8") from error
