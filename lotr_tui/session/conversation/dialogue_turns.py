"""Turns of a conversation with a model that has a cast: the user's lines, scenes, and other answers."""

from collections.abc import Sequence
from dataclasses import dataclass

from engine.errors import InvalidInputError
from engine.generation.prompt import EncodedPrompt, encode_prompt
from engine.generation.settings import SamplerSettings
from engine.generation.turns import scene_candidates, turn_seed, without_last_speaker
from lotr_tui.session.conversation.cast import Roles, answering_cast
from lotr_tui.session.conversation.generation import ReplyContext, nearest_state, prepare_context, to_prompt_line
from lotr_tui.session.conversation.reply_generation import ReplyGeneration
from lotr_tui.session.conversation.reply_tree import Reply, Turn
from lotr_tui.session.conversation.turn_generation import start_turn
from lotr_tui.session.session_file import SessionWriter
from lotr_tui.session.session_model import SessionModel
from lotr_tui.session.settings import ReplyMode


@dataclass
class _Scene:
    """Turns without the user that are still to be generated."""

    session_model: SessionModel
    candidates: tuple[str, ...]
    """Speakers who take part."""
    is_named: bool
    """True if the user has named them, so that each of them speaks."""
    spoken: list[str]
    """Speakers so far, the one before the scene included."""
    num_turns: int
    settings: SamplerSettings
    seed: int
    num_answers: int
    number: int = 0
    """Number of the next turn, from 0 on."""


