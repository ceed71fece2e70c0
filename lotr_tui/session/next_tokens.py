"""Preview of the next token in a session: after the draft in the prompt, or else after the last reply."""

from collections.abc import Sequence
from dataclasses import dataclass

from engine.data.tokenizers.bytes import ByteTokenizer
from engine.generation.complete_words import CompleteWordSearch, open_word
from engine.generation.preview import NextTokenProbs, next_token_probs
from engine.generation.prompt import DecoderState, reopen_last_word
from engine.generation.settings import SamplerSettings
from engine.generation.turns import SpeakerProb, next_speaker_probs, without_last_speaker
from engine.models.base import LanguageModel, LogProbs
from lotr_tui.session.conversation.cast import Roles, answering_cast, speaker_in
from lotr_tui.session.conversation.conversation import Conversation
from lotr_tui.session.conversation.generation import prepare_context, to_prompt_line
from lotr_tui.session.conversation.read_text import UnreadText
from lotr_tui.session.conversation.reply_tree import Reply
from lotr_tui.session.model_abilities import answers_by_template
from lotr_tui.session.prefix_cache import PrefixCache
from lotr_tui.session.session_model import SessionModel
from lotr_tui.session.settings import PreviewUnit, ReplyMode

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
    """True if the next token is the first of a reply or of a line, which cannot be `<eos>`."""
    is_chat: bool = False
    """True if a chat template has made the text."""

    @classmethod
    def from_read(cls, text: UnreadText, state: DecoderState) -> "NextTokenContext":
        """Return a text of a slow model after it was read."""
        return cls(text.model, state, text.ids, text.is_first_token, text.is_chat)

    def is_same_text(self, other: "NextTokenContext") -> bool:
        """Return True if the same model predicts the same next token in another context."""
        return (
            self.model is other.model
            and self.state.num_reread_tokens == other.state.num_reread_tokens
            and self.is_first_token == other.is_first_token
            and self.ids == other.ids
        )

    def token_probs(self, settings: SamplerSettings, top_n: int = MAX_CANDIDATES) -> NextTokenProbs:
        """Return the `top_n` likeliest next tokens."""
        history = self.ids[: len(self.ids) - self.state.num_reread_tokens]
        return next_token_probs(
            self.state.log_probs,
            settings,
            history,
            self.model.tokenizer,
            top_n,
            is_first_token=self.is_first_token,
        )

    def search_words(self) -> CompleteWordSearch:
        """Return a search of the complete words that can come next, for a model whose tokens are parts of words."""
        return CompleteWordSearch(self.model, self.state, self.ids, is_first_token=self.is_first_token)

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
    roles: Roles,
) -> UnreadText | None:
    """Return the text whose next token is shown for a slow model: see `NextTokenPreview.read`. The model does not run.

    While a reply is generated, the text ends with the reply, whatever the draft is.

    Returns:
        The text; None before the first line of a conversation, and for a reply of another model.

    Raises:
        InvalidInputError: If the chat template of the model does not accept the conversation.
    """
    model, tokenizer = session_model.model, session_model.model.tokenizer
    line = to_prompt_line(draft, tokenizer, reply_mode)
    if conversation.active_reply is None and line.strip():
        context = prepare_context(session_model, line, reply_mode, previous, roles)
        is_chat = answers_by_template(model, reply_mode)
        num_read = len(context.ids) - len(context.unread_ids)
        return UnreadText(model, context.ids, context.state, num_read, is_chat=is_chat, reopens_last_word=not is_chat)
    last = conversation.active_reply or conversation.current_reply
    if last is not None and (last.session_model.model is not model or last.read_only_reason):
        return None
    if last is not None:
        return UnreadText.of_reply(last, len(last.tokens))
    return None if answers_by_template(model, reply_mode) else UnreadText(model, ())


