"""Preview of the next token in a session, and completion of the last word of a prompt."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from engine.data.scripts import encode_speaker
from engine.data.speakers import STRANGER
from engine.data.tokenizers import EOS_ID, WORD_CHARACTER, ByteTokenizer
from engine.generation.complete_words import CompleteWordSearch, open_word
from engine.generation.generate import DecoderState, NextTokenProbs, TextInProgress, next_token_probs, prefill
from engine.generation.settings import SamplerSettings
from engine.generation.turns import SpeakerProb, next_speaker_probs, without_last_speaker
from engine.models.base import LanguageModel
from engine.models.dialogue import DialogueModel
from lotr_tui.session.cast import NO_ROLES, Roles, answering_cast
from lotr_tui.session.conversation import Conversation
from lotr_tui.session.read_text import TextReader, UnreadText, to_prompt_line
from lotr_tui.session.reply import Reply
from lotr_tui.session.session_model import SessionModel, answers_by_template, find_cast
from lotr_tui.session.settings import PreviewUnit, ReplyMode

MAX_CANDIDATES = 40  # that are computed; the screen shows as many as fit
MIN_LETTERS = 2  # of a word that is completed: after one letter too many words are possible
MAX_COMPLETION_TOKENS = 24  # that complete a word in an open vocabulary


@dataclass(frozen=True, eq=False)
class NextTokenContext:
    """A text that a model has read, and the state from which it predicts the next token."""

    model: LanguageModel
    state: DecoderState
    ids: Sequence[int]
    is_first_token: bool
    is_chat: bool = False
    speaker: str = ""  # who says the line that begins there; empty inside of a line, and without a cast
    speakers: Sequence[SpeakerProb] = ()  # who may say that line, likeliest first

    @classmethod
    def from_read(
        cls, text: UnreadText, state: DecoderState, speakers: Sequence[SpeakerProb] = ()
    ) -> "NextTokenContext":
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
    """Return the text whose next token is shown: the draft, or the reply that is generated or selected.

    In a conversation with a cast, the draft is a line in `roles`, and without it the next turn follows an ended line.
    The result is None before the first line of a chat, and for a reply that the model cannot continue.
    """
    model = session_model.model
    line = to_prompt_line(draft, model.tokenizer, reply_mode)
    last = conversation.active_reply or conversation.current_reply
    if conversation.active_reply is None:
        is_line_complete = bool(line) or last is None or last.has_ended_line
        if reply_mode == "conversation" and session_model.cast and is_line_complete:
            return find_turn(session_model, line, previous, roles)
        if len(model.tokenizer.encode(line)):
            text = UnreadText.before_reply(session_model, line, reply_mode, previous, roles)
            return replace(text, reopens_last_word=not text.is_chat)
    if last is None:
        return None if answers_by_template(model, reply_mode) else UnreadText(model, ())
    if last.session_model.model is model and not last.read_only_reason:
        return UnreadText.of_reply(last, len(last.tokens))
    if last.session_model.model.tokenizer != model.tokenizer or last.is_chat:
        return None
    return UnreadText(model, last.token_ids(), is_first_token=last.starts_line(len(last.tokens)))


def find_turn(session_model: SessionModel, line: str, previous: Reply | None, roles: Roles) -> UnreadText:
    """Return a line after `previous`, or without a line the text so far, which a member of the cast answers."""
    names = answering_cast(session_model.cast, roles.speaking_as, line)
    return replace(
        UnreadText.before_reply(session_model, line, "conversation", previous, roles._replace(speaker="")),
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


class WordCompleter:
    """Completer of the last word of a prompt, by the likeliest word or tokens, which keeps what the model has read."""

    def __init__(self) -> None:
        self._reader = TextReader()

    def complete(self, model: LanguageModel, text: str, cancelled: Callable[[], bool] = lambda: False) -> str:
        """Return the rest of the last word of `text`; "" if it is complete, unknown or too short, or if cancelled."""
        tokenizer = model.tokenizer
        if isinstance(tokenizer, ByteTokenizer):
            return self._complete_by_tokens(model, tokenizer, text, cancelled)
        *before, (_, end, word) = [
            (0, -1, ""),
            *((start, end, text[start:end].lower()) for start, end, _ in tokenizer.spans(text)),
        ]
        if end != len(text) or len(word) < MIN_LETTERS:
            return ""
        ids = [id for id, token in enumerate(tokenizer.tokens) if id > EOS_ID and token.startswith(word)]
        if not ids:
            return ""
        ids_before = tokenizer.encode(text[: before[-1][1]] if len(before) > 1 else "").tolist()
        state = self._reader.read(UnreadText(model, ids_before), cancelled)
        if state is None:
            return ""
        completed = tokenizer.tokens[ids[int(np.argmax(state.log_probs[ids]))]]
        stem = completed.partition("'")[0]  # "bilbo" for "bilbo's": the rest is soon typed, but not soon deleted
        return (stem if stem in tokenizer.tokens and len(stem) >= len(word) else completed)[len(word) :]

    def _complete_by_tokens(
        self, model: LanguageModel, tokenizer: ByteTokenizer, text: str, cancelled: Callable[[], bool]
    ) -> str:
        if not all(map(WORD_CHARACTER.match, text[-MIN_LETTERS:].rjust(MIN_LETTERS))):
            return ""
        line = to_prompt_line(text)
        head, line = (encode_speaker(tokenizer, STRANGER), f" {line}") if find_cast(model) else ((), line)
        ids = [*head, *tokenizer.encode(line).tolist()]
        state = self._reader.read(UnreadText(model, ids, reopens_last_word=True), cancelled)
        if state is None:
            return ""
        decoder = TextInProgress(model, ids, SamplerSettings(), state=state).piece_decoder
        num_typed, rest = state.num_reread_characters, ""
        for _ in range(MAX_COMPLETION_TOKENS):
            if cancelled():
                return ""
            id = int(np.argmax(state.log_probs))
            piece = decoder.decode(id)[num_typed:]
            if num_typed == 0 and (tokenizer.word_starts[id] or piece[:1] in ("'", "’")):
                return rest
            rest += piece
            num_typed = 0
            state = prefill(model, [id], state)
        return ""
