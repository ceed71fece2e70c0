"""Preview of the next token in a session: after the draft in the prompt, or else after the last reply."""

from collections.abc import Sequence

from engine.data.vocabulary import EOS_ID
from engine.generation.generate import DecoderState
from engine.generation.preview import NextTokenProbs, next_token_probs
from engine.generation.settings import SamplerSettings
from lotr_tui.session.conversation.conversation import Conversation
from lotr_tui.session.conversation.generation import prepare_context
from lotr_tui.session.conversation.reply_tree import Reply
from lotr_tui.session.session_model import PrefixCache, SessionModel
from lotr_tui.session.settings import ReplyMode

MAX_CANDIDATES = 40
"""Candidates that are computed; the screen shows as many as fit."""


class NextTokenPreview:
    """Preview that reads only the new tokens of a draft that grows."""

    def __init__(self, session_model: SessionModel) -> None:
        self._prefix_cache = PrefixCache(session_model.model)

    def compute(
        self,
        session_model: SessionModel,
        conversation: Conversation,
        draft: str,
        reply_mode: ReplyMode,
        previous: Reply | None,
        settings: SamplerSettings,
    ) -> tuple[NextTokenProbs, str]:
        """Return the probabilities of the next token, and the token before it, "" at the start of a text.

        The text is the draft, in reply mode after the reply `previous`, or the current reply if the draft is empty.
        """
        model = session_model.model
        draft_tokens = model.vocabulary.tokenize(draft)
        last = conversation.current_reply
        state: DecoderState | None = None
        unread_ids: Sequence[int] = ()
        ids: Sequence[int] = ()
        is_first_token = True
        if draft_tokens:
            draft_ids = model.vocabulary.encode(draft_tokens).tolist()
            state, unread_ids, ids = prepare_context(session_model, draft_ids, reply_mode, previous)
        elif last is not None and last.session_model.model.vocabulary == model.vocabulary:
            unread_ids = ids = last.token_ids()
            is_first_token = not last.tokens
            if last.session_model.model is model and (state := last.decoder_state(len(last.tokens))) is not None:
                unread_ids = ()
        if state is not self._prefix_cache.initial_state or model is not self._prefix_cache.model:
            self._prefix_cache = PrefixCache(model, state)
        probs = next_token_probs(
            self._prefix_cache.log_probs_after(unread_ids),
            settings,
            [id for id in ids if id != EOS_ID],
            model.vocabulary,
            MAX_CANDIDATES,
            is_first_token=is_first_token,
        )
        return probs, model.vocabulary.tokens[ids[-1]] if ids else ""
