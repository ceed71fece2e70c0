"""Scores of a model on a text: perplexity, and bits per character, which compare models of other vocabularies.

The bits of a token count for the characters that it stands for, line ends included. A closed vocabulary also counts
what its tokens leave out: the spelling of unknown words and, in stream mode, the ends of lines.
"""

import math
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from itertools import compress
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from engine.config import DataMode
from engine.data.arrays import Float64Array, Int64Array
from engine.data.corpus import Lines
from engine.data.dataset import Dataset
from engine.data.scripts import Turn, script_text, turn_text, utterance_mask
from engine.data.speakers import SOMEONE
from engine.data.tokenizers import EOS_ID, UNK, UNK_ID, TokenIds, Tokenizer, WordTokenizer, split_words
from engine.errors import CorpusError
from engine.models.base import LanguageModel, SequenceModel, SequenceOutput, score_sequence
from engine.models.ngram import OrthographyModel, SpellingModel

TextForm = Literal["original", "whitespace", "words"]
"""original: as written; whitespace: with single spaces and without empty lines; words: lower-case words only."""
MAX_COUNTED_TOKENS = 500_000  # of a validation split whose characters are counted, which takes a few seconds then
MIN_BLOCK_CHARACTERS = 100  # of the bootstrap, about 20 words; longer texts have more blocks, and longer ones
MIN_BLOCKS = 10  # fewest blocks for a confidence interval: with fewer, the resampled texts are almost all alike
NUM_RESAMPLES = 2000
BLOCK_TOKENS = 20  # of the interval of a perplexity
MAX_EXP_ARGUMENT = math.log(sys.float_info.max)
_spelling_model = lru_cache(maxsize=4)(SpellingModel)  # of the words of a closed vocabulary


@dataclass(frozen=True)
class Evaluation:
    tokens: int
    unk_rate: float  # fraction of `<unk>`; a high rate lowers the perplexity although the model is no better
    perplexity: float
    bits_per_token: float


def evaluate(
    model: LanguageModel | SequenceModel, ids: TokenIds, is_scored: npt.NDArray[np.bool_] | None = None
) -> Evaluation:
    """Score the tokens `ids` `[time]` that count, as `is_scored` `[time]` says; without one, raise a CorpusError."""
    if not len(ids) or (is_scored is not None and not is_scored.any()):
        raise CorpusError("the text has no token to score; use a longer text")
    log_probs = score_sequence(model, ids)
    if is_scored is not None:
        log_probs, ids = log_probs[is_scored], ids[is_scored]
    return summarize_log_probs(log_probs, ids)


def summarize_log_probs(log_probs: Float64Array, ids: TokenIds, unk_id: int | None = UNK_ID) -> Evaluation:
    """Return the evaluation of natural-log probabilities `[time]` of `ids` `[time]`."""
    mean_nll = float(-log_probs.mean())
    return Evaluation(
        tokens=len(ids),
        unk_rate=0.0 if unk_id is None else float(np.mean(ids == unk_id)),
        perplexity=perplexity(mean_nll),
        bits_per_token=mean_nll / math.log(2),
    )


def perplexity(mean_nll: float) -> float:
    """Return the exponential of the mean negative log-probability; infinity where a float overflows, or for NaN."""
    return math.exp(mean_nll) if mean_nll <= MAX_EXP_ARGUMENT else math.inf


def window_starts(row_length: int, window: int) -> range:
    """Return the first token of each window that the notebook scores: rows are trimmed to whole windows and a token."""
    return range(0, max(1, row_length) - window, window)


def printed_perplexity(mean_nlls: Iterable[float], row_length: int, window: int) -> float:
    """Return the perplexity that the notebook prints, given the mean negative log-probability of each window.

    It divides by the trimmed width of the rows. With rows shorter than a window, it scores nothing and prints 1.000.
    """
    total = sum(mean_nll * window for mean_nll in mean_nlls)
    return perplexity(total / (len(window_starts(row_length, window)) * window + 1))


