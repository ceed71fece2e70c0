"""Columns of text that are generated side by side from one seed, by several models or settings, and compared."""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile

from engine.data.scripts import encode_speaker
from engine.data.speakers import SOMEONE, display_name
from engine.data.tokenizers import EOS
from engine.generation import generate as generation
from engine.generation.generate import Done, TokenEvent
from engine.generation.settings import SamplerSettings
from engine.models.base import LanguageModel
from engine.runtime.process import Cancellation, throttle
from lotr_tui.formatting import LINE_END_MARK, displayable, token_noun
from lotr_tui.session.cast import NO_ROLES, Roles
from lotr_tui.session.read_text import NextTokenContext, to_prompt_line
from lotr_tui.session.reply import Reply
from lotr_tui.session.session_model import chat_start, find_cast, reads_line_ends
from lotr_tui.session.settings import ReplyMode
from lotr_tui.session.transcript import word_to_continue

_WORD = re.compile(r"\n|\S+")


@dataclass(frozen=True)
class GenerationColumn:
    """A model, a text for it to continue, and how to sample: columns of a model differ in texts and settings only."""

    model: LanguageModel
    ids: tuple[int, ...]
    settings: SamplerSettings
    is_chat: bool = False  # True for a text by a chat template, whose last word is complete
    lines_before: tuple[int, ...] | None = None  # ids before a line of a conversation that the model completes


def generate_columns(
    columns: Sequence[GenerationColumn], seed: int, cancellation: Cancellation, pace: float = 0
) -> Iterator[generation.IndexedEvent]:
    """Continue the text of every column of one model, one token of each in turn, until every column has its `Done`.

    All columns use the noise of one seed. `pace` is the maximum number of tokens per second in each; 0 for no limit.
    """
    model, is_chat = columns[0].model, columns[0].is_chat
    is_complete = is_chat or columns[0].lines_before is not None  # else the last word may be left to its continuation
    texts = {column.ids for column in columns}
    ends = {ids: len(ids) if is_complete else generation.last_word_start(model.tokenizer, ids) for ids in texts}
    tokens = zip(*(ids[:end] for ids, end in ends.items()), strict=False)
    start = [same[0] for same in takewhile(lambda same: len(set(same)) == 1, tokens)]
    common = generation.prefill(model, start, chat_start(model) if is_chat else None)
    read = generation.prefill if is_complete else generation.prefill_prompt
    states = {ids: read(model, ids[len(start) :], common) for ids in texts}
    in_progress = [
        generation.TextInProgress(
            model, each.ids, each.settings, seed, states[each.ids], noise_context=each.lines_before or ()
        )
        for each in columns
    ]
    for step in throttle(generation.generate_batch(in_progress, cancellation), pace, cancellation):
        yield from step


def generated_words(events: Sequence[TokenEvent | Done]) -> list[str]:
    """Return the words of a text with punctuation, and `<eos>` if the model ended it; a line feed counts as a word."""
    words = _WORD.findall("".join(event.piece for event in events if isinstance(event, TokenEvent)))
    return [*words, *(EOS for event in events if isinstance(event, Done) and event.reason == "eos")]


def first_difference(words: Sequence[str], other_words: Sequence[str]) -> int | None:
    """Return the position of the first word that differs; None if one text is the beginning of the other."""
    pairs = zip(words, other_words, strict=False)
    return next((position for position, (word, other) in enumerate(pairs) if word != other), None)


def fraction_differing(words: Sequence[str], other_words: Sequence[str]) -> float:
    """Return the fraction of positions with different words; those after the shorter text count if it has ended."""
    shorter, longer = sorted((words, other_words), key=len)
    num_positions = len(longer) if shorter and shorter[-1] == EOS else len(shorter)
    num_equal = sum(word == other for word, other in zip(shorter, longer, strict=False))
    return (num_positions - num_equal) / num_positions if num_positions else 0.0


def mean_surprisal(events: Sequence[TokenEvent | Done]) -> float | None:
    """Return the mean surprisal per word of a text in bits, by the model's own distribution; None without words."""
    num_words = sum(word not in ("\n", EOS) for word in generated_words(events))
    log_probs = [event.logprob for event in events if isinstance(event, TokenEvent)]
    return -math.fsum(log_probs) / num_words / math.log(2) if num_words else None


@dataclass(frozen=True)
class PromptContext:
    """Context in which every column reads the prompt, as the session would read its next one."""

    reply_mode: ReplyMode = "continue"
    previous_reply: Reply | None = None  # that the prompt answers; None at the start of a text
    roles: Roles = NO_ROLES  # for models with a cast

    @property
    def is_answer(self) -> bool:
        return self.reply_mode != "continue"

    @property
    def is_next_turn(self) -> bool:
        """True if an empty prompt stands for the next turn of a conversation."""
        return self.reply_mode == "conversation" and self.previous_reply is not None

    @property
    def prompt_mark(self) -> str:
        """The sign before a prompt, with the role in which it is said."""
        role = {"continue": "", "reply": "reply ", "conversation": f"{display_name(self.roles.speaking_as) or 'say'} "}
        return f"{role[self.reply_mode]}❯"


@dataclass(eq=False)
class Column:
    """Column of a comparison: its model and temperature, its heading, and the text that was generated so far."""

    title: str
    model: LanguageModel | None = None  # None while the model is being loaded
    temperature: float = 0.0
    speaker: str = ""  # who says the text; empty for the speaker of the context
    description: str = ""  # of the model, in parts separated by " · "
    placeholder: str = ""  # shown while there is no token
    events: list[TokenEvent | Done] = field(default_factory=list)
    failure: str = ""
    continued_prompt: str = ""  # line that the text continues, perhaps in the middle of a word
    marks_line_ends: bool = True  # True if a line end is an `<eos>`; False if it is an ordinary line break
    noun: str = "word"

    def prepare(self, prompt: str, context: PromptContext, settings: SamplerSettings) -> GenerationColumn:
        """Return what to generate to continue or answer a prompt; one that the model cannot read is an error."""
        model = self.model
        assert model is not None
        if prompt.strip():
            generation.encode_prompt(prompt, model.tokenizer)  # has a word that the model knows
        self.noun, self.marks_line_ends = token_noun(model.tokenizer), not reads_line_ends(model)
        self.continued_prompt = "" if context.is_answer else to_prompt_line(prompt, model.tokenizer)
        roles = context.roles._replace(speaker=self.speaker or context.roles.speaker or SOMEONE)
        line = to_prompt_line(prompt, model.tokenizer, context.reply_mode)
        text = NextTokenContext.before_reply(model, line, context.reply_mode, context.previous_reply, roles)
        lines_before = None
        if find_cast(model) and context.is_answer:
            lines_before = tuple(text.ids[: len(text.ids) - len(encode_speaker(model.tokenizer, roles.speaker))])
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
        lead = word_to_continue(self.continued_prompt, [token.piece for token in tokens])
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
