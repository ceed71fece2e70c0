"""Texts that a model reads before it predicts: their token ids, the states on the way, and what comes next."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate

import numpy as np

from engine.data import scripts, speakers, tokenizers
from engine.data.tokenizers import EOS_ID, ByteTokenizer
from engine.errors import InvalidInputError
from engine.generation import complete_words, generate, turns
from engine.generation.generate import DecoderState
from engine.generation.settings import SamplerSettings
from engine.models.base import EXCLUDED_LOG_PROB, AdaptedModel, LanguageModel, advance_tokens
from engine.models.dialogue import DialogueModel
from lotr_tui.formatting import JOINERS
from lotr_tui.session import session_model as models
from lotr_tui.session.cast import NO_ROLES, Roles, answering_cast
from lotr_tui.session.reply import Reply, answering_temperature, chat_messages, encode_lines, encode_said
from lotr_tui.session.settings import PreviewUnit, ReplyMode

CHUNK_TOKENS = 32  # that the model reads at once; a cancellation waits for the end of such a chunk
MAX_CANDIDATES = 40  # next tokens that are computed; the screen shows as many as fit
MIN_LETTERS = 2  # of a word that is completed: after one letter too many words are possible
MAX_COMPLETION_TOKENS = 24  # that complete a word in an open vocabulary
MAX_TEXT_STATES = 64  # that are kept of the latest text
MAX_STATES = 1000  # that are kept of replies to branch from: 30 MB of the bundled LSTM
MAX_LOG_PROBS = 250  # that are kept of their latest tokens: 50 MB of SmolLM2
REOPENED = -1  # in place of a token id, after a text whose last word was reopened


def to_prompt_line(text: str, tokenizer: tokenizers.Tokenizer | None = None, reply_mode: ReplyMode = "continue") -> str:
    """Return typed text as one printable line; a space after the last word stays if an open vocabulary continues it."""
    line = "".join(character if character.isprintable() or character in JOINERS else " " for character in text)
    is_word_complete = tokenizer is not None and tokenizer.is_open and reply_mode == "continue" and line[-1:] == " "
    return " ".join(line.split()) + (" " if is_word_complete and not line.isspace() else "")


@dataclass(frozen=True)
class NextTokenContext:
    """Text whose next token is predicted, and once a model has read it, the state there."""

    model: LanguageModel
    ids: list[int]
    is_chat: bool = False  # True if a chat template has made the text, which then begins without `<eos>`
    reopens_last_word: bool = False  # True if the next token may begin with the end of the text
    is_first_token: bool = True  # True if the next token is the first of a reply or of a line, which it cannot end
    candidates: tuple[str, ...] = ()  # of whom one says the next line, after the text; empty inside of a line
    answering_temperature: float | None = turns.ANSWERING_TEMPERATURE  # see `turns.answerer_probs`
    speaker: str = ""  # who says the next line; empty for the likeliest of `candidates`
    speakers: Sequence[turns.SpeakerProb] = ()  # who may say it, likeliest first
    state: DecoderState | None = field(default=None, compare=False)
    is_estimate: bool = False  # True if `model`, the same at other strengths, has read only the last token of the text

    @classmethod
    def of_reply(cls, reply: Reply, index: int) -> "NextTokenContext":
        """Return the text up to the token `index` of a reply, in the vocabulary of its model."""
        reopens = index == 0 and reply.reply_mode != "conversation" and not reply.read_only_reason
        model, ids, is_first = reply.session_model.model, reply.token_ids(index), reply.starts_line(index)
        return cls(model, ids, reply.is_chat, reopens, is_first)

    def keys(self) -> list[int]:
        """Return a key of the model and each beginning of the text, and at last of the text with its last word open."""
        ids = [*self.ids, REOPENED] if self.reopens_last_word else self.ids
        return list(accumulate(ids, next_key, initial=hash((id(self.model), self.is_chat))))

    def estimate(self, model: LanguageModel) -> "NextTokenContext":
        """Return a text that was read as `model`, the same at other strengths, sees it if it reads the last token."""
        assert self.state is not None, "the text was read"
        assert isinstance(model, AdaptedModel), "it has strengths"
        log_probs, model_state = model.read_last_again(self.state.model_state)
        if self.state.num_reread_tokens:  # the next token begins with the characters of these
            is_excluded = self.state.log_probs <= EXCLUDED_LOG_PROB
            log_probs[is_excluded] = EXCLUDED_LOG_PROB
            log_probs[~is_excluded] -= np.logaddexp.reduce(log_probs[~is_excluded])
        state = self.state._replace(log_probs=log_probs, model_state=model_state)
        return replace(self, model=model, state=state, is_estimate=True)

    def begin_line(self, speaker: str) -> "NextTokenContext":
        """Return the text with the name of who says the next line after it; without a name, the same text."""
        ids = [*self.ids, *scripts.encode_speaker(self.model.tokenizer, speaker)] if speaker else self.ids
        return replace(self, ids=ids, candidates=(), speaker=speaker)

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
        word = complete_words.open_word(tokenizer, self.ids[:end])
        return word.decode(errors="replace") if word else tokenizer.tokens[self.ids[end - 1]].strip(" ")


def next_key(key: int, token_id: int) -> int:  # of a text with one more token
    return hash((key, token_id))


@dataclass(frozen=True)
class PromptContext:
    """Context in which a prompt is read, and a draft as long as it is typed."""

    reply_mode: ReplyMode = "continue"
    previous_reply: Reply | None = None  # that the prompt answers; None at the start of a text
    roles: Roles = NO_ROLES  # for models with a cast or a chat template
    edited_reply: Reply | None = None  # at the start of a text, whose turn another prompt joins

    @property
    def is_answer(self) -> bool:
        return self.reply_mode != "continue"

    @property
    def prompt_mark(self) -> str:
        name = speakers.display_name(self.roles.speaking_as) or "say"
        return {"continue": "❯", "reply": "reply ❯", "conversation": f"{name} ❯"}[self.reply_mode]

    def text_before_reply(self, model: LanguageModel, prompt: str) -> NextTokenContext:
        """Return the text before a reply; messages that a chat template refuses raise an InvalidInputError."""
        tokenizer, previous, mode = model.tokenizer, self.previous_reply, self.reply_mode
        is_same = previous is not None and previous.session_model.model.tokenizer == tokenizer
        before = previous.token_ids() if previous is not None and is_same else []
        if models.answers_by_template(model, mode):
            template = models.find_chat_template(model)
            assert template is not None, "the model has a chat template"
            messages = chat_messages(prompt, previous, self.roles.system_prompt)
            return NextTokenContext(model, list(template.encode(messages)), is_chat=True)
        if models.find_cast(model) and mode == "continue":
            before = list(scripts.encode_speaker(tokenizer, self.roles.speaker or speakers.SOMEONE))
            ids = tokenizer.encode(f" {prompt}").tolist()
        elif models.find_cast(model):
            if previous is not None and not is_same:
                before = encode_said(model, [line for line in previous.spoken_lines() if line.text])
            elif previous is not None and (previous.tokens or previous.reply_mode == "continue"):
                before += tokenizer.encode("\n").tolist()
            elif previous is not None:  # a turn without an answer counts as the prompt alone
                before = previous.prompt_ids
            line = scripts.Turn(self.roles.speaking_as or speakers.STRANGER, prompt)
            ids = scripts.encode_turn(tokenizer, line) if prompt else []
        else:
            text = f"{prompt}\n" if prompt and mode != "continue" else prompt
            ids = encode_lines(tokenizer, text)
            if previous is not None and not is_same:
                before = encode_said(model, previous.spoken_lines())
            elif previous is not None and tokenizer.reads_line_ends:
                ids = tokenizer.encode(f"\n{text}").tolist()
            elif before and (before[-1] != EOS_ID or tokenizer.is_open):
                before.append(EOS_ID)
        return NextTokenContext(model, [*before, *ids], reopens_last_word=mode != "conversation")


def restore_reply(reply: Reply, session_model: models.SessionModel) -> None:
    """Give a reply that was read from a file a model, and its tokens the ids in the vocabulary of that model."""
    session_model = session_model.with_strengths(reply.strengths)
    tokenizer, parent, unknown = session_model.model.tokenizer, reply.parent, set[str]()
    reply.session_model = session_model
    problems = [] if parent is None else [parent.read_only_reason]
    if reply.starts_turn:
        reply.prompt = to_prompt_line(reply.prompt or "", tokenizer, reply.reply_mode)
        roles = Roles(reply.speaking_as, reply.speaker, reply.system_prompt)
        context = PromptContext(reply.reply_mode, reply.turn.previous_reply, roles)
        try:
            reply.prompt_ids = context.text_before_reply(session_model.model, reply.prompt).ids
        except InvalidInputError as error:  # the chat template accepts other messages
            problems.append(f"{error}; this reply cannot be continued")
        unknown = {span.text for span in tokenizer.unknown_spans(reply.prompt)}.difference(reply.unknown_tokens)
    elif parent is not None:
        reply.prompt_ids = parent.prompt_ids
    reply.num_reread_tokens = min(reply.num_reread_tokens, len(reply.prompt_ids))
    if reply.reply_mode == "conversation" and not session_model.cast and not reply.is_chat:
        problems.append(f"{session_model.name} knows no speakers and cannot continue from here")
    tokens = [] if parent is None else parent.tokens[: reply.num_shared_tokens]
    is_open = reply.tokenizer in tokenizers.OPEN_VOCABULARIES
    for token in reply.own_tokens:
        is_same = token.id < len(tokenizer) and tokenizer.tokens[token.id] == token.text
        # Tokens of an open vocabulary with the same text may add another text.
        by_text = tokenizer.token_to_id if isinstance(tokenizer, tokenizers.WordTokenizer) and not is_open else {}
        if not is_same and token.text not in by_text:
            unknown.add(token.text)
        tokens.append(token if is_same else token._replace(id=by_text.get(token.text, token.id)))
    reply.tokens = tokens
    if (is_open or tokenizer.is_open) and (unknown or is_open != tokenizer.is_open):
        problems.append(f"{session_model.name} splits text into other tokens and cannot continue from here")
    elif unknown:
        problems.append(f"{session_model.name} does not know {min(unknown)!r} and cannot continue from here")
    reply.read_only_reason = next(filter(None, problems), "")


class TextReader:
    """Reader that keeps states of the latest text, and of what replies have written. Threads may share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # of reading, so that no text is read twice at once
        self._model: LanguageModel | None = None  # that has read the latest text
        self._latest: dict[int, DecoderState] = {}  # by the key of the text that was read, see `keys`
        # After tokens of replies, oldest first; the model is kept because its id is in the key.
        self._written: dict[int, tuple[LanguageModel, DecoderState]] = {}

    def keep(self, model: LanguageModel, key: int, state: DecoderState) -> None:
        """Keep the state after a token of a reply; forget log-probabilities, which are large, and then old states."""
        self._written.pop(key, None)
        self._written[key] = model, state
        keys = list(self._written)
        if len(keys) > MAX_LOG_PROBS:
            model, state = self._written[keys[-MAX_LOG_PROBS - 1]]
            self._written[keys[-MAX_LOG_PROBS - 1]] = model, state._replace(log_probs=models.NO_LOG_PROBS)
        if len(keys) > MAX_STATES:
            del self._written[keys[0]]

    def find(self, text: NextTokenContext) -> NextTokenContext | None:
        """Return a text with its state if nothing has to be read; None otherwise."""
        state = None if text.candidates else self._state(text.keys()[-1])
        return None if state is None else replace(text, state=state)

    def _state(self, key: int, *, has_log_probs: bool = True) -> DecoderState | None:
        states = self._latest.get(key), self._written.get(key, (None, None))[1]
        known = (state for state in states if state is not None and (len(state.log_probs) or not has_log_probs))
        return next(known, None)

    def read(self, text: NextTokenContext, cancelled: Callable[[], bool] = lambda: False) -> DecoderState | None:
        """Read a text, except for the beginning that is known, and return the state after it; None if cancelled."""
        model, ids, keys = text.model, text.ids, text.keys()
        with self._lock:
            if cancelled():
                return None
            if not text.candidates and (known := self._state(keys[-1])) is not None:
                return known
            # Sums in 8 bits depend on which tokens are read together: a slow model reads a line from its start.
            by_lines = models.is_slow(model) and bool(models.find_cast(model))
            end = settled = len(ids)  # a draft that is typed on stays the same up to `settled`
            if text.reopens_last_word:
                end = settled = generate.last_word_start(model.tokenizer, ids)
            elif text.candidates and not by_lines:
                settled = generate.last_word_start(model.tokenizer, ids[:-1])
            on_path = set(keys) if model is self._model else set()
            self._model, self._latest = model, {key: known for key, known in self._latest.items() if key in on_path}
            state, num_read = self._state(keys[end]), end
            while state is None and num_read > 0:
                num_read -= 1
                if not by_lines or keys[num_read] in self._written or ids[num_read - 1] in model.tokenizer.line_end_ids:
                    state = self._state(keys[num_read], has_log_probs=False)
            if state is None:
                state = models.chat_start(model) if text.is_chat else generate.prefill(model, ())
            self._latest[keys[num_read]] = state
            while num_read < end:
                if cancelled():
                    return None
                stop = min(settled if num_read < settled else end, num_read + CHUNK_TOKENS)
                self._latest[keys[num_read]] = state._replace(log_probs=models.NO_LOG_PROBS)
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
                state = self._latest[keys[-1]] = generate.reopen_last_word(model.tokenizer, ids[end:], states)
            self._latest = dict(list(self._latest.items())[-MAX_TEXT_STATES:])
            return state