def native_form(tokenizer: Tokenizer) -> TextForm:
    return tokenizer.name if isinstance(tokenizer, WordTokenizer) else "original"


def convert_text(text: str, form: TextForm, mode: DataMode = "line") -> str:
    """Return `text` in a form, with a line feed after each line. A script keeps its speakers."""
    if form == "original":
        return text if not text or text.endswith("\n") else f"{text}\n"
    is_script, converted = mode == "dialogue", []
    for line in text.removesuffix("\n").split("\n") if is_script else text.splitlines():
        name, separator, said = line.partition(": ") if is_script and ": " in line else ("", "", line)
        words = " ".join(split_words(said, form))
        if words or (is_script and not line):  # an empty line of a script ends a scene
            converted.append(f"{name}{separator}{words}\n")
    return "".join(converted)


def written_text(lines: Lines, mode: DataMode) -> str:
    if mode == "dialogue":
        return script_text(lines.scenes())
    return "".join(f"{text}\n" for text in lines.texts)


class EncodedText:
    """A text as the tokens of a model, and the characters that each token stands for."""

    def __init__(self, text: str, tokenizer: Tokenizer, mode: DataMode, *, is_script: bool = False) -> None:
        """Encode a text in the tokenizer's native form or a later one; an unreadable text raises a CorpusError.

        In line mode, `<eos>` stands for each line end; otherwise, one ends the text. In dialogue mode, or if
        `is_script`, the text is a script, of which a closed vocabulary reads no names.
        """
        is_script = is_script or mode == "dialogue"
        self.text, self.tokenizer = text, tokenizer  # the characters that count
        if is_script:  # the texts of the lines, without the space after the name
            lines = (line.partition(":") for line in text.split("\n"))
            self.text = "".join(f"{said.lstrip(' ')}\n" for _, colon, said in lines if colon)
        if not self.text:
            raise CorpusError("the text has no words to score; use a longer text")
        if is_script and not tokenizer.is_open:
            text, is_script = self.text, False
        self.num_characters = len(self.text)
        self._has_line_ends = mode != "stream" or tokenizer.is_open
        ids, ends, unknown_words, start = list[int](), list[int](), list[str](), 0
        lines_to_read = text.split("\n")[:-1]
        if is_script:
            tokenizer = tokenizer.for_scripts()
        elif tokenizer.reads_line_ends:  # a token may hold several line ends
            lines_to_read = ["\n".join(lines_to_read)]
        line_end = "\n" if tokenizer.is_open and mode != "line" else ""
        for line in lines_to_read:
            said, size, num_spaces = line, len(line) + 1, 0
            if is_script:
                name, colon, said = line.partition(":")
                head = tokenizer.encode(name + colon).tolist()
                ids += head
                ends += [start] * len(head)
                num_spaces = len(said) - len(said.lstrip(" "))
                size = len(said) - num_spaces + 1 if colon else 0
            spans = tokenizer.spans(said + line_end)
            ids += [span.id for span in spans]
            ends += [start + min(size, max(0, span.end - num_spaces)) for span in spans]
            unknown_words += [said[span.start : span.end] for span in spans if span.id == tokenizer.unk_id]
            start += size
            if mode == "line":
                ids.append(EOS_ID)
                ends.append(start)
        if mode != "line":
            ids.append(EOS_ID)
            ends.append(start)
        read = tokenizer.decode(ids if mode == "line" else ids[:-1]) if tokenizer.is_open else text
        if read != text:
            raise CorpusError(
                "the tokenizer of the model changes this text, so some characters would be free; use another text"
            )
        self.ids: TokenIds = np.array(ids, np.int32)
        # Index `[tokens]` after the last character of each token, which stands for the characters since the one before
        # it; a later byte of a character stands for none.
        self.end_offsets: Int64Array = np.array(ends, np.int64)
        self.unknown_words = unknown_words  # text of each `<unk>`, in text order
        self.is_scored: npt.NDArray[np.bool_] = np.ones(len(ids), np.bool_)  # `[tokens]`: True for tokens that count
        if is_script:
            self.is_scored = utterance_mask(tokenizer, self.ids)

    @cached_property
    def untokenized_bits(self) -> Float64Array:
        # `[tokens]`, of the spelling of unknown words, and of line ends in stream mode.
        bits = np.zeros(len(self.ids))
        if self.tokenizer.unk_id is not None:
            bits[self.ids == self.tokenizer.unk_id] = spelling_bits(self.tokenizer, self.unknown_words)
        if not self._has_line_ends:  # the last line end is `<eos>`
            # Each word is followed by a space or a line end, whose probability is estimated from the words so far
            # (Krichevsky and Trofimov 1981).
            is_line_end = np.array([self.text[end] == "\n" for end in self.end_offsets[:-2]], np.bool_)
            num_line_ends = np.cumsum(is_line_end, dtype=np.int64) - is_line_end
            probs = (num_line_ends + 0.5) / (np.arange(len(is_line_end)) + 1)
            bits[:-2] += -np.log2(np.where(is_line_end, probs, 1 - probs))
        return bits

    def token_bits(self, log_probs: Float64Array) -> Float64Array:
        return np.where(self.is_scored, self.untokenized_bits - log_probs / math.log(2), 0.0)

    def bits_per_character(self, log_probs: Float64Array) -> float:
        return float(self.token_bits(log_probs).sum()) / self.num_characters

    @cached_property
    def _block_edges(self) -> Int64Array:
        size = max(MIN_BLOCK_CHARACTERS, 2 * math.isqrt(self.num_characters))
        return np.append(np.arange(0, self.num_characters, size), self.num_characters)

    @property
    def block_sizes(self) -> Float64Array:
        """Characters `[blocks]`; blocks depend on the text only, not on its tokens."""
        return np.diff(self._block_edges).astype(np.float64)

    def block_bits(self, log_probs: Float64Array) -> Float64Array:
        return self.bits_between(self._block_edges, log_probs)

    def bits_between(self, edges: Int64Array, log_probs: Float64Array) -> Float64Array:
        """Return the bits `[edges - 1]` between characters; the bits of a token are spread evenly over its own."""
        cumulative = np.concatenate([[0.0], np.cumsum(self.token_bits(log_probs))])
        ends = np.concatenate([[0], self.end_offsets])
        is_last_at_offset = np.append(np.diff(ends) > 0, True)
        at_edges = np.interp(edges, ends[is_last_at_offset], cumulative[is_last_at_offset])
        at_edges[0] = 0  # the first token may have no characters
        return np.diff(at_edges)


