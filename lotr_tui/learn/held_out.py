"""Perplexities of a class's held-out text by several models, and its text as the notebook lays it out."""

import math
from contextlib import suppress
from dataclasses import dataclass

from engine.analysis.evaluation import evaluate
from engine.analysis.notebook import notebook_rows, score_rows
from engine.analysis.token_scores import TokenScores
from engine.analysis.tokenized_text import TokenizedText, tokenize_with_offsets
from engine.data.arrays import Float64Array
from engine.data.dataset import Dataset
from engine.errors import CorpusError
from engine.models.base import LanguageModel
from engine.models.ngram import Unigram
from lotr_tui.formatting import truncate
from lotr_tui.learn.material import Cancelled, ClassModel, Loading, Material
from lotr_tui.session.session_model import find_cast
from lotr_tui.session.training_text import is_line_mode

MAX_HELD_OUT_TOKENS = 20_000
"""Tokens of the held-out text that are scored."""
CERTAIN_BITS = 1.0
"""Bits below which a word is nearly certain."""


@dataclass(frozen=True)
class HeldOutScore:
    """Quality of one model on the held-out text."""

    name: str
    bits: float
    """Mean bits of a token."""
    perplexity: float


@dataclass(frozen=True)
class HeldOut:
    """The held-out text, scored by several models."""

    num_tokens: int
    """Number of words, ends of lines included."""
    scores: tuple[HeldOutScore, ...]
    """A uniform guess, counts of words, counts of five words, and the network."""
    row_log_probs: Float64Array
    """Natural-log probabilities `[rows, row length - 1]` of the text that is laid out as in the notebook."""
    note: str
    """Why the network is not the user's model; empty if it is, or if there is none."""


def measure_held_out(material: Material, cancelled: Cancelled) -> Loading[HeldOut]:
    """Score the held-out text of a class with all models, which read the same words; the material keeps the result.

    Raises:
        CorpusError: If the corpus is missing or too small.
    """
    known = material.results.get(HeldOut)
    if isinstance(known, HeldOut):
        return known
    dataset = yield from material.words()
    network = yield from _find_network(material, dataset, cancelled)
    models: list[tuple[str, LanguageModel]] = [("unigram", Unigram(dataset.train, dataset.tokenizer))]
    with suppress(CorpusError):  # the corpus is too large to count
        models.append(("5-gram", (yield from material.counts(5))))
    models.append((network.name, network.model))
    ids = dataset.valid[:MAX_HELD_OUT_TOKENS]
    vocabulary_size = len(dataset.tokenizer)
    scores = [HeldOutScore("uniform", math.log2(vocabulary_size), float(vocabulary_size))]
    for name, model in models:
        yield f"reading the held-out text of {material.corpus_name} with the {name} …"
        result = evaluate(model, ids)
        scores.append(HeldOutScore(name, result.bits_per_token, result.perplexity))
    held_out = HeldOut(len(ids), tuple(scores), score_rows(network.model, notebook_rows(ids)), network.note)
    material.results[HeldOut] = held_out
    return held_out


def _find_network(material: Material, dataset: Dataset, cancelled: Cancelled) -> Loading[ClassModel]:
    """Return the user's model if it reads the words and line ends of the class, or else the class's small LSTM."""
    own = material.session_model
    if own is None:
        return (yield from material.class_model("lstm", cancelled))
    if own.run is not None and own.model.tokenizer == dataset.tokenizer and is_line_mode(own.run):
        return ClassModel(own.name, own.model)
    small = yield from material.class_model("lstm", cancelled)
    note = f"{truncate(own.name, 20)} reads other tokens: the {small.name} reads the held-out text"
    return ClassModel(small.name, small.model, note)


def tokenize_line(line: str, model: LanguageModel, *, eos_per_line: bool) -> TokenizedText:
    """Tokenize a line as a model reads it, after the name of someone if the model has a cast."""
    return tokenize_with_offsets(line, model.tokenizer, eos_per_line=eos_per_line, cast=find_cast(model))


def has_certain_word(
    line: str, model: LanguageModel, *, eos_per_line: bool, cancelled: Cancelled = lambda: False
) -> bool:
    """Return True if a word of the line after the first one is nearly certain for a model."""
    tokens = tokenize_line(line, model, eos_per_line=eos_per_line)
    scores = TokenScores(tokens, model.tokenizer)
    for _ in scores.read(model, cancelled):
        pass
    return bool((scores.word_bits[1:] < CERTAIN_BITS).any())
