"""Comparisons: columns of text that are generated side by side, models to compare with, and training texts."""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Literal

from engine.analysis import evaluation, memorization, tokenized_text
from engine.data import dataset, speakers, tokenizers
from engine.errors import LotrError, RunError, printable
from engine.generation import generate
from engine.generation.generate import Done, TokenEvent
from engine.generation.settings import SamplerSettings
from engine.generation.turns import MAX_HISTORY_TOKENS
from engine.models import base, ngram
from engine.models.pretrained.names import is_pretrained_name, short_name
from engine.runs import combine, directory, loading
from engine.runtime.process import Cancellation, throttle
from lotr_tui.formatting import LINE_END_MARK, displayable, token_noun
from lotr_tui.session import model_loading, read_text, session_model, transcript

_WORD = re.compile(r"\n|\S+")
MAX_CACHED_RUNS = 2  # whose training data stay in memory


@dataclass(frozen=True)
class GenerationColumn:
    """A model, a text for it to continue, and how to sample: columns of a model differ in texts and settings only."""

    model: base.LanguageModel
    ids: tuple[int, ...]
    settings: SamplerSettings
    is_chat: bool = False  # True for a text by a chat template, whose last word is complete
    lines_before: tuple[int, ...] | None = None  # ids before a line of a conversation that the model completes

    @property
    def penalized_ids(self) -> tuple[int, ...]:
        """Ids that the repetition penalty counts, as in a reply: of a conversation the last ones before the line."""
        num_before = len(self.ids) if self.is_chat else len(self.lines_before or ())
        return self.ids[max(0, num_before - MAX_HISTORY_TOKENS) :]


def generate_columns(
    columns: Sequence[GenerationColumn],
    seed: int,
    cancellation: Cancellation,
    pace: float = 0,
    reader: read_text.TextReader | None = None,
) -> Iterator[generate.IndexedEvent]:
    """Continue the text of every column of one model, one token of each in turn, until every column has its `Done`.

    All columns use the noise of one seed. `pace` is the maximum number of tokens per second in each; 0 for no limit.
    `reader` is the one of the session, which has read the lines before an answer.
    """
    model, is_chat, lines_before = columns[0].model, columns[0].is_chat, columns[0].lines_before
    reader, states, is_complete = reader or read_text.TextReader(), {}, is_chat or lines_before is not None
    for ids in (lines_before or (), *(column.ids for column in columns)):
        # The last word of a text that is continued may be left to its continuation.
        text = read_text.NextTokenContext(model, list(ids), is_chat, reopens_last_word=bool(ids) and not is_complete)
        if (state := reader.read(text, cancellation)) is None:
            return
        states[ids] = state
    in_progress = [
        generate.TextInProgress(
            model, each.penalized_ids, each.settings, seed, states[each.ids], noise_context=each.lines_before or ()
        )
        for each in columns
    ]
    for step in throttle(generate.generate_batch(in_progress, cancellation), pace, cancellation):
        yield from step


def generated_words(events: Sequence[TokenEvent | Done]) -> list[str]:
    """Return the words of a text with punctuation, and `<eos>` if the model ended it; a line feed counts as a word."""
    words = _WORD.findall("".join(event.piece for event in events if isinstance(event, TokenEvent)))
    return [*words, *(tokenizers.EOS for event in events if isinstance(event, Done) and event.reason == "eos")]


def first_difference(words: Sequence[str], other_words: Sequence[str]) -> int | None:
    """Return the position of the first word that differs; None if one text is the beginning of the other."""
    pairs = zip(words, other_words, strict=False)
    return next((position for position, (word, other) in enumerate(pairs) if word != other), None)


def fraction_differing(words: Sequence[str], other_words: Sequence[str]) -> float:
    """Return the fraction of positions with different words; those after the shorter text count if it has ended."""
    shorter, longer = sorted((words, other_words), key=len)
    num_positions = len(longer) if shorter and shorter[-1] == tokenizers.EOS else len(shorter)
    num_equal = sum(word == other for word, other in zip(shorter, longer, strict=False))
    return (num_positions - num_equal) / num_positions if num_positions else 0.0


def mean_surprisal(events: Sequence[TokenEvent | Done]) -> float | None:
    """Return the mean surprisal per word of a text in bits, by the model's own distribution; None without words."""
    num_words = sum(word not in ("\n", tokenizers.EOS) for word in generated_words(events))
    log_probs = [event.logprob for event in events if isinstance(event, TokenEvent)]
    return -math.fsum(log_probs) / num_words / math.log(2) if num_words else None