def count_validation_characters(dataset: Dataset) -> tuple[int, float]:
    """Return the characters of the validation split, and the bits of what its tokens leave out; 0 if too long."""
    if len(dataset.valid) > MAX_COUNTED_TOKENS:
        return 0, 0.0
    text, tokenizer = written_text(dataset.splits.valid, dataset.mode), dataset.tokenizer
    if isinstance(tokenizer, WordTokenizer):
        text = convert_text(text, tokenizer.name, dataset.mode)
    try:
        encoded = EncodedText(text, tokenizer, dataset.mode)
    except CorpusError:
        return 0, 0.0
    return encoded.num_characters, float(encoded.untokenized_bits.sum())


def count_characters(
    tokenizer: Tokenizer, token_texts: Sequence[str], ids: TokenIds
) -> tuple[Sequence[int], Float64Array]:
    """Return the characters of tokens as written, and the bits of their spelling, both `[tokens]`."""
    bits = np.zeros(len(ids))
    if not isinstance(tokenizer, WordTokenizer):
        return [1 if id == EOS_ID else len(text) for text, id in zip(token_texts, ids, strict=True)], bits
    words = [
        text.strip() if text.strip() == UNK else "".join(split_words(text, tokenizer.name)) for text in token_texts
    ]
    is_unknown = ids == tokenizer.unk_id
    bits[is_unknown] = spelling_bits(tokenizer, compress(words, is_unknown))
    return [0 if id == EOS_ID else len(word) + 1 for word, id in zip(words, ids, strict=True)], bits


