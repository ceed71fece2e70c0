"""Conversation with a model: a tree of replies, of which one at a time is being generated, saved in a file."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from engine.data.tokenizers import EOS, EOS_ID, OPEN_VOCABULARIES, UNK_ID, WordTokenizer
from engine.errors import InvalidInputError, describe_error, printable
from engine.generation.best_of import Answer, AnswerChosen, stream_answers
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
    prefill,
    prefill_prompt,
)
from engine.generation.settings import SamplerSettings
from engine.generation.turns import (
    MAX_HISTORY_TOKENS,
    SpeakerProb,
    begin_turn,
    next_speaker_probs,
    sample_speaker,
    scene_candidates,
    turn_seed,
    without_last_speaker,
)
from engine.models.dialogue import DialogueModel
from engine.runtime.worker import Cancellation, GeneratorThread, throttle
from lotr_tui.session.cast import NO_ROLES, Roles, answering_cast
from lotr_tui.session.read_text import StateCache, TextReader, UnreadText, context_ids, nearest_state, to_prompt_line
from lotr_tui.session.reply import AnswerScore, Reply, Token
from lotr_tui.session.session_file import Session, SessionError, SessionFile, load_session
from lotr_tui.session.session_model import (
    SessionModel,
    SlidingModel,
    answers_by_template,
    default_num_answers,
    find_cast,
    split_dialogue,
)
from lotr_tui.session.settings import ReplyMode

STOP_TIMEOUT = 0.5  # seconds that `close` waits for the generating thread, which may still be reading a long prompt
MAX_TOKENS = 50_000
"""Tokens after which a conversation is full: about 400 turns, each with the eight answers that were drawn for it."""
ANSWERING_TEMPERATURE = 0.3
"""Highest temperature of the choice of who answers the user: someone who is addressed by name nearly always does."""


GenerationEvent = SpeakerProb | AnswerChosen | list[Answer] | DecoderState | TokenEvent | Done
"""Event of a reply: the speaker that the model chooses, the state before the first token, the choice among several
answers, each token, all answers that were drawn (the best first), and the end."""


@dataclass
class _Scene:
    """Turns without the user that are still to be generated."""

    start_turn: Callable[..., Reply]  # `Conversation._start_turn` with the model and its settings
    candidates: tuple[str, ...]
    is_named: bool  # True if the user has named the candidates, so that each of them speaks
    spoken: list[str]  # speakers so far, the one before the scene included
    num_turns: int
    seed: int
    number: int = 0  # of the next turn, from 0 on


class Conversation:
    """Tree of replies and the generation of the active one in a thread; `poll` collects the generated tokens.

    A branch or continuation starts from a cached decoder state, so that no token is read twice. While a reply is being
    generated, no other one can be started: that raises an InvalidInputError.
    """

    def __init__(self, pace: float, file: SessionFile | None = None) -> None:
        """Start without replies, at a pace in tokens per second (0: as fast as the model), saved in a new file."""
        self.pace = pace
        self.active_reply: Reply | None = None  # that is being generated
        self.current_reply: Reply | None = None  # last one of the visible path, which the next prompt answers
        self.notice = ""  # about saving, that the user has not seen; the reader resets it
        self._file = file or SessionFile(Session())
        self.replies = self._file.session.replies
        self._worker: GeneratorThread[GenerationEvent] | None = None
        self._other_answers: list[Reply] = []  # branches that were drawn together with the active reply
        self._scene: _Scene | None = None
        self._states = StateCache()

    # Saving

    @classmethod
    def resume(cls, path: Path, session_model: SessionModel, pace: float) -> "Conversation":
        """Restore a saved session, continued with `session_model` and in the same file.

        If the file cannot be written, for instance because another window has it open, new replies are saved as a new
        session, and `notice` says so. A file that is missing or damaged raises a SessionError.
        """
        try:
            return cls.restore(SessionFile.resume(path), session_model, pace)
        except SessionError as error:
            try:
                saved = load_session(path)
            except SessionError:
                raise error from None
            session = Session(model=saved.model, replies=saved.replies, current_id=saved.current_id)
            conversation = cls.restore(SessionFile(session), session_model, pace)
            conversation.notice = f"{error}; new replies are saved as a new session"
            return conversation

    @classmethod
    def restore(cls, file: SessionFile, session_model: SessionModel, pace: float) -> "Conversation":
        """Return the conversation in a file with the same replies selected; texts are read again when needed."""
        conversation = cls(pace, file)
        for reply in conversation.replies.values():
            _restore(reply, session_model)
            conversation.current_reply = reply
        current_id = file.session.current_id
        if current := conversation.current_reply if current_id is None else conversation.replies[current_id]:
            for ancestor in current.path():
                if ancestor in ancestor.turn.replies:  # a reply that was continued is not in its turn any more
                    ancestor.turn.selected_index = ancestor.turn.replies.index(ancestor)
            conversation.current_reply = current.turn.selected_reply.selected_path()[-1]
        return conversation

    def __contains__(self, reply: Reply) -> bool:
        return self.replies.get(reply.id) is reply

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

    def rename_branch(self, reply: Reply, name: str) -> None:
        reply.name = printable(name)
        self._save(reply)

    def _new_reply(self, session_model: SessionModel, settings: SamplerSettings, seed: int, **fields: Any) -> Reply:
        id, tokenizer = next(reversed(self.replies), -1) + 1, session_model.model.tokenizer.name
        reply = Reply(id=id, settings=settings, seed=seed, model=session_model.name, tokenizer=tokenizer, **fields)
        reply.session_model = session_model
        self.replies[id] = reply
        return reply

    def _branch_from(
        self, source: Reply, index: int, settings: SamplerSettings, seed: int, speaker: str, **fields: Any
    ) -> Reply:
        """Return another reply of the turn of `source` that shares its tokens before `index`."""
        is_continuation = 0 < index == len(source.tokens)
        parent, offset = (source, len(source.own_tokens)) if is_continuation else source.resolve_token(index)
        fields |= {"parent_offset": offset, "prompt": None, "reply_mode": source.reply_mode, "speaker": speaker}
        branch = self._new_reply(source.session_model, settings, seed, **fields)
        branch.speaker_prob = source.speaker_prob if speaker == source.speaker else None
        branch.name = source.name if is_continuation and source.next_turn is None else ""
        branch.attach(parent)
        branch.inherit_context(parent)
        branch.num_reread_tokens = len(parent.reread_ids)
        return branch

    def _begin_turn(self, reply: Reply, previous: Reply | None, ids: Sequence[int]) -> Reply:
        reply.parent_offset = 0 if previous is None else len(previous.own_tokens)
        reply.context_ids = ids
        reply.attach(previous)
        return reply

    def _generate(self, reply: Reply, events: Callable[..., Iterator[GenerationEvent]], *arguments: Any) -> Reply:
        """Select a reply, and generate it in a thread."""
        reply.turn.selected_index = len(reply.turn.replies) - 1
        reply.is_generating = True
        self.active_reply = self.current_reply = reply
        self._other_answers = []
        self._worker = GeneratorThread("generation", partial(events, reply, self.pace, *arguments))
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
        reader: TextReader | None = None,
    ) -> Reply:
        """Start to continue a prompt, or to answer it after `previous_reply`.

        The system prompt of `roles` is for a chat template, the speaker for a model with a cast that continues a line.
        What `reader` has read of the text is not read again. A prompt without a token that the model knows, or messages
        that the chat template refuses, raise an InvalidInputError.
        """
        self._check_writable()
        tokenizer = session_model.model.tokenizer
        prompt = encode_prompt(to_prompt_line(text, tokenizer, reply_mode), tokenizer)
        is_chat = answers_by_template(session_model.model, reply_mode)
        roles = Roles("", roles.speaker if session_model.cast else "", roles.system_prompt if is_chat else "")
        previous = None if reply_mode == "continue" else previous_reply
        before = UnreadText.before_reply(session_model, prompt.text, reply_mode, previous, roles)
        before = before if reader is None else reader.skip_read(before)
        fields = {"prompt": prompt.text, "unknown_tokens": prompt.unknown_tokens, "reply_mode": reply_mode}
        reply = self._new_reply(session_model, settings, seed, **fields, **roles._asdict())
        return self._generate(self._begin_turn(reply, previous, before.ids), _write_text, before, (), False)

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
        before = UnreadText.of_reply(reply, index)
        is_cached = reply.decoder_state(index) is not None
        branch = self._branch_from(reply, index, settings, seed, reply.speaker)
        for shared in reply.decoder_states[:index] if is_cached else [None] * index:
            self._states.add(branch, shared)
        return self._generate(branch, _write_text, before, forced_ids, ends_word)

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
        is shown and the others become branches. A line without a known token raises a PromptError.
        """
        self._check_writable()
        prompt = encode_prompt(to_prompt_line(text), session_model.model.tokenizer)
        candidates = answering_cast(session_model.cast, roles.speaking_as, prompt.text)
        return self._start_turn(session_model, settings, best_of, seed, prompt, roles, candidates, previous)

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
        candidates = answering_cast(session_model.cast, "") if cast is None else tuple(cast)
        start_turn = partial(self._start_turn, session_model, settings, best_of)
        spoken = [] if previous is None else [previous.speaker]
        self._scene = _Scene(start_turn, candidates, cast is not None, spoken, num_turns, seed)
        return self._start_scene_turn(self._scene, previous)

    def answer_as(self, reply: Reply, speaker: str, settings: SamplerSettings, seed: int, best_of: int = 1) -> Reply:
        """Start another answer in the turn of `reply`, by the same speaker or by another one (empty: by any)."""
        self._check_writable(reply)
        branch = self._branch_from(reply, 0, settings, seed, speaker)
        ids, model = branch.context_ids_before_speaker, reply.session_model.model
        before = UnreadText(model, ids, *nearest_state(reply.turn.previous_reply, model, ids))
        candidates = answering_cast(reply.session_model.cast, reply.speaking_as, reply.prompt or "")
        return self._generate(branch, _write_turn, before, candidates, best_of)

    def _start_scene_turn(self, scene: _Scene, previous: Reply | None) -> Reply:
        seed, number = turn_seed(scene.seed, scene.number), scene.number
        scene.number += 1
        if scene.is_named:
            candidates = scene_candidates(scene.candidates, scene.spoken, scene.num_turns - number)
        else:
            candidates = without_last_speaker(scene.candidates, scene.spoken[-1] if scene.spoken else "")
        roles = Roles("", scene.candidates[0] if len(scene.candidates) == 1 else "")
        return scene.start_turn(seed, EncodedPrompt("", (), ()), roles, candidates, previous)

    def _start_turn(
        self,
        session_model: SessionModel,
        settings: SamplerSettings,
        best_of: int,
        seed: int,
        prompt: EncodedPrompt,
        roles: Roles,
        candidates: Sequence[str],
        previous: Reply | None,
    ) -> Reply:
        user = Roles(roles.speaking_as)
        before = UnreadText.before_reply(session_model, prompt.text, "conversation", previous, user)
        fields = {"prompt": prompt.text, "unknown_tokens": prompt.unknown_tokens, "reply_mode": "conversation"}
        reply = self._new_reply(session_model, settings, seed, **fields, **user._asdict())
        self._begin_turn(reply, previous, before.ids)
        if roles.speaker:
            reply.set_speaker(roles.speaker, None)
        return self._generate(reply, _write_turn, before, candidates, best_of)

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
            self._continue_scene(reply)
        return reply if events or has_ended else None

    def _continue_scene(self, reply: Reply) -> None:
        scene = self._scene
        if scene is None:
            return
        scene.spoken.append(reply.speaker)
        has_ended = reply.reason in ("eos", "length") and not reply.failure
        if has_ended and scene.number < scene.num_turns and self.current_reply is reply and not self.is_full:
            self._start_scene_turn(scene, reply)
        else:
            self._scene = None

    def _add_event(self, reply: Reply, event: GenerationEvent) -> None:
        """Apply an event to the active reply."""
        if isinstance(event, Done):
            reply.reason, reply.tokens_per_second = event.reason, event.tokens_per_second
        elif isinstance(event, SpeakerProb):
            reply.set_speaker(event.name, event.prob)
        elif isinstance(event, AnswerChosen):
            reply.seed = event.seed
        elif isinstance(event, list):
            self._add_answers(reply, event)
        elif isinstance(event, TokenEvent):
            reply.tokens.append(Token.from_event(event))
            reply.ids.append(event.id)
            self._states.add(reply, event.state)
        else:
            if not reply.tokens:
                reply.split_context(event.num_reread_tokens)
            self._states.add(reply, event)

    def _add_answers(self, reply: Reply, answers: Sequence[Answer]) -> None:
        """Give the active reply its score, and add the other answers as branches of its turn."""
        reply.score = AnswerScore.from_answer(answers[0], 1, len(answers))
        for rank, answer in enumerate(answers[1:], 2):
            score = AnswerScore.from_answer(answer, rank, len(answers))
            branch = self._branch_from(reply, 0, reply.settings, answer.done.seed, reply.speaker, score=score)
            branch.tokens += map(Token.from_event, answer.events)
            branch.ids += [event.id for event in answer.events]
            branch.reason, branch.tokens_per_second = answer.done.reason, answer.done.tokens_per_second
            self._other_answers.append(branch)


