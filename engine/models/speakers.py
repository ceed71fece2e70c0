"""Models of speakers: who speaks next in a scene, and who says a text.

The turn model is a conditional logit (McFadden 1974): a softmax over the cast, each of whom is described by features.
The text model is naive Bayes on words and a softmax regression on groups of letters.
"""

import base64
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt

from engine.data.arrays import Float32Array, Float64Array
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
MAX_POSITION = 20  # number of lines of a scene from which a longer one counts the same
NEARBY_LINES = 4  # distance within which two speakers of a scene keep company
COMPANY_DECAY = 0.6  # factor by which the company of a speaker counts less for each line since the speaker's last one
# Imaginary lines, spread like all lines, that smooth the counts of each kind of pair of speakers.
PRIOR_LINES = {"succession": 30.0, "second_succession": 10.0, "company": 20.0}
TURN_L2 = 2.0  # weight of half the sum of squared coefficients in the loss of the logit
MAX_DESIGN_ELEMENTS = 20_000_000  # of the matrix of features; a larger training split is thinned out evenly
MIN_NAME_LETTERS = 3  # that a name and its variant share; in a shorter variant also half of the name
MAX_ADDED_LETTERS = 4  # by which a variant is longer than the name, as in Samwise
MAX_CHARACTERS = 2000  # at the end of a text that are read for names and as evidence
WORD_WEIGHT, LETTER_WEIGHT = 0.4, 1.3  # of the two kinds of evidence, which overlap
PRIOR_WORDS = 3000.0  # imaginary words, spread like all words, that smooth the frequencies of a speaker's words
GROUP_SIZES = range(2, 5)  # characters in a group of letters; a space is one of them, and starts and ends a word
MIN_GROUP_LINES = 5  # lines of the training split that a group of letters occurs in
MAX_GROUPS = 8192
TEXT_L2 = 20.0  # weight of half the sum of squared weights in the loss of the regression
MAX_REGRESSION_SPEAKERS = 100  # a larger cast is recognized by its words alone
MAX_REGRESSION_LINES = 4000  # a larger training split is thinned out evenly
MAX_POWER = 10
_TOKEN = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)*|\d+|[.!?,;:'\"-]+")
_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
_POSSESSIVE = re.compile(r"['’]s$", re.IGNORECASE)

Triples = tuple[tuple[int, int, int], ...]  # counts of pairs of speakers: first, second, count


class SpokenLine(NamedTuple):
    """A line of a scene, with the index of its speaker in the cast."""

    speaker: int
    text: str


def cast_index(speaker: str, cast: Sequence[str]) -> int:
    """Return the index in `cast` of a speaker with a canonical name; the last one's, SOMEONE, for all others."""
    member = find_member(speaker, cast)
    return len(cast) - 1 if member is None else cast.index(member)


@dataclass(frozen=True)
class TurnState:
    """The scene so far, as far as the next speaker depends on it; its size does not grow with the scene."""

    speakers: tuple[int, ...] = ()  # of the last three lines, latest first
    last_lines: tuple[tuple[int, int], ...] = ()  # speakers, latest first, with the lines since, up to `MAX_POSITION`
    num_lines: int = 0  # up to `MAX_POSITION`
    named: frozenset[int] = frozenset()  # in the last line
    addressed: frozenset[int] = frozenset()  # in the last line
    addressed_before: frozenset[int] = frozenset()  # in the line before the last one

    def after(self, line: SpokenLine, cast: Sequence[str]) -> "TurnState":
        speaker = line.speaker
        older = [(other, min(lines + 1, MAX_POSITION)) for other, lines in self.last_lines if other != speaker]
        return TurnState(
            (speaker, *self.speakers)[:3],
            ((speaker, 0), *older),
            min(self.num_lines + 1, MAX_POSITION),
            *find_mentions(line.text, cast),
            self.addressed,
        )


class TurnCounts:
    def __init__(self, num_speakers: int, scenes: Iterable[Sequence[SpokenLine]] = ()) -> None:
        self.lines = np.zeros(num_speakers)
        self.pairs = {kind: defaultdict[int, Counter[int]](Counter) for kind in PRIOR_LINES}
        for scene in scenes:
            self.add(scene, 1)

    def add(self, scene: Sequence[SpokenLine], sign: int) -> None:
        # `sign` is -1 to subtract the counts of a scene
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
        # `[cast]`, with one imaginary line each
        frequencies: Float64Array = (self.lines + 1) / (self.lines.sum() + len(self.lines))
        return frequencies

    def features(self, state: TurnState) -> Float64Array:
        # `[cast, features]` of each possible next speaker
        size, frequencies = len(self.lines), self.frequencies

        def indicator(speakers: Iterable[int]) -> Float64Array:
            ones = np.zeros(size)
            ones[list(speakers)] = 1
            return ones

        def log_ratio(kind: str, first: int) -> Float64Array:
            dense, prior = np.zeros(size), PRIOR_LINES[kind]
            if counts := self.pairs[kind].get(first):
                dense[list(counts)] = list(counts.values())
            return np.asarray(np.log((dense / frequencies + prior) / (dense.sum() + prior)))

        rows = dict.fromkeys(FEATURES, np.zeros(size))
        rows["frequency"] = np.log(frequencies)
        is_seen = indicator(speaker for speaker, _ in state.last_lines)
        rows["frequency_seen"] = is_seen * rows["frequency"]
        rows["new"] = (1 - is_seen) * np.log1p(state.num_lines)
        last, last_but_one, third_last = (*state.speakers, None, None, None)[:3]
        if last is not None:
            rows["succession"] = log_ratio("succession", last)
            total = np.zeros(size)
            for speaker, lines in state.last_lines:
                ratio = log_ratio("company", speaker)
                ratio[speaker] = 0
                total += COMPANY_DECAY**lines * ratio
            rows["company"] = total / sum(COMPANY_DECAY**lines for _, lines in state.last_lines)
            rows["named"] = indicator(state.named - {last})
            rows["addressed_before"] = indicator(state.addressed_before - {last})
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
        are_counts = size and len(self.lines) == size and min(self.lines) >= 0
        are_pairs = all(0 <= first < size and 0 <= second < size and count >= 0 for first, second, count in pairs)
        if not (are_counts and are_pairs) or set(self.weights) != set(FEATURES):
            raise InvalidInputError("turn model: the weights, or the counts of the cast, do not fit")

    @classmethod
    def fit(cls, cast: Sequence[str], scenes: Sequence[Sequence[SpokenLine]]) -> Self:
        """Fit the model to scenes, each with the counts of the others, as for a new scene."""
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
        weights = fit_conditional_logit(design, np.array(chosen, np.int64), TURN_L2)
        triples = (
            tuple((first, second, n) for first, row in sorted(table.items()) for second, n in sorted(row.items()) if n)
            for table in counts.pairs.values()
        )
        named = dict(zip(FEATURES, weights.tolist(), strict=True))
        return cls(tuple(cast), named, tuple(counts.lines.astype(int).tolist()), *triples)

    def log_probs(self, state: TurnState) -> Float64Array:
        """Return the natural-log probabilities `[cast]` of the next speaker."""
        logits = self._counts.features(state) @ np.array([self.weights[name] for name in FEATURES])
        return np.asarray(logits - np.logaddexp.reduce(logits))

    @cached_property
    def log_frequencies(self) -> Float64Array:
        return np.log(self._counts.frequencies)

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
    """Return the coefficients `[features]` that make choices likeliest, less `l2` / 2 times their squares; Newton's."""
    events, size = np.arange(len(chosen)), features.shape[2]

    def loss(weights: Float64Array) -> tuple[float, Float64Array]:
        logits = features @ weights
        highest = logits.max(axis=1, keepdims=True)
        log_probs = logits - highest - np.log(np.exp(logits - highest).sum(axis=1, keepdims=True))
        return float(0.5 * l2 * weights @ weights - log_probs[events, chosen].sum()), np.exp(log_probs)

    weights = np.zeros(size)
    value, probs = loss(weights)
    for _ in range(25 if len(chosen) else 0):
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


def find_mentions(text: str, cast: Sequence[str]) -> tuple[frozenset[int], frozenset[int]]:
    """Return the speakers that `text` names, not in the possessive, and of these the addressed: "Run, Frodo!".

    A variant such as Pip for Pippin or Samwise for Sam counts with a capital letter. The last of the cast has no name.
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
    return frozenset(named), frozenset(addressed)


@lru_cache(maxsize=8)
def _index_names(cast: tuple[str, ...]) -> tuple[dict[str, list[tuple[tuple[str, ...], int]]], dict[str, set[int]]]:
    # Names and speakers by first word in lower case, and speakers by beginnings that are long enough.
    by_first_word: defaultdict[str, list[tuple[tuple[str, ...], int]]] = defaultdict(list)
    by_prefix: defaultdict[str, set[int]] = defaultdict(set)
    for speaker, name in enumerate(cast[:-1]):
        if parts := tuple(_WORD.findall(name.lower())):
            by_first_word[parts[0]].append((parts, speaker))
        if len(parts) == 1:
            for length in range(max(MIN_NAME_LETTERS, (len(name) + 1) // 2), len(name)):
                by_prefix[name[:length].lower()].add(speaker)
    return dict(by_first_word), dict(by_prefix)


@dataclass(frozen=True)
class EvidencePowers:
    """Powers of the evidence on who says a text, with which the probabilities come true on validation lines."""

    prior: float = 1.0
    text: float = 1.0


@dataclass(frozen=True)
class SpeakerTextModel:
    """Evidence that the words and letters of a text give on its speaker, without a language model."""

    words: tuple[str, ...]  # words and punctuation marks of the training split, in lower case
    word_counts: tuple[tuple[tuple[int, int], ...], ...]  # per speaker: word, lines with it
    groups: tuple[str, ...]  # groups of letters that the regression knows; none for a large cast
    group_lines: tuple[int, ...]  # number of lines of the training split that each group occurs in
    num_lines: int  # number of lines of the training split
    weights: str  # `[groups, cast]` of the regression, in half precision and base64
    # For a text of an unknown scene, and after the lines of a scene.
    powers: tuple[EvidencePowers, EvidencePowers] = (EvidencePowers(), EvidencePowers())

    def __post_init__(self) -> None:
        try:
            weights = np.frombuffer(base64.b64decode(self.weights, validate=True), np.float16)
        except ValueError:
            weights = np.empty(0, np.float16)
        size = len(self.groups)
        if not (
            all(0 <= word < len(self.words) and n >= 0 for pairs in self.word_counts for word, n in pairs)
            and all(0 <= power <= MAX_POWER for each in self.powers for power in (each.prior, each.text))
            and len(self.group_lines) == size
            and all(0 <= count <= self.num_lines for count in self.group_lines)
            and len(weights) == size * self.num_speakers
            and np.isfinite(weights).all()
        ):
            raise InvalidInputError("text model: the words, groups of letters, weights and powers do not fit")

    @classmethod
    def fit(cls, num_speakers: int, scenes: Iterable[Sequence[SpokenLine]]) -> Self:
        spoken = [(line.speaker, split_words(line.text)) for scene in scenes for line in scene]
        lines = [(speaker, words) for speaker, words in spoken if words]
        vocabulary = {word: index for index, word in enumerate(sorted({word for _, words in lines for word in words}))}
        counts: list[Counter[int]] = [Counter() for _ in range(num_speakers)]
        for speaker, words in lines:
            counts[speaker].update(vocabulary[word] for word in set(words))
        groups = dict[str, int]()  # number of lines with each
        weights = np.zeros((0, num_speakers), np.float32)
        if num_speakers <= MAX_REGRESSION_SPEAKERS:
            found = Counter(group for _, words in lines for group in set(_letter_groups(words)))
            chosen = sorted((-count, group) for group, count in found.items() if count >= MIN_GROUP_LINES)[:MAX_GROUPS]
            groups = {group: -count for count, group in chosen}
        if groups:
            chosen_lines = lines[:: max(1, -(-len(lines) // MAX_REGRESSION_LINES))]
            index, rarity = {group: i for i, group in enumerate(groups)}, _rarity(list(groups.values()), len(lines))
            features = np.zeros((len(chosen_lines), len(groups)), np.float32)
            for row, (_, words) in zip(features, chosen_lines, strict=True):
                positions, values = _group_features(words, index, rarity)
                row[positions] = values
            labels = np.array([speaker for speaker, _ in chosen_lines])
            weights = fit_softmax_regression(features, labels, num_speakers, TEXT_L2)
        return cls(
            words=tuple(vocabulary),
            word_counts=tuple(tuple(sorted(counter.items())) for counter in counts),
            groups=tuple(groups),
            group_lines=tuple(groups.values()),
            num_lines=len(lines),
            weights=base64.b64encode(weights.astype(np.float16).tobytes()).decode(),
        )

    @property
    def num_speakers(self) -> int:
        return len(self.word_counts)

    def scores(self, text: str) -> Float64Array:
        """Return the log-likelihood ratio `[cast]` of the end of a text for each speaker, relative to all speakers."""
        words = split_words(text[-MAX_CHARACTERS:])
        unused_word, users_by_word = self._word_ratios
        scores: Float64Array = np.zeros(self.num_speakers)
        for word in dict.fromkeys(words):
            if users := users_by_word.get(word):
                scores += unused_word
                scores[list(users)] += list(users.values())
        index, rarity, weights = self._regression
        positions, values = _group_features(words, index, rarity)
        return scores * WORD_WEIGHT + LETTER_WEIGHT * (values @ weights[positions])

    @cached_property
    def _word_ratios(self) -> tuple[Float64Array, dict[str, dict[int, float]]]:
        # Log ratio `[cast]` of the frequency of a word that the speaker never uses to its frequency in all lines, and
        # what the use of each word by a speaker adds to it.
        users: list[dict[int, int]] = [{} for _ in self.words]
        for speaker, pairs in enumerate(self.word_counts):
            for word, count in pairs:
                users[word][speaker] = count
        totals = np.array([sum(count for _, count in pairs) for pairs in self.word_counts])
        by_word = np.array([sum(counts.values()) + 0.5 for counts in users])
        frequencies = (by_word / by_word.sum()).tolist()
        ratios = {
            word: {speaker: math.log1p(count / (frequency * PRIOR_WORDS)) for speaker, count in counts.items()}
            for word, counts, frequency in zip(self.words, users, frequencies, strict=True)
        }
        return -np.log1p(totals / PRIOR_WORDS), ratios

    @cached_property
    def _regression(self) -> tuple[dict[str, int], Float32Array, Float32Array]:
        # Position and rarity of each group of letters, and the weights `[groups, cast]`.
        weights = np.frombuffer(base64.b64decode(self.weights), np.float16).astype(np.float32)
        index = {group: position for position, group in enumerate(self.groups)}
        return index, _rarity(self.group_lines, self.num_lines), weights.reshape(len(self.groups), self.num_speakers)


def split_words(text: str) -> list[str]:
    return _TOKEN.findall(text.lower())


def _letter_groups(words: Sequence[str]) -> list[str]:
    text = f" {' '.join(words)} "
    return [text[start : start + size] for size in GROUP_SIZES for start in range(len(text) - size + 1)]


def _rarity(num_lines_with: Sequence[int], num_lines: int) -> Float32Array:
    # Logarithm `[groups]` of the number of lines divided by the number of lines with each group.
    return np.log((num_lines + 1) / (np.array(num_lines_with, np.float64) + 1)).astype(np.float32)


def _group_features(
    words: Sequence[str], index: Mapping[str, int], rarity: Float32Array
) -> tuple[list[int], Float32Array]:
    # Log counts times rarity, divided by the root of their norm.
    counts = Counter(position for group in _letter_groups(words) if (position := index.get(group)) is not None)
    positions = list(counts)
    values: Float32Array = np.log1p(np.array(list(counts.values()), np.float32)) * rarity[positions]
    return positions, values / max(float(np.sqrt(np.linalg.norm(values))), 1e-3)


def fit_softmax_regression(
    features: Float32Array, labels: npt.NDArray[np.int64], num_classes: int, l2: float
) -> Float32Array:
    """Return the weights `[features, classes]` that make labels likeliest, less `l2` / 2 times their squares.

    They are sums of the events' `features` `[events, features]`, so each step works on events: Newton with an upper
    bound of the Hessian (Boehning 1992), accelerated (Nesterov 1983).
    """
    is_label = np.eye(num_classes, dtype=np.float32)[labels]
    constants = np.log((is_label.sum(axis=0) + 1) / len(labels))
    products = features @ features.T
    inverse = np.linalg.inv(products / 2 + l2 * np.eye(len(labels), dtype=np.float32))
    sums = ahead = np.zeros_like(is_label)
    for step in range(200):
        logits = constants + products @ ahead
        probs = np.exp(logits - logits.max(axis=1, keepdims=True))
        probs /= probs.sum(axis=1, keepdims=True)
        before, change = sums, inverse @ (probs - is_label + l2 * ahead)
        sums = ahead - change
        ahead = sums + step / (step + 3) * (sums - before)
        if np.abs(change).max() <= 1e-4 * np.abs(sums).max():
            break
    weights: Float32Array = features.T @ sums
    return weights