@dataclass(eq=False)
class Column:
    """Column of a comparison: its model and temperature, its heading, and the text that was generated so far."""

    title: str
    model: base.LanguageModel | None = None  # None while the model is being loaded
    temperature: float = 0.0
    speaker: str = ""  # who says the text; empty for the speaker of the context
    description: str = ""  # of the model, in parts separated by " · "
    placeholder: str = ""  # shown while there is no token
    events: list[TokenEvent | Done] = field(default_factory=list)
    failure: str = ""
    continued_prompt: str = ""  # line that the text continues, perhaps in the middle of a word
    marks_line_ends: bool = True  # True if a line end is an `<eos>`; False if it is an ordinary line break
    noun: str = "word"
    strength: float = 1.0  # of the adapter, if columns differ by it

    def prepare(self, prompt: str, context: read_text.PromptContext, settings: SamplerSettings) -> GenerationColumn:
        """Return what to generate to continue or answer a prompt; one that the model cannot read is an error."""
        model = self.model
        assert model is not None
        if prompt.strip():
            generate.encode_prompt(prompt, model.tokenizer)  # has a word that the model knows
        self.noun, self.marks_line_ends = token_noun(model.tokenizer), not session_model.reads_line_ends(model)
        self.continued_prompt = "" if context.is_answer else read_text.to_prompt_line(prompt, model.tokenizer)
        speaker, lines_before = self.speaker or context.roles.speaker or speakers.SOMEONE, None
        context = replace(context, roles=context.roles._replace(speaker=speaker))
        text = context.text_before_reply(model, read_text.to_prompt_line(prompt, model.tokenizer, context.reply_mode))
        if session_model.find_cast(model) and context.is_answer:
            lines_before, text = tuple(text.ids), text.begin_line(speaker)
        settings = replace(settings, temperature=self.temperature)
        return GenerationColumn(model, tuple(text.ids), settings, text.is_chat, lines_before)

    @property
    def is_empty(self) -> bool:
        return not self.events and not self.failure

    @property
    def done_event(self) -> Done | None:
        """End of the text; None while more tokens may follow."""
        last = self.events[-1] if self.events else None
        return last if isinstance(last, Done) else None

    @property
    def token_events(self) -> list[TokenEvent]:
        return [event for event in self.events if isinstance(event, TokenEvent)]

    @property
    def shown_words(self) -> list[str]:
        """The words to show; a first word that continues the last one of the prompt is shown with its beginning."""
        tokens = self.token_events
        line_end = LINE_END_MARK if self.marks_line_ends else "\n"
        words = [line_end if word == "\n" else displayable(word) for word in generated_words(tokens)]
        lead = transcript.word_to_continue(self.continued_prompt, [token.piece for token in tokens])
        return [lead + word for word in words[:1]] + words[1:]

    def words_to_compare(self, other: "Column") -> list[str]:
        """Return the words and a final `<eos>`, without an incomplete last word that may become the one of `other`."""
        words, other_words = generated_words(self.events), generated_words(other.events)
        if self._is_last_word_complete or not words or len(words) > len(other_words):
            return words
        word, other_word = words[-1], other_words[len(words) - 1]
        is_other_incomplete = len(words) == len(other_words) and not other._is_last_word_complete
        is_beginning = other_word.startswith(word) or (is_other_incomplete and word.startswith(other_word))
        return words[:-1] if is_beginning else words

    @property
    def _is_last_word_complete(self) -> bool:
        return self.noun == "word" or (self.done_event is not None and self.done_event.reason == "eos")

    def add_event(self, event: TokenEvent | Done) -> None:
        """Append an event; a token is kept without its distribution, which takes much memory."""
        self.events.append(event.without_distribution() if isinstance(event, TokenEvent) else event)

    def clear(self) -> None:
        self.events, self.failure = [], ""


@lru_cache(MAX_CACHED_RUNS)
def load_training_data(run: Path) -> dataset.Dataset:
    """Load the dataset of a run, in a thread. A damaged run and a missing corpus raise a LotrError."""
    return combine.load_run_dataset(loading.load_model(run))


@lru_cache(MAX_CACHED_RUNS)
def load_training_index(run: Path) -> memorization.TrainingIndex:
    """Load the dataset of a run and index its training split; see `load_training_data`."""
    return memorization.TrainingIndex.from_dataset(load_training_data(run))


def find_memorized_passages(
    run: Path, tokenizer: tokenizers.Tokenizer, tokens: tokenized_text.TokenizedText
) -> memorization.MemorizationReport:
    """Find the passages of a text that are copied from the training text of a run, or raise a LotrError."""
    if load_training_data(run).tokenizer != tokenizer:
        raise RunError(f"run {run.name} has another vocabulary than this model; open the model of that run")
    return load_training_index(run).find_copied(tokens)


def is_line_mode(run: Path) -> bool:
    """Return True if the model of a run was trained with `<eos>` after each line; False if the run cannot be read."""
    try:
        return directory.summarize_run(run).mode == "line"
    except (LotrError, OSError):  # the run was deleted after its model was loaded
        return False


@dataclass(frozen=True)
class ModelChoice:
    """A model by others, or one that can be built from a run."""

    kind: Literal["run", "kneser-ney"]
    run: str  # name in the runs directory, path of a run, "bundled", or name of a model by others
    epoch: int | None = None  # saved epoch of the run's model; None is the best one

    @property
    def name(self) -> str:
        run = printable(short_name(self.run))
        model = run if self.epoch is None else f"{run}@{self.epoch}"
        return model if self.kind == "run" else "Kneser-Ney"

    @property
    def loading_message(self) -> str:
        """Text shown while the model is being built."""
        return "loading …" if self.kind == "run" else "counting the n-grams of the training text …"


def load_kneser_ney(run: Path) -> ngram.KneserNey:
    """Build the Kneser-Ney baseline of a run from its training split; see `load_training_data`."""
    return combine.ModelCombiner([loading.load_model(run)]).kneser_ney


def load_model_choice(choice: ModelChoice, runs_dir: Path | None) -> session_model.SessionModel:
    """Load or build a model, in a thread. One that is missing or damaged raises a LotrError."""
    if is_pretrained_name(choice.run):
        return model_loading.ModelLoader([choice.run])()
    loaded = loading.load_model(directory.resolve_run(choice.run, runs_dir), choice.epoch)
    if choice.kind == "run":
        return session_model.SessionModel.from_loaded(loaded)
    combiner = combine.ModelCombiner([loaded])
    model = combiner.kneser_ney
    perplexity = evaluation.evaluate(model, combiner.dataset.valid).perplexity
    description = f"{model.order}-gram counts · valid {perplexity:.1f}"
    corpus = loaded.config.data.corpus
    return session_model.SessionModel(choice.name, description, loaded.with_cast(model), corpus, loaded.path)
