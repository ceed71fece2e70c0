"""`generate --as NAME --to NAME`: answers of a speaker to a line, the best of several."""

import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from engine.data.speakers import find_speaker
from engine.errors import InvalidInputError
from engine.generation.best_of import NUM_ANSWERS, Answer, generate_answers
from engine.generation.generate import Done, TokenEvent
from engine.generation.prompt import DecoderState, EncodedPrompt
from engine.generation.settings import SamplerSettings
from engine.generation.turns import (
    MAX_HISTORY_TOKENS,
    begin_turn,
    encode_turns,
    end_turn,
    next_speaker_probs,
    read_turns,
    speaker_token,
)
from engine.models.base import LanguageModel
from lotr_tui.cli.dialogue.options import AnswerOptions
from lotr_tui.cli.dialogue.prompt import read_prompt
from lotr_tui.cli.dialogue.script import check_has_cast
from lotr_tui.cli.generate_console import TextPrinter, generate_texts
from lotr_tui.formatting import format_percent
from lotr_tui.session.conversation.cast import answering_cast
from lotr_tui.session.session_model import SessionModel


@dataclass(frozen=True)
class _Conversation:
    """Context of an answer: the lines before it, its speaker and its listener."""

    prompt: EncodedPrompt
    """Text that the user typed; empty if there is none."""
    is_opening: bool
    """True if there is no line before the answer, which is then a first line."""
    speaker: str
    probability: float
    """Probability that `speaker` says the next line, by the model."""
    listener: str | None
    """Speaker who gets the answer; None without a prompt and without a name."""
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
    if options.speaker is None and not (as_json or jsonl):
        share = format_percent(conversation.probability)
        print(f"{conversation.speaker} answers, the likeliest speaker ({share})", file=sys.stderr)
    printer = TextPrinter(session_model, conversation.prompt, settings, as_json, jsonl)
    for events, choice in _generate(session_model.model, conversation, settings, seeds):
        details = {
            "speaker": conversation.speaker,
            "to": conversation.listener,
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
    model = session_model.model
    tokenizer = model.tokenizer
    check_has_cast(tokenizer.cast, session_model.name, options.used_option)
    listener = None if options.listener is None else find_speaker(options.listener, tokenizer.cast)
    speaker = None if options.speaker is None else find_speaker(options.speaker, tokenizer.cast)
    if speaker is not None and speaker == listener:
        raise InvalidInputError(f"--as and --to are both {speaker}; name two speakers")
    turns, encoded = read_prompt(prompt, tokenizer, listener or "")
    num_answers = options.num_answers or 1
    if turns:
        listener = listener or turns[-1].speaker
    elif listener is not None:
        num_answers = options.num_answers or NUM_ANSWERS  # only the choice makes the line one to this listener
    elif num_answers > 1:
        raise InvalidInputError(
            f"--best-of {num_answers} compares answers to a PROMPT, or with --to NAME first lines to somebody; "
            "give one of them"
        )
    state = read_turns(model, turns)
    candidates = next_speaker_probs(model, state)
    if speaker is None:
        names = answering_cast(tokenizer.cast, listener or "", turns[-1].text if turns else "")
        speaker = next(candidate.name for candidate in candidates if candidate.name in names)
    probability = next(candidate.prob for candidate in candidates if candidate.name == speaker)
    history = encode_turns(tokenizer, turns)[-MAX_HISTORY_TOKENS:]
    return _Conversation(encoded, not turns, speaker, probability, listener, state, history, num_answers)


def _generate(
    model: LanguageModel, conversation: _Conversation, settings: SamplerSettings, seeds: range
) -> Iterator[tuple[Iterator[TokenEvent | Done], _Choice]]:
    """Yield the events of each answer, and how it was chosen."""
    num_answers = conversation.num_answers
    if num_answers == 1:
        state = begin_turn(model, conversation.state, conversation.speaker)
        ids = (*conversation.history, speaker_token(model.tokenizer, conversation.speaker))
        for events in generate_texts(model, state, ids, settings, seeds):
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
        if conversation.is_opening:
            log_probs = [_listener_log_prob(model, conversation, answer) for answer in answers]
            scored = sorted(zip(log_probs, answers, strict=True), key=lambda pair: -pair[0])
        else:  # best first, but repetitions of earlier lines last
            scored = [(answer.score, answer) for answer in answers]
        score, best = scored[0]
        yield iter([*best.events, best.done]), _Choice(score, tuple(scored))


def _listener_log_prob(model: LanguageModel, conversation: _Conversation, answer: Answer) -> float:
    """Return the natural-log probability that the listener speaks after a first line.

    By Bayes' rule, this is the gain of the line from knowing who speaks next, up to a constant.
    """
    probs = next_speaker_probs(model, end_turn(model, answer.state))
    return math.log(max(sys.float_info.min, next(item.prob for item in probs if item.name == conversation.listener)))