def find_context(
    session_model: models.SessionModel, latest: Reply | None, draft: str, context: PromptContext
) -> NextTokenContext | None:
    """Return the text whose next token is shown, of the draft or of the `latest` reply; None without one."""
    model, is_conversation = session_model.model, context.reply_mode == "conversation"
    line = to_prompt_line(draft, model.tokenizer, context.reply_mode)
    if latest is None or not latest.is_generating:
        if is_conversation and session_model.cast and (line or latest is None or latest.has_ended_line):
            return find_turn(session_model, line, context)
        if len(model.tokenizer.encode(line)):
            return context.text_before_reply(model, line)
    if latest is None:
        return None if models.answers_by_template(model, context.reply_mode) else NextTokenContext(model, [])
    if latest.session_model.is_variant_of(session_model) and not latest.read_only_reason:
        text = NextTokenContext.of_reply(latest, len(latest.tokens))
        return text if latest.is_generating else replace(text, model=model)
    if latest.session_model.model.tokenizer != model.tokenizer or latest.is_chat:
        return None
    return NextTokenContext(model, latest.token_ids(), is_first_token=latest.starts_line(len(latest.tokens)))


def find_turn(session_model: models.SessionModel, line: str, context: PromptContext) -> NextTokenContext:
    """Return a line in a context, or without a line the text so far, which a member of the cast answers."""
    names, previous = answering_cast(session_model.cast, context.roles.speaking_as, line), context.previous_reply
    last_speaker = "" if line or previous is None else previous.speaker
    text = replace(context, reply_mode="conversation").text_before_reply(session_model.model, line)
    candidates = tuple(turns.without_last_speaker(names, last_speaker))
    temperature = answering_temperature(line, previous)
    return replace(text, candidates=candidates, answering_temperature=temperature, speaker=context.roles.speaker)


