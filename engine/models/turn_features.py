"""Features of each possible next speaker of a scene, from counts of a training split."""

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Self

import numpy as np

from engine.data.arrays import Float64Array
from engine.data.speakers import find_member
from engine.models.name_mentions import NO_MENTIONS, Mentions

FEATURES = (
    "frequency",
    "frequency_seen",
    "new",
    "succession",
    "succession_of_last_but_one",
    "second_succession",
    "second_succession_of_last_but_one",
    "company",
    "third_last",
    "alternation",
    "named",
    "addressed_before",
)
"""Names of the features of a possible next speaker.

- frequency: log frequency of the speaker; frequency_seen: the same if the speaker has spoken in the scene.
- new: log of 1 + the number of lines so far, if the speaker has not spoken.
- succession: log ratio of the frequency after the last speaker to the frequency; second_succession: the same two lines
  after the last speaker but one. Both again as `..._of_last_but_one`, for the last speaker but one only.
- company: mean log ratio of the frequency near each speaker of the scene, of whom the latest count most.
- third_last: 1 for the speaker of the third last line; alternation: 1 for B after the speakers A, B, A.
- named: 1 if the last line names the speaker; addressed_before: 1 if the line before it addresses the speaker. Both are
  0 for the last speaker.
"""
NUM_LAGS = 3
MAX_POSITION = 20
"""Number of lines of a scene from which a longer one counts the same."""
NEARBY_LINES = 4
"""Distance within which two speakers of a scene keep company."""
COMPANY_DECAY = 0.6
"""Factor by which the company of a speaker counts less for each line since the speaker's last one."""
PRIOR_LINES = {"succession": 30.0, "second_succession": 10.0, "company": 20.0}
"""Number of imaginary lines, spread like all lines, that smooth the counts of each kind."""


class SpokenLine(NamedTuple):
    """A line of a scene."""

    speaker: int
    """Index of the speaker in the cast."""
    text: str


def cast_index(speaker: str, cast: Sequence[str]) -> int:
    """Return the index in `cast` of a speaker with a canonical name; the last one's, SOMEONE, for all others."""
    member = find_member(speaker, cast)
    return len(cast) - 1 if member is None else cast.index(member)


@dataclass(frozen=True)
class TurnState:
    """The scene so far, as far as the next speaker depends on it; its size does not grow with the scene."""

    speakers: tuple[int, ...] = ()
    """Speakers of the last `NUM_LAGS` lines, latest first, as indices in the cast."""
    last_lines: tuple[tuple[int, int], ...] = ()
    """Speakers of the scene, latest first, each with the number of lines since, up to `MAX_POSITION`."""
    num_lines: int = 0
    """Number of lines so far, up to `MAX_POSITION`."""
    last_mentions: Mentions = NO_MENTIONS
    """Speakers that the last line mentions."""
    mentions_before: Mentions = NO_MENTIONS
    """Speakers that the line before the last one mentions."""

    def after(self, speaker: int, mentions: Mentions) -> "TurnState":
        """Return the state after one more line."""
        older = [(other, min(lines + 1, MAX_POSITION)) for other, lines in self.last_lines if other != speaker]
        return TurnState(
            (speaker, *self.speakers)[:NUM_LAGS],
            ((speaker, 0), *older),
            min(self.num_lines + 1, MAX_POSITION),
            mentions,
            self.last_mentions,
        )


PairCounts = Mapping[int, Counter[int]]
"""Counts of pairs of speakers, by the first and the second speaker."""


