"""Scripts that people type, who says which line, and scenes, which models write as scripts."""

import re
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from types import FrameType
from typing import Any

from engine.analysis.tokenized_text import read_label
from engine.data.scripts import Turn, encode_turns, speaker_head, turn_text
from engine.data.speakers import SOMEONE, STRANGER, find_speaker
from engine.errors import InvalidInputError, PromptError, shell_word
from engine.generation.generate import Done, TokenEvent
from engine.generation.prompt import EncodedPrompt, encode_prompt
from engine.generation.settings import SamplerSettings
from engine.generation.turns import TurnStart, generate_scene, read_turns
from engine.models.base import LanguageModel
from engine.models.dialogue import DialogueModel
from lotr_tui.cli.console import print_json, print_piece
from lotr_tui.formatting import plural, token_noun

MAX_LISTED_SPEAKERS = 10  # whose probabilities the JSON of a turn has
_LINE_BREAK = re.compile(r"[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]")


@dataclass(frozen=True)
class Request:
    """Texts to generate, and the form in which they are printed: text, an object per text, or one per token."""

    name: str
    model: LanguageModel
    settings: SamplerSettings
    seeds: Sequence[int]
    predicts_eos: bool = True
    """True if the training text has `<eos>` after every line, so that the model can answer without a cast, and stop."""
    as_json: bool = False
    jsonl: bool = False


def parse_script(text: str, cast: Sequence[str], speaker: str = SOMEONE) -> list[Turn]:
    """Return the turns of a script, whose lines have the form "NAME: text"; a name without a text is a PromptError.

    A name is of `cast`, in any case, or any name in capitals. A line without a name continues the line before it;
    `speaker` says the first line if it has no name. Empty lines are left out.
    """
    turns: list[Turn] = []
    for line in (" ".join(line.split()) for line in text.splitlines()):
        name, length = read_label(line, cast)
        if name:
            turns.append(Turn(name, line[length:].strip()))
        elif turns:
            turns[-1] = Turn(turns[-1].speaker, f"{turns[-1].text} {line}".strip())
        elif line:
            turns.append(Turn(speaker, line))
    for turn in turns:
        if not turn.text:
            raise PromptError(f"the line of {turn.speaker} is empty; write a text after {turn.speaker}:")
    return turns


def read_prompt(prompt: str | None, model: DialogueModel, speaker: str = STRANGER) -> tuple[list[Turn], EncodedPrompt]:
    """Return the lines of a prompt and its tokens; a prompt of None has none. `speaker` says a line without a name."""
    if prompt is None:
        return [], EncodedPrompt("", (), ())
    turns = parse_script(prompt, model.cast, speaker)
    return turns, replace(encode_prompt(" ".join(turn.text for turn in turns), model.tokenizer), text=prompt)


def check_has_cast(model: LanguageModel, run: str, use: str) -> DialogueModel:
    """Return a model that knows speakers, which the option `use` needs; another one raises an InvalidInputError."""
    if isinstance(model, DialogueModel):
        return model
    raise InvalidInputError(
        f"{use} needs a model that knows speakers, and {shell_word(run)} does not; "
        "train one: lotr-tui train --mode dialogue"
    )


def write_scene(request: Request, prompt: str | None, cast: str | None, num_turns: int) -> None:
    """Print one scene for each seed, which begins with the lines of the prompt.

    JSON has one object per scene or, line by line, per turn. An interrupted scene is printed as far as it is.
    """
    model = check_has_cast(request.model, request.name, "--scene")
    members = None if cast is None else _find_cast(cast.split(","), model.cast)
    given, encoded = read_prompt(prompt, model)
    state, history = read_turns(model, given), encode_turns(model.tokenizer, given)
    is_plain = not (request.as_json or request.jsonl)
    for number, seed in enumerate(request.seeds):
        turns: list[dict[str, Any]] = []
        tokens: list[TokenEvent] = []
        seconds = 0.0
        if is_plain:
            print_piece(("\n" if number else "") + "".join(map(turn_text, given)))
        with defer_interrupt() as is_interrupted:
            for event in generate_scene(
                model, members, num_turns, request.settings, seed, state, is_interrupted, history=history
            ):
                if isinstance(event, TurnStart):
                    start, tokens = event, []
                elif isinstance(event, TokenEvent):
                    tokens.append(event)
                    seconds += event.seconds
                else:
                    turns.append(_turn_record(len(turns), start, tokens, event))
                    if request.jsonl:
                        print_json({"scene": number, **turns[-1]})
                if is_plain:
                    print_piece(_scene_text(event))
            num_tokens = sum(turn["tokens"] for turn in turns)
            speed = num_tokens / seconds if seconds else 0.0
            if request.as_json:
                facts: dict[str, Any] = {
                    "prompt": encoded.text,
                    "given": [asdict(turn) for turn in given],
                    "turns": turns,
                }
                facts |= {"seed": seed, **asdict(request.settings), "run": request.name, "tokens_per_second": speed}
                print_json({**facts, "reason": "cancelled" if is_interrupted() else "length"})
            elif is_plain:
                parts = [f"seed {seed}", request.settings.describe(), f"{speed:,.0f} {token_noun(model.tokenizer)}s/s"]
                print(" · ".join([*parts, plural(len(turns), "turn")]), file=sys.stderr)


def _scene_text(event: TurnStart | TokenEvent | Done) -> str:
    if isinstance(event, TurnStart):
        return speaker_head(event.speaker)
    return _LINE_BREAK.sub(" ", event.piece) if isinstance(event, TokenEvent) else "\n"


def _turn_record(number: int, start: TurnStart, tokens: Sequence[TokenEvent], done: Done) -> dict[str, Any]:
    return {
        "turn": number,
        "speaker": start.speaker,
        "text": "".join(token.piece for token in tokens).strip(),
        "probability": start.prob,
        "speakers": {each.name: each.prob for each in start.candidates[:MAX_LISTED_SPEAKERS]},
        "seed": done.seed,
        "tokens": done.tokens,
        "logprob": sum(token.logprob for token in tokens),
        "reason": done.reason,
    }


def _find_cast(names: Sequence[str], cast: Sequence[str]) -> tuple[str, ...]:
    """Return the members of `cast` that `names` mean: at least two different ones."""
    members = tuple(find_speaker(name.strip(), cast) for name in names)
    if twice := next((member for member in members if members.count(member) > 1), ""):
        raise InvalidInputError(f"--cast names {twice} twice; name every speaker once")
    if len(members) < 2:
        raise InvalidInputError(f"--cast has only {members[0]}, but a scene needs two speakers; add one")
    return members


@contextmanager
def defer_interrupt() -> Iterator[Callable[[], bool]]:
    """Defer ctrl+c to the end of the block, which gets a function that returns True once ctrl+c was pressed.

    A `KeyboardInterrupt` inside a write could print the text twice, so it is raised after the block, or by a second
    ctrl+c at once. Where SIGINT is ignored, as in the background of a shell, it stays ignored.
    """
    num_interrupts = 0

    def count_interrupt(signal_number: int, frame: FrameType | None) -> None:
        nonlocal num_interrupts
        num_interrupts += 1
        if num_interrupts > 1:
            signal.default_int_handler(signal_number, frame)

    previous = signal.getsignal(signal.SIGINT)
    if previous is signal.default_int_handler:
        signal.signal(signal.SIGINT, count_interrupt)
    try:
        yield lambda: num_interrupts > 0
    finally:
        signal.signal(signal.SIGINT, previous)
    if num_interrupts:
        raise KeyboardInterrupt
