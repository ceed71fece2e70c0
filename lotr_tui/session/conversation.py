"""Conversation with a model: a tree of replies, of which one at a time is being generated, saved in a file."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from engine.data.tokenizers import EOS_ID
from engine.errors import InvalidInputError, describe_error
from engine.generation import complete_words, generate, turns
from engine.generation.generate import DecoderState, Done, TokenEvent
from engine.generation.settings import SamplerSettings
from engine.models.dialogue import DialogueModel
from engine.runtime.process import Cancellation, GeneratorThread, throttle
from lotr_tui.session import read_text
from lotr_tui.session.cast import Roles, answering_cast
from lotr_tui.session.read_text import NextTokenContext, PromptContext, TextReader
from lotr_tui.session.reply import AnswerScore, Reply, Token
from lotr_tui.session.session_file import Session, SessionError, load_session
from lotr_tui.session.session_model import SessionModel, default_num_answers, find_cast

STOP_TIMEOUT = 0.5  # seconds that `close` waits for the generating thread, which may still be reading a long prompt
MAX_TOKENS = 50_000  # of a full conversation: about 400 turns, each with the eight answers that were drawn for it
# Who may speak and who does, the choice among several answers, all of them (the best first), the state before
# the first token, each token, and the end.


@dataclass(frozen=True)
class SpeakerChosen:
    """The probabilities of who speaks, likeliest first, and who was drawn from them; None if the user has chosen."""

    probs: Sequence[turns.SpeakerProb]
    drawn: turns.SpeakerProb | None


GenerationEvent = SpeakerChosen | turns.AnswerChosen | list[turns.Answer] | DecoderState | TokenEvent | Done


@dataclass(frozen=True)
class Request:
    """Model, context and sampling of a reply; another answer in a turn has the model and the context of the turn."""

    session_model: SessionModel
    settings: SamplerSettings
    seed: int
    context: PromptContext
    best_of: int = 1  # answers that are drawn in a conversation with a cast; 0 is the number of the model


class Conversation:
    """Tree of replies and the generation of the active one in a thread; `poll` collects the generated tokens.

    A branch or continuation starts from a state that `reader` keeps, so that no token is read twice. While a reply is
    being generated, no other one can be started: that raises an InvalidInputError.
    """

    def __init__(self, pace: float, session: Session | None = None, reader: TextReader | None = None) -> None:
        self.pace = pace  # tokens per second; 0 is as fast as the model
        self.reader, self.session = reader or TextReader(), session or Session()
        self.replies = self.session.replies
        self.active_reply: Reply | None = None  # that is being generated
        self.current_reply: Reply | None = None  # last one of the visible path, which the next prompt answers
        self.notice = ""  # about saving, that the user has not seen; the reader resets it
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
        """Restore a saved session; a missing or unreadable file raises a SessionError. `notice` says what is left out.

        If another window has it open or it cannot be written, new replies are a new session, and `notice` says so.
        """
        notice = ""
        try:
            session = Session.resume(path)
            notice = session.damage
        except SessionError as error:
            try:
                session = replace(load_session(path), name="")
            except SessionError:
                raise error from None
            reasons = [str(error), session.damage, "new replies are saved as a new session"]
            notice = "; ".join(filter(None, reasons))
        conversation = cls(pace, session, reader)
        conversation.restore(session_model)
        conversation.notice = notice
        return conversation

    def restore(self, session_model: SessionModel) -> None:
        """Give the saved replies a model, and select the same ones; texts are read again when needed."""
        for reply in self.replies.values():
            read_text.restore_reply(reply, session_model)
            self.current_reply = reply
        if self.session.current_id is not None:
            self.current_reply = self.replies[self.session.current_id]
        if self.current_reply is not None:
            for ancestor in self.current_reply.path():
                if ancestor in ancestor.turn.replies:  # a reply that was continued is not in its turn any more
                    ancestor.turn.selected_reply = ancestor
            self.current_reply = self.current_reply.turn.selected_reply.selected_path()[-1]

    @property
    def is_full(self) -> bool:
        return sum(len(reply.tokens) - reply.num_shared_tokens for reply in self.replies.values()) > MAX_TOKENS

    def close(self) -> str:
        """Stop, save, and release the file to other windows. Return the reason why a part is not saved, or ""."""
        self.stop()
        if self._worker is not None:
            self._worker.join(STOP_TIMEOUT)
            self.poll()
        if self.active_reply is not None:
            self._end_reply(self.active_reply)
        problem = self.session.save_again()
        self.session.close()
        return problem

    def _end_reply(self, reply: Reply) -> None:
        self._worker = self.active_reply = None
        reply.is_generating = False
        self.session.model = self.session.model or reply.model
        current = self.current_reply or reply
        self.notice = self.session.save([reply, *self._other_answers], current.id) or self.notice

    # The tree

    def selected_replies(self) -> list[Reply]:
        """Return the selected replies in the order in which their turns began."""
        numbers = {reply.turn: number for number, reply in reversed(self.replies.items())}
        roots = [turn.selected_reply for turn in numbers if turn.previous_reply is None]
        selected = [reply for root in roots for reply in root.selected_path()]
        return sorted(selected, key=lambda reply: numbers[reply.turn])

    def select_reply(self, reply: Reply) -> None:
        reply.turn.selected_reply = reply
        self.current_reply = reply.selected_path()[-1]
        if self.current_reply is not self.active_reply:
            self.session.save(current_id=self.current_reply.id)  # which implies the branches of the turns before

    def _new_reply(self, request: Request, **fields: Any) -> Reply:
        id, model = next(reversed(self.replies), -1) + 1, request.session_model
        fields |= {"settings": request.settings, "seed": request.seed, "strengths": dict(model.strengths)}
        reply = Reply(id=id, model=model.name, tokenizer=model.model.tokenizer.name, **fields)
        reply.session_model = model
        self.replies[id] = reply
        return reply

    def _branch_from(self, source: Reply, index: int, request: Request, speaker: str, **fields: Any) -> Reply:
        """Return another reply of the turn of `source` that shares its tokens before `index`."""
        parent, is_continuation = source, 0 < index == len(source.tokens)
        while not is_continuation and index <= parent.num_shared_tokens and not parent.starts_turn:
            assert parent.parent is not None
            parent = parent.parent
        fields |= {"parent_offset": index - parent.num_shared_tokens, "prompt": None, "reply_mode": source.reply_mode}
        if not request.session_model.is_variant_of(source.session_model):
            request = replace(request, session_model=source.session_model)
        branch = self._new_reply(request, speaker=speaker, **fields)
        branch.speaker_prob = source.speaker_prob if speaker == source.speaker else None
        branch.speaker_probs = source.speaker_probs
        branch.prompt_ids, branch.num_reread_tokens = parent.prompt_ids, parent.num_reread_tokens
        branch.attach(parent)
        return branch

    def _check_writable(self, reply: Reply | None = None) -> None:
        if reply is not None and reply.read_only_reason:
            raise InvalidInputError(reply.read_only_reason)
        if self.active_reply is not None:
            raise InvalidInputError("the model is still generating; press esc to stop it")

    # Prompts, branches and turns

    def say(self, text: str, request: Request) -> Reply:
        """Continue or answer a prompt; a refused one raises an InvalidInputError."""
        self._check_writable()
        cast, mode = request.session_model.cast, request.context.reply_mode
        tokenizer, is_turn = request.session_model.model.tokenizer, mode == "conversation" and cast
        prompt = generate.encode_prompt(read_text.to_prompt_line(text, tokenizer, mode), tokenizer)
        candidates = answering_cast(cast, request.context.roles.speaking_as, prompt.text) if is_turn else ()
        return self._begin_turn(prompt.text, request, candidates, prompt.unknown_tokens)

    def _begin_turn(
        self, prompt: str, request: Request, candidates: Sequence[str], unknown_tokens: tuple[str, ...] = ()
    ) -> Reply:
        model, context = request.session_model, request.context
        mode, previous, roles = context.reply_mode, context.previous_reply, context.roles
        system_prompt = roles.system_prompt if mode == "conversation" and not candidates else ""
        roles = Roles(roles.speaking_as if candidates else "", roles.speaker if model.cast else "", system_prompt)
        before = replace(context, roles=roles).text_before_reply(model.model, prompt)
        fields = roles._asdict() | {"prompt": prompt, "unknown_tokens": unknown_tokens, "reply_mode": mode}
        offset = 0 if previous is None else len(previous.own_tokens)
        reply = self._new_reply(request, parent_offset=offset, **fields)
        reply.prompt_ids = before.ids
        reply.attach(previous, context.edited_reply)
        return self._generate(reply, before, candidates=candidates, num_answers=request.best_of)

    def go_on(self, cast: Sequence[str] | None, num_turns: int, request: Request) -> Reply:
        """Start turns by speakers of `cast` (None: all with a name) without the user; `poll` starts each other one."""
        self._check_writable()
        names = answering_cast(request.session_model.cast, "") if cast is None else tuple(cast)
        roles = Roles("", names[0] if len(names) == 1 else "")

        def scene(previous: Reply | None) -> Iterator[Reply]:
            spoken = [previous.speaker] if previous else []
            for number in range(num_turns):
                candidates = turns.without_last_speaker(names, spoken[-1] if spoken else "")
                if cast is not None:  # each of them is to speak
                    candidates = turns.scene_candidates(names, spoken, num_turns - number)
                context = replace(request.context, reply_mode="conversation", previous_reply=previous, roles=roles)
                turn = replace(request, context=context, seed=turns.turn_seed(request.seed, number))
                previous = self._begin_turn("", turn, candidates)
                yield previous
                spoken.append(previous.speaker)

        self._scene = scene(request.context.previous_reply)
        return next(self._scene)

    def answer_as(self, reply: Reply, speaker: str, request: Request) -> Reply:
        """Start another answer in the turn of `reply`, by the same speaker or by another one (empty: by any)."""
        self._check_writable(reply)
        branch = self._branch_from(reply, 0, request, speaker)
        before = NextTokenContext(branch.session_model.model, branch.prompt_ids)
        candidates = answering_cast(reply.session_model.cast, reply.speaking_as, reply.prompt or "")
        return self._generate(branch, before, candidates=candidates, num_answers=request.best_of)

    def branch(
        self, reply: Reply, index: int, forced_ids: Sequence[int], request: Request, *, ends_word: bool = False
    ) -> Reply:
        """Start another reply that differs from token `index` on: the tokens `forced_ids`, a whole word if `ends_word`.

        With the index after the last token, the new reply continues `reply` and replaces it in its turn.
        """
        self._check_writable(reply)
        if reply.reply_mode == "conversation" and reply.session_model.cast and not reply.speaker:  # none was chosen
            return self.answer_as(reply, "", replace(request, best_of=1))
        before = NextTokenContext.of_reply(reply, index)
        branch = self._branch_from(reply, index, request, reply.speaker)
        before = replace(before, model=branch.session_model.model)  # perhaps at other strengths
        return self._generate(branch, before, forced_ids=forced_ids, ends_word=ends_word)

    def continue_reply(self, reply: Reply, request: Request) -> Reply:
        """Keep going after `reply`, on a new line if the line has ended, unless a speaker has said it."""
        if reply.reply_mode == "conversation" and reply.has_ended_line:
            then = "say something, or draw another answer" if reply.is_chat else "go on with the next turn instead"
            raise InvalidInputError(f"the {'answer' if reply.is_chat else 'line'} has ended; {then}")
        model = reply.session_model.model
        line_end = model.tokenizer.encode("\n").tolist() if find_cast(model) else [EOS_ID]
        return self.branch(reply, len(reply.tokens), line_end if reply.has_ended_line else (), request)

    # Generation

    def _generate(self, reply: Reply, before: NextTokenContext, **options: Any) -> Reply:
        """Generate a reply in a thread, see `_write`."""
        reply.is_generating = True
        self.active_reply = self.current_reply = reply
        self._other_answers, self._state = [], None
        self._worker = GeneratorThread("generation", partial(self._write, reply, before, **options))
        return reply

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
        model = reply.session_model.model
        if isinstance(event, Done):
            reply.reason, reply.tokens_per_second = event.reason, event.tokens_per_second
        elif isinstance(event, SpeakerChosen):
            reply.speaker_probs = event.probs
            if event.drawn is not None:
                reply.speaker, reply.speaker_prob = event.drawn.name, event.drawn.prob
        elif isinstance(event, turns.AnswerChosen):
            reply.seed = event.seed
        elif isinstance(event, list):
            for rank, answer in enumerate(event, 1):
                score = AnswerScore(rank, len(event), answer.log_prob, answer.log_prob_alone, answer.num_tokens)
                if rank == 1:
                    reply.score = score
                    continue
                request = Request(reply.session_model, reply.settings, answer.done.seed, PromptContext())
                branch = self._branch_from(reply, 0, request, reply.speaker, score=score)
                branch.tokens += map(Token.from_event, answer.events)
                branch.reason, branch.tokens_per_second = answer.done.reason, answer.done.tokens_per_second
                self._other_answers.append(branch)
        elif isinstance(event, TokenEvent):
            reply.tokens.append(Token.from_event(event))
            self._key, self._state = read_text.next_key(self._key, event.id), event.state
            if event.state is not None:
                self.reader.keep(model, self._key, event.state)
        else:
            if not reply.tokens:
                reply.num_reread_tokens = event.num_reread_tokens
            self._state, before = event, NextTokenContext.of_reply(reply, len(reply.tokens))
            self.reader.keep(model, before.keys()[-1], event)
            ids = [*reply.context_ids, *(token.id for token in reply.tokens)]
            self._key = NextTokenContext(model, ids, reply.is_chat).keys()[-1]

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

    def _write(
        self,
        reply: Reply,
        before: NextTokenContext,
        cancellation: Cancellation,
        candidates: Sequence[str] = (),
        num_answers: int = 1,
        forced_ids: Sequence[int] = (),
        ends_word: bool = False,
    ) -> Iterator[GenerationEvent]:
        """Yield the events of a line of one of `candidates`, or of a text that begins with `forced_ids`."""
        model, settings, seed, name = before.model, reply.settings, reply.seed, reply.speaker
        cancelled = Done("cancelled", seed, 0, 0.0)
        state = self.reader.read(before, cancellation)
        if state is None:
            yield cancelled
            return
        if candidates:
            assert isinstance(model, DialogueModel), "a model with a cast"
            probs = turns.answerer_probs(model, state, candidates, reply.answering_temperature)
            temperature = settings.temperature
            if reply.prompt and temperature > 0:
                temperature = 1.0  # the probabilities have one already
            drawn = turns.sample_speaker(probs, model.cast, temperature, seed)
            yield SpeakerChosen(probs, None if name else drawn)
            name = name or drawn.name
            text = turns.begin_turn(model, state, name, settings, seed, before.ids[-turns.MAX_HISTORY_TOKENS :])
        else:
            is_dialogue, is_first = reply.reply_mode == "conversation", reply.starts_line(len(reply.tokens))
            history = reply.token_ids()[-turns.MAX_HISTORY_TOKENS if is_dialogue else 0 :]
            begins_line = name and is_dialogue and is_first and not forced_ids
            noise = reply.prompt_ids[-turns.MAX_HISTORY_TOKENS :] if begins_line else []
            begin = partial(generate.TextInProgress, is_first_token=is_first, noise_context=noise)
            text = begin(model, history, settings, seed, state)
        yield text.state
        for id in forced_ids:
            yield generate.force_token(text, id)
        if ends_word:
            complete_words.end_word(text)
        steps: Iterator[GenerationEvent] = generate.generate(text, cancellation)
        if candidates and (number := num_answers or default_num_answers(model)) > 1:
            steps = turns.stream_answers(text, number, cancellation)
            choice = next(steps)  # which is no token and waits for none
            if cancellation():
                yield cancelled
                return
            yield choice
        for event in throttle(steps, self.pace, cancellation):
            if not isinstance(event, list):
                yield event
                continue
            if not cancellation():
                yield event
            yield event[0].done
