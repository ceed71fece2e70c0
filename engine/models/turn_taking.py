"""Turn model: who speaks next, by the earlier speakers of the scene and the names they say.

It is a conditional logit (McFadden 1974): a softmax over the cast, each of whom is described by features.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt

from engine.data.arrays import Float64Array
from engine.data.speakers import find_member
from engine.errors import InvalidInputError

FEATURES = (
    "frequency",  # log frequency of the speaker
    "frequency_seen",  # the same if the speaker has spoken in the scene
    "new",  # log of 1 + the number of lines so far, if the speaker has not spoken
    "succession",  # log ratio of the frequency after the last speaker to the frequency
    "succession_of_last_but_one",  # the same, for the last speaker but one only
    "second_succession",  # log ratio of the frequency two lines after the last speaker but one to the frequency
    "second_succession_of_last_but_one",  # the same, for the last speaker but one only
    "company",  # mean log ratio of the frequency near each speaker of the scene, of whom the latest count most
    "third_last",  # 1 for the speaker of the third last line
    "alternation",  # 1 for B after the speakers A, B, A
    "named",  # 1 if the last line names the speaker, who does not say it
    "addressed_before",  # 1 if the line before it addresses the speaker, who does not say the last line
)
NUM_LAGS = 3
MAX_POSITION = 20  # number of lines of a scene from which a longer one counts the same
NEARBY_LINES = 4  # distance within which two speakers of a scene keep company
COMPANY_DECAY = 0.6  # factor by which the company of a speaker counts less for each line since the speaker's last one
PRIOR_LINES = {"succession": 30.0, "second_succession": 10.0, "company": 20.0}
"""Number of imaginary lines, spread like all lines, that smooth the counts of each kind of pair of speakers."""
L2 = 2.0  # weight of half the sum of squared coefficients in the loss of the logit
MAX_DESIGN_ELEMENTS = 20_000_000  # of the matrix of features; a larger training split is thinned out evenly
MAX_NEWTON_STEPS = 25
MIN_NAME_LETTERS = 3  # that a name and its variant share; in a shorter variant also half of the name
MAX_ADDED_LETTERS = 4  # by which a variant is longer than the name, as in Samwise
MAX_CHARACTERS = 2000  # at the end of a line that are searched for names
_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
_POSSESSIVE = re.compile(r"['’]s$", re.IGNORECASE)

Triples = tuple[tuple[int, int, int], ...]
"""Counts of pairs of speakers: first, second, count."""


class SpokenLine(NamedTuple):
    """A line of a scene, with the index of its speaker in the cast."""

    speaker: int
    text: str


def cast_index(speaker: str, cast: Sequence[str]) -> int:
    """Return the index in `cast` of a speaker with a canonical name; the last one's, SOMEONE, for all others."""
    member = find_member(speaker, cast)
    return len(cast) - 1 if member is None else cast.index(member)


@dataclass(frozen=True)
class Mentions:
    """Speakers that a line mentions, as indices in the cast."""

    named: frozenset[int] = frozenset()  # by a name that is not in the possessive
    addressed: frozenset[int] = frozenset()  # by a name at the end or before a punctuation mark, as in "Run, Frodo!"


@dataclass(frozen=True)
class TurnState:
    """The scene so far, as far as the next speaker depends on it; its size does not grow with the scene."""

    speakers: tuple[int, ...] = ()  # of the last `NUM_LAGS` lines, latest first
    last_lines: tuple[tuple[int, int], ...] = ()  # speakers, latest first, with the lines since, up to `MAX_POSITION`
    num_lines: int = 0  # up to `MAX_POSITION`
    last_mentions: Mentions = Mentions()
    mentions_before: Mentions = Mentions()  # of the line before the last one

    def after(self, line: SpokenLine, cast: Sequence[str]) -> "TurnState":
        """Return the state after one more line."""
        speaker = line.speaker
        older = [(other, min(lines + 1, MAX_POSITION)) for other, lines in self.last_lines if other != speaker]
        return TurnState(
            (speaker, *self.speakers)[:NUM_LAGS],
            ((speaker, 0), *older),
            min(self.num_lines + 1, MAX_POSITION),
            find_mentions(line.text, cast),
            self.last_mentions,
        )


