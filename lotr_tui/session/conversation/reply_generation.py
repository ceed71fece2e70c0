"""Generation of the active reply of a conversation in a thread, and the collection of its tokens."""

from engine.errors import InvalidInputError, describe_error
from engine.generation.best_of import AnswerChosen
from engine.generation.generate import Done, TokenEvent
from engine.generation.turns import SpeakerProb
from engine.runtime.worker import GeneratorThread
from lotr_tui.session.answer_score import AnswerScore
from lotr_tui.session.conversation.generation import GenerationEvent, RankedAnswers
from lotr_tui.session.conversation.reply_tree import Reply
from lotr_tui.session.conversation.saved_replies import SavedReplies
from lotr_tui.session.conversation.state_cache import DecoderStateCache, evict_models
from lotr_tui.session.reply_token import ReplyToken
from lotr_tui.session.session_file import SessionWriter

STOP_TIMEOUT = 0.5
"""Seconds that `close` waits for the generating thread, which may still be reading a long prompt."""


class ReplyGeneration(SavedReplies):
    """Replies of a conversation, of which one at a time is being generated; `poll` collects the generated tokens."""

    def __init__(self, pace: float, writer: SessionWriter | None = None) -> None:
        """Start without replies, saved by `writer` (None: in a new file, created with the first finished reply)."""
        super().__init__(writer)
        self.pace = pace
        """Tokens per second; 0 is as fast as the model."""
        self._worker: GeneratorThread[GenerationEvent] | None = None
        self._other_answers: list[Reply] = []
        """Branches with the answers that were drawn together with the active reply."""
        self._state_cache = DecoderStateCache()

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
            self._add_event(reply, event)
        if has_ended:
            self._worker = self.active_reply = None
            if worker.exception is not None:
                reply.exchange.mark_failed(f"failed: {describe_error(worker.exception)}")
            evict_models(self.replies_by_exchange.values())
            self._save([reply, *self._other_answers])
        return reply if events or has_ended else None

    def close(self) -> str:
        """Stop the generation, save its tokens, and release the session file to other windows.

        Returns:
            The reason why the conversation is not saved, or an empty text.
        """
        self.stop()
        if self._worker is not None and self._worker.join(STOP_TIMEOUT):
            self.poll()
        reply = self.active_reply
        if reply is not None:
            self._worker = self.active_reply = None
            self._save([reply, *self._other_answers])
        problem = self.save_again()
        self._autosave.close()
        return problem

    def delete(self) -> None:
        """Delete the session's file, and close the conversation without saving; a failure raises a SessionError."""
        self._autosave.delete()
        self.close()

    def _check_idle(self) -> None:
        if self.active_reply is not None:
            raise InvalidInputError("the model is still generating; press esc to stop it")

    def _check_writable(self, reply: Reply) -> None:
        """Raise an InvalidInputError if no branch of `reply` can be generated now."""
        if reply.read_only_reason:
            raise InvalidInputError(reply.read_only_reason)
        self._check_idle()

    def _add_reply(self, reply: Reply) -> None:
        """Add a reply to its turn, select it, and make it the active one."""
        reply.turn.add(reply)
        reply.turn.label_branches()
        self.replies_by_exchange[reply.exchange] = reply
        self.active_reply = self.current_reply = reply
        self._other_answers = []

    def _add_event(self, reply: Reply, event: GenerationEvent) -> None:
        """Apply an event to the active reply."""
        if isinstance(event, Done):
            reply.done = event
            reply.exchange.mark_done(event)
        elif isinstance(event, SpeakerProb):
            reply.set_speaker(event.name, event.prob)
        elif isinstance(event, AnswerChosen):
            reply.seed = event.seed
            reply.update_exchange()
        elif isinstance(event, RankedAnswers):
            self._add_answers(reply, event)
        elif isinstance(event, TokenEvent):
            reply.tokens.append(ReplyToken.from_event(event))
            self._state_cache.add(reply, event.state)
            reply.exchange.add_pieces([event.piece])
        else:
            if not reply.tokens:
                reply.split_context(event.num_reread_tokens)
            self._state_cache.add(reply, event)

    def _add_answers(self, reply: Reply, ranked: RankedAnswers) -> None:
        """Give the active reply its score, and add the other answers as branches of its turn."""
        best, *others = ranked.answers
        num_answers = len(ranked.answers)
        reply.score = AnswerScore.from_answer(best, 1, num_answers)
        reply.update_exchange()
        parent, parent_offset = reply.resolve_token(0)
        for rank, answer in enumerate(others, 2):
            branch = Reply.branch_from(
                parent,
                parent_offset,
                id=self._next_id(),
                session_model=reply.session_model,
                reply_mode=reply.reply_mode,
                settings=reply.settings,
                seed=answer.done.seed,
                speaker=reply.speaker,
                speaker_prob=reply.speaker_prob,
                score=AnswerScore.from_answer(answer, rank, num_answers),
            )
            branch.tokens += map(ReplyToken.from_event, answer.events)
            branch.done = answer.done
            branch.exchange.add_pieces(token.piece for token in branch.tokens)
            branch.exchange.mark_done(answer.done)
            branch.turn.replies.append(branch)
            self.replies_by_exchange[branch.exchange] = branch
            self._other_answers.append(branch)
        reply.turn.label_branches()
