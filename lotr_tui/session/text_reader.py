"""Reader of texts, which keeps what a model has read and can be cancelled; for a slow model it runs in a thread."""

import threading
from collections.abc import Callable

from engine.generation.prompt import DecoderState, prefill, reopen_last_word
from engine.models.base import advance_tokens
from lotr_tui.session.conversation.read_text import ReadText, UnreadText
from lotr_tui.session.model_abilities import NO_LOG_PROBS, chat_start, has_log_probs

CHUNK_TOKENS = 32
"""Tokens that the model reads at once. A cancellation waits for the end of such a chunk."""
MAX_STATES = 64
"""States that are kept of the latest text."""


class TextReader:
    """Reader that keeps states of the latest text, so that the same beginning of another text is not read again.

    Threads may share a reader; one reads at a time.
    """

    def __init__(self) -> None:
        self.latest: ReadText | None = None
        """Text that was read last, perhaps only its beginning."""
        self._lock = threading.Lock()

    def read(self, text: UnreadText, cancelled: Callable[[], bool] = lambda: False) -> DecoderState | None:
        """Read the unread part of a text, and return the state after it; return None if that was cancelled."""
        with self._lock:
            return None if cancelled() else self._read(text, cancelled)

    def _read(self, text: UnreadText, cancelled: Callable[[], bool]) -> DecoderState | None:
        model, ids = text.model, text.ids
        settled = text.num_settled
        end = settled if text.reopens_last_word else len(ids)
        states = self._known_states(text)
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

    def _known_states(self, text: UnreadText) -> dict[int, DecoderState]:
        """Return the states that have read a beginning of a text, by the number of ids that they have read."""
        states: dict[int, DecoderState] = {}
        latest = self.latest
        if latest is not None and latest.model is text.model and latest.is_chat == text.is_chat:
            states = latest.states_within(text.ids)
        if text.state is not None and not text.state.num_reread_tokens:
            states.setdefault(text.num_read, text.state)
        return states

    def _keep(self, text: UnreadText, states: dict[int, DecoderState], end: int) -> None:
        """Keep the latest states; only those from `end` on keep their log-probabilities, which are large."""
        kept = {
            at: states[at] if at >= end else states[at]._replace(log_probs=NO_LOG_PROBS)
            for at in sorted(states)[-MAX_STATES:]
        }
        self.latest = ReadText(text.model, text.ids, text.is_chat, kept)
