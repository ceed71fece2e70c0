"""`generate --scene`: a scene of several speakers, printed as a script while it is written, or as JSON."""

import re
import sys
from collections.abc import Sequence
from dataclasses import asdict

from engine.data.scripts import Turn, encode_turns, speaker_head, turn_text
from engine.generation.generate import Done, TokenEvent
from engine.generation.settings import SamplerSettings
from engine.generation.turns import TurnStart, generate_scene, read_turns
from lotr_tui.cli.console import print_json
from lotr_tui.cli.dialogue.interrupts import defer_interrupt
from lotr_tui.cli.dialogue.options import SceneOptions
from lotr_tui.cli.dialogue.prompt import read_prompt
from lotr_tui.cli.dialogue.script import check_has_cast, find_cast
from lotr_tui.cli.generate_console import print_piece
from lotr_tui.formatting import plural, token_noun
from lotr_tui.session.session_model import SessionModel

MAX_LISTED_SPEAKERS = 10
"""Maximum number of speakers whose probabilities the JSON of a turn has."""

Row = dict[str, object]
"""JSON object of one turn."""
_LINE_BREAK = re.compile(r"[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]")


def generate_scenes_on_console(
    session_model: SessionModel,
    prompt: str | None,
    options: SceneOptions,
    settings: SamplerSettings,
    seeds: Sequence[int],
    *,
    as_json: bool,
    jsonl: bool,
) -> None:
    """Print one scene for each seed, which begins with the lines of the prompt.

    `as_json` prints one JSON object per scene, `jsonl` one per turn. An interrupted scene is printed as far as it is.
    """
    model = check_has_cast(session_model.model, session_model.name, "--scene")
    cast = find_cast(options.cast, model.cast)
    turns, encoded = read_prompt(prompt, model)
    state, history = read_turns(model, turns), encode_turns(model.tokenizer, turns)
    printer = _ScenePrinter(turns, as_json=as_json, jsonl=jsonl)
    for number, seed in enumerate(seeds):
        record = _SceneRecord()
        printer.begin(number)
        with defer_interrupt() as is_interrupted:
            for event in generate_scene(
                model, cast, options.num_turns, settings, seed, state, is_interrupted, history=history
            ):
                printer.print_event(event, record.add(event))
            if as_json:
                print_json(
                    {
                        "prompt": encoded.text,
                        "given": [asdict(turn) for turn in turns],
                        "turns": record.turns,
                        "seed": seed,
                        **asdict(settings),
                        "run": session_model.name,
                        "reason": "cancelled" if is_interrupted() else "length",
                        "tokens_per_second": record.tokens_per_second,
                    }
                )
            elif not jsonl:
                speed = f"{record.tokens_per_second:,.0f} {token_noun(model.tokenizer)}s/s"
                parts = [f"seed {seed}", settings.describe(), speed, plural(len(record.turns), "turn")]
                print(" · ".join(parts), file=sys.stderr)


class _ScenePrinter:
    """Printer of scenes: as a script, or as JSON per turn; JSON per scene is printed at its end."""

    def __init__(self, given: Sequence[Turn], *, as_json: bool, jsonl: bool) -> None:
        self._given = given
        self._is_plain, self._jsonl = not (as_json or jsonl), jsonl
        self._scene = 0

    def begin(self, scene: int) -> None:
        """Begin a scene, given its number, with the lines that the user gave."""
        self._scene = scene
        if self._is_plain:
            script = "".join(map(turn_text, self._given))
            print_piece(f"\n{script}" if scene else script)

    def print_event(self, event: TurnStart | TokenEvent | Done, turn: Row | None) -> None:
        """Print an event of the scene; `turn` is the record of the turn that it ends, if it ends one."""
        if turn is not None and self._jsonl:
            print_json({"scene": self._scene, **turn})
        elif turn is not None and self._is_plain:
            print_piece("\n")
        elif self._is_plain and isinstance(event, TurnStart):
            print_piece(speaker_head(event.speaker))
        elif self._is_plain and isinstance(event, TokenEvent):
            print_piece(_LINE_BREAK.sub(" ", event.piece))


class _SceneRecord:
    """Record of the turns of a scene for its JSON."""

    def __init__(self) -> None:
        self.turns: list[Row] = []
        self._start: TurnStart | None = None
        """Start of the turn that is being written; None between turns."""
        self._tokens: list[TokenEvent] = []
        self._num_tokens, self._seconds = 0, 0.0

    @property
    def tokens_per_second(self) -> float:
        """Speed of the generation so far."""
        return self._num_tokens / self._seconds if self._seconds else 0.0

    def add(self, event: TurnStart | TokenEvent | Done) -> Row | None:
        """Record an event of the scene; return the record of the turn that it ends, if it ends one."""
        if isinstance(event, TurnStart):
            self._start, self._tokens = event, []
        elif isinstance(event, TokenEvent):
            self._tokens.append(event)
            self._num_tokens += 1
            self._seconds += event.seconds
        else:
            return self._add_turn(event)
        return None

    def _add_turn(self, done: Done) -> Row:
        assert self._start is not None
        candidates = self._start.candidates[:MAX_LISTED_SPEAKERS]
        turn: Row = {
            "turn": len(self.turns),
            "speaker": self._start.speaker,
            "text": "".join(token.piece for token in self._tokens).strip(),
            "probability": self._start.prob,
            "speakers": {candidate.name: candidate.prob for candidate in candidates},
            "seed": done.seed,
            "tokens": done.tokens,
            "logprob": sum(token.logprob for token in self._tokens),
            "reason": done.reason,
        }
        self.turns.append(turn)
        self._start = None
        return turn
