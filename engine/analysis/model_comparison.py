"""Comparison of models on the same text, by bits per character, and the intervals of a block bootstrap.

Blocks of consecutive text are resampled, because neighbouring tokens are similarly hard to predict.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from engine.analysis.evaluation import (
    TEXT_FORMS,
    EncodedText,
    Evaluation,
    TextForm,
    convert_text,
    native_form,
    perplexity,
    summarize_log_probs,
)
from engine.config import DataMode
from engine.data.arrays import Float64Array
from engine.data.scripts import Turn, turn_text
from engine.data.speakers import SOMEONE
from engine.errors import CorpusError
from engine.models.base import LanguageModel, score_sequence

MIN_BLOCKS = 10  # fewest blocks for a confidence interval: with fewer, the resampled texts are almost all alike
NUM_RESAMPLES = 2000
BLOCK_TOKENS = 20  # of the interval of a perplexity


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
    candidates: Sequence[Candidate], text: str, *, is_script: bool = False, only_words: bool = False
) -> list[FormComparison]:
    """Score each model on every form of a text that it can read and that another model needs, the simplest first.

    All models account for the same characters. The names of a script are given, not scored. A model of dialogues reads
    the lines of another text as said by SOMEONE. Characters that a model cannot read raise a CorpusError.
    """
    readers = {form: [item for item in candidates if native_form(item.model.tokenizer) == form] for form in TEXT_FORMS}
    if only_words or readers["words"]:
        readers["words"] = list(candidates)
    texts: dict[str, tuple[TextForm, list[Candidate]]] = {}
    for form in reversed(TEXT_FORMS):
        if readers[form] and not (only_words and form == "original"):
            converted = convert_text(text, form, "dialogue" if is_script else "line")
            # A text of lower-case words is compared once, as the original.
            texts[converted] = form, texts[converted][1] if converted in texts else readers[form]
    return [_compare_on(each, *texts[each], is_script=is_script) for each in texts]


def _compare_on(text: str, form: TextForm, candidates: Sequence[Candidate], *, is_script: bool) -> FormComparison:
    scores = []
    for candidate in candidates:
        own_text, tokenizer = text, candidate.model.tokenizer
        if candidate.mode == "dialogue" and not is_script:
            own_text = "".join(turn_text(Turn(SOMEONE, line)) for line in text.splitlines())
        try:
            encoded = EncodedText(own_text, tokenizer, candidate.mode, is_script=is_script)
        except CorpusError as error:
            raise CorpusError(f"{candidate.name}: {error}") from error
        log_probs, is_scored = score_sequence(candidate.model, encoded.ids), encoded.is_scored
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