class DialogueTurns(ReplyGeneration):
    """Replies of a conversation whose turns have speakers, chosen by the user or by the model."""

    def __init__(self, pace: float, writer: SessionWriter | None = None) -> None:
        """Start without replies, saved by `writer` (None: in a new file, created with the first finished reply)."""
        super().__init__(pace, writer)
        self._scene: _Scene | None = None

    def say(
        self,
        session_model: SessionModel,
        text: str,
        speaking_as: str,
        answering: str,
        settings: SamplerSettings,
        seed: int,
        previous: Reply | None,
        best_of: int = 1,
    ) -> Reply:
        """Say a line to a model that knows speakers, after the reply `previous` (None: a new scene).

        Args:
            session_model: Model with a cast.
            text: The line.
            speaking_as: Canonical name of who says the line; empty for a stranger.
            answering: Canonical name of who answers; empty lets the model choose, see `answering_cast`.
            settings: Sampler settings.
            seed: Seed of the choice and of the answer.
            previous: Reply that the line follows.
            best_of: Number of answers to draw, of which the best is shown and the others become branches; 0: as many as
                `default_num_answers` of the model.

        Raises:
            PromptError: If the line has no token that the model knows.
            InvalidInputError: If a reply is being generated, or the model has no cast.
        """
        cast = _known_cast(session_model)
        prompt = encode_prompt(to_prompt_line(text), session_model.model.tokenizer)
        roles = Roles(speaking_as, answering)
        self._check_idle()
        candidates = answering_cast(cast, roles.speaking_as, prompt.text)
        return self._start_turn(session_model, prompt, roles, candidates, settings, seed, previous, best_of)

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
        """Start to generate turns without the user, as `generate_scene` does, and return the first one.

        `poll` starts each further turn when the one before has ended; `stop` ends the scene at any token. The speakers
        are chosen among `cast` (None: all but strangers and someone), which may be a single name outside the model's.
        See `say` for the other arguments.

        Raises:
            InvalidInputError: If a reply is being generated, or the model has no cast.
        """
        members = _known_cast(session_model)
        candidates = answering_cast(members, "") if cast is None else tuple(cast)
        self._check_idle()
        spoken = [] if previous is None else [previous.speaker]
        self._scene = _Scene(session_model, candidates, cast is not None, spoken, num_turns, settings, seed, best_of)
        return self._start_scene_turn(self._scene, previous)

    def answer_as(self, reply: Reply, speaker: str, settings: SamplerSettings, seed: int, best_of: int = 1) -> Reply:
        """Start another answer in the turn of `reply`, by the same speaker or by another one (empty: by any).

        Raises:
            InvalidInputError: If a reply is being generated, or the session's model cannot read `reply`.
        """
        self._check_writable(reply)
        parent, parent_offset = reply.resolve_token(0)
        branch = Reply.branch_from(
            parent,
            parent_offset,
            id=self._next_id(),
            session_model=reply.session_model,
            reply_mode=reply.reply_mode,
            settings=settings,
            seed=seed,
            speaker=speaker,
            speaker_prob=reply.speaker_prob if speaker == reply.speaker else None,
        )
        ids = list(branch.context_ids_before_speaker)
        state, num_read = nearest_state(reply.turn.previous_reply, reply.session_model.model, ids)
        self._add_reply(branch)
        candidates = answering_cast(reply.session_model.cast, reply.speaking_as, reply.prompt)
        self._worker = start_turn(branch, ReplyContext(state, ids[num_read:], ids), candidates, best_of, self.pace)
        return branch

    def stop(self) -> None:
        """Ask the active generation to stop, and its scene with it; the tokens generated so far stay."""
        self._scene = None
        super().stop()

    def poll(self) -> Reply | None:
        """Collect the events since the last call. Return the reply that has changed, or None.

        When a turn of a scene has ended, the next turn is active afterwards.
        """
        reply, scene = super().poll(), self._scene
        if reply is None or scene is None or self.active_reply is not None:
            return reply
        scene.spoken.append(reply.speaker)
        has_ended = reply.done is not None and reply.done.reason in ("eos", "length")
        if has_ended and scene.number < scene.num_turns and self.current_reply is reply and not self.is_full:
            self._start_scene_turn(scene, reply)
        else:
            self._scene = None
        return reply

    def _start_scene_turn(self, scene: _Scene, previous: Reply | None) -> Reply:
        seed = turn_seed(scene.seed, scene.number)
        prompt = EncodedPrompt("", (), ())
        if scene.is_named:
            candidates = scene_candidates(scene.candidates, scene.spoken, scene.num_turns - scene.number)
        else:
            candidates = without_last_speaker(scene.candidates, scene.spoken[-1] if scene.spoken else "")
        scene.number += 1
        roles = Roles("", scene.candidates[0] if len(scene.candidates) == 1 else "")
        return self._start_turn(
            scene.session_model, prompt, roles, candidates, scene.settings, seed, previous, scene.num_answers
        )

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
        """Start a turn of a conversation; without a speaker in `roles`, the model chooses one of `candidates`."""
        context = prepare_context(session_model, prompt.text, "conversation", previous, roles._replace(speaker=""))
        reply = self._new_reply(
            session_model, prompt, "conversation", settings, seed, previous, Roles(roles.speaking_as), context.ids
        )
        if roles.speaker:
            reply.set_speaker(roles.speaker, None)
        self._add_reply(reply)
        self._worker = start_turn(reply, context, candidates, best_of, self.pace)
        return reply

    def _new_reply(
        self,
        session_model: SessionModel,
        prompt: EncodedPrompt,
        reply_mode: ReplyMode,
        settings: SamplerSettings,
        seed: int,
        previous: Reply | None,
        roles: Roles,
        ids: Sequence[int],
    ) -> Reply:
        return Reply(
            turn=Turn.after(previous),
            id=self._next_id(),
            session_model=session_model,
            prompt=prompt.text,
            unknown_tokens=prompt.unknown_tokens,
            reply_mode=reply_mode,
            settings=settings,
            seed=seed,
            context_ids=ids,
            parent=previous,
            parent_offset=0 if previous is None else previous.num_own_tokens,
            speaking_as=roles.speaking_as,
            system_prompt=roles.system_prompt,
            speaker=roles.speaker,
        )


def _known_cast(session_model: SessionModel) -> tuple[str, ...]:
    """Return the cast of a model; a model that knows no speakers raises an InvalidInputError."""
    if not session_model.knows_speakers:
        raise InvalidInputError(
            f"{session_model.name} knows no speakers; use a model that was trained with --mode dialogue"
        )
    return session_model.cast