@dataclass
class TurnCounts:
    """Counts of a training split that the features are computed from."""

    lines: Float64Array
    """Number of lines `[cast]`."""
    successions: PairCounts = field(default_factory=lambda: defaultdict(Counter))
    """Number of times that the second speaker spoke directly after the first."""
    second_successions: PairCounts = field(default_factory=lambda: defaultdict(Counter))
    """Number of times that the second speaker spoke two lines after the first."""
    company: PairCounts = field(default_factory=lambda: defaultdict(Counter))
    """Number of times that the second speaker spoke within `NEARBY_LINES` lines of the first."""

    @classmethod
    def of(cls, num_speakers: int, scenes: Sequence[Sequence[SpokenLine]]) -> Self:
        """Count the lines of `scenes`."""
        counts = cls(np.zeros(num_speakers))
        for scene in scenes:
            counts.add(scene, 1)
        return counts

    def add(self, scene: Sequence[SpokenLine], sign: int) -> None:
        """Add the counts of a scene, or subtract them for a `sign` of -1."""
        speakers = [line.speaker for line in scene]
        for position, speaker in enumerate(speakers):
            self.lines[speaker] += sign
            for lag, other in enumerate(reversed(speakers[max(0, position - NEARBY_LINES) : position]), start=1):
                if lag <= 2:
                    (self.successions if lag == 1 else self.second_successions)[other][speaker] += sign
                if other != speaker:
                    self.company[other][speaker] += sign
                    self.company[speaker][other] += sign

    def features(self, state: TurnState) -> Float64Array:
        """Return the features `[cast, features]` of each possible next speaker."""
        num_speakers = len(self.lines)
        frequencies = (self.lines + 1) / (self.lines.sum() + num_speakers)
        rows = dict.fromkeys(FEATURES, np.zeros(num_speakers))
        rows["frequency"] = np.log(frequencies)
        is_seen = np.zeros(num_speakers)
        is_seen[[speaker for speaker, _ in state.last_lines]] = 1
        rows["frequency_seen"] = is_seen * rows["frequency"]
        rows["new"] = (1 - is_seen) * np.log1p(state.num_lines)
        last, last_but_one, third_last = (*state.speakers, None, None, None)[:NUM_LAGS]
        if last is not None:
            rows["succession"] = _log_ratio(self.successions.get(last), frequencies, PRIOR_LINES["succession"])
            rows["company"] = self._company(state, frequencies)
            rows["named"] = _indicator(num_speakers, state.last_mentions.named - {last})
            rows["addressed_before"] = _indicator(num_speakers, state.mentions_before.addressed - {last})
        if last_but_one is not None:
            second = _log_ratio(
                self.second_successions.get(last_but_one), frequencies, PRIOR_LINES["second_succession"]
            )
            is_last_but_one = _indicator(num_speakers, [last_but_one])
            rows["second_succession"] = second
            rows["second_succession_of_last_but_one"] = second * is_last_but_one
            rows["succession_of_last_but_one"] = rows["succession"] * is_last_but_one
        if third_last is not None:
            rows["third_last"] = _indicator(num_speakers, [third_last])
            if last == third_last != last_but_one:
                rows["alternation"] = is_last_but_one
        return np.stack([rows[name] for name in FEATURES], axis=1)

    def _company(self, state: TurnState, frequencies: Float64Array) -> Float64Array:
        """Return the mean log ratio `[cast]` of the frequency near the speakers of the scene to the frequency."""
        total = np.zeros(len(frequencies))
        for speaker, lines in state.last_lines:
            ratio = _log_ratio(self.company.get(speaker), frequencies, PRIOR_LINES["company"])
            ratio[speaker] = 0
            total += COMPANY_DECAY**lines * ratio
        return total / sum(COMPANY_DECAY**lines for _, lines in state.last_lines)


def _log_ratio(counts: Counter[int] | None, frequencies: Float64Array, prior_lines: float) -> Float64Array:
    """Return the logarithm `[cast]` of smoothed relative counts divided by the frequencies."""
    dense = np.zeros(len(frequencies))
    if counts:
        dense[list(counts)] = list(counts.values())
    ratio: Float64Array = np.log((dense / frequencies + prior_lines) / (dense.sum() + prior_lines))
    return ratio


def _indicator(size: int, indices: Collection[int]) -> Float64Array:
    """Return an array `[size]` of zeros with ones at `indices`."""
    indicator = np.zeros(size)
    indicator[list(indices)] = 1
    return indicator