def spelling_bits(tokenizer: Tokenizer, unknown_words: Iterable[str]) -> Float64Array:
    words = list(unknown_words)
    is_spelled = np.array([word != UNK for word in words], np.bool_)  # Penn Treebank has the word <unk> itself
    bits = np.zeros(len(words))
    if is_spelled.any():
        spelled = list(compress(words, is_spelled))
        model = _spelling_model(tuple(tokenizer.tokens[EOS_ID + 1 :]))
        bits[is_spelled] = -(model.log_probs(spelled) - model.unknown_log_prob) / math.log(2)
    return bits


class WrittenBits(NamedTuple):
    token_bits: float  # with the spelling of unknown words
    orthography_bits: float  # of the capitals, punctuation and spaces that the tokens of a closed vocabulary leave out
    num_characters: int

    @property
    def bits_per_character(self) -> float:
        return (self.token_bits + self.orthography_bits) / self.num_characters


def measure_written_bits(
    model: LanguageModel, mode: DataMode, lines: Sequence[str], orthography: OrthographyModel | None
) -> WrittenBits:
    """Return the bits of lines, each with a word, that a model reads one after the other, in a dialogue as SOMEONE's.

    `orthography` pays for the capitals and punctuation that models of words leave out.
    """
    script = "".join(turn_text(Turn(SOMEONE, line)) if mode == "dialogue" else f"{line}\n" for line in lines)
    encoded = EncodedText(convert_text(script, native_form(model.tokenizer), mode), model.tokenizer, mode)
    token_bits = math.fsum(encoded.token_bits(score_sequence(model, encoded.ids)))
    orthography_bits = math.fsum(map(orthography.bits, lines)) if orthography is not None else 0.0
    return WrittenBits(token_bits, orthography_bits, sum(len(line) + 1 for line in lines))


def rate_confidence_interval(amounts: Float64Array, sizes: Float64Array) -> tuple[float, float] | None:
    """Return the 95 % confidence interval of `amounts.sum() / sizes.sum()`, both `[blocks]`; None for a short text."""
    num_blocks = len(amounts)
    if num_blocks < MIN_BLOCKS or not np.isfinite(amounts).all():
        return None
    # Each resampled text consists of as many blocks, drawn with replacement.
    rng = np.random.default_rng(0)
    counts = rng.multinomial(num_blocks, np.full(num_blocks, 1 / num_blocks), NUM_RESAMPLES).astype(np.float64)
    low, high = np.quantile((counts @ amounts) / (counts @ sizes), [0.025, 0.975])
    return float(low), float(high)


def perplexity_confidence_interval(log_probs: Float64Array) -> tuple[float, float] | None:
    """Return the 95 % confidence interval of the perplexity for natural-log probabilities `[time]`."""
    starts = np.arange(0, len(log_probs), BLOCK_TOKENS)
    sizes = np.diff(starts, append=len(log_probs)).astype(np.float64)
    interval = rate_confidence_interval(-np.add.reduceat(log_probs, starts), sizes)
    return None if interval is None else (perplexity(interval[0]), perplexity(interval[1]))


@dataclass(frozen=True)
class PairedComparison:
    difference: float  # in bits per character, first model minus second
    confidence_interval: tuple[float, float] | None  # 95 %, on the same resampled texts; None if the text is too short


@dataclass(frozen=True)
class Candidate:
    name: str
    model: LanguageModel
    mode: DataMode  # of its training text


OnProgress = Callable[[Candidate, int, int], object]  # gets a model, its scored tokens and all its tokens


@dataclass(frozen=True)
class _ReportingModel:
    """A model that reports how many tokens it has scored, and how many there are."""

    model: SequenceModel
    report: Callable[[int, int], object]

    def score_chunks(self, ids: TokenIds) -> Iterator[SequenceOutput]:
        done = 0
        for output in self.model.score_chunks(ids):
            yield output
            done += len(output.log_probs)
            self.report(done, len(ids))


