"""Preview of the next token in a session: after the draft in the prompt, or else after the last reply."""

from collections.abc import Sequence

from engine.generation.generate import DecoderState
from engine.generation.preview import NextTokenProbs, next_token_probs
from engine.generation.settings import SamplerSettings
from engine.models.base import LanguageModel, LogProbs
from lotr_tui.session.conversation.conversation import Conversation
from lotr_tui.session.conversation.generation import prepare_context, to_prompt_line
from lotr_tui.session.conversation.reply_tree import Reply
from lotr_tui.session.session_model import PrefixCache, SessionModel
from lotr_tui.session.settings import ReplyMode

MAX_CANDIDATES = 40
"""Candidates that are computed; the screen shows as many as fit."""


class NextTokenPreview:
    """Preview that reads only the new tokens of a draft that grows."""

    def __init__(self, session_model: SessionModel) -> None:
        self._prefix_cache = PrefixCache(session_model.model)
        self._ids_before_draft: Sequence[int] | None = None
        """Token ids that the model read before the latest draft; None if the draft was empty."""

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
        last = conversation.current_reply
        state: DecoderState | None = None
        unread_ids: Sequence[int] = ()
        ids: Sequence[int] = ()
        is_first_token = True
        self._ids_before_draft = None
        if model.vocabulary.tokenize(draft):
            state, unread_ids, ids = prepare_context(session_model, to_prompt_line(draft), reply_mode, previous)
            num_after_context = len(model.vocabulary.tokenize(draft)) + (reply_mode == "reply")
            self._ids_before_draft = unread_ids[: len(unread_ids) - num_after_context]
        elif last is not None and last.session_model.model.vocabulary == model.vocabulary:
            unread_ids = ids = last.token_ids()
            is_first_token = last.starts_line(len(last.tokens))
            if last.session_model.model is model and (state := last.decoder_state(len(last.tokens))) is not None:
                unread_ids = ()
        if state is not self._prefix_cache.initial_state or model is not self._prefix_cache.model:
            self._prefix_cache = PrefixCache(model, state)
        probs = next_token_probs(
            self._prefix_cache.log_probs_after(unread_ids),
            settings,
            ids,
            model.vocabulary,
            MAX_CANDIDATES,
            is_first_token=is_first_token,
        )
        return probs, model.vocabulary.tokens[ids[-1]] if ids else ""

    def log_probs_in_draft(self, model: LanguageModel, draft_ids: Sequence[int]) -> LogProbs | None:
        """Return the log-probabilities after the first tokens of the latest draft, without running the model.

        Returns:
            `[vocabulary]`, or None if the latest draft began with other tokens or was read by another model.
        """
        if self._ids_before_draft is None or self._prefix_cache.model is not model:
            return None
        return self._prefix_cache.cached_log_probs([*self._ids_before_draft, *draft_ids])
