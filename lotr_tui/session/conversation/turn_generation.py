"""Generation of a turn of a conversation: the choice of the speaker, and of the best of several answers."""

from collections.abc import Iterator, Sequence

from engine.generation.best_of import AnswerChosen, stream_answers
from engine.generation.generate import Done, generate
from engine.generation.prompt import prefill
from engine.generation.sampling import TextInProgress
from engine.generation.turns import MAX_HISTORY_TOKENS, begin_turn, next_speaker_probs, sample_speaker
from engine.models.dialogue import DialogueModel
from engine.runtime.worker import Cancellation, GeneratorThread, throttle
from lotr_tui.session.conversation.generation import GenerationEvent, RankedAnswers, ReplyContext
from lotr_tui.session.conversation.reply_tree import Reply
from lotr_tui.session.model_abilities import default_num_answers

ANSWERING_TEMPERATURE = 0.3
"""Highest temperature of the choice of who answers the user: someone who is addressed by name nearly always does."""


def start_turn(
    reply: Reply, context: ReplyContext, candidates: Sequence[str], num_answers: int, pace: float
) -> GeneratorThread[GenerationEvent]:
    """Generate a reply in a thread, as one of its speakers, `pace` tokens per second (0: as fast as the model).

    Args:
        reply: Reply without tokens. If it has no speaker, the model chooses one.
        context: The text before the name of the speaker.
        candidates: Speakers to choose from.
        num_answers: Number of answers to draw and choose from; 0 is that of the model.
        pace: Tokens per second.
    """
    model, settings, seed = reply.session_model.model, reply.settings, reply.seed
    assert isinstance(model, DialogueModel), "a model with a cast"
    speaker = reply.speaker
    history = context.ids[-MAX_HISTORY_TOKENS:]

    def source(cancellation: Cancellation) -> Iterator[GenerationEvent]:
        before = prefill(model, context.unread_ids, context.state)
        name = speaker
        if not name:
            temperature = min(settings.temperature, ANSWERING_TEMPERATURE) if reply.prompt else settings.temperature
            chosen = sample_speaker(next_speaker_probs(model, before, candidates), model.cast, temperature, seed)
            yield chosen
            name = chosen.name
        text = begin_turn(model, before, name, settings, seed, history)
        yield text.state
        steps: Iterator[GenerationEvent]
        if (number := num_answers or default_num_answers(model)) > 1:
            steps = _best_answer(text, number, cancellation)
            yield next(steps)  # the choice, which is no token and waits for none
        else:
            steps = generate(text, cancellation)
        yield from throttle(steps, pace, cancellation)

    return GeneratorThread("generation", source).start()


def _best_answer(text: TextInProgress, num_answers: int, cancellation: Cancellation) -> Iterator[GenerationEvent]:
    """Yield the best of several answers while it is generated, then all answers, then the end of the best.

    Where the choice is stopped there is no answer, and where the best answer is stopped the others are dropped.
    """
    for event in stream_answers(text, num_answers, cancellation):
        if isinstance(event, AnswerChosen) and cancellation():
            yield Done("cancelled", text.seed, 0, 0.0)
            return
        if isinstance(event, list):
            if not cancellation():
                yield RankedAnswers(event)
            yield event[0].done
        else:
            yield event
