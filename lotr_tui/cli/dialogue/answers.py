"""`generate TEXT --as NAME --to NAME`: answers of a speaker to a line, the best of several."""

import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from engine.data.scripts import encode_speaker, encode_turns
from engine.data.speakers import STRANGER
from engine.errors import InvalidInputError
from engine.generation.best_of import Answer, stream_answers
from engine.generation.generate import Done, TokenEvent
from engine.generation.prompt import DecoderState, EncodedPrompt, prefill
from engine.generation.settings import SamplerSettings
from engine.generation.turns import MAX_HISTORY_TOKENS, begin_turn, next_speaker_probs, read_turns
from engine.models.dialogue import DialogueModel
from lotr_tui.cli.dialogue.options import AnswerOptions
from lotr_tui.cli.dialogue.prompt import read_prompt
from lotr_tui.cli.dialogue.script import check_has_cast
from lotr_tui.cli.generate_console import TextPrinter, generate_texts
from lotr_tui.formatting import format_percent
from lotr_tui.session.conversation.cast import answering_cast, describe_unknown_name, read_name
from lotr_tui.session.model_abilities import default_num_answers
from lotr_tui.session.session_model import SessionModel


@dataclass(frozen=True)
class _Conversation:
    """Context of an answer: the lines before it, its speaker and its listener."""

    model: DialogueModel
    prompt: EncodedPrompt
    """Text that the user typed; empty if there is none."""
    speaker: str
    probability: float | None
    """Probability that `speaker` says the next line, by the model; None for a name outside the cast."""
    listener: str | None
    """Speaker of the last line, who gets the answer; None without a prompt and without a name."""
    expects_listener: bool
    """True if there is no line before the answer, which is the best one if the listener speaks next."""
    state: DecoderState
    """State after the turns."""
    history: tuple[int, ...]
    """Ids of the last tokens of the turns, for the repetition penalty."""
    num_answers: int
    """Number of answers to choose from."""


@dataclass
class _Choice:
    """Choice of the best of several answers, which is complete when the best one is."""

    candidates: Sequence[tuple[float, Answer]] = ()
    """All answers with their scores, best first; empty if there is only one."""

    @property
    def score(self) -> float | None:
        """Score of the best answer; None if there is only one."""
        return self.candidates[0][0] if self.candidates else None

    def to_record(self) -> dict[str, object]:
        """Return the choice for the JSON report."""
        candidates = [
            {
                "text": answer.text,
                "score": score,
                "seed": answer.done.seed,
                "log_prob": answer.log_prob,
                "log_prob_alone": answer.log_prob_alone,
                "is_repetition": answer.is_repetition,
                "reason": answer.done.reason,
            }
            for score, answer in self.candidates
        ]
        return {"score": self.score, "candidates": candidates}


def generate_answers_on_console(
    session_model: SessionModel,
    prompt: str | None,
    options: AnswerOptions,
    settings: SamplerSettings,
    seeds: range,
    *,
    as_json: bool,
    jsonl: bool,
) -> None:
    """Print one answer to the prompt for each seed; without a prompt, the first line of a conversation.

    With the best of N answers, only the first of `seeds` and their number count: every answer has N seeds.
    """
    conversation = _read_conversation(session_model, prompt, options)
    if not (as_json or jsonl):
        if options.speaker is None and conversation.probability is not None:
            share = format_percent(conversation.probability)
            print(f"{conversation.speaker} answers, the likeliest speaker ({share})", file=sys.stderr)
        for name in (conversation.listener, conversation.speaker):
            if name != STRANGER and (note := describe_unknown_name(name or "", session_model.cast)):
                print(f"note: {note}", file=sys.stderr)
    printer = TextPrinter(session_model, conversation.prompt, settings, as_json, jsonl, is_line=True)
    for events, choice in _generate(conversation, settings, seeds):
        printer.print_text(events, partial(_details, conversation, choice), partial(_label, conversation, choice))


def _details(conversation: _Conversation, choice: _Choice) -> dict[str, object]:
    return {
        "speaker": conversation.speaker,
        "speaking_as": conversation.listener,
        "probability": conversation.probability,
        **choice.to_record(),
    }