class TurnCounts:
    """Counts that the features are computed from: lines `[cast]`, and pairs of speakers by `PRIOR_LINES`."""

    def __init__(self, num_speakers: int, scenes: Iterable[Sequence[SpokenLine]] = ()) -> None:
        self.lines = np.zeros(num_speakers)
        self.pairs = {kind: defaultdict[int, Counter[int]](Counter) for kind in PRIOR_LINES}
        for scene in scenes:
            self.add(scene, 1)

    def add(self, scene: Sequence[SpokenLine], sign: int) -> None:
        """Add the counts of a scene, or subtract them for a `sign` of -1."""
        speakers, company = [line.speaker for line in scene], self.pairs["company"]
        for position, speaker in enumerate(speakers):
            self.lines[speaker] += sign
            for lag, other in enumerate(reversed(speakers[max(0, position - NEARBY_LINES) : position]), start=1):
                if lag <= 2:
                    self.pairs["succession" if lag == 1 else "second_succession"][other][speaker] += sign
                if other != speaker:
                    company[other][speaker] += sign
                    company[speaker][other] += sign

    @property
    def frequencies(self) -> Float64Array:
        """Relative frequency `[cast]` of each speaker, with one imaginary line each."""
        frequencies: Float64Array = (self.lines + 1) / (self.lines.sum() + len(self.lines))
        return frequencies

    def features(self, state: TurnState) -> Float64Array:
        """Return the features `[cast, features]` of each possible next speaker."""
        size, frequencies = len(self.lines), self.frequencies

        def indicator(speakers: Iterable[int]) -> Float64Array:
            ones = np.zeros(size)
            ones[list(speakers)] = 1
            return ones

        def log_ratio(kind: str, first: int) -> Float64Array:
            dense, prior = np.zeros(size), PRIOR_LINES[kind]
            if counts := self.pairs[kind].get(first):
                dense[list(counts)] = list(counts.values())
            ratio: Float64Array = np.log((dense / frequencies + prior) / (dense.sum() + prior))
            return ratio

        rows = dict.fromkeys(FEATURES, np.zeros(size))
        rows["frequency"] = np.log(frequencies)
        is_seen = indicator(speaker for speaker, _ in state.last_lines)
        rows["frequency_seen"] = is_seen * rows["frequency"]
        rows["new"] = (1 - is_seen) * np.log1p(state.num_lines)
        last, last_but_one, third_last = (*state.speakers, None, None, None)[:NUM_LAGS]
        if last is not None:
            rows["succession"] = log_ratio("succession", last)
            total = np.zeros(size)
            for speaker, lines in state.last_lines:
                ratio = log_ratio("company", speaker)
                ratio[speaker] = 0
                total += COMPANY_DECAY**lines * ratio
            rows["company"] = total / sum(COMPANY_DECAY**lines for _, lines in state.last_lines)
            rows["named"] = indicator(state.last_mentions.named - {last})
            rows["addressed_before"] = indicator(state.mentions_before.addressed - {last})
        if last_but_one is not None:
            is_last_but_one = indicator([last_but_one])
            rows["second_succession"] = log_ratio("second_succession", last_but_one)
            rows["second_succession_of_last_but_one"] = rows["second_succession"] * is_last_but_one
            rows["succession_of_last_but_one"] = rows["succession"] * is_last_but_one
        if third_last is not None:
            rows["third_last"] = indicator([third_last])
            if last == third_last != last_but_one:
                rows["alternation"] = is_last_but_one
        return np.stack([rows[name] for name in FEATURES], axis=1)


