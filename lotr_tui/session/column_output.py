"""Columns of generated text in which several models or settings are compared."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from engine.data.scripts import encode_speaker
from engine.data.speakers import SOMEONE, display_name
from engine.errors import PromptError
from engine.generation.generate import Done, TokenEvent
from engine.generation.prompt import EncodedPrompt, encode_prompt
from engine.generation.settings import SamplerSettings
from engine.models.base import LanguageModel
from lotr_tui.formatting import LINE_END_MARK, displayable, token_noun
from lotr_tui.session.cast import Roles
from lotr_tui.session.columns import GenerationColumn, generated_words
from lotr_tui.session.read_text import context_ids, to_prompt_line
from lotr_tui.session.reply import Reply
from lotr_tui.session.session_model import answers_by_template, chat_start, find_cast, reads_line_ends
from lotr_tui.session.settings import ReplyMode
from lotr_tui.session.transcript import word_to_continue


class ColumnOutput:
    """Heading of a column and the text that has been generated for it so far."""

    def __init__(self, title: str, description: str = "", placeholder: str = "") -> None:
        self.title = title
        self.description = description
        """Description of the model in parts separated by " · ", shown on one line or with a part per line."""
        self.placeholder = placeholder
        """Text shown while there is no token."""
        self.events: list[TokenEvent | Done] = []
        self.failure = ""
        """Reason why the generation failed; empty if it did not."""
        self.continued_prompt = ""
        """Line that the text continues, perhaps in the middle of a word; empty if the text starts a line."""
        self.marks_line_ends = True
        """True if a line end is shown as a mark, because it is an `<eos>`; False if it is an ordinary line break."""
        self.noun = "word"
        """Noun for a token of the model in the interface: "word" or "token"."""

    @property
    def is_empty(self) -> bool:
        """True if the column has neither a token nor a failure."""
        return not self.events and not self.failure

    @property
    def done_event(self) -> Done | None:
        """End of the text; None while more tokens may follow."""
        last = self.events[-1] if self.events else None
        return last if isinstance(last, Done) else None

    @property
    def shown_words(self) -> list[str]:
        """The words to show; a first word that continues the last one of the prompt is shown with its beginning."""
        line_end = LINE_END_MARK if self.marks_line_ends else "\n"
        words = [line_end if word == "\n" else displayable(word) for word in generated_words(self.token_events)]
        pieces = [event.piece for event in self.token_events]
        return [word_to_continue(self.continued_prompt, pieces) + word for word in words[:1]] + words[1:]

    def words_to_compare(self, other: "ColumnOutput") -> list[str]:
        """Return the words, with a final `<eos>` if the model ended the text itself.

        A last word that is not complete is left out if it is the beginning of the word at its place in `other`.
        """
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

    @property
    def token_events(self) -> list[TokenEvent]:
        """The tokens that have been generated."""
        return [event for event in self.events if isinstance(event, TokenEvent)]

    def add_event(self, event: TokenEvent | Done) -> None:
        """Append an event; a token is kept without its distribution, which takes much memory."""
        self.events.append(event.without_distribution() if isinstance(event, TokenEvent) else event)

    def clear(self) -> None:
        """Remove the text and the failure."""
        self.events, self.failure = [], ""


@dataclass(eq=False)
class ColumnSlot:
    """Column of a comparison: its model, temperature and text."""

    output: ColumnOutput
    model: LanguageModel | None
    """None while the model is being loaded."""
    temperature: float
    speaker: str = ""
    """Canonical name of who says the text; empty for the speaker of the context."""

    def column(self, prompt: str, context: "PromptContext", settings: SamplerSettings) -> GenerationColumn:
        """Prepare the output for a text that continues or answers `prompt`, and return what to generate.

        Raises:
            InvalidInputError: If the chat template of the model does not accept the conversation.
        """
        assert self.model is not None
        tokenizer = self.model.tokenizer
        self.output.noun = token_noun(tokenizer)
        self.output.marks_line_ends = not reads_line_ends(self.model)
        is_continued = context.reply_mode == "continue"
        self.output.continued_prompt = to_prompt_line(prompt, tokenizer) if is_continued else ""
        settings = replace(settings, temperature=self.temperature)
        ids = context.token_ids(prompt, self.model, self.speaker)
        if answers_by_template(self.model, context.reply_mode):
            return GenerationColumn(self.model, ids, settings, chat_start(self.model))
        if not find_cast(self.model) or is_continued:
            return GenerationColumn(self.model, ids, settings)
        head = encode_speaker(tokenizer, context.speaker(self.speaker))
        return GenerationColumn(self.model, ids, settings, lines_before=ids[: len(ids) - len(head)])


@dataclass(frozen=True)
class PromptContext:
    """Context in which every column reads the prompt, as the session would read its next one."""

    reply_mode: ReplyMode = "continue"
    previous_reply: Reply | None = None
    """Reply that the prompt answers in a dialogue; None at the start of a text."""
    roles: Roles = Roles()  # noqa: RUF009 - immutable
    """Speakers of the prompt and of the text, for models with a cast."""

    @property
    def is_answer(self) -> bool:
        """True if the text answers the prompt; False if it continues the prompt."""
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
        """Number of turns of the conversation before the prompt."""
        number, reply = 0, self.previous_reply
        while reply is not None:
            number, reply = number + 1, reply.turn.previous_reply
        return number

    def speaker(self, chosen: str) -> str:
        """Return who says the text: `chosen`, or if that is empty the speaker of `roles`, or else someone."""
        return chosen or self.roles.speaker or SOMEONE

    def token_ids(self, prompt: str, model: LanguageModel, speaker: str = "") -> tuple[int, ...]:
        """Return the token ids that a model reads before its first word: the earlier turns and the prompt.

        A model with a cast reads a script, which ends in the name of `self.speaker(speaker)` or in a line of it.
        """
        line = to_prompt_line(prompt, model.tokenizer, self.reply_mode)
        roles = self.roles._replace(speaker=self.speaker(speaker))
        return tuple(context_ids(model, line, self.reply_mode, self.previous_reply, roles))


def encode_prompts(slots: Sequence[ColumnSlot], prompt: str) -> dict[ColumnSlot, EncodedPrompt | PromptError]:
    """Encode `prompt` for the model of each slot; the value is the error if the model cannot read the prompt.

    An empty prompt is not encoded: in a conversation, it stands for the next turn.
    """
    if not prompt.strip():
        return {}
    by_vocabulary: dict[int, EncodedPrompt | PromptError] = {}
    by_slot: dict[ColumnSlot, EncodedPrompt | PromptError] = {}
    for slot in slots:
        if slot.model is None:
            continue
        key = id(slot.model.tokenizer)
        if key not in by_vocabulary:
            try:
                by_vocabulary[key] = encode_prompt(prompt, slot.model.tokenizer)
            except PromptError as error:
                by_vocabulary[key] = error
        by_slot[slot] = by_vocabulary[key]
    return by_slot


def describe_unknown_words(encoded_prompts: dict[ColumnSlot, EncodedPrompt | PromptError]) -> str:
    """Return a line that names the words of a prompt outside the vocabularies; "" if there are none.

    The line names the columns too if their vocabularies differ in these words.
    """
    unknown_words = {
        slot: ", ".join(encoded.unknown_tokens[:8])
        for slot, encoded in encoded_prompts.items()
        if isinstance(encoded, EncodedPrompt)
    }
    if not any(unknown_words.values()):
        return ""
    if len(set(unknown_words.values())) == 1:
        return f"the model does not know: {next(iter(unknown_words.values()))}"
    by_column = "; ".join(f"{words} ({slot.output.title})" for slot, words in unknown_words.items() if words)
    return f"not every model knows: {by_column}"
