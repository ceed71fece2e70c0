"""Texts that a model reads before it predicts: their token ids, the states on the way, and what comes next."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

import numpy as np

from engine.data import tokenizers
from engine.data.scripts import Turn as SpokenLine
from engine.data.scripts import encode_speaker, encode_turn
from engine.data.speakers import SOMEONE, STRANGER
from engine.data.tokenizers import EOS, EOS_ID, ByteTokenizer, Tokenizer
from engine.errors import InvalidInputError
from engine.generation import generate as generation
from engine.generation.complete_words import open_word
from engine.generation.generate import DecoderState
from engine.generation.settings import SamplerSettings
from engine.generation.turns import SpeakerProb, next_speaker_probs, without_last_speaker
from engine.models.base import LanguageModel, advance_tokens
from engine.models.dialogue import DialogueModel
from lotr_tui.formatting import JOINERS
from lotr_tui.session.cast import NO_ROLES, Roles, answering_cast
from lotr_tui.session.reply import Reply, chat_messages, encode_lines, encode_said
from lotr_tui.session.session_model import (
    NO_LOG_PROBS,
    SessionModel,
    answers_by_template,
    chat_start,
    find_cast,
    find_chat_template,
)
from lotr_tui.session.settings import PreviewUnit, ReplyMode

CHUNK_TOKENS = 32  # that the model reads at once; a cancellation waits for the end of such a chunk
MAX_CANDIDATES = 40  # next tokens that are computed; the screen shows as many as fit
MIN_LETTERS = 2  # of a word that is completed: after one letter too many words are possible
MAX_COMPLETION_TOKENS = 24  # that complete a word in an open vocabulary
MAX_TEXT_STATES = 64  # that are kept of the latest text
MAX_STATES = 1000  # that are kept of replies to branch from: 30 MB of the bundled LSTM
MAX_LOG_PROBS = 250  # that are kept of their latest tokens: 50 MB of SmolLM2
REOPENED = -1  # in place of a token id, after a text whose last word was reopened


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


def restore_reply(reply: Reply, session_model: SessionModel) -> None:
    """Give a reply that was read from a file a model, and the ids of its text in the vocabulary of that model."""
    model, tokenizer, parent = session_model.model, session_model.model.tokenizer, reply.parent
    reply.session_model = session_model
    problems = [] if parent is None else [parent.read_only_reason]
    if reply.starts_turn:
        reply.prompt = to_prompt_line(reply.prompt or "", tokenizer, reply.reply_mode)
        roles = Roles(reply.speaking_as, reply.speaker, reply.system_prompt)
        previous = reply.turn.previous_reply
        try:
            reply.context_ids = context_ids(model, reply.prompt, reply.reply_mode, previous, roles)
        except InvalidInputError as error:  # the chat template accepts other messages
            problems.append(f"{error}; this reply cannot be continued")
        unknown = {span.text for span in tokenizer.unknown_spans(reply.prompt)}.difference(reply.unknown_tokens)
    elif parent is not None:
        reply.inherit_context(parent)
        unknown = set()
    if reply.reply_mode == "conversation" and not session_model.cast and not reply.is_chat:
        problems.append(f"{session_model.name} knows no speakers and cannot continue from here")
    for token in reply.own_tokens:
        is_same = token.id < len(tokenizer) and tokenizer.tokens[token.id] == token.text
        # Tokens of an open vocabulary with the same text may add another text.
        id = token.id if is_same else None
        if id is None and isinstance(tokenizer, tokenizers.WordTokenizer):
            id = tokenizer.token_to_id.get(token.text)
        if id is None:
            unknown.add(token.text)
        reply.ids.append(id if id is not None else EOS_ID if token.text == EOS else tokenizers.UNK_ID)
    is_open = reply.tokenizer in tokenizers.OPEN_VOCABULARIES
    if (is_open or tokenizer.is_open) and (unknown or is_open != tokenizer.is_open):
        problems.append(f"{session_model.name} splits text into other tokens and cannot continue from here")
    elif unknown:
        problems.append(f"{session_model.name} does not know {min(unknown)!r} and cannot continue from here")
    reply.read_only_reason = next(filter(None, problems), "")
    if not reply.read_only_reason and not reply.num_shared_tokens:
        reply.split_context(min(reply.num_reread_tokens, len(reply.context_ids)))


@dataclass(frozen=True, eq=False)
class NextTokenContext:
    """Text whose next token is predicted, and once a model has read it, the state there."""

    model: LanguageModel
    ids: Sequence[int]
    is_chat: bool = False  # True if a chat template has made the text, which then begins without `<eos>`
    reopens_last_word: bool = False  # True if the next token may begin with the end of the text
    is_first_token: bool = True  # True if the next token is the first of a reply or of a line, which it cannot end
    candidates: tuple[str, ...] = ()  # of whom one says the next line, after the text; empty inside of a line
    speaker: str = ""  # who says the next line; empty for the likeliest of `candidates`
    speakers: Sequence[SpeakerProb] = ()  # who may say it, likeliest first
    state: DecoderState | None = None

    @classmethod
    def of_reply(cls, reply: Reply, index: int) -> "NextTokenContext":
        """Return the text up to the token `index` of a reply, in the vocabulary of its model."""
        reopens = index == 0 and reply.reply_mode != "conversation" and not reply.read_only_reason
        model, ids, is_first = reply.session_model.model, reply.token_ids(index), reply.starts_line(index)
        return cls(model, ids, reply.is_chat, reopens, is_first)

    @classmethod
    def before_reply(
        cls, model: LanguageModel, prompt: str, reply_mode: ReplyMode, previous: Reply | None, roles: Roles = NO_ROLES
    ) -> "NextTokenContext":
        """Return the text before a reply to `prompt`, see `context_ids`."""
        ids = context_ids(model, prompt, reply_mode, previous, roles)
        return cls(model, ids, answers_by_template(model, reply_mode), reply_mode != "conversation")

    def is_same_text(self, other: "NextTokenContext") -> bool:
        """Return True if the same model is to predict the same next token of another text."""
        return self.model is other.model and self._parts == other._parts

    @property
    def _parts(self) -> tuple[object, ...]:
        flags = self.is_chat, self.reopens_last_word, self.is_first_token
        return flags, self.candidates, self.speaker, list(self.ids)

    def keys(self) -> list[int]:
        """Return a key of the model and each beginning of the text, and at last of the text with its last word open."""
        ids = [*self.ids, REOPENED] if self.reopens_last_word else self.ids
        return list(accumulate(ids, next_key, initial=hash((id(self.model), self.is_chat))))

    def begin_line(self, speakers: Sequence[SpeakerProb]) -> "NextTokenContext":
        """Return the text with the head of a line after it, which the chosen or the likeliest speaker says."""
        speaker = self.speaker or speakers[0].name
        ids = [*self.ids, *encode_speaker(self.model.tokenizer, speaker)]
        return replace(self, ids=ids, candidates=(), speaker=speaker, speakers=speakers)

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


def next_key(key: int, token_id: int) -> int:
    """Return the key of a text with one more token."""
    return hash((key, token_id))


class TextReader:
    """Reader that keeps states of the latest text, and of what replies have written. Threads may share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # of reading, so that no text is read twice at once
        self._model: LanguageModel | None = None  # that has read the latest text
        self._latest: dict[int, DecoderState] = {}  # by the key of the text that was read, see `keys`
        # Models and states after tokens of replies, oldest first; `_older` without log-probabilities, which are large
        self._recent: dict[int, tuple[LanguageModel, DecoderState]] = {}
        self._older: dict[int, tuple[LanguageModel, DecoderState]] = {}

    def keep(self, model: LanguageModel, key: int, state: DecoderState) -> None:
        """Keep the state after a token of a reply, and forget the oldest ones."""
        self._recent[key] = model, state
        if len(self._recent) > MAX_LOG_PROBS:
            oldest = next(iter(self._recent))
            model, state = self._recent.pop(oldest)
            self._older[oldest] = model, state._replace(log_probs=NO_LOG_PROBS)
        if len(self._recent) + len(self._older) > MAX_STATES:
            states = self._older or self._recent
            del states[next(iter(states))]

    def find(self, text: NextTokenContext) -> NextTokenContext | None:
        """Return a text with its state if nothing has to be read; None otherwise."""
        state = None if text.candidates else self._state(text.keys()[-1])
        return None if state is None else replace(text, state=state)

    def _state(self, key: int, *, has_log_probs: bool = True) -> DecoderState | None:
        state = self._latest.get(key)
        if state is None or (has_log_probs and not len(state.log_probs)):
            state = (self._recent.get(key) or (None if has_log_probs else self._older.get(key)) or (None, None))[1]
        return state

    def read(self, text: NextTokenContext, cancelled: Callable[[], bool] = lambda: False) -> DecoderState | None:
        """Read a text, except for the beginning that is known, and return the state after it; None if cancelled."""
        with self._lock:
            return None if cancelled() else self._read(text, cancelled)

    def _read(self, text: NextTokenContext, cancelled: Callable[[], bool]) -> DecoderState | None:
        model, ids, keys = text.model, text.ids, text.keys()
        if not text.candidates and (known := self._state(keys[-1])) is not None:
            return known
        end = settled = len(ids)  # a draft that is typed on stays the same up to `settled`
        if text.reopens_last_word:
            end = settled = generation.last_word_start(model.tokenizer, ids)
        elif text.candidates:
            settled = generation.last_word_start(model.tokenizer, ids[:-1])
        on_path = set(keys) if model is self._model else set()
        self._model, self._latest = model, {key: known for key, known in self._latest.items() if key in on_path}
        state, num_read = self._state(keys[end]), end
        while state is None and num_read > 0:
            num_read -= 1
            state = self._state(keys[num_read], has_log_probs=False)
        if state is None:
            state = chat_start(model) if text.is_chat else generation.prefill(model, ())
        self._latest[keys[num_read]] = state
        while num_read < end:
            if cancelled():
                return None
            stop = min(settled if num_read < settled else end, num_read + CHUNK_TOKENS)
            self._latest[keys[num_read]] = state._replace(log_probs=NO_LOG_PROBS)
            state = DecoderState(*advance_tokens(model, state.model_state, ids[num_read:stop]))
            num_read = stop
            self._latest[keys[num_read]] = state
        states = [state]
        for index in range(end, len(ids)):
            known = self._state(keys[index + 1])
            if known is None:
                if cancelled():
                    return None
                known = DecoderState(*model.advance(states[-1].model_state, ids[index]))
            self._latest[keys[index + 1]] = known
            states.append(known)
        if text.reopens_last_word:
            state = self._latest[keys[-1]] = generation.reopen_last_word(model.tokenizer, ids[end:], states)
        self._latest = dict(list(self._latest.items())[-MAX_TEXT_STATES:])
        return state