def read_next_token(
    reader: TextReader, text: NextTokenContext, cancelled: Callable[[], bool] = lambda: False
) -> NextTokenContext | None:
    """Read a text up to its next token, after the name of who says the next line; return None if that was cancelled."""
    state = reader.read(text, cancelled)
    if state is not None and text.candidates:
        assert isinstance(text.model, DialogueModel), "only a model with a cast has turns"
        probs = turns.answerer_probs(text.model, state, text.candidates, text.answering_temperature)
        text = replace(text.begin_line(text.speaker or probs[0].name), speakers=probs)
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
        ids_before = tokenizer.encode(text[: words[-2][1] if len(words) > 1 else 0]).tolist()
        state = self._reader.read(NextTokenContext(model, ids_before), cancelled) if ids else None
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
        if models.find_cast(model):
            ids = [*scripts.encode_speaker(tokenizer, speakers.STRANGER), *tokenizer.encode(f" {line}").tolist()]
        else:
            ids = tokenizer.encode(line).tolist()
        state = self._reader.read(NextTokenContext(model, ids, reopens_last_word=True), cancelled)
        if state is None:
            return ""
        decoder = generate.TextInProgress(model, ids, SamplerSettings(), state=state).piece_decoder
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
            state = generate.prefill(model, [id], state)
        return ""
