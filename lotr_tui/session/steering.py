"""Steering of a model, as `/steer Gollum` in a session and `--steer good.txt,bad.txt:0.5` of a command ask for it."""

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np

from engine.analysis.steering import MIN_LINES, RELATIVE_NORM, SteeringVector, find_vector
from engine.config import LSTM
from engine.data.corpus import read_whole_text
from engine.data.speakers import display_name, find_speaker
from engine.errors import InvalidInputError, printable
from engine.runs.loading import find_model
from lotr_tui.formatting import STEERING, format_lone_token, format_percent
from lotr_tui.session.comparison import load_training_data
from lotr_tui.session.read_text import NextTokenContext, TextReader, WordCompleter, read_next_token
from lotr_tui.session.session_model import SessionModel
from lotr_tui.session.settings import read_strength

MAX_FILE_BYTES = 10_000_000
NO_EFFECT = "no clear effect on held-out lines"
NUM_WORDS = 3  # that gained most, and that lost most
_FILES = re.compile(r"(\S*[./]\S*?)(?:,\s*|\s+)(\S*[./]\S*)")
_WITH_STRENGTH = re.compile(r"(.+):\s*([-+.\de]+|[^./:]*)")  # also what is no number, but not the end of a path


class Steering:
    """Search of a vector towards a speaker, or towards the first of two files of lines, which a thread calls."""

    def __init__(self, argument: str, session_model: SessionModel, text: NextTokenContext | None = None) -> None:
        """Steer a model as `Gollum`, `good.txt bad.txt:0.5` or `off` says; `effect` tells what that does to `text`."""
        match = _WITH_STRENGTH.fullmatch(argument.strip())
        self._target, strength = match.groups() if match else (argument.strip(), "1")
        self._strength, self._text, self._fraction, self.effect = read_strength(strength, STEERING), text, 0.0, ""
        self._given = session_model
        self._plain = (session_model.unsteered or session_model).with_strengths(session_model.strengths)
        if self._target == "off" and session_model.unsteered is None:
            raise InvalidInputError("the model is not steered; /steer Gollum steers it")

    def describe_briefly(self) -> str:
        return printable(f"steering to {self._target}: {format_percent(self._fraction)}")

    describe = describe_briefly

    def __call__(self) -> SessionModel:
        if self._target == "off":
            return self._plain
        label, lines, others = self._read_lines()
        if (name := STEERING + label) in self._given.strengths and not _FILES.fullmatch(self._target):
            return self._given.with_strengths({name: self._strength})  # files may have changed
        for found in find_vector(self._plain.model, lines, others):
            self._fraction = found if isinstance(found, float) else 1.0
        assert isinstance(found, SteeringVector)
        steered = self._plain.steered((name, found.layer, found.vector), self._strength, self._target)
        gain, other = f"{found.gain:.2f} bits/character likelier", f"{abs(found.other_gain):.2f}"
        other += " likelier" if found.other_gain > 0 else " less likely"
        self.effect = (
            f"{name} · strength 1 moves layer {found.layer} of {found.num_layers}, the best of those tried, by "
            f"{format_percent(RELATIVE_NORM)} of its norm; the lines differ by {format_percent(found.relative_norm)} · "
            + (f"held-out lines of {label}: {gain}, others: {other}" if found.gain >= 0.005 else NO_EFFECT)
        )
        if self._text is not None:
            texts = self._text, replace(self._text, model=steered.model)
            read = [read_next_token(TextReader(), text) for text in texts]
            probs = [np.exp(each.state.log_probs) for each in read if each is not None and each.state is not None]
            change, tokens = 100 * (probs[1] - probs[0]), self._plain.model.tokenizer.tokens
            order = np.argsort(change).tolist()
            shown = [*order[: -NUM_WORDS - 1 : -1], *order[:NUM_WORDS]]
            words = [format_lone_token(tokens[id].strip() or tokens[id]) for id in shown]
            words = [word + WordCompleter().complete(self._plain.model, word) for word in words]
            changes = [f"{word} {change[id]:+.1f} %" for word, id in zip(words, shown, strict=True)]
            self.effect += f" · next word: {', '.join(changes)}"
        return steered

    def _read_lines(self) -> tuple[str, list[str], list[str]]:
        # The name of the vector, and both kinds of lines.
        if match := _FILES.fullmatch(self._target):
            paths = [Path(each).expanduser() for each in match.groups()]
            lines, others = (read_whole_text(path, MAX_FILE_BYTES).splitlines() for path in paths)
            return printable(paths[0].name), lines, others
        train = load_training_data(self._plain.run or find_model(LSTM)[0]).splits.train  # or the bundled dialogues
        counts = Counter(line.speaker for line in train)
        known = [name for name, count in counts.most_common() if name and count >= MIN_LINES]
        if not known:
            raise InvalidInputError("the training text names no speakers; name two files, as /steer good.txt bad.txt")
        speaker = find_speaker(self._target, known)
        lines = [line.text for line in train if line.speaker == speaker]
        return display_name(speaker), lines, [line.text for line in train if line.speaker != speaker]
