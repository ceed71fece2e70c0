"""Preview of the next token in a session, and completion of the last word of a prompt."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from engine.data.scripts import encode_speaker
from engine.data.speakers import STRANGER
from engine.data.tokenizers import EOS_ID, WORD_CHARACTER, ByteTokenizer
from engine.generation.generate import TextInProgress, prefill
from engine.generation.settings import SamplerSettings
from engine.generation.turns import next_speaker_probs, without_last_speaker
from engine.models.base import LanguageModel
from engine.models.dialogue import DialogueModel
from lotr_tui.session.cast import NO_ROLES, Roles, answering_cast
from lotr_tui.session.conversation import Conversation
from lotr_tui.session.read_text import NextTokenContext, TextReader, to_prompt_line
from lotr_tui.session.reply import Reply
from lotr_tui.session.session_model import SessionModel, answers_by_template, find_cast
from lotr_tui.session.settings import ReplyMode

MAX_CANDIDATES = 40  # that are computed; the screen shows as many as fit
MIN_LETTERS = 2  # of a word that is completed: after one letter too many words are possible
MAX_COMPLETION_TOKENS = 24  # that complete a word in an open vocabulary


def find_context(
    session_model: SessionModel,
    conversation: Conversation,
    draft: str,
    reply_mode: ReplyMode,
    previous: Reply | None,
    roles: Roles = NO_ROLES,
) -> NextTokenContext | None:
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
            return NextTokenContext.before_reply(model, line, reply_mode, previous, roles)
    if last is None:
        return None if answers_by_template(model, reply_mode) else NextTokenContext(model, ())
    if last.session_model.model is model and not last.read_only_reason:
        return NextTokenContext.of_reply(last, len(last.tokens))
    if last.session_model.model.tokenizer != model.tokenizer or last.is_chat:
        return None
    return NextTokenContext(model, last.token_ids(), is_first_token=last.starts_line(len(last.tokens)))


def find_turn(session_model: SessionModel, line: str, previous: Reply | None, roles: Roles) -> NextTokenContext:
    """Return a line after `previous`, or without a line the text so far, which a member of the cast answers."""
    names = answering_cast(session_model.cast, roles.speaking_as, line)
    user, last_speaker = Roles(roles.speaking_as), "" if line or previous is None else previous.speaker
    text = NextTokenContext.before_reply(session_model.model, line, "conversation", previous, user)
    return replace(text, candidates=tuple(without_last_speaker(names, last_speaker)), speaker=roles.speaker)


def read_next_token(
    reader: TextReader, text: NextTokenContext, cancelled: Callable[[], bool] = lambda: False
) -> NextTokenContext | None:
    """Read a text up to its next token, after the name of who says the next line; return None if that was cancelled."""
    if text.candidates:
        state = reader.read(text, cancelled)
        if state is None:
            return None
        assert isinstance(text.model, DialogueModel), "only a model with a cast has turns"
        text = text.begin_line(next_speaker_probs(text.model, state, text.candidates))
    state = reader.read(text, cancelled)
    return None if state is None else replace(text, state=state)


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
        state = self._reader.read(NextTokenContext(model, ids_before), cancelled)
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
        state = self._reader.read(NextTokenContext(model, ids, reopens_last_word=True), cancelled)
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
