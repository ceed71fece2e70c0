"""Texts that a model reads before it predicts: their token ids, and the states that are kept on the way."""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from engine.data.scripts import Turn as SpokenLine
from engine.data.scripts import encode_speaker, encode_turn
from engine.data.speakers import SOMEONE, STRANGER
from engine.data.tokenizers import EOS_ID, Tokenizer
from engine.generation.generate import DecoderState, last_word_start, prefill, reopen_last_word
from engine.models.base import LanguageModel, advance_tokens
from lotr_tui.session.cast import NO_ROLES, Roles
from lotr_tui.session.reply import Reply, chat_messages, encode_lines, encode_said
from lotr_tui.session.session_model import (
    NO_LOG_PROBS,
    SessionModel,
    answers_by_template,
    chat_start,
    find_cast,
    find_chat_template,
    has_log_probs,
)
from lotr_tui.session.settings import ReplyMode

JOINERS = "\u200c\u200d"
"""Zero-width joiners, which are not printable but part of Persian words and of some emoji."""
CHUNK_TOKENS = 32  # that the model reads at once; a cancellation waits for the end of such a chunk
MAX_TEXT_STATES = 64  # that are kept of the latest text
MAX_STATES = 1000  # that are kept of replies to branch from: 30 MB of the bundled LSTM
MAX_LOG_PROBS = 250  # that are kept with them: 50 MB of SmolLM2


def to_prompt_line(text: str, tokenizer: Tokenizer | None = None, reply_mode: ReplyMode = "continue") -> str:
    """Return a typed text as one line of printable characters, in which a tokenizer finds the same tokens.

    A space at the end stays if an open vocabulary continues the text: it says that the last word is complete.
    """
    line = "".join(character if character.isprintable() or character in JOINERS else " " for character in text)
    is_word_complete = tokenizer is not None and tokenizer.is_open and reply_mode == "continue" and line[-1:] == " "
    return " ".join(line.split()) + (" " if is_word_complete and not line.isspace() else "")


def context_ids(
    model: LanguageModel, prompt: str, reply_mode: ReplyMode, previous_reply: Reply | None, roles: Roles = NO_ROLES
) -> list[int]:
    """Return the token ids that a model reads before a reply to `prompt`: the text of `previous_reply` and the prompt.

    A model with a cast reads a script, which ends with the name of the speaker of `roles`, if there is one. A chat
    template that does not accept the messages raises an InvalidInputError.
    """
    tokenizer = model.tokenizer
    if reply_mode == "continue":
        previous_reply = None
    if answers_by_template(model, reply_mode):
        template = find_chat_template(model)
        assert template is not None, "the model has a chat template"
        return list(template.encode(chat_messages(prompt, previous_reply, roles.system_prompt)))
    is_same = previous_reply is None or previous_reply.session_model.model.tokenizer == tokenizer
    if not find_cast(model):
        line = f"{prompt}\n" if prompt and reply_mode != "continue" else prompt
        if previous_reply is None:
            return encode_lines(tokenizer, line)
        if not is_same:
            return encode_said(model, previous_reply.spoken_lines()) + encode_lines(tokenizer, line)
        ids = previous_reply.token_ids()
        if tokenizer.reads_line_ends:
            return [*ids, *tokenizer.encode(f"\n{line}").tolist()]
        ends_line = not ids or (ids[-1] == EOS_ID and not tokenizer.is_open)
        return [*ids, *([] if ends_line else [EOS_ID]), *encode_lines(tokenizer, line)]
    if reply_mode == "continue":
        return [*encode_speaker(tokenizer, roles.speaker or SOMEONE), *tokenizer.encode(f" {prompt}").tolist()]
    if previous_reply is None:
        ids = []
    elif not is_same:
        ids = encode_said(model, [line for line in previous_reply.spoken_lines() if line.text])
    elif previous_reply.tokens or previous_reply.reply_mode == "continue":
        ids = [*previous_reply.token_ids(), *tokenizer.encode("\n").tolist()]
    else:  # a turn without an answer counts as the prompt alone
        ids = [*previous_reply.context_ids_before_speaker]
    if prompt:
        ids += encode_turn(tokenizer, SpokenLine(roles.speaking_as or STRANGER, prompt))
    return [*ids, *encode_speaker(tokenizer, roles.speaker)] if roles.speaker else ids