def _label(conversation: _Conversation, choice: _Choice) -> str:
    if choice.score is None:
        return conversation.speaker
    return f"{conversation.speaker} · best of {conversation.num_answers}, score {choice.score:+.2f}"


def _read_conversation(session_model: SessionModel, prompt: str | None, options: AnswerOptions) -> _Conversation:
    """Let the model read the prompt, and choose the speaker of the answer.

    Raises:
        InvalidInputError: If the model knows no speakers, or a name or the prompt is wrong.
    """
    model = check_has_cast(session_model.model, session_model.name, options.used_option)
    listener, speaker = (
        None if typed is None else read_name(typed, model.cast) for typed in (options.speaking_as, options.speaker)
    )
    if speaker is not None and speaker == listener:
        raise InvalidInputError(f"--as and --to are both {speaker}; name two speakers")
    turns, encoded = read_prompt(prompt, model, listener or STRANGER)
    num_answers = options.num_answers or default_num_answers(model)
    expects_listener = not turns and listener in model.cast  # only the choice makes the line one to this listener
    if turns:
        listener = listener or turns[-1].speaker
    elif not expects_listener:
        if (options.num_answers or 1) > 1:
            raise InvalidInputError(
                f"--best-of {num_answers} compares answers to a PROMPT, or with --as NAME first lines to a member of "
                "the cast; give one of them"
            )
        num_answers = 1
    state = read_turns(model, turns)
    candidates = next_speaker_probs(model, state)
    if speaker is None:
        names = answering_cast(model.cast, listener or "", turns[-1].text if turns else "")
        speaker = next(candidate.name for candidate in candidates if candidate.name in names)
    probability = next((candidate.prob for candidate in candidates if candidate.name == speaker), None)
    history = encode_turns(model.tokenizer, turns)[-MAX_HISTORY_TOKENS:]
    return _Conversation(model, encoded, speaker, probability, listener, expects_listener, state, history, num_answers)


def _generate(
    conversation: _Conversation, settings: SamplerSettings, seeds: range
) -> Iterator[tuple[Iterator[TokenEvent | Done], _Choice]]:
    """Yield the events of each answer, and how it was chosen."""
    model, num_answers = conversation.model, conversation.num_answers
    if num_answers == 1:
        head = encode_speaker(model.tokenizer, conversation.speaker)
        state, ids = prefill(model, head, conversation.state), (*conversation.history, *head)
        for events in generate_texts(model, state, ids, settings, seeds, noise_context=conversation.history):
            yield events, _Choice()
        return
    for seed in range(seeds.start, seeds.start + num_answers * len(seeds), num_answers):
        choice = _Choice()
        yield _best_answer(conversation, settings, seed, choice), choice


def _best_answer(
    conversation: _Conversation, settings: SamplerSettings, seed: int, choice: _Choice
) -> Iterator[TokenEvent | Done]:
    """Yield the events of the best answer, as soon as it is known, and complete `choice` before the last."""
    line = begin_turn(
        conversation.model, conversation.state, conversation.speaker, settings, seed, conversation.history
    )
    for event in stream_answers(line, conversation.num_answers):
        if isinstance(event, TokenEvent) and not conversation.expects_listener:
            yield event
        elif isinstance(event, list):
            if conversation.expects_listener:
                scored = [(_listener_log_prob(conversation, answer), answer) for answer in event]
                choice.candidates = sorted(scored, key=lambda pair: -pair[0])
                yield from choice.candidates[0][1].events
            else:
                choice.candidates = [(answer.score, answer) for answer in event]
            yield choice.candidates[0][1].done


def _listener_log_prob(conversation: _Conversation, answer: Answer) -> float:
    """Return the natural-log probability that the listener speaks after a first line.

    By Bayes' rule, this is the gain of the line from knowing who speaks next, up to a constant.
    """
    model = conversation.model
    state = answer.events[-1].state
    assert state is not None, "the first token does not end the line"
    probs = next_speaker_probs(model, prefill(model, model.tokenizer.encode("\n").tolist(), state))
    return math.log(max(sys.float_info.min, next(item.prob for item in probs if item.name == conversation.listener)))