class NextTokenPreview:
    """Preview that reads only the new tokens of a draft that grows."""

    def __init__(self, session_model: SessionModel) -> None:
        self._prefix_cache = PrefixCache(session_model.model)
        self._ids_before_draft: Sequence[int] | None = None
        """Token ids that the model read before the latest draft; None if the draft was empty."""

    def read(
        self,
        session_model: SessionModel,
        conversation: Conversation,
        draft: str,
        reply_mode: ReplyMode,
        previous: Reply | None,
        roles: Roles | None = None,
    ) -> NextTokenContext:
        """Read the text whose next token is shown.

        The text is the draft, in a dialogue after the reply `previous`, or the current reply if the draft is empty. In
        a conversation, the draft is a line in `roles`, and the next token is the answer's first; without a speaker in
        `roles`, the likeliest one answers. Without a draft, the next turn of the conversation is read in the same way
        if the last line has ended.
        """
        model = session_model.model
        last = conversation.current_reply
        is_line_complete = bool(draft.strip()) or last is None or last.has_ended_line
        if reply_mode == "conversation" and session_model.knows_speakers and is_line_complete:
            return self._read_line(session_model, draft, previous, roles or Roles())
        state: DecoderState | None = None
        unread_ids: Sequence[int] = ()
        ids: Sequence[int] = ()
        is_first_token = True
        self._ids_before_draft = None
        line = to_prompt_line(draft, model.tokenizer, reply_mode)
        if len(draft_ids := model.tokenizer.encode(line)):
            state, unread_ids, ids = prepare_context(session_model, line, reply_mode, previous)
            num_after_context = len(draft_ids) + (reply_mode == "reply")
            self._ids_before_draft = unread_ids[: len(unread_ids) - num_after_context]
        elif last is not None and last.session_model.model.tokenizer == model.tokenizer:
            unread_ids = ids = last.token_ids()
            is_first_token = last.starts_line(len(last.tokens))
            if last.session_model.model is model and (state := last.decoder_state(len(last.tokens))) is not None:
                unread_ids = ()
        states = self._read_ids(model, state, unread_ids)
        end = states[-1]
        if len(draft_ids):
            end = reopen_last_word(model.tokenizer, unread_ids, states)  # as the reply to the draft will do
        return NextTokenContext(model, end, ids, is_first_token)

    def read_speakers(
        self, session_model: SessionModel, draft: str, speaking_as: str, previous: Reply | None
    ) -> list[SpeakerProb]:
        """Return who answers the draft, which follows the reply `previous`, likeliest first.

        Without a draft, return who speaks after `previous`. The model must know speakers.

        Args:
            session_model: Model with a cast.
            draft: Typed text.
            speaking_as: Member of the cast that says the draft; empty for a stranger.
            previous: Reply before the draft; None at the start of a scene.
        """
        model = session_model.model
        line = to_prompt_line(draft)
        state, unread_ids, _ = prepare_context(session_model, line, "conversation", previous, Roles(speaking_as))
        end = self._read_ids(model, state, unread_ids)[-1]
        return next_speaker_probs(model, end, self._candidates(session_model, line, speaking_as, previous))

    @staticmethod
    def _candidates(session_model: SessionModel, line: str, speaking_as: str, previous: Reply | None) -> Sequence[str]:
        """Return who may answer a line, or speak after `previous` where the line is empty."""
        names = answering_cast(session_model.cast, speaking_as, line)
        return without_last_speaker(names, "" if line or previous is None else previous.speaker)

    def _read_line(
        self, session_model: SessionModel, draft: str, previous: Reply | None, roles: Roles
    ) -> NextTokenContext:
        """Read a draft as a line of a conversation, and the speaker who answers it."""
        model, tokenizer = session_model.model, session_model.model.tokenizer
        line = to_prompt_line(draft)
        state, unread_ids, ids = prepare_context(
            session_model, line, "conversation", previous, roles._replace(speaker="")
        )
        num_after_context = len(tokenizer.encode(line)) + 1
        self._ids_before_draft = unread_ids[: len(unread_ids) - num_after_context] if line else None
        end = self._read_ids(model, state, unread_ids)[-1]
        cast = self._candidates(session_model, line, roles.speaking_as, previous)
        speaker = roles.speaker or next_speaker_probs(model, end, cast)[0].name
        speaker_id = tokenizer.speaker_id(speaker_in(tokenizer.cast, speaker))
        states = self._read_ids(model, state, [*unread_ids, speaker_id])
        return NextTokenContext(model, states[-1], [*ids, speaker_id], is_first_token=True)

    def _read_ids(
        self, model: LanguageModel, state: DecoderState | None, unread_ids: Sequence[int]
    ) -> list[DecoderState]:
        """Return the states `[len(unread_ids) + 1]` after `state` and after each of the ids, reading only new ones."""
        if state is not self._prefix_cache.initial_state or model is not self._prefix_cache.model:
            self._prefix_cache = PrefixCache(model, state)
        return self._prefix_cache.read(unread_ids)

    def log_probs_in_draft(self, model: LanguageModel, draft_ids: Sequence[int]) -> LogProbs | None:
        """Return the log-probabilities after the first tokens of the latest draft, without running the model.

        Returns:
            `[vocabulary]`, or None if the latest draft began with other tokens or was read by another model.
        """
        if self._ids_before_draft is None or self._prefix_cache.model is not model:
            return None
        return self._prefix_cache.cached_log_probs([*self._ids_before_draft, *draft_ids])
