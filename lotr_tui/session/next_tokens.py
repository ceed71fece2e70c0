"""Preview of the next token in a session: after the draft in the prompt, or else after the last reply."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from engine.data.tokenizers.bytes import ByteTokenizer
from engine.generation.complete_words import CompleteWordSearch, open_word
from engine.generation.prompt import DecoderState
from engine.generation.sampling import NextTokenProbs, TextInProgress, next_token_probs
from engine.generation.settings import SamplerSettings
from engine.generation.turns import SpeakerProb, next_speaker_probs, without_last_speaker
from engine.models.base import LanguageModel
from engine.models.dialogue import DialogueModel
from lotr_tui.session.conversation.cast import NO_ROLES, Roles, answering_cast
from lotr_tui.session.conversation.conversation import Conversation
from lotr_tui.session.conversation.generation import prepare_context, to_prompt_line
from lotr_tui.session.conversation.read_text import UnreadText
from lotr_tui.session.conversation.reply_tree import Reply
from lotr_tui.session.model_abilities import answers_by_template
from lotr_tui.session.session_model import SessionModel
from lotr_tui.session.settings import PreviewUnit, ReplyMode
from lotr_tui.session.text_reader import TextReader

MAX_CANDIDATES = 40
"""Candidates that are computed; the screen shows as many as fit."""


@dataclass(frozen=True, eq=False)
class NextTokenContext:
    """A text, and the state from which the model predicts its next token."""

    model: LanguageModel
    state: DecoderState
    ids: Sequence[int]
    """Token ids of the whole text."""
    is_first_token: bool
    """True if the next token is the first of a reply or of a line, which it cannot end."""
    is_chat: bool = False
    """True if a chat template has made the text."""
    speaker: str = ""
    """Canonical name of who says the line that begins there; empty inside of a line, and without a cast."""
    speakers: Sequence[SpeakerProb] = ()
    """Speakers who may say that line, likeliest first."""

    @classmethod
    def from_read(
        cls, text: UnreadText, state: DecoderState, speakers: Sequence[SpeakerProb] = ()
    ) -> "NextTokenContext":
        """Return a text after it was read; `speakers` may say the line that begins at its end."""
        speaker = text.speaker if speakers else ""
        return cls(text.model, state, text.ids, text.is_first_token, text.is_chat, speaker, speakers)

    def is_same_text(self, other: "NextTokenContext") -> bool:
        """Return True if the same model predicts the same next token in another context."""
        return (
            self.model is other.model
            and self.state.num_reread_tokens == other.state.num_reread_tokens
            and self.is_first_token == other.is_first_token
            and list(self.ids) == list(other.ids)
        )

    def token_probs(self, settings: SamplerSettings, top_n: int = MAX_CANDIDATES) -> NextTokenProbs:
        """Return the `top_n` likeliest next tokens."""
        return next_token_probs(self._text(settings), top_n)

    def search_words(self) -> CompleteWordSearch:
        """Return a search of the complete words that can come next, for a model whose tokens are parts of words."""
        return CompleteWordSearch(self._text(SamplerSettings()))

    def _text(self, settings: SamplerSettings) -> TextInProgress:
        return TextInProgress(self.model, self.ids, settings, state=self.state, is_first_token=self.is_first_token)

    def last_text(self, unit: PreviewUnit) -> str:
        """Return the last word or token of the text; empty at the start of a text."""
        if not self.ids:
            return ""
        tokenizer = self.model.tokenizer
        if unit == "token" or not isinstance(tokenizer, ByteTokenizer):
            return tokenizer.tokens[self.ids[-1]]
        end = len(self.ids)
        while end > 1 and not tokenizer.tokens[self.ids[end - 1]].strip(" "):
            end -= 1
        word = open_word(tokenizer, self.ids[:end])
        return word.decode(errors="replace") if word else tokenizer.tokens[self.ids[end - 1]].strip(" ")


def find_unread_text(
    session_model: SessionModel,
    conversation: Conversation,
    draft: str,
    reply_mode: ReplyMode,
    previous: Reply | None,
    roles: Roles = NO_ROLES,
) -> UnreadText | None:
    """Return the text whose next token is shown. The model does not run.

    The text is the draft, in a dialogue after the reply `previous`, or the current reply if the draft is empty. In a
    conversation with a cast, the draft is a line in `roles`, and the next token is the answer's first. Without a draft,
    it is the first of the next turn if the last line has ended. While a reply is generated, the text ends with the
    reply, whatever the draft is.

    Returns:
        The text; None before the first line of a chat, and for a reply that the model cannot continue.

    Raises:
        InvalidInputError: If the chat template of the model does not accept the conversation.
    """
    model = session_model.model
    line = to_prompt_line(draft, model.tokenizer, reply_mode)
    last = conversation.active_reply or conversation.current_reply
    if conversation.active_reply is None:
        is_line_complete = bool(line) or last is None or last.has_ended_line
        if reply_mode == "conversation" and session_model.cast and is_line_complete:
            return find_turn(session_model, line, previous, roles)
        if len(model.tokenizer.encode(line)):
            context = prepare_context(session_model, line, reply_mode, previous, roles)
            is_chat = answers_by_template(model, reply_mode)
            num_read = len(context.ids) - len(context.unread_ids)
            return UnreadText(model, context.ids, context.state, num_read, is_chat, reopens_last_word=not is_chat)
    if last is None:
        return None if answers_by_template(model, reply_mode) else UnreadText(model, ())
    if last.session_model.model is model and not last.read_only_reason:
        return UnreadText.of_reply(last, len(last.tokens))
    if last.session_model.model.tokenizer != model.tokenizer or last.is_chat:
        return None
    return UnreadText(model, last.token_ids(), is_first_token=last.starts_line(len(last.tokens)))


def find_turn(session_model: SessionModel, line: str, previous: Reply | None, roles: Roles) -> UnreadText:
    """Return a line of a conversation in `roles` after the reply `previous`, which a member of the cast answers.

    Without a line, a member of the cast speaks after `previous`, or begins a scene.
    """
    context = prepare_context(session_model, line, "conversation", previous, roles._replace(speaker=""))
    names = answering_cast(session_model.cast, roles.speaking_as, line)
    return UnreadText(
        session_model.model,
        context.ids,
        context.state,
        len(context.ids) - len(context.unread_ids),
        candidates=tuple(without_last_speaker(names, "" if line or previous is None else previous.speaker)),
        speaker=roles.speaker,
    )


def read_speakers(
    reader: TextReader, turn: UnreadText, cancelled: Callable[[], bool] = lambda: False
) -> list[SpeakerProb]:
    """Read a turn, and return who may say the next line, likeliest first; an empty list if that was cancelled."""
    state = reader.read(turn, cancelled)
    assert isinstance(turn.model, DialogueModel), "only a model with a cast has turns"
    return [] if state is None else next_speaker_probs(turn.model, state, turn.candidates)


def read_next_token(
    reader: TextReader, text: UnreadText, cancelled: Callable[[], bool] = lambda: False
) -> NextTokenContext | None:
    """Read a text up to its next token, after the name of who says the next line; return None if that was cancelled."""
    speakers: Sequence[SpeakerProb] = ()
    if text.candidates:
        speakers = read_speakers(reader, text, cancelled)
        if not speakers:
            return None
        text = text.begin_line(text.speaker or speakers[0].name)
    state = reader.read(text, cancelled)
    return None if state is None else NextTokenContext.from_read(text, state, speakers)