def describe_full_context(reply: Reply) -> str:
    """Return a line that says that the model forgets the beginning of the text; empty while it does not."""
    state = reply.decoder_states[-1] if reply.decoder_states else None
    if state is None:
        return ""
    model, model_state = split_dialogue(reply.session_model.model, state.model_state)
    if not isinstance(model, SlidingModel) or not model.has_slid(model_state):
        return ""
    return f"The context of {model.context_size:,} tokens is full; the model now forgets the oldest half."


# The generating thread


def _write_text(
    reply: Reply,
    pace: float,
    before: UnreadText,
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
    read_context = prefill if reply.tokens or is_dialogue else prefill_prompt
    state = read_context(before.model, before.unread_ids, before.state)
    yield state
    text = TextInProgress(
        before.model, history, reply.settings, reply.seed, state, is_first_token=starts_line, noise_context=noise
    )
    for id in forced_ids:
        yield force_token(text, id)
    if ends_word:
        end_word(text)
    yield from throttle(generate(text, cancellation), pace, cancellation)


def _write_turn(
    reply: Reply,
    pace: float,
    before: UnreadText,
    candidates: Sequence[str],
    num_answers: int,
    cancellation: Cancellation,
) -> Iterator[GenerationEvent]:
    """Generate a line of a speaker, whom the model chooses among `candidates` if the reply has none."""
    model, settings, seed, name = before.model, reply.settings, reply.seed, reply.speaker
    assert isinstance(model, DialogueModel), "a model with a cast"
    state = prefill(model, before.unread_ids, before.state)
    if not name:
        temperature = min(settings.temperature, ANSWERING_TEMPERATURE) if reply.prompt else settings.temperature
        chosen = sample_speaker(next_speaker_probs(model, state, candidates), model.cast, temperature, seed)
        yield chosen
        name = chosen.name
    text = begin_turn(model, state, name, settings, seed, before.ids[-MAX_HISTORY_TOKENS:])
    yield text.state
    steps: Iterator[GenerationEvent]
    if (number := num_answers or default_num_answers(model)) > 1:
        steps = _best_answer(text, number, cancellation)
        yield next(steps)  # the choice, which is no token and waits for none
    else:
        steps = generate(text, cancellation)
    yield from throttle(steps, pace, cancellation)


def _best_answer(text: TextInProgress, num_answers: int, cancellation: Cancellation) -> Iterator[GenerationEvent]:
    """Yield the best of several answers while it is generated, then all answers unless it is stopped, then its end."""
    for event in stream_answers(text, num_answers, cancellation):
        if isinstance(event, AnswerChosen) and cancellation():
            yield Done("cancelled", text.seed, 0, 0.0)
            return
        if isinstance(event, list):
            if not cancellation():
                yield event
            yield event[0].done
        else:
            yield event


# Saved replies


def _restore(reply: Reply, session_model: SessionModel) -> None:
    """Give a reply that was read from a file a model, and the ids of its text in the vocabulary of that model."""
    model, tokenizer, parent = session_model.model, session_model.model.tokenizer, reply.parent
    reply.session_model = session_model
    problems = [] if parent is None else [parent.read_only_reason]
    if reply.starts_turn:
        reply.prompt = to_prompt_line(reply.prompt or "", tokenizer, reply.reply_mode)
        roles = Roles(reply.speaking_as, reply.speaker, reply.system_prompt)
        previous = reply.turn.previous_reply
        try:
            reply.context_ids = context_ids(model, reply.prompt, reply.reply_mode, previous, roles)
        except InvalidInputError as error:  # the chat template accepts other messages
            problems.append(f"{error}; this reply cannot be continued")
        unknown = {span.text for span in tokenizer.unknown_spans(reply.prompt)}.difference(reply.unknown_tokens)
    elif parent is not None:
        reply.inherit_context(parent)
        reply.decoder_states = [None] * reply.num_shared_tokens
        unknown = set()
    if reply.reply_mode == "conversation" and not session_model.cast and not reply.is_chat:
        problems.append(f"{session_model.name} knows no speakers and cannot continue from here")
    for token in reply.own_tokens:
        is_same = token.id < len(tokenizer) and tokenizer.tokens[token.id] == token.text
        # Tokens of an open vocabulary with the same text may add another text.
        id = token.id if is_same else None
        if id is None and isinstance(tokenizer, WordTokenizer):
            id = tokenizer.token_to_id.get(token.text)
        if id is None:
            unknown.add(token.text)
        reply.ids.append(id if id is not None else EOS_ID if token.text == EOS else UNK_ID)
    is_open = reply.tokenizer in OPEN_VOCABULARIES
    if (is_open or tokenizer.is_open) and (unknown or is_open != tokenizer.is_open):
        problems.append(f"{session_model.name} splits text into other tokens and cannot continue from here")
    elif unknown:
        problems.append(f"{session_model.name} does not know {min(unknown)!r} and cannot continue from here")
    reply.read_only_reason = next(filter(None, problems), "")
    if not reply.read_only_reason and not reply.num_shared_tokens:
        reply.split_context(min(reply.num_reread_tokens, len(reply.context_ids)))
