"""Conversation with a model: a tree of replies, of which one at a time is being generated."""

from collections.abc import Sequence
from dataclasses import replace

from engine.data.tokenizers.base import EOS_ID
from engine.errors import InvalidInputError, describe_error, printable
from engine.generation.generate import Done
from engine.generation.prompt import DecoderState, encode_prompt
from engine.generation.settings import SamplerSettings
from engine.runtime.worker import GeneratorThread
from lotr_tui.session.conversation.autosave import Autosave
from lotr_tui.session.conversation.entries import Exchange
from lotr_tui.session.conversation.generation import (
    GenerationEvent,
    prepare_context,
    start_generation,
    to_prompt_line,
)
from lotr_tui.session.conversation.reply_tree import Reply, Turn
from lotr_tui.session.conversation.state_cache import DecoderStateCache, evict_models
from lotr_tui.session.session_file import SessionWriter
from lotr_tui.session.session_model import SessionModel
from lotr_tui.session.settings import ReplyMode

MAX_TOKENS = 20_000
"""Tokens after which a conversation is full; a new one then bounds memory and file size."""
STOP_TIMEOUT = 0.5
"""Seconds that `close` waits for the generating thread, which may still be reading a long prompt."""


class Conversation:
    """Tree of replies and the generation of the active one in a thread; `poll` collects the generated tokens.

    A branch or continuation starts from a cached decoder state, so that no token is read twice.
    """

    def __init__(self, pace: float, writer: SessionWriter | None = None) -> None:
        """Start an empty conversation, saved by `writer` (None: in a new file, created with the first reply)."""
        self.pace = pace
        """Tokens per second; 0 is as fast as the model."""
        self.active_reply: Reply | None = None
        """Reply that is being generated."""
        self.current_reply: Reply | None = None
        """Last reply of the visible path, which the next prompt in reply mode answers."""
        self.replies_by_exchange: dict[Exchange, Reply] = {}
        self.notice = ""
        """Message about saving that the user has not seen; the reader resets it."""
        self._worker: GeneratorThread[GenerationEvent] | None = None
        self._autosave = Autosave(writer)
        self._state_cache = DecoderStateCache()

    @property
    def name(self) -> str:
        """Name of the session, which is the stem of its file; empty before there is a file."""
        return self._autosave.session_name

    @property
    def is_full(self) -> bool:
        """True if the conversation has more than `MAX_TOKENS` tokens."""
        return sum(reply.num_own_tokens for reply in self.replies_by_exchange.values()) > MAX_TOKENS

    # Generation

    def submit_prompt(
        self,
        session_model: SessionModel,
        text: str,
        reply_mode: ReplyMode,
        settings: SamplerSettings,
        seed: int,
        previous_reply: Reply | None,
    ) -> Reply:
        """Start to continue or answer a prompt. In reply mode the prompt follows `previous_reply`, if there is one.

        Raises:
            PromptError: If the prompt has no token that the model knows.
            InvalidInputError: If a reply is being generated.
        """
        tokenizer = session_model.model.tokenizer
        prompt = encode_prompt(to_prompt_line(text, tokenizer, reply_mode), tokenizer)
        if reply_mode == "continue":
            previous_reply = None
        context = prepare_context(session_model, prompt.text, reply_mode, previous_reply)
        self._check_idle()
        reply = Reply(
            turn=Turn.after(previous_reply),
            id=self._next_id(),
            session_model=session_model,
            prompt=prompt.text,
            unknown_tokens=prompt.unknown_tokens,
            reply_mode=reply_mode,
            settings=settings,
            seed=seed,
            context_ids=context.ids,
            parent=previous_reply,
            parent_offset=0 if previous_reply is None else previous_reply.num_own_tokens,
        )
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
        if reply.read_only_reason:
            raise InvalidInputError(reply.read_only_reason)
        self._check_idle()
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
        )
        branch.exchange.num_shared_tokens = 0 if not forced_ids or is_continuation else index
        if is_continuation and reply.next_turn is None and reply in reply.turn.replies:
            branch.name = reply.name
            reply.turn.replies.remove(reply)
        state = reply.decoder_state(index)
        for shared in reply.decoder_states[:index] if state is not None else [None] * index:
            self._state_cache.add(branch, shared)
        self._start(branch, state, () if state is not None else reply.token_ids(index), forced_ids, ends_word)
        return branch

    def continue_reply(self, reply: Reply, settings: SamplerSettings, seed: int) -> Reply:
        """Start a reply that keeps going after the last token of `reply`, on a new line if that ended by `<eos>`.

        Raises:
            InvalidInputError: See `branch`.
        """
        return self.branch(reply, len(reply.tokens), [EOS_ID] if reply.has_ended_line else (), settings, seed)

    def stop(self) -> None:
        """Ask the active generation to stop; the tokens generated so far stay."""
        if self._worker is not None:
            self._worker.cancel()

    def poll(self) -> Reply | None:
        """Collect the events since the last call. Return the reply that has changed, or None."""
        worker, reply = self._worker, self.active_reply
        if worker is None or reply is None:
            return None
        has_ended = not worker.is_running  # read before draining, so that no last event is missed
        events = worker.drain()
        for event in events:
            if isinstance(event, Done):
                reply.done = event
                reply.exchange.add_events([event])
            elif isinstance(event, DecoderState):
                if not reply.tokens:
                    reply.split_context(event.num_reread_tokens)
                self._state_cache.add(reply, event)
            else:
                token, state = event
                reply.tokens.append(replace(token, top_tokens=()))  # computed again on demand, to save memory
                self._state_cache.add(reply, state)
                reply.exchange.add_events([token])
        if has_ended:
            self._worker = self.active_reply = None
            if worker.exception is not None:
                reply.exchange.mark_failed(f"failed: {describe_error(worker.exception)}")
            evict_models(self.replies_by_exchange.values())
            self._save(reply)
        return reply if events or has_ended else None

    def close(self) -> None:
        """Stop the generation, save its tokens, and release the session file to other windows."""
        self.stop()
        if self._worker is not None and self._worker.join(STOP_TIMEOUT):
            self.poll()
        reply = self.active_reply
        if reply is not None:
            self._worker = self.active_reply = None
            self._save(reply)
        self._autosave.close()

    # The session file

    def rename(self, name: str) -> None:
        """Rename the session; an invalid or taken name raises a SessionError."""
        self._autosave.rename(name)

    def delete(self) -> None:
        """Delete the session's file, and close the conversation without saving; a failure raises a SessionError."""
        self._autosave.delete()
        self.close()

    # The tree

    def select_reply(self, reply: Reply) -> None:
        """Select a reply in its turn."""
        reply.turn.selected_index = reply.turn.replies.index(reply)
        self.current_reply = reply.selected_path()[-1]
        self._autosave.save_selection(self.current_reply)  # which implies the branches of the turns before

    def rename_branch(self, reply: Reply, name: str) -> None:
        """Name the branch of a reply."""
        reply.name = printable(name)
        reply.turn.label_branches()
        self._save(reply)

    def _check_idle(self) -> None:
        if self.active_reply is not None:
            raise InvalidInputError("the model is still generating; press esc to stop it")

    def _next_id(self) -> int:
        return max((reply.id for reply in self.replies_by_exchange.values()), default=-1) + 1

    def _start(
        self,
        reply: Reply,
        state: DecoderState | None,
        unread_ids: Sequence[int],
        forced_ids: Sequence[int] = (),
        ends_word: bool = False,
    ) -> None:
        """Add a reply to its turn, select it, and start to generate it."""
        reply.turn.add(reply)
        reply.turn.label_branches()
        self.replies_by_exchange[reply.exchange] = reply
        self.active_reply = self.current_reply = reply
        self._worker = start_generation(reply, state, unread_ids, forced_ids, self.pace, ends_word=ends_word)

    def _save(self, reply: Reply) -> None:
        """Save a finished reply; an active one is saved when it ends."""
        active = self.active_reply
        if reply is not active:
            finished = [each for each in self.replies_by_exchange.values() if each is not active]
            current = None if self.current_reply is active else self.current_reply
            self.notice = self._autosave.save(reply, finished, current) or self.notice
