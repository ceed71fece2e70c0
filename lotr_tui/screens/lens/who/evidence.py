"""Evidence of the words of a line, in bits: for the speaker who leads, or for one speaker against another."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from engine.analysis.speakers import SpeakerGuess
from engine.data.speakers import display_name
from engine.generation.turns import SpeakerProb
from lotr_tui.formatting import format_percent, plural, truncate
from lotr_tui.screens.lens.who.line import UnknownLine
from lotr_tui.screens.text.metrics_bar import Metric
from lotr_tui.theme import MUTED

MINUS = "−"
"""Minus sign; a hyphen after a word would look like a part of it."""

MAX_WORD_WIDTH = 16
"""Maximum width in cells of a word in the summary."""


class SpeakerPair(NamedTuple):
    """Two speakers who are compared word by word."""

    first: str
    """Speaker whose words have a plus."""
    second: str
    """Speaker whose words have a minus."""


@dataclass(frozen=True)
class LineEvidence:
    """Guess for a line, and the pair of speakers that the user compares, if any."""

    line: UnknownLine
    guess: SpeakerGuess
    pair: SpeakerPair | None

    @property
    def is_partial(self) -> bool:
        """True if only the beginning of the line has been read."""
        return len(self.guess.words) < len(self.line.text.split())

    @property
    def progress(self) -> str:
        """Part of the line that has been read; empty for all of it."""
        return f"{len(self.guess.words)} of {plural(len(self.line.text.split()), 'word')}" if self.is_partial else ""

    @property
    def word_bits(self) -> list[float]:
        """Bits of each word: for the speaker who leads after the line, or for the first of the pair."""
        if self.pair is None:
            return [word.gain / math.log(2) for word in self.guess.words]
        return [evidence / math.log(2) for _, evidence in self.guess.explain(*self.pair)]

    @property
    def giveaway(self) -> int | None:
        """Index of the word that gave the leading speaker away; None if no word speaks for that speaker."""
        return strongest_word([word.gain for word in self.guess.words])

    def ranking(self, num_words: int | None = None) -> list[SpeakerProb]:
        """Return the speakers after the first words of the line (None: after all), likeliest first."""
        return replace(self.guess, words=self.guess.words[:num_words]).ranking()

    def summary(self) -> list[Metric]:
        """Return what the line shows, the most important first."""
        if self.pair is not None:
            return self._describe_pair(self.pair)
        num_lines = len(self.line.context)
        prior = f"after {plural(num_lines, 'line')}" if num_lines else "prior: frequencies"
        return [*self._describe_leader(self.guess.ranking()), [(prior, MUTED)]]

    def _describe_leader(self, ranking: Sequence[SpeakerProb]) -> list[Metric]:
        if not self.guess.words:
            return [[("type a line below", MUTED)]]
        leader = ranking[0]
        metrics: list[Metric] = [[(f"{display_name(leader.name)} {format_percent(leader.prob)}", "bold")]]
        index = self.giveaway
        if index is None:
            metrics.append([("no word gives a speaker away", MUTED)])
        else:
            word = self.guess.words[index]
            gain = word.gain / math.log(2)
            metrics.append(
                [
                    ("given away by ", MUTED),
                    (f"“{truncate(word.word, MAX_WORD_WIDTH)}”", "bold"),
                    (f" {format_bits(gain)} bits", ""),
                ]
            )
        if self.line.speaker:
            position = next(number for number, each in enumerate(ranking, 1) if each.name == self.line.speaker)
            prob = format_percent(ranking[position - 1].prob)
            metrics.append(
                [(f"written as {display_name(self.line.speaker)}: ", MUTED), (f"no. {position}, {prob}", "")]
            )
        return metrics

    def _describe_pair(self, pair: SpeakerPair) -> list[Metric]:
        bits = self.word_bits
        total = math.fsum(bits)
        names = display_name(pair.first), display_name(pair.second)
        metrics: list[Metric] = [[(f"{names[0]} +", "bold"), (" against ", MUTED), (f"{names[1]} {MINUS}", "bold")]]
        if not bits:
            return [*metrics, [("type a line below", MUTED)]]
        metrics.append([(f"{format_bits(total)} bits", ""), (" in all", MUTED)])
        for sign, name in zip((1, -1), names, strict=True):
            index = strongest_word([sign * each for each in bits])
            if index is not None:
                word = truncate(self.guess.words[index].word, MAX_WORD_WIDTH)
                metrics.append([(f"most {name}: ", MUTED), (f"“{word}” {format_bits(bits[index])}", "")])
        return metrics


def strongest_word(values: Sequence[float]) -> int | None:
    """Return the index of the highest value, if it is above 0."""
    index = max(range(len(values)), key=values.__getitem__, default=None)
    return None if index is None or values[index] <= 0 else index


def format_bits(bits: float) -> str:
    """Return bits with a sign and one decimal, such as "+2.1" or "−0.3"."""
    rounded = round(bits, 1)
    return f"{'+' if rounded > 0 else MINUS if rounded < 0 else '±'}{abs(rounded):.1f}"
