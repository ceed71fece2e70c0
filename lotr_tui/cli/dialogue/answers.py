"""`generate TEXT --as NAME --to NAME`: answers of a speaker to a line, the best of several."""

import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from engine.data.script_form import encode_speaker, encode_turns
from engine.data.speakers import STRANGER
from engine.errors import InvalidInputError
from engine.generation.best_of import NUM_ANSWERS, Answer, generate_answers
from engine.generation.generate import Done, TokenEvent
from engine.generation.prompt import DecoderState, EncodedPrompt, prefill
from engine.generation.settings import SamplerSettings
from engine.generation.turns import MAX_HISTORY_TOKENS, end_turn, next_speaker_probs, read_turns
from engine.models.dialogue import DialogueModel
from lotr_tui.cli.dialogue.options import AnswerOptions
from lotr_tui.cli.dialogue.prompt import read_prompt
from lotr_tui.cli.dialogue.script import check_has_cast
from lotr_tui.cli.generate_console import TextPrinter, generate_texts
from lotr_tui.formatting import format_percent
from lotr_tui.session.conversation.cast import answering_cast, describe_unknown_name, read_name
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


@dataclass(frozen=True)
class _Choice:
    """Choice of the best of several answers."""

    score: float | None
    """Score of the best answer; None if there was only one."""
    candidates: tuple[tuple[float, Answer], ...]
    """All answers with their scores, best first; empty if there was only one."""

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
        details = {
            "speaker": conversation.speaker,
            "speaking_as": conversation.listener,
            "probability": conversation.probability,
            **choice.to_record(),
        }
        label = conversation.speaker
        if choice.score is not None:
            label += f" · best of {conversation.num_answers}, score {choice.score:+.2f}"
        printer.print_text(events, details, label)


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
    num_answers = options.num_answers or 1
    expects_listener = not turns and listener in model.cast
    if turns:
        listener = listener or turns[-1].speaker
    elif expects_listener:
        num_answers = options.num_answers or NUM_ANSWERS  # only the choice makes the line one to this listener
    elif num_answers > 1:
        raise InvalidInputError(
            f"--best-of {num_answers} compares answers to a PROMPT, or with --as NAME first lines to a member of the "
            "cast; give one of them"
        )
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
            yield events, _Choice(None, ())
        return
    for seed in range(seeds.start, seeds.start + num_answers * len(seeds), num_answers):
        answers = generate_answers(
            model,
            conversation.state,
            conversation.speaker,
            settings,
            seed,
            num_answers,
            history=conversation.history,
        )
        if conversation.expects_listener:
            log_probs = [_listener_log_prob(conversation, answer) for answer in answers]
            scored = sorted(zip(log_probs, answers, strict=True), key=lambda pair: -pair[0])
        else:  # best first, but repetitions of earlier lines last
            scored = [(answer.score, answer) for answer in answers]
        score, best = scored[0]
        yield iter([*best.events, best.done]), _Choice(score, tuple(scored))


def _listener_log_prob(conversation: _Conversation, answer: Answer) -> float:
    """Return the natural-log probability that the listener speaks after a first line.

    By Bayes' rule, this is the gain of the line from knowing who speaks next, up to a constant.
    """
    model = conversation.model
    probs = next_speaker_probs(model, end_turn(model, answer.state))
    return math.log(max(sys.float_info.min, next(item.prob for item in probs if item.name == conversation.listener)))