@dataclass(frozen=True, eq=False)
class UnreadText:
    """Text whose next token is to be predicted, and the part of it that the model has read."""

    model: LanguageModel
    ids: Sequence[int]
    state: DecoderState | None = None  # cached; None if the model has read nothing
    num_read: int = 0  # ids that `state` has read
    is_chat: bool = False  # True if a chat template has made the text, which then begins without `<eos>`
    reopens_last_word: bool = False  # True if the next token may begin with the end of the text
    is_first_token: bool = True  # True if the next token is the first of a reply or of a line, which it cannot end
    candidates: tuple[str, ...] = ()  # of whom one says the next line, after the text; empty inside of a line
    speaker: str = ""  # who is chosen to say the next line; empty for the likeliest of `candidates`

    @classmethod
    def of_reply(cls, reply: Reply, index: int) -> "UnreadText":
        """Return the text up to the token `index` of a reply, in the vocabulary of its model."""
        model, ids = reply.session_model.model, reply.token_ids(index)
        state, num_read = reply.decoder_state(index), len(ids)
        if state is None:
            state, num_read = nearest_state(reply, model, ids, is_chat=reply.is_chat)
        return cls(model, ids, state, num_read, is_chat=reply.is_chat, is_first_token=reply.starts_line(index))

    @classmethod
    def before_reply(
        cls,
        session_model: SessionModel,
        prompt: str,
        reply_mode: ReplyMode,
        previous_reply: Reply | None,
        roles: Roles = NO_ROLES,
    ) -> "UnreadText":
        """Return the text before a reply to `prompt`, see `context_ids`."""
        model = session_model.model
        is_chat = answers_by_template(model, reply_mode)
        ids = context_ids(model, prompt, reply_mode, previous_reply, roles)
        previous_reply = None if reply_mode == "continue" else previous_reply
        return cls(model, ids, *nearest_state(previous_reply, model, ids, is_chat=is_chat), is_chat)

    def is_same_text(self, other: "UnreadText") -> bool:
        """Return True if the same model is to predict the same next token of another text."""
        return self.model is other.model and self._key == other._key

    @property
    def _key(self) -> tuple[object, ...]:
        flags = self.is_chat, self.reopens_last_word, self.is_first_token
        return flags, self.candidates, self.speaker, list(self.ids)

    @property
    def unread_ids(self) -> Sequence[int]:
        return self.ids[self.num_read :]

    @property
    def known_state(self) -> DecoderState | None:
        """State in which the next token is predicted, if nothing has to be read; None otherwise."""
        is_read = self.num_read == len(self.ids) and not self.reopens_last_word and not self.candidates
        return self.state if is_read and self.state is not None and has_log_probs(self.state) else None

    @property
    def num_settled(self) -> int:
        """Number of ids at the beginning that stay the same if the user goes on typing the last word."""
        if self.reopens_last_word:
            return last_word_start(self.model.tokenizer, self.ids)
        return last_word_start(self.model.tokenizer, self.ids[:-1]) if self.candidates else len(self.ids)

    def begin_line(self, speaker: str) -> "UnreadText":
        """Return the text with the head of a line after it, in which a speaker says the next line."""
        ids = [*self.ids, *encode_speaker(self.model.tokenizer, speaker)]
        return replace(self, ids=ids, candidates=(), speaker=speaker)


def nearest_state(
    reply: Reply | None, model: LanguageModel, ids: Sequence[int], *, is_chat: bool = False
) -> tuple[DecoderState | None, int]:
    """Return the latest state in the text of `reply` that has read a beginning of `ids`, and how many it has read.

    A text by a chat template (`is_chat`) agrees only with another one.
    """
    while reply is not None and reply.session_model.model is model and not reply.read_only_reason:
        num_shared = _count_shared([*reply.context_ids, *reply.ids], ids) if reply.is_chat == is_chat else -1
        for index in reversed(range(min(len(reply.decoder_states), len(reply.ids) + 1))):
            num_read = len(reply.context_ids) + index
            state = reply.decoder_states[index]
            if state is not None and num_read <= num_shared and (num_read < len(ids) or has_log_probs(state)):
                return state, num_read
        reply = reply.turn.previous_reply
    return (chat_start(model) if is_chat else None), 0


def _count_shared(ids: Sequence[int], other_ids: Sequence[int]) -> int:
    for index, (id, other_id) in enumerate(zip(ids, other_ids, strict=False)):
        if id != other_id:
            return index
    return min(len(ids), len(other_ids))