def find_context(
    session_model: SessionModel,
    latest: Reply | None,
    draft: str,
    reply_mode: ReplyMode,
    previous: Reply | None,
    roles: Roles = NO_ROLES,
) -> NextTokenContext | None:
    """Return the text whose next token is shown: the draft, or the `latest` reply, which may be being generated.

    In a conversation with a cast, the draft is a line in `roles`, and without it the next turn follows an ended line.
    The result is None before the first line of a chat, and for a reply that the model cannot continue.
    """
    model = session_model.model
    line = to_prompt_line(draft, model.tokenizer, reply_mode)
    if latest is None or not latest.is_generating:
        is_line_complete = bool(line) or latest is None or latest.has_ended_line
        if reply_mode == "conversation" and session_model.cast and is_line_complete:
            return find_turn(session_model, line, previous, roles)
        if len(model.tokenizer.encode(line)):
            return NextTokenContext.before_reply(model, line, reply_mode, previous, roles)
    if latest is None:
        return None if answers_by_template(model, reply_mode) else NextTokenContext(model, ())
    if latest.session_model.model is model and not latest.read_only_reason:
        return NextTokenContext.of_reply(latest, len(latest.tokens))
    if latest.session_model.model.tokenizer != model.tokenizer or latest.is_chat:
        return None
    return NextTokenContext(model, latest.token_ids(), is_first_token=latest.starts_line(len(latest.tokens)))


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
        words = [(start, end) for start, end, _ in tokenizer.spans(text)]
        if not words or words[-1][1] != len(text) or len(word := text[words[-1][0] :].lower()) < MIN_LETTERS:
            return ""
        ids = [id for id, token in enumerate(tokenizer.tokens) if id > EOS_ID and token.startswith(word)]
        if not ids:
            return ""
        ids_before = tokenizer.encode(text[: words[-2][1] if len(words) > 1 else 0]).tolist()
        state = self._reader.read(NextTokenContext(model, ids_before), cancelled)
        if state is None:
            return ""
        completed = tokenizer.tokens[ids[int(np.argmax(state.log_probs[ids]))]]
        stem = completed.partition("'")[0]  # "bilbo" for "bilbo's": the rest is soon typed, but not soon deleted
        return (stem if stem in tokenizer.tokens and len(stem) >= len(word) else completed)[len(word) :]

    def _complete_by_tokens(
        self, model: LanguageModel, tokenizer: ByteTokenizer, text: str, cancelled: Callable[[], bool]
    ) -> str:
        if not all(map(tokenizers.WORD_CHARACTER.match, text[-MIN_LETTERS:].rjust(MIN_LETTERS))):
            return ""
        line = to_prompt_line(text)
        head, line = (encode_speaker(tokenizer, STRANGER), f" {line}") if find_cast(model) else ((), line)
        ids = [*head, *tokenizer.encode(line).tolist()]
        state = self._reader.read(NextTokenContext(model, ids, reopens_last_word=True), cancelled)
        if state is None:
            return ""
        decoder = generation.TextInProgress(model, ids, SamplerSettings(), state=state).piece_decoder
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
            state = generation.prefill(model, [id], state)
        return ""
