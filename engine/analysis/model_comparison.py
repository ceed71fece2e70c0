"""Comparison of several models on the same text, by bits per character."""

from collections.abc import Sequence
from dataclasses import dataclass

from engine.analysis.bits_per_character import TEXT_FORMS, EncodedText, TextForm, convert_text, native_form
from engine.analysis.bootstrap import PairedComparison, compare_paired, rate_confidence_interval
from engine.analysis.perplexity import Evaluation, summarize_log_probs, token_log_probs
from engine.data.arrays import Float64Array
from engine.data.encoding import DataMode
from engine.data.script_form import Turn, turn_text
from engine.data.speakers import SOMEONE
from engine.errors import CorpusError
from engine.models.base import LanguageModel


@dataclass(frozen=True)
class Candidate:
    """A model to compare."""

    name: str
    model: LanguageModel
    mode: DataMode
    """Mode of its training text."""


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


def compare_models(
    candidates: Sequence[Candidate], text: str, *, is_script: bool = False, only_words: bool = False
) -> list[FormComparison]:
    """Score each model on every form of a text that it can read and that another model needs.

    The first comparison is of the form that all models can read. With `only_words`, lower-case words are the
    only form. All models account for the same characters: of a script, those of the texts and their line ends. Its
    names are given, and a closed vocabulary does not read them. A model of dialogues reads the lines of another text as
    said by SOMEONE, which is given too.

    Raises:
        CorpusError: If the text has nothing to score, or characters that a model cannot read.
    """
    forms: set[TextForm] = {"words"} if only_words else {_native_form(item, is_script) for item in candidates}
    readers: dict[str, list[Candidate]] = {}
    form_of_text: dict[str, TextForm] = {}
    for form in sorted(forms, key=TEXT_FORMS.index):
        converted = convert_text(text, form, "dialogue" if is_script else "line")
        # A text that is the same in several forms is compared once, as the most complete of them.
        form_of_text.setdefault(converted, form)
        readers[converted] = [
            item for item in candidates if TEXT_FORMS.index(_native_form(item, is_script)) <= TEXT_FORMS.index(form)
        ]
    return [_compare_on(each, form_of_text[each], readers[each], is_script=is_script) for each in reversed(readers)]


def _native_form(candidate: Candidate, is_script: bool) -> TextForm:
    """Return the most complete form of the text that a model can read; a line of a dialogue has single spaces."""
    if candidate.mode == "dialogue" and not is_script:
        return "whitespace"
    return native_form(candidate.model.tokenizer)


def _encode(candidate: Candidate, text: str, is_script: bool) -> EncodedText:
    if candidate.mode == "dialogue" and not is_script:
        text = "".join(turn_text(Turn(SOMEONE, line)) for line in text.splitlines())
    try:
        return EncodedText(text, candidate.model.tokenizer, candidate.mode, is_script=is_script)
    except CorpusError as error:
        raise CorpusError(f"{candidate.name}: {error}") from error


def _compare_on(text: str, form: TextForm, candidates: Sequence[Candidate], *, is_script: bool) -> FormComparison:
    scores = []
    for candidate in candidates:
        encoded = _encode(candidate, text, is_script)
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
