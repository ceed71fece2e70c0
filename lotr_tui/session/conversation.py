"""Conversation with a model: a tree of replies, of which one at a time is being generated, saved in a file."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from engine.data.tokenizers import EOS_ID
from engine.errors import InvalidInputError, describe_error
from engine.generation import turns
from engine.generation.complete_words import end_word
from engine.generation.generate import (
    DecoderState,
    Done,
    EncodedPrompt,
    TextInProgress,
    TokenEvent,
    encode_prompt,
    force_token,
    generate,
)
from engine.generation.settings import SamplerSettings
from engine.generation.turns import MAX_HISTORY_TOKENS, Answer, AnswerChosen, SpeakerProb, stream_answers
from engine.models.dialogue import DialogueModel
from engine.runtime.process import Cancellation, GeneratorThread, throttle
from lotr_tui.session.cast import NO_ROLES, Roles, answering_cast
from lotr_tui.session.read_text import NextTokenContext, TextReader, next_key, restore_reply, to_prompt_line
from lotr_tui.session.reply import AnswerScore, Reply, Token
from lotr_tui.session.session_file import Session, SessionError, SessionFile, load_session
from lotr_tui.session.session_model import SessionModel, default_num_answers, find_cast
from lotr_tui.session.settings import ReplyMode

STOP_TIMEOUT = 0.5  # seconds that `close` waits for the generating thread, which may still be reading a long prompt
MAX_TOKENS = 50_000
"""Tokens after which a conversation is full: about 400 turns, each with the eight answers that were drawn for it."""
ANSWERING_TEMPERATURE = 0.3
"""Highest temperature of the choice of who answers the user: someone who is addressed by name nearly always does."""

GenerationEvent = SpeakerProb | AnswerChosen | list[Answer] | DecoderState | TokenEvent | Done
"""Event of a reply: the speaker that the model chooses, the state before the first token, the choice among several
answers, each token, all answers that were drawn (the best first), and the end."""


class Conversation:
    """Tree of replies and the generation of the active one in a thread; `poll` collects the generated tokens.

    A branch or continuation starts from a state that `reader` keeps, so that no token is read twice. While a reply is
    being generated, no other one can be started: that raises an InvalidInputError.
    """

    def __init__(self, pace: float, file: SessionFile | None = None, reader: TextReader | None = None) -> None:
        """Start without replies, at a pace in tokens per second (0: as fast as the model), saved in a new file."""
        self.pace, self.reader = pace, reader or TextReader()
        self.active_reply: Reply | None = None  # that is being generated
        self.current_reply: Reply | None = None  # last one of the visible path, which the next prompt answers
        self.notice = ""  # about saving, that the user has not seen; the reader resets it
        self._file = file or SessionFile(Session())
        self.replies = self._file.session.replies
        self._worker: GeneratorThread[GenerationEvent] | None = None
        self._other_answers: list[Reply] = []  # branches that were drawn together with the active reply
        self._scene: Iterator[Reply] | None = None  # starts a turn without the user each time it is advanced
        self._key = 0  # of the text up to the latest token, see `NextTokenContext.keys`
        self._state: DecoderState | None = None  # after the latest token

    # Saving

    @classmethod
    def resume(
        cls, path: Path, session_model: SessionModel, pace: float, reader: TextReader | None = None
    ) -> "Conversation":
        """Restore a saved session, continued with `session_model`; a missing or damaged file raises a SessionError.

        If another window has it open or it cannot be written, new replies are a new session, and `notice` says so.
        """
        try:
            return cls.restore(SessionFile.resume(path), session_model, pace, reader)
        except SessionError as error:
            try:
                saved = load_session(path)
            except SessionError:
                raise error from None
            session = Session(model=saved.model, replies=saved.replies, current_id=saved.current_id)
            conversation = cls.restore(SessionFile(session), session_model, pace, reader)
            conversation.notice = f"{error}; new replies are saved as a new session"
            return conversation

    @classmethod
    def restore(
        cls, file: SessionFile, session_model: SessionModel, pace: float, reader: TextReader | None = None
    ) -> "Conversation":
        """Return the conversation in a file with the same replies selected; texts are read again when needed."""
        conversation = cls(pace, file, reader)
        for reply in conversation.replies.values():
            restore_reply(reply, session_model)
            conversation.current_reply = reply
        current_id = file.session.current_id
        if current := conversation.current_reply if current_id is None else conversation.replies[current_id]:
            for ancestor in current.path():
                if ancestor in ancestor.turn.replies:  # a reply that was continued is not in its turn any more
                    ancestor.turn.selected_index = ancestor.turn.replies.index(ancestor)
            conversation.current_reply = current.turn.selected_reply.selected_path()[-1]
        return conversation

    @property
    def name(self) -> str:
        """Name of the session; empty before there is a file."""
        return self._file.session.name

    @property
    def is_full(self) -> bool:
        return sum(len(reply.tokens) - reply.num_shared_tokens for reply in self.replies.values()) > MAX_TOKENS

    def save_again(self) -> str:
        """Try to save what could not be saved. Return the reason why it still is not, or an empty text."""
        self._file.save()
        return self._file.problem

    def rename(self, name: str) -> None:
        """Rename the session; an invalid or taken name raises a SessionError."""
        self._file.rename(name)

    def delete(self) -> None:
        """Delete the session's file, and close the conversation without saving; a failure raises a SessionError."""
        self._file.delete()
        self.close()

    def close(self) -> str:
        """Stop, save, and release the file to other windows. Return the reason why a part is not saved, or ""."""
        self.stop()
        if self._worker is not None:
            self._worker.join(STOP_TIMEOUT)
            self.poll()
        if self.active_reply is not None:
            self._end_reply(self.active_reply)
        problem = self.save_again()
        self._file.close()
        return problem

    def _save(self, *changed: Reply) -> None:
        """Save replies that have ended; an active one is saved when it ends."""
        if self.active_reply in changed:
            return
        self._file.session.model = self._file.session.model or changed[0].model
        current = None if self.current_reply is self.active_reply else self.current_reply
        self.notice = self._file.save(changed, (current or changed[0]).id) or self.notice

    def _end_reply(self, reply: Reply) -> None:
        self._worker = self.active_reply = None
        reply.is_generating = False
        self._save(reply, *self._other_answers)

    # The tree

    def selected_replies(self) -> list[Reply]:
        """Return the selected replies in the order in which their turns began."""
        turns = {reply.turn: number for number, reply in reversed(self.replies.items())}
        roots = [turn.selected_reply for turn in reversed(turns) if turn.previous_reply is None]
        selected = [reply for root in roots for reply in root.selected_path()]
        return sorted(selected, key=lambda reply: turns[reply.turn])

    def select_reply(self, reply: Reply) -> None:
        """Select a reply in its turn."""
        reply.turn.selected_index = reply.turn.replies.index(reply)
        self.current_reply = reply.selected_path()[-1]
        if self.current_reply is not self.active_reply:
            self._file.save(current_id=self.current_reply.id)  # which implies the branches of the turns before

    def _new_reply(self, session_model: SessionModel, settings: SamplerSettings, seed: int, **fields: Any) -> Reply:
        id, tokenizer = next(reversed(self.replies), -1) + 1, session_model.model.tokenizer.name
        reply = Reply(id=id, settings=settings, seed=seed, model=session_model.name, tokenizer=tokenizer, **fields)
        reply.session_model = session_model
        self.replies[id] = reply
        return reply

    def _begin_turn(
        self,
        session_model: SessionModel,
        prompt: EncodedPrompt,
        reply_mode: ReplyMode,
        roles: Roles,
        settings: SamplerSettings,
        seed: int,
        previous: Reply | None,
    ) -> tuple[Reply, NextTokenContext]:
        """Return a reply in a turn that answers `previous`, and the text before it."""
        before = NextTokenContext.before_reply(session_model.model, prompt.text, reply_mode, previous, roles)
        fields = {"prompt": prompt.text, "unknown_tokens": prompt.unknown_tokens, "reply_mode": reply_mode}
        reply = self._new_reply(session_model, settings, seed, **fields, **roles._asdict())
        reply.parent_offset = 0 if previous is None else len(previous.own_tokens)
        reply.context_ids = before.ids
        reply.attach(previous)
        return reply, before

    def _branch_from(
        self, source: Reply, index: int, settings: SamplerSettings, seed: int, speaker: str, **fields: Any
    ) -> Reply:
        """Return another reply of the turn of `source` that shares its tokens before `index`."""
        is_continuation = 0 < index == len(source.tokens)
        parent, offset = (source, len(source.own_tokens)) if is_continuation else source.resolve_token(index)
        fields |= {"parent_offset": offset, "prompt": None, "reply_mode": source.reply_mode, "speaker": speaker}
        branch = self._new_reply(source.session_model, settings, seed, **fields)
        branch.speaker_prob = source.speaker_prob if speaker == source.speaker else None
        branch.attach(parent)
        branch.inherit_context(parent)
        branch.num_reread_tokens = len(parent.reread_ids)
        return branch

    def _generate(self, reply: Reply, events: Callable[[Cancellation], Iterator[GenerationEvent]]) -> Reply:
        """Select a reply, and generate it in a thread."""
        reply.turn.selected_index = len(reply.turn.replies) - 1
        reply.is_generating = True
        self.active_reply = self.current_reply = reply
        self._other_answers, self._state = [], None
        self._worker = GeneratorThread("generation", events)
        return reply

    def _check_writable(self, reply: Reply | None = None) -> None:
        if reply is not None and reply.read_only_reason:
            raise InvalidInputError(reply.read_only_reason)
        if self.active_reply is not None:
            raise InvalidInputError("the model is still generating; press esc to stop it")

    # Prompts and branches

    def submit_prompt(
        self,
        session_model: SessionModel,
        text: str,
        reply_mode: ReplyMode,
        settings: SamplerSettings,
        seed: int,
        previous_reply: Reply | None,
        roles: Roles = NO_ROLES,
    ) -> Reply:
        """Start to continue a prompt, or to answer it after `previous_reply`; a refused one raises InvalidInputError.

        The system prompt of `roles` is for a chat template, the speaker for a model with a cast that continues a line.
        """
        self._check_writable()
        tokenizer = session_model.model.tokenizer
        prompt = encode_prompt(to_prompt_line(text, tokenizer, reply_mode), tokenizer)
        is_chat = reply_mode == "conversation"
        roles = Roles("", roles.speaker if session_model.cast else "", roles.system_prompt if is_chat else "")
        previous = None if reply_mode == "continue" else previous_reply
        reply, before = self._begin_turn(session_model, prompt, reply_mode, roles, settings, seed, previous)
        return self._generate(reply, partial(self._write_text, reply, before, (), False))

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
        """Start another reply that differs from token `index` on: the tokens `forced_ids`, a whole word if `ends_word`.

        With the index after the last token, the new reply continues `reply` and replaces it in its turn.
        """
        self._check_writable(reply)
        if reply.reply_mode == "conversation" and reply.session_model.cast and not reply.speaker:  # none was chosen
            return self.answer_as(reply, "", settings, seed)
        before = NextTokenContext.of_reply(reply, index)
        branch = self._branch_from(reply, index, settings, seed, reply.speaker)
        return self._generate(branch, partial(self._write_text, branch, before, forced_ids, ends_word))

    def continue_reply(self, reply: Reply, settings: SamplerSettings, seed: int) -> Reply:
        """Keep going after `reply`, on a new line if the line has ended, unless a speaker has said it."""
        if reply.is_chat and reply.has_ended_line:
            raise InvalidInputError("the answer has ended; say something, or draw another answer")
        if reply.reply_mode == "conversation" and reply.has_ended_line:
            raise InvalidInputError("the line has ended; go on with the next turn instead")
        model = reply.session_model.model
        line_end = model.tokenizer.encode("\n").tolist() if find_cast(model) else [EOS_ID]
        return self.branch(reply, len(reply.tokens), line_end if reply.has_ended_line else (), settings, seed)

    # Turns with speakers

    def say(
        self,
        session_model: SessionModel,
        text: str,
        roles: Roles,
        settings: SamplerSettings,
        seed: int,
        previous: Reply | None,
        best_of: int = 1,
    ) -> Reply:
        """Say a line to a model with a cast, after the reply `previous` (None: a new scene).

        Without a speaker in `roles`, the model chooses who answers. The best of `best_of` answers (0: as many as usual)
        is shown and the others become branches.
        """
        self._check_writable()
        prompt = encode_prompt(to_prompt_line(text), session_model.model.tokenizer)
        names = answering_cast(session_model.cast, roles.speaking_as, prompt.text)
        return self._start_turn(session_model, prompt, roles, names, settings, seed, previous, best_of)

    def go_on(
        self,
        session_model: SessionModel,
        cast: Sequence[str] | None,
        num_turns: int,
        settings: SamplerSettings,
        seed: int,
        previous: Reply | None,
        best_of: int = 1,
    ) -> Reply:
        """Start turns without the user, as `generate_scene` does, by speakers of `cast` (None: all with a name).

        `poll` starts each further turn when the one before has ended, and `stop` ends the scene. See also `say`.
        """
        self._check_writable()

        def scene(previous: Reply | None) -> Iterator[Reply]:
            names = answering_cast(session_model.cast, "") if cast is None else tuple(cast)
            roles, spoken = Roles("", names[0] if len(names) == 1 else ""), [previous.speaker] if previous else []
            for number in range(num_turns):
                candidates = turns.without_last_speaker(names, spoken[-1] if spoken else "")
                if cast is not None:  # each of them is to speak
                    candidates = turns.scene_candidates(names, spoken, num_turns - number)
                prompt, turn_seed = EncodedPrompt("", (), ()), turns.turn_seed(seed, number)
                arguments = session_model, prompt, roles, candidates, settings, turn_seed, previous, best_of
                previous = self._start_turn(*arguments)
                yield previous
                spoken.append(previous.speaker)

        self._scene = scene(previous)
        return next(self._scene)

    def answer_as(self, reply: Reply, speaker: str, settings: SamplerSettings, seed: int, best_of: int = 1) -> Reply:
        """Start another answer in the turn of `reply`, by the same speaker or by another one (empty: by any)."""
        self._check_writable(reply)
        branch = self._branch_from(reply, 0, settings, seed, speaker)
        before = NextTokenContext(reply.session_model.model, branch.context_ids_before_speaker)
        candidates = answering_cast(reply.session_model.cast, reply.speaking_as, reply.prompt or "")
        return self._generate(branch, partial(self._write_turn, branch, before, candidates, best_of))

    def _start_turn(
        self,
        session_model: SessionModel,
        prompt: EncodedPrompt,
        roles: Roles,
        candidates: Sequence[str],
        settings: SamplerSettings,
        seed: int,
        previous: Reply | None,
        best_of: int,
    ) -> Reply:
        user = Roles(roles.speaking_as)
        reply, before = self._begin_turn(session_model, prompt, "conversation", user, settings, seed, previous)
        if roles.speaker:
            reply.set_speaker(roles.speaker, None)
        return self._generate(reply, partial(self._write_turn, reply, before, candidates, best_of))

    # Generation

    def stop(self) -> None:
        """Ask the active generation to stop, and its scene with it; the tokens generated so far stay."""
        self._scene = None
        if self._worker is not None:
            self._worker.cancellation.set()

    def poll(self) -> Reply | None:
        """Collect new events, and start the next turn of a scene. Return the reply that has changed, or None."""
        worker, reply = self._worker, self.active_reply
        if worker is None or reply is None:
            return None
        has_ended = not worker.is_alive()  # read before draining, so that no last event is missed
        events = worker.drain()
        for event in events:
            self._add_event(reply, event)
        if has_ended:
            if worker.exception is not None:
                reply.failure = f"failed: {describe_error(worker.exception)}"
            self._end_reply(reply)
            is_complete = reply.reason in ("eos", "length") and not reply.failure
            goes_on = is_complete and self.current_reply is reply and not self.is_full
            if self._scene is None or not goes_on or next(self._scene, None) is None:
                self._scene = None
        return reply if events or has_ended else None

    def _add_event(self, reply: Reply, event: GenerationEvent) -> None:
        """Apply an event to the active reply."""
        model = reply.session_model.model
        if isinstance(event, Done):
            reply.reason, reply.tokens_per_second = event.reason, event.tokens_per_second
        elif isinstance(event, SpeakerProb):
            reply.set_speaker(event.name, event.prob)
        elif isinstance(event, AnswerChosen):
            reply.seed = event.seed
        elif isinstance(event, list):
            reply.score = AnswerScore.of(event[0], 1, len(event))
            for rank, answer in enumerate(event[1:], 2):
                score = AnswerScore.of(answer, rank, len(event))
                branch = self._branch_from(reply, 0, reply.settings, answer.done.seed, reply.speaker, score=score)
                branch.tokens += map(Token.from_event, answer.events)
                branch.ids += [token.id for token in answer.events]
                branch.reason, branch.tokens_per_second = answer.done.reason, answer.done.tokens_per_second
                self._other_answers.append(branch)
        elif isinstance(event, TokenEvent):
            reply.tokens.append(Token.from_event(event))
            reply.ids.append(event.id)
            self._key, self._state = next_key(self._key, event.id), event.state
            if event.state is not None:
                self.reader.keep(model, self._key, event.state)
        else:
            self._state, before = event, NextTokenContext.of_reply(reply, len(reply.tokens))
            self.reader.keep(model, before.keys()[-1], event)
            if not reply.tokens:
                reply.split_context(event.num_reread_tokens)
            self._key = NextTokenContext(model, [*reply.context_ids, *reply.ids], reply.is_chat).keys()[-1]

    def describe_full_context(self, reply: Reply) -> str:
        """Return a line that says that the model forgets the start of the reply's text; empty while it does not."""
        if self._state is None:
            return ""
        model: Any = reply.session_model.model
        state = self._state.model_state
        if isinstance(model, DialogueModel):
            model, state = model.model, state.model_state
        if not hasattr(model, "has_slid") or not model.has_slid(state):  # its context has a fixed size
            return ""
        return f"The context of {model.context_size:,} tokens is full; the model now forgets the oldest half."

    # In the generating thread

    def _write_text(
        self,
        reply: Reply,
        before: NextTokenContext,
        forced_ids: Sequence[int],
        ends_word: bool,
        cancellation: Cancellation,
    ) -> Iterator[GenerationEvent]:
        """Generate the tokens of a reply, which has only its shared ones: first `forced_ids`, which may end a word."""
        is_dialogue = reply.reply_mode == "conversation"
        history = reply.token_ids()[-MAX_HISTORY_TOKENS if is_dialogue else 0 :]
        starts_line = reply.starts_line(len(reply.tokens))
        noise: Sequence[int] = ()
        if reply.speaker and is_dialogue and starts_line and not forced_ids:
            noise = reply.context_ids_before_speaker[-MAX_HISTORY_TOKENS:]
        state = self.reader.read(before, cancellation)
        if state is None:
            yield Done("cancelled", reply.seed, 0, 0.0)
            return
        yield state
        text = TextInProgress(
            before.model, history, reply.settings, reply.seed, state, is_first_token=starts_line, noise_context=noise
        )
        for id in forced_ids:
            yield force_token(text, id)
        if ends_word:
            end_word(text)
        yield from throttle(generate(text, cancellation), self.pace, cancellation)

    def _write_turn(
        self,
        reply: Reply,
        before: NextTokenContext,
        candidates: Sequence[str],
        num_answers: int,
        cancellation: Cancellation,
    ) -> Iterator[GenerationEvent]:
        """Generate a line of a speaker, whom the model chooses among `candidates` if the reply has none."""
        model, settings, seed, name = before.model, reply.settings, reply.seed, reply.speaker
        assert isinstance(model, DialogueModel), "a model with a cast"
        state = self.reader.read(before, cancellation)
        if state is None:
            yield Done("cancelled", seed, 0, 0.0)
            return
        if not name:
            temperature = min(settings.temperature, ANSWERING_TEMPERATURE) if reply.prompt else settings.temperature
            probs = turns.next_speaker_probs(model, state, candidates)
            chosen = turns.sample_speaker(probs, model.cast, temperature, seed)
            yield chosen
            name = chosen.name
        text = turns.begin_turn(model, state, name, settings, seed, before.ids[-MAX_HISTORY_TOKENS:])
        yield text.state
        steps: Iterator[GenerationEvent] = generate(text, cancellation)
        if (number := num_answers or default_num_answers(model)) > 1:
            steps = stream_answers(text, number, cancellation)
            choice = next(steps)  # which is no token and waits for none
            if cancellation():
                yield Done("cancelled", seed, 0, 0.0)
                return
            yield choice
        for event in throttle(steps, self.pace, cancellation):
            if isinstance(event, list):
                if not cancellation():
                    yield event
                yield event[0].done
            else:
                yield event