class StateCache:
    """First-in, first-out cache of the states of replies; log-probabilities, which are large, are evicted first."""

    def __init__(self) -> None:
        self._log_probs: deque[tuple[Reply, int]] = deque()
        self._states: deque[tuple[Reply, int]] = deque()

    def add(self, reply: Reply, state: DecoderState | None) -> None:
        """Append a state to the states of `reply`, and evict the oldest over the limits."""
        place = reply, len(reply.decoder_states)
        reply.decoder_states.append(state)
        for places, limit in ((self._log_probs, MAX_LOG_PROBS), (self._states, MAX_STATES)):
            if state is not None:
                places.append(place)
            if len(places) > limit:
                oldest, index = places.popleft()
                evicted = oldest.decoder_states[index] if index < len(oldest.decoder_states) else None
                if evicted is not None:
                    is_whole = places is self._states
                    oldest.decoder_states[index] = None if is_whole else evicted._replace(log_probs=NO_LOG_PROBS)


class TextReader:
    """Reader that keeps states of the latest text for another one with its beginning. Threads may share it."""

    def __init__(self) -> None:
        self._latest: tuple[UnreadText, dict[int, DecoderState]] | None = None
        """Text that was read last, and its states by the number of ids that they have read."""
        self._lock = threading.Lock()

    def read(self, text: UnreadText, cancelled: Callable[[], bool] = lambda: False) -> DecoderState | None:
        """Read the unread part of a text, and return the state after it; return None if that was cancelled."""
        with self._lock:
            return None if cancelled() else self._read(text, cancelled)

    def skip_read(self, text: UnreadText) -> UnreadText:
        """Return the text before a reply with the latest state that this reader has of it."""
        # The last word of a prompt is read again, because it may be left to the next token.
        end = len(text.ids) if text.is_chat else last_word_start(text.model.tokenizer, text.ids)
        states = self._known_states(text)
        usable = [at for at, state in states.items() if at < end or (at == end and has_log_probs(state))]
        num_read = max(usable, default=0)
        return replace(text, state=states[num_read], num_read=num_read) if num_read > text.num_read else text

    def _known_states(self, text: UnreadText) -> dict[int, DecoderState]:
        """Return the states that have read a beginning of a text, by the number of ids that they have read."""
        if self._latest is None:
            return {}
        latest, states = self._latest
        if latest.model is not text.model or latest.is_chat != text.is_chat:
            return {}
        num_shared = _count_shared(latest.ids, text.ids)
        return {num_read: state for num_read, state in states.items() if num_read <= num_shared}

    def _read(self, text: UnreadText, cancelled: Callable[[], bool]) -> DecoderState | None:
        model, ids = text.model, text.ids
        settled = text.num_settled
        end = settled if text.reopens_last_word else len(ids)
        states = self._known_states(text)
        if text.state is not None and not text.state.num_reread_tokens:
            states.setdefault(text.num_read, text.state)
        usable = [at for at, state in states.items() if at < end or (at == end and has_log_probs(state))]
        num_read = max(usable, default=0)
        if not usable:
            states[0] = chat_start(model) if text.is_chat else prefill(model, ())
        state = states[num_read]
        while num_read < end:
            if cancelled():
                return None
            stop = min(settled if num_read < settled else end, num_read + CHUNK_TOKENS)
            state = DecoderState(*advance_tokens(model, state.model_state, ids[num_read:stop]))
            num_read = stop
            states[num_read] = state
            self._keep(text, states, end)
        last_states = [state]
        for index in range(end, len(ids)):
            known = states.get(index + 1)
            if known is None or not has_log_probs(known):
                if cancelled():
                    return None
                known = states[index + 1] = DecoderState(*model.advance(last_states[-1].model_state, ids[index]))
            last_states.append(known)
        self._keep(text, states, end)
        return reopen_last_word(model.tokenizer, ids[end:], last_states) if text.reopens_last_word else last_states[-1]

    def _keep(self, text: UnreadText, states: dict[int, DecoderState], end: int) -> None:
        """Keep the latest states; only those from `end` on keep their log-probabilities, which are large."""
        kept = {
            at: states[at] if at >= end else states[at]._replace(log_probs=NO_LOG_PROBS)
            for at in sorted(states)[-MAX_TEXT_STATES:]
        }
        self._latest = replace(text, state=None), kept
