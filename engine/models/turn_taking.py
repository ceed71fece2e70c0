"""Turn model: who speaks next, by earlier speakers of the scene and the names they say; its features and its fit.

The model is a conditional logit (McFadden 1974): a softmax over the cast, each of whom is described by features.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt

from engine.data.arrays import Float64Array
from engine.data.speakers import find_member
from engine.errors import InvalidInputError

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
L2 = 2.0
"""Weight of half the sum of squared coefficients in the loss of the logit."""
MAX_DESIGN_ELEMENTS = 20_000_000
"""Maximum elements of the design matrix; a larger training split is thinned out evenly."""
MAX_NEWTON_STEPS = 25
MIN_NAME_LETTERS = 3
"""Minimum number of letters that a name and its variant share; in a shorter variant also half of the name."""
MAX_ADDED_LETTERS = 4
"""Maximum number of letters by which a variant is longer than the name, as in Samwise."""
MAX_CHARACTERS = 2000
"""Number of characters at the end of a line that are searched for names."""
_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
_POSSESSIVE = re.compile(r"['’]s$", re.IGNORECASE)
_AFTER_ADDRESS = (",", ".", ";", ":", "!", "?")

Triples = tuple[tuple[int, int, int], ...]
"""Counts of pairs of speakers: first, second, count."""
PairCounts = Mapping[int, Counter[int]]
"""Counts of pairs of speakers, by the first and the second speaker."""


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
class Mentions:
    """Speakers that a line mentions, as indices in the cast."""

    named: frozenset[int] = frozenset()
    """Speakers whose names the line contains, but not in the possessive."""
    addressed: frozenset[int] = frozenset()
    """Named speakers whose names end the line or come before a punctuation mark, as in "Run, Frodo!"."""


@dataclass(frozen=True)
class TurnState:
    """The scene so far, as far as the next speaker depends on it; its size does not grow with the scene."""

    speakers: tuple[int, ...] = ()
    """Speakers of the last `NUM_LAGS` lines, latest first, as indices in the cast."""
    last_lines: tuple[tuple[int, int], ...] = ()
    """Speakers of the scene, latest first, each with the number of lines since, up to `MAX_POSITION`."""
    num_lines: int = 0
    """Number of lines so far, up to `MAX_POSITION`."""
    last_mentions: Mentions = Mentions()
    """Speakers that the last line mentions."""
    mentions_before: Mentions = Mentions()
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

    @property
    def frequencies(self) -> Float64Array:
        """Relative frequency `[cast]` of each speaker, with one imaginary line each."""
        frequencies: Float64Array = (self.lines + 1) / (self.lines.sum() + len(self.lines))
        return frequencies

    def features(self, state: TurnState) -> Float64Array:
        """Return the features `[cast, features]` of each possible next speaker."""
        num_speakers, frequencies = len(self.lines), self.frequencies
        rows = dict.fromkeys(FEATURES, np.zeros(num_speakers))
        rows["frequency"] = np.log(frequencies)
        is_seen = _indicator(num_speakers, [speaker for speaker, _ in state.last_lines])
        rows["frequency_seen"] = is_seen * rows["frequency"]
        rows["new"] = (1 - is_seen) * np.log1p(state.num_lines)
        last, last_but_one, third_last = (*state.speakers, None, None, None)[:NUM_LAGS]
        if last is not None:
            rows["succession"] = _log_ratio(self.successions.get(last), frequencies, PRIOR_LINES["succession"])
            rows["company"] = self._company(state, frequencies)
            rows["named"] = _indicator(num_speakers, state.last_mentions.named - {last})
            rows["addressed_before"] = _indicator(num_speakers, state.mentions_before.addressed - {last})
        if last_but_one is not None:
            is_last_but_one = _indicator(num_speakers, [last_but_one])
            second = _log_ratio(
                self.second_successions.get(last_but_one), frequencies, PRIOR_LINES["second_succession"]
            )
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
    """The counts of the same names in `TurnCounts`."""
    second_successions: Triples
    company: Triples

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
        log_probs: Float64Array = logits - np.logaddexp.reduce(logits)
        return log_probs

    @cached_property
    def log_frequencies(self) -> Float64Array:
        """Natural logarithm `[cast]` of how often each speaker speaks, smoothed."""
        log_frequencies: Float64Array = np.log(self._counts.frequencies)
        return log_frequencies

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


def fit_conditional_logit(features: Float64Array, chosen: npt.NDArray[np.int64], l2: float) -> Float64Array:
    """Return the coefficients `[features]` with the highest likelihood of the choices, less a quadratic penalty.

    Args:
        features: Features `[events, alternatives, features]`.
        chosen: Index `[events]` of the alternative that was chosen.
        l2: Weight of half the sum of squared coefficients.
    """
    events, size = np.arange(len(chosen)), features.shape[2]

    def loss(weights: Float64Array) -> tuple[float, Float64Array]:
        logits = features @ weights
        highest = logits.max(axis=1, keepdims=True)
        log_probs = logits - highest - np.log(np.exp(logits - highest).sum(axis=1, keepdims=True))
        return float(0.5 * l2 * weights @ weights - log_probs[events, chosen].sum()), np.exp(log_probs)

    weights = np.zeros(size)
    value, probs = loss(weights)
    for _ in range(MAX_NEWTON_STEPS if len(chosen) else 0):
        means = np.matmul(probs[:, None], features)[:, 0]
        gradient = (means - features[events, chosen]).sum(axis=0) + l2 * weights
        scaled = (features * np.sqrt(probs)[:, :, None]).reshape(-1, size)
        hessian = scaled.T @ scaled - means.T @ means + l2 * np.eye(size)
        direction, length = np.linalg.solve(hessian, gradient), 1.0
        while (new := loss(weights - length * direction))[0] > value and length > 1e-3:
            length /= 2
        improvement = value - new[0]
        if improvement <= 1e-8 * abs(value):
            break
        weights, value, probs = weights - length * direction, *new
    return weights


def find_mentions(text: str, cast: Sequence[str]) -> Mentions:
    """Return the speakers that `text` mentions. The last member of the cast, SOMEONE, has no name.

    A name counts in any case. A variant of a name of one word, such as Pip for Pippin or Samwise for Sam, counts if it
    begins with a capital letter.
    """
    text = text[-MAX_CHARACTERS:]
    by_first_word, by_prefix = _index_names(tuple(cast))
    matches = list(_WORD.finditer(text))
    words = [match[0].lower() for match in matches]
    named, addressed = set(), set()
    for position, (match, word) in enumerate(zip(matches, words, strict=True)):
        found = {
            (speaker, position + len(parts) - 1)
            for parts, speaker in by_first_word.get(word, ())
            if tuple(words[position : position + len(parts)]) == parts
        }
        is_variant = len(word) >= MIN_NAME_LETTERS and match[0][0].isupper() and not _POSSESSIVE.search(word)
        if not found and is_variant:
            speakers = set(by_prefix.get(word, ()))
            for length in range(max(MIN_NAME_LETTERS, len(word) - MAX_ADDED_LETTERS), len(word)):
                speakers |= {who for parts, who in by_first_word.get(word[:length], ()) if len(parts) == 1}
            found = {(speaker, position) for speaker in speakers}
        for speaker, last in found:
            named.add(speaker)
            after = text[matches[last].end() :].lstrip()[:1]
            if not after or after in _AFTER_ADDRESS:
                addressed.add(speaker)
    return Mentions(frozenset(named), frozenset(addressed))


@lru_cache(maxsize=8)
def _index_names(cast: tuple[str, ...]) -> tuple[dict[str, list[tuple[tuple[str, ...], int]]], dict[str, set[int]]]:
    """Return the words of the names and their speakers, by the first word in lower case, and the speakers by the
    beginnings of their names of one word that are long enough for a variant.
    """
    by_first_word: defaultdict[str, list[tuple[tuple[str, ...], int]]] = defaultdict(list)
    by_prefix: defaultdict[str, set[int]] = defaultdict(set)
    for speaker, name in enumerate(cast[:-1]):
        parts = tuple(_WORD.findall(name.lower()))
        if not parts:
            continue
        by_first_word[parts[0]].append((parts, speaker))
        if len(parts) == 1:
            for length in range(max(MIN_NAME_LETTERS, (len(name) + 1) // 2), len(name)):
                by_prefix[name[:length].lower()].add(speaker)
    return dict(by_first_word), dict(by_prefix)
