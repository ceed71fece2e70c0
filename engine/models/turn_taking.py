"""Turn taking: a conditional logit of the next speaker, from earlier speakers of the scene and the names they say."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np

from engine.data.arrays import Float64Array
from engine.errors import InvalidInputError
from engine.models.conditional_logit import fit_conditional_logit
from engine.models.name_mentions import find_mentions
from engine.models.turn_features import FEATURES, PairCounts, SpokenLine, TurnCounts, TurnState

L2 = 2.0
"""Weight of half the sum of squared coefficients in the loss of the logit."""
MAX_DESIGN_ELEMENTS = 20_000_000
"""Maximum elements of the design matrix; a larger training split is thinned out evenly."""

Triples = tuple[tuple[int, int, int], ...]
"""Counts of pairs of speakers: first, second, count."""


@dataclass(frozen=True)
class TurnModel:
    """Model of P(next speaker | scene so far), as small as a page of JSON."""

    cast: tuple[str, ...]
    """Names of the speakers; the last one collects all who speak seldom."""
    weights: dict[str, float]
    """Coefficient of each of `FEATURES`."""
    lines: tuple[int, ...]
    """Number of lines `[cast]` in the training split."""
    successions: Triples
    """Number of times that the second speaker spoke directly after the first."""
    second_successions: Triples
    """Number of times that the second speaker spoke two lines after the first."""
    company: Triples
    """Number of times that the second speaker spoke within `NEARBY_LINES` lines of the first."""

    def __post_init__(self) -> None:
        num_speakers = len(self.cast)
        if set(self.weights) != set(FEATURES):
            raise InvalidInputError(f"turn model: weights of {', '.join(self.weights)}; expected {', '.join(FEATURES)}")
        if len(self.lines) != num_speakers or not num_speakers:
            raise InvalidInputError(f"turn model: counts of {len(self.lines)} speakers for a cast of {num_speakers}")
        for first, second, count in (*self.successions, *self.second_successions, *self.company):
            if not (0 <= first < num_speakers and 0 <= second < num_speakers and count >= 0):
                raise InvalidInputError(
                    f"turn model: count {count} of speakers {first} and {second} is negative or outside the cast"
                )
        if min(self.lines) < 0:
            raise InvalidInputError(f"turn model: {min(self.lines)} lines of a speaker; counts must be 0 or more")

    @classmethod
    def fit(cls, cast: Sequence[str], scenes: Sequence[Sequence[SpokenLine]]) -> Self:
        """Fit the model to the scenes of a training split, by Newton's method.

        The features of a scene are computed from the counts of all other scenes, as they will be for a new scene.
        """
        counts = TurnCounts.of(len(cast), scenes)
        num_lines = sum(map(len, scenes))
        step = max(1, -(-num_lines * len(cast) * len(FEATURES) // MAX_DESIGN_ELEMENTS))
        rows, chosen, position = [], [], 0
        for scene in scenes:
            counts.add(scene, -1)
            state = TurnState()
            for line in scene:
                if position % step == 0:
                    rows.append(counts.features(state))
                    chosen.append(line.speaker)
                state = state.after(line.speaker, find_mentions(line.text, cast))
                position += 1
            counts.add(scene, 1)
        design = np.stack(rows) if rows else np.zeros((0, len(cast), len(FEATURES)))
        weights = fit_conditional_logit(design, np.array(chosen, np.int64), L2)
        return cls(
            tuple(cast),
            dict(zip(FEATURES, weights.tolist(), strict=True)),
            tuple(counts.lines.astype(int).tolist()),
            *map(_to_triples, (counts.successions, counts.second_successions, counts.company)),
        )

    def start(self) -> TurnState:
        """Return the state at the start of a scene."""
        return TurnState()

    def read_turn(self, state: TurnState, line: SpokenLine) -> TurnState:
        """Return the state after a line of the scene."""
        return state.after(line.speaker, find_mentions(line.text, self.cast))

    def log_probs(self, state: TurnState) -> Float64Array:
        """Return the natural-log probabilities `[cast]` of the next speaker."""
        logits = self._counts.features(state) @ self._weight_vector
        highest = logits.max()
        log_probs: Float64Array = logits - (highest + np.log(np.exp(logits - highest).sum()))
        return log_probs

    @cached_property
    def _counts(self) -> TurnCounts:
        tables = (self.successions, self.second_successions, self.company)
        return TurnCounts(np.array(self.lines, np.float64), *map(_from_triples, tables))

    @cached_property
    def _weight_vector(self) -> Float64Array:
        return np.array([self.weights[name] for name in FEATURES])


def _to_triples(counts: PairCounts) -> Triples:
    return tuple((a, b, count) for a, row in sorted(counts.items()) for b, count in sorted(row.items()) if count)


def _from_triples(triples: Triples) -> PairCounts:
    counts: defaultdict[int, Counter[int]] = defaultdict(Counter)
    for first, second, count in triples:
        counts[first][second] = count
    return counts
