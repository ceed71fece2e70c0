"""Conversation with a model: a tree of replies, of which one at a time is being generated."""

from collections.abc import Sequence

from engine.data.tokenizers.base import EOS_ID
from engine.errors import InvalidInputError
from engine.generation.prompt import DecoderState, encode_prompt
from engine.generation.settings import SamplerSettings
from lotr_tui.session.conversation.cast import NO_ROLES, Roles
from lotr_tui.session.conversation.dialogue_turns import DialogueTurns
from lotr_tui.session.conversation.generation import nearest_state, prepare_context, start_generation, to_prompt_line
from lotr_tui.session.conversation.read_text import ReadText
from lotr_tui.session.conversation.reply_tree import Reply
from lotr_tui.session.model_abilities import answers_by_template, find_cast
from lotr_tui.session.session_model import SessionModel
from lotr_tui.session.settings import ReplyMode


class Conversation(DialogueTurns):
    """Tree of replies and the generation of the active one in a thread; `poll` collects the generated tokens.

    A branch or continuation starts from a cached decoder state, so that no token is read twice.
    """

    def submit_prompt(
        self,
        session_model: SessionModel,
        text: str,
        reply_mode: ReplyMode,
        settings: SamplerSettings,
        seed: int,
        previous_reply: Reply | None,
        roles: Roles = NO_ROLES,
        read_text: ReadText | None = None,
    ) -> Reply:
        """Start to continue or answer a prompt; an answer follows `previous_reply`, if there is one.

        Args:
            session_model: The model.
            text: The prompt.
            reply_mode: What to do with the prompt. In a conversation, the model answers by its chat template.
            settings: Sampler settings.
            seed: Seed of the reply.
            previous_reply: Reply that the prompt follows, unless it is continued; None begins a text.
            roles: Speaker whose line a model with a cast continues, by default someone's, and the system prompt of a
                model with a chat template.
            read_text: Beginning of a text that the model has read already, perhaps of this one.

        Raises:
            PromptError: If the prompt has no token that the model knows.
            InvalidInputError: If a reply is being generated, or the chat template does not accept the messages.
        """
        tokenizer = session_model.model.tokenizer
        prompt = encode_prompt(to_prompt_line(text, tokenizer, reply_mode), tokenizer)
        if reply_mode == "continue":
            previous_reply = None
        is_chat = answers_by_template(session_model.model, reply_mode)
        roles = Roles(
            speaker=roles.speaker if session_model.cast else "", system_prompt=roles.system_prompt if is_chat else ""
        )
        self._check_idle()
        context = prepare_context(session_model, prompt.text, reply_mode, previous_reply, roles)
        if read_text is not None:
            context = read_text.shorten(context, session_model.model, is_chat=is_chat)
        reply = self._new_reply(session_model, prompt, reply_mode, settings, seed, previous_reply, roles, context.ids)
        self._start(reply, context.state, context.unread_ids)
        return reply

    def branch(
        self,
        reply: Reply,
        index: int,
        forced_ids: Sequence[int],
        settings: SamplerSettings,
        seed: int,
        *,
        ends_word: bool = False,
    ) -> Reply:
        """Start another reply that differs from token `index` on: the tokens `forced_ids`, then sampled ones.

        With `ends_word`, the forced tokens are a complete word, so that the next token starts another one.
        With the index after the last token, the new reply continues `reply` and replaces it in its turn.

        Raises:
            InvalidInputError: If a reply is being generated, or if the session's model cannot read `reply`.
        """
        self._check_writable(reply)
        if reply.reply_mode == "conversation" and reply.session_model.cast and not reply.speaker:  # none was chosen
            return self.answer_as(reply, "", settings, seed)
        is_continuation = index == len(reply.tokens)
        parent, parent_offset = (reply, reply.num_own_tokens) if is_continuation else reply.resolve_token(index)
        branch = Reply.branch_from(
            parent,
            parent_offset,
            id=self._next_id(),
            session_model=reply.session_model,
            reply_mode=reply.reply_mode,
            settings=settings,
            seed=seed,
            speaker=reply.speaker,
            speaker_prob=reply.speaker_prob,
        )
        branch.exchange.num_shared_tokens = 0 if not forced_ids or is_continuation else index
        if is_continuation and reply.next_turn is None and reply in reply.turn.replies:
            branch.name = reply.name
            reply.turn.replies.remove(reply)
        ids = reply.token_ids(index)
        state, num_read = reply.decoder_state(index), len(ids)
        for shared in reply.decoder_states[:index] if state is not None else [None] * index:
            self._state_cache.add(branch, shared)
        if state is None:
            state, num_read = nearest_state(reply, reply.session_model.model, ids, is_chat=reply.is_chat)
        self._start(branch, state, ids[num_read:], forced_ids, ends_word)
        return branch

    def continue_reply(self, reply: Reply, settings: SamplerSettings, seed: int) -> Reply:
        """Start a reply that keeps going after the last token of `reply`, on a new line if the line has ended.

        Raises:
            InvalidInputError: See `branch`; also if the line of a speaker has ended.
        """
        if reply.is_chat and reply.has_ended_line:
            raise InvalidInputError("the answer has ended; say something, or press ctrl+r for another answer")
        if reply.reply_mode == "conversation" and reply.has_ended_line:
            raise InvalidInputError("the line has ended; go on with the next turn instead")
        model = reply.session_model.model
        line_end = model.tokenizer.encode("\n").tolist() if find_cast(model) else [EOS_ID]
        return self.branch(reply, len(reply.tokens), line_end if reply.has_ended_line else (), settings, seed)

    def _start(
        self,
        reply: Reply,
        state: DecoderState | None,
        unread_ids: Sequence[int],
        forced_ids: Sequence[int] = (),
        ends_word: bool = False,
    ) -> None:
        """Add a reply to its turn, select it, and start to generate it."""
        self._add_reply(reply)
        self._worker = start_generation(reply, state, unread_ids, forced_ids, self.pace, ends_word=ends_word)
