"""Columns of text that are generated side by side from one seed, by several models or settings, and compared."""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile

from engine.data.scripts import encode_speaker
from engine.data.speakers import SOMEONE, display_name
from engine.data.tokenizers import EOS
from engine.errors import PromptError
from engine.generation.generate import (
    DecoderState,
    Done,
    EncodedPrompt,
    IndexedEvent,
    TextInProgress,
    TokenEvent,
    encode_prompt,
    generate_batch,
    last_word_start,
    prefill,
    prefill_prompt,
)
from engine.generation.settings import SamplerSettings
from engine.models.base import LanguageModel
from engine.runtime.process import Cancellation, throttle
from lotr_tui.formatting import LINE_END_MARK, displayable, token_noun
from lotr_tui.session.cast import NO_ROLES, Roles
from lotr_tui.session.read_text import context_ids, to_prompt_line
from lotr_tui.session.reply import Reply
from lotr_tui.session.session_model import answers_by_template, chat_start, find_cast, reads_line_ends
from lotr_tui.session.settings import ReplyMode
from lotr_tui.session.transcript import word_to_continue

_WORD = re.compile(r"\n|\S+")


@dataclass(frozen=True)
class GenerationColumn:
    """A model, a text for it to continue, and how to sample: columns of a model differ in texts and settings only."""

    model: LanguageModel
    ids: tuple[int, ...]
    settings: SamplerSettings
    initial_state: DecoderState | None = None  # before a text by a chat template, whose last word is complete
    lines_before: tuple[int, ...] | None = None  # ids before a line of a conversation that the model completes


def generate_columns(
    columns: Sequence[GenerationColumn], seed: int, cancellation: Cancellation, pace: float = 0
) -> Iterator[IndexedEvent]:
    """Continue the text of every column of one model, one token of each in turn, until every column has its `Done`.

    All columns use the noise of one seed. `pace` is the maximum number of tokens per second in each; 0 for no limit.
    """
    model, initial_state = columns[0].model, columns[0].initial_state
    if columns[0].lines_before is not None:
        initial_state = prefill(model, ())
    is_complete = initial_state is not None  # otherwise the last word may be left to its continuation
    ends = {column.ids: None if is_complete else last_word_start(model.tokenizer, column.ids) for column in columns}
    tokens = zip(*(ids[:end] for ids, end in ends.items()), strict=False)
    start = [same[0] for same in takewhile(lambda same: len(set(same)) == 1, tokens)]
    common, read = prefill(model, start, initial_state), prefill if is_complete else prefill_prompt
    states = {ids: read(model, ids[len(start) :], common) for ids in ends}
    texts = [
        TextInProgress(
            model, column.ids, column.settings, seed, states[column.ids], noise_context=column.lines_before or ()
        )
        for column in columns
    ]
    for step in throttle(generate_batch(texts, cancellation), pace, cancellation):
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


class ColumnOutput:
    """Heading of a column and the text that has been generated for it so far."""

    def __init__(self, title: str, description: str = "", placeholder: str = "") -> None:
        self.title = title
        self.description = description  # of the model, in parts separated by " · "
        self.placeholder = placeholder  # shown while there is no token
        self.events: list[TokenEvent | Done] = []
        self.failure = ""
        self.continued_prompt = ""  # line that the text continues, perhaps in the middle of a word
        self.marks_line_ends = True  # True if a line end is an `<eos>`; False if it is an ordinary line break
        self.noun = "word"

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

    def words_to_compare(self, other: "ColumnOutput") -> list[str]:
        """Return the words and a final `<eos>`, without an incomplete last word that may become that of `other`."""
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

    @property
    def num_earlier_turns(self) -> int:
        return 0 if self.previous_reply is None else len(self.previous_reply.path())

    def token_ids(self, prompt: str, model: LanguageModel, speaker: str = "") -> tuple[int, ...]:
        """Return what a model reads before its first word, which `speaker` says, or else who answers or someone.

        A chat template that does not accept the conversation raises an InvalidInputError.
        """
        line = to_prompt_line(prompt, model.tokenizer, self.reply_mode)
        roles = self.roles._replace(speaker=speaker or self.roles.speaker or SOMEONE)
        return tuple(context_ids(model, line, self.reply_mode, self.previous_reply, roles))


@dataclass(eq=False)
class ColumnSlot:
    """Column of a comparison: its model, temperature and text."""

    output: ColumnOutput
    model: LanguageModel | None  # None while the model is being loaded
    temperature: float
    speaker: str = ""  # who says the text; empty for the speaker of the context

    def column(self, prompt: str, context: PromptContext, settings: SamplerSettings) -> GenerationColumn:
        """Prepare the output for a text that continues or answers `prompt`, and return what to generate."""
        model, is_continued = self.model, not context.is_answer
        assert model is not None
        self.output.noun = token_noun(model.tokenizer)
        self.output.marks_line_ends = not reads_line_ends(model)
        self.output.continued_prompt = to_prompt_line(prompt, model.tokenizer) if is_continued else ""
        ids = context.token_ids(prompt, model, self.speaker)
        column = GenerationColumn(model, ids, replace(settings, temperature=self.temperature))
        if answers_by_template(model, context.reply_mode):
            return replace(column, initial_state=chat_start(model))
        if not find_cast(model) or is_continued:
            return column
        head = encode_speaker(model.tokenizer, self.speaker or context.roles.speaker or SOMEONE)
        return replace(column, lines_before=ids[: len(ids) - len(head)])


def encode_prompts(slots: Sequence[ColumnSlot], prompt: str) -> dict[ColumnSlot, EncodedPrompt | PromptError]:
    """Encode a prompt, unless it is empty, for the model of each slot; the value is the error if that is impossible."""
    encoded: dict[ColumnSlot, EncodedPrompt | PromptError] = {}
    for slot in slots if prompt.strip() else ():
        if slot.model is not None:
            try:
                encoded[slot] = encode_prompt(prompt, slot.model.tokenizer)
            except PromptError as error:
                encoded[slot] = error
    return encoded


def describe_unknown_words(encoded_prompts: dict[ColumnSlot, EncodedPrompt | PromptError]) -> str:
    """Return a line that names the words of a prompt outside the vocabularies; "" if there are none."""
    unknown_words = {
        slot.output.title: ", ".join(encoded.unknown_tokens[:8])
        for slot, encoded in encoded_prompts.items()
        if isinstance(encoded, EncodedPrompt)
    }
    if not any(unknown_words.values()):
        return ""
    if len(set(unknown_words.values())) == 1:
        return f"the model does not know: {next(iter(unknown_words.values()))}"
    by_column = "; ".join(f"{words} ({title})" for title, words in unknown_words.items() if words)
    return f"not every model knows: {by_column}"
