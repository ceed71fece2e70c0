"""Comparison of several models on the same text, by bits per character."""

from collections.abc import Sequence
from dataclasses import dataclass

from engine.analysis.bits_per_character import TEXT_FORMS, EncodedText, TextForm, convert_text, native_form
from engine.analysis.bootstrap import PairedComparison, compare_paired, rate_confidence_interval
from engine.analysis.perplexity import Evaluation, summarize_log_probs, token_log_probs
from engine.data.arrays import Float64Array
from engine.data.encoding import DataMode
from engine.errors import CorpusError
from engine.models.base import LanguageModel


@dataclass(frozen=True)
class Candidate:
    """A model to compare, and the text that it is scored on."""

    name: str
    model: LanguageModel
    mode: DataMode
    text: str
    """The original text."""
    text_mode: DataMode | None = None
    """Mode of the run that the text comes from. The text of a dialogue is a script, which only open vocabularies read.
    None for `mode`."""

    @property
    def reads_script(self) -> bool:
        """True if the text is a script."""
        return (self.text_mode or self.mode) == "dialogue"


@dataclass(frozen=True)
class CandidateScores:
    """Scores of one model on one form of a text."""

    candidate: Candidate
    evaluation: Evaluation
    bits_per_character: float
    confidence_interval: tuple[float, float] | None
    """95 % confidence interval of `bits_per_character`; None if the text is too short for one."""
    block_bits: Float64Array
    """Bits `[blocks]` of blocks of the text, the same blocks for all models."""


@dataclass(frozen=True)
class FormComparison:
    """Scores of all models that can read one form of a text."""

    form: TextForm
    num_characters: int
    scores: tuple[CandidateScores, ...]
    """Scores of the models, best first."""
    best_two: PairedComparison | None
    """Difference in bits per character between the best model and the second; None for one model."""


def compare_models(candidates: Sequence[Candidate], *, only_words: bool = False) -> list[FormComparison]:
    """Score each model on every form of the text that it can read and that another model needs.

    The first comparison is of the form that all models can read. With `only_words`, lower-case words are the
    only form.

    Raises:
        CorpusError: If the texts of two models differ, or a text has nothing to score.
    """
    readers_of_forms = [item for item in candidates if item.model.tokenizer.is_open or not item.reads_script]
    forms: set[TextForm] = {"words"} if only_words else {native_form(item.model.tokenizer) for item in readers_of_forms}
    readers: dict[str, list[Candidate]] = {}
    form_of_text: dict[str, TextForm] = {}
    for form in sorted(forms, key=TEXT_FORMS.index):
        able = [item for item in candidates if _can_read(item, form)]
        texts = [convert_text(item.text, form, item.text_mode or item.mode) for item in able]
        for item, text in zip(able, texts, strict=True):
            if text != texts[0]:
                raise CorpusError(
                    f"the splits of {able[0].name} and {item.name} are not the same text; choose runs of the same "
                    "corpus and split, or use --text FILE"
                )
        # A text that is the same in several forms is compared once, as the most complete of them.
        form_of_text.setdefault(texts[0], form)
        readers[texts[0]] = able
    return [_compare_on(text, form_of_text[text], readers[text]) for text in reversed(readers)]


def _can_read(candidate: Candidate, form: TextForm) -> bool:
    tokenizer = candidate.model.tokenizer
    is_readable = tokenizer.is_open or not candidate.reads_script
    return is_readable and TEXT_FORMS.index(native_form(tokenizer)) <= TEXT_FORMS.index(form)


def _compare_on(text: str, form: TextForm, candidates: Sequence[Candidate]) -> FormComparison:
    scores = []
    for candidate in candidates:
        mode = "dialogue" if candidate.reads_script else candidate.mode
        encoded = EncodedText(text, candidate.model.tokenizer, mode)
        log_probs = token_log_probs(candidate.model, encoded.ids)
        ids, is_scored = encoded.ids, encoded.is_scored
        block_bits = encoded.block_bits(log_probs)
        scores.append(
            CandidateScores(
                candidate=candidate,
                evaluation=summarize_log_probs(log_probs[is_scored], ids[is_scored], candidate.model.tokenizer.unk_id),
                bits_per_character=encoded.bits_per_character(log_probs),
                confidence_interval=rate_confidence_interval(block_bits, encoded.block_sizes),
                block_bits=block_bits,
            )
        )
    scores.sort(key=lambda item: item.bits_per_character)
    best_two = None
    if len(scores) > 1:
        best_two = compare_paired(scores[0].block_bits, scores[1].block_bits, encoded.block_sizes)
    return FormComparison(form, encoded.num_characters, tuple(scores), best_two)