@dataclass(frozen=True)
class TurnModel:
    """Model of P(next speaker | scene so far), as small as a page of JSON."""

    cast: tuple[str, ...]  # names; the last one, SOMEONE, collects all who speak seldom
    weights: dict[str, float]  # coefficient of each of `FEATURES`
    lines: tuple[int, ...]  # number of lines `[cast]` in the training split
    successions: Triples
    second_successions: Triples
    company: Triples

    def __post_init__(self) -> None:
        size, pairs = len(self.cast), (*self.successions, *self.second_successions, *self.company)
        if set(self.weights) != set(FEATURES):
            problem = f"weights of {', '.join(self.weights)}; expected {', '.join(FEATURES)}"
        elif not size or len(self.lines) != size or min(self.lines) < 0:
            problem = f"a cast of {size} needs a number of lines for each"
        elif not all(0 <= first < size and 0 <= second < size and count >= 0 for first, second, count in pairs):
            problem = "a count of two speakers is negative, or one of them is outside the cast"
        else:
            return
        raise InvalidInputError(f"turn model: {problem}")

    @classmethod
    def fit(cls, cast: Sequence[str], scenes: Sequence[Sequence[SpokenLine]]) -> Self:
        """Fit the model to the scenes of a training split.

        The features of a scene are computed from the counts of all other scenes, as they will be for a new scene.
        """
        counts = TurnCounts(len(cast), scenes)
        step = max(1, -(-sum(map(len, scenes)) * len(cast) * len(FEATURES) // MAX_DESIGN_ELEMENTS))
        rows, chosen, position = [], [], 0
        for scene in scenes:
            counts.add(scene, -1)
            state = TurnState()
            for line in scene:
                if position % step == 0:
                    rows.append(counts.features(state))
                    chosen.append(line.speaker)
                state = state.after(line, cast)
                position += 1
            counts.add(scene, 1)
        design = np.stack(rows) if rows else np.zeros((0, len(cast), len(FEATURES)))
        weights = fit_conditional_logit(design, np.array(chosen, np.int64), L2)
        successions, second_successions, company = (
            tuple((first, second, n) for first, row in sorted(table.items()) for second, n in sorted(row.items()) if n)
            for table in counts.pairs.values()
        )
        named = dict(zip(FEATURES, weights.tolist(), strict=True))
        lines = tuple(counts.lines.astype(int).tolist())
        return cls(tuple(cast), named, lines, successions, second_successions, company)

    def log_probs(self, state: TurnState) -> Float64Array:
        """Return the natural-log probabilities `[cast]` of the next speaker."""
        logits = self._counts.features(state) @ np.array([self.weights[name] for name in FEATURES])
        log_probs: Float64Array = logits - np.logaddexp.reduce(logits)
        return log_probs

    @cached_property
    def log_frequencies(self) -> Float64Array:
        """Natural logarithm `[cast]` of how often each speaker speaks, smoothed."""
        log_frequencies: Float64Array = np.log(self._counts.frequencies)
        return log_frequencies

    @cached_property
    def _counts(self) -> TurnCounts:
        counts = TurnCounts(len(self.cast))
        counts.lines[:] = self.lines
        tables = (self.successions, self.second_successions, self.company)
        for table, triples in zip(counts.pairs.values(), tables, strict=True):
            for first, second, count in triples:
                table[first][second] = count
        return counts


def fit_conditional_logit(features: Float64Array, chosen: npt.NDArray[np.int64], l2: float) -> Float64Array:
    """Return the coefficients `[features]` that make choices likeliest, less `l2` / 2 times their squares; Newton's.

    `features` are `[events, alternatives, features]`, and `chosen` `[events]` the index of each event's alternative.
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
        if value - new[0] <= 1e-8 * abs(value):
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
        if not found and len(word) >= MIN_NAME_LETTERS and match[0][0].isupper() and not _POSSESSIVE.search(word):
            speakers = set(by_prefix.get(word, ()))
            for length in range(max(MIN_NAME_LETTERS, len(word) - MAX_ADDED_LETTERS), len(word)):
                speakers |= {who for parts, who in by_first_word.get(word[:length], ()) if len(parts) == 1}
            found = {(speaker, position) for speaker in speakers}
        for speaker, last in found:
            named.add(speaker)
            if text[matches[last].end() :].lstrip()[:1] in ("", ",", ".", ";", ":", "!", "?"):
                addressed.add(speaker)
    return Mentions(frozenset(named), frozenset(addressed))


@lru_cache(maxsize=8)
def _index_names(cast: tuple[str, ...]) -> tuple[dict[str, list[tuple[tuple[str, ...], int]]], dict[str, set[int]]]:
    """Return names and speakers by first word in lower case, and speakers by beginnings that are long enough."""
    by_first_word: defaultdict[str, list[tuple[tuple[str, ...], int]]] = defaultdict(list)
    by_prefix: defaultdict[str, set[int]] = defaultdict(set)
    for speaker, name in enumerate(cast[:-1]):
        if parts := tuple(_WORD.findall(name.lower())):
            by_first_word[parts[0]].append((parts, speaker))
        if len(parts) == 1:
            for length in range(max(MIN_NAME_LETTERS, (len(name) + 1) // 2), len(name)):
                by_prefix[name[:length].lower()].add(speaker)
    return dict(by_first_word), dict(by_prefix)