class CandidateScores(NamedTuple):
    candidate: Candidate
    text: EncodedText
    log_probs: Float64Array  # natural-log probability `[time]` of each token
    evaluation: Evaluation
    bits_per_character: float
    confidence_interval: tuple[float, float] | None  # 95 %, of the bits per character; None if the text is too short
    block_bits: Float64Array  # bits `[blocks]` of blocks of the text, the same blocks for all models


class FormComparison(NamedTuple):
    form: TextForm
    num_characters: int
    scores: tuple[CandidateScores, ...]  # of all models that can read the form, best first
    best_two: PairedComparison | None  # bits per character of the best model and the second; None for one model


def compare_models(
    candidates: Sequence[Candidate],
    text: str,
    *,
    is_script: bool = False,
    only_words: bool = False,
    on_progress: OnProgress = lambda candidate, done, total: None,
) -> list[FormComparison]:
    """Score all models on the lower-case words if one reads no more, and all others on the text as written.

    The text has single spaces if one of these needs that: a model of words between spaces, or of dialogues where no
    script is given. All models account for the same characters. The names of a script are given, not scored. A model
    of dialogues reads another text as said by SOMEONE. Characters that a model cannot read raise a CorpusError.
    `on_progress` gets a model, from its start on, and how many of its tokens are scored.
    """
    mode: DataMode = "dialogue" if is_script else "line"
    words = convert_text(text, "words", mode)
    able = [item for item in candidates if native_form(item.model.tokenizer) != "words"]
    needs_single_spaces = any(
        native_form(item.model.tokenizer) == "whitespace" or (item.mode == "dialogue" and not is_script)
        for item in able
    )
    form: TextForm = "whitespace" if needs_single_spaces else "original"
    written = convert_text(text, form, mode)
    if words == written:  # compared once
        able = list(candidates)
    comparisons = []
    if only_words or len(able) < len(candidates):
        comparisons.append(_compare_on(words, "words", candidates, is_script, on_progress))
    if able and not only_words:
        comparisons.append(_compare_on(written, form, able, is_script, on_progress))
    return comparisons


def _compare_on(
    text: str, form: TextForm, candidates: Sequence[Candidate], is_script: bool, on_progress: OnProgress
) -> FormComparison:
    scores = []
    for candidate in candidates:
        own_text, tokenizer = text, candidate.model.tokenizer
        if candidate.mode == "dialogue" and not is_script:
            own_text = "".join(turn_text(Turn(SOMEONE, line)) for line in text.splitlines())
        try:
            encoded = EncodedText(own_text, tokenizer, candidate.mode, is_script=is_script)
        except CorpusError as error:
            raise CorpusError(f"{candidate.name}: {error}") from error
        model: LanguageModel | SequenceModel = candidate.model
        if isinstance(model, SequenceModel):
            model = _ReportingModel(model, partial(on_progress, candidate))
        on_progress(candidate, 0, len(encoded.ids))
        log_probs, is_scored = score_sequence(model, encoded.ids), encoded.is_scored
        block_bits = encoded.block_bits(log_probs)
        scores.append(
            CandidateScores(
                candidate,
                encoded,
                log_probs,
                summarize_log_probs(log_probs[is_scored], encoded.ids[is_scored], tokenizer.unk_id),
                encoded.bits_per_character(log_probs),
                rate_confidence_interval(block_bits, encoded.block_sizes),
                block_bits,
            )
        )
    scores.sort(key=lambda item: item.bits_per_character)
    best_two = None
    if len(scores) > 1:
        difference, sizes = scores[0].block_bits - scores[1].block_bits, encoded.block_sizes
        interval = rate_confidence_interval(difference, sizes)
        best_two = PairedComparison(float(difference.sum() / sizes.sum()), interval)
    return FormComparison(form, encoded.num_characters, tuple(scores), best_two)
