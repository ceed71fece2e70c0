"""Dialogue models: a language model that reads and writes a script, and models of who speaks next and who says a text.

The turn model is a conditional logit (McFadden 1974): a softmax over the cast, each of whom is described by features.
The text model is naive Bayes on words and a softmax regression on groups of letters.
"""

import copy
import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property, lru_cache
from itertools import chain
from typing import Annotated, Any, NamedTuple, Self

import numpy as np
from msgspec import Meta

from engine.data.arrays import Float32Array, Float64Array, Int64Array
from engine.data.scripts import encode_speaker, parse_line
from engine.data.speakers import find_member
from engine.errors import InvalidInputError
from engine.models import base

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
MAX_LINE_TOKENS = 256  # of a line that are read for the names in it; only the first ones of a longer line
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
MIN_GROUP_LINES, MAX_GROUPS = 5, 8192  # lines of the training split that a group of letters occurs in, and groups
TEXT_L2, NUM_TEXT_STEPS = 20.0, 30  # of the loss of the regression, as `TURN_L2`, and steps that minimize it
MAX_REGRESSION_SPEAKERS, MAX_REGRESSION_LINES = 100, 4000  # a larger cast has no regression; more lines are thinned out
MAX_POWER = 10
_TOKEN = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)*|\d+|[.!?,;:'\"-]+")
_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
_POSSESSIVE, _ADDRESS_END = re.compile(r"['’]s$", re.IGNORECASE), re.compile(r"\s*(?:[,.;:!?]|\Z)")

Count = Annotated[int, Meta(ge=0)]  # or an index
Triples = tuple[tuple[Count, Count, Count], ...]  # of pairs of speakers: first, second, count
Power = Annotated[float, Meta(ge=0, le=MAX_POWER)]


class SpokenLine(NamedTuple):
    speaker: int  # index in the cast
    text: str


def cast_index(speaker: str, cast: Sequence[str]) -> int:
    """Return the index in `cast` of a speaker with a canonical name; for others the last one, SOMEONE's."""
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
        older = [(other, min(lines + 1, MAX_POSITION)) for other, lines in self.last_lines if other != line.speaker]
        return TurnState(
            (line.speaker, *self.speakers)[:3],
            ((line.speaker, 0), *older),
            min(self.num_lines + 1, MAX_POSITION),
            *find_mentions(line.text, cast),
            self.addressed,
        )


class TurnCounts:
    def __init__(self, lines: Sequence[int], *tables: Triples) -> None:
        self.lines = np.array(lines, np.float64)
        self.pairs = {kind: defaultdict[int, Counter[int]](Counter) for kind in PRIOR_LINES}
        for table, triples in zip(self.pairs.values(), tables, strict=True):
            for first, second, count in triples:
                table[first][second] = count

    def add(self, scene: Sequence[SpokenLine], sign: int = 1) -> None:
        speakers, (succession, second_succession, company) = [line.speaker for line in scene], self.pairs.values()
        for position, speaker in enumerate(speakers):
            self.lines[speaker] += sign
            for lag, other in enumerate(reversed(speakers[max(0, position - NEARBY_LINES) : position]), start=1):
                if lag <= 2:
                    (succession if lag == 1 else second_succession)[other][speaker] += sign
                if other != speaker:
                    company[other][speaker] += sign
                    company[speaker][other] += sign

    def features(self, state: TurnState) -> Float64Array:
        # `[cast, features]` of each possible next speaker
        size = len(self.lines)
        frequencies = (self.lines + 1) / (self.lines.sum() + size)  # with one imaginary line each

        def is_in(speakers: Iterable[int]) -> Float64Array:
            return np.bincount(list(speakers), minlength=size).astype(np.float64)

        def log_ratio(kind: str, first: int) -> Float64Array:
            counts, prior, row = np.zeros(size), PRIOR_LINES[kind], self.pairs[kind][first]
            counts[list(row)] = list(row.values())
            return np.asarray(np.log((counts / frequencies + prior) / (counts.sum() + prior)))

        rows = dict.fromkeys(FEATURES, np.zeros(size))
        rows["frequency"] = np.log(frequencies)
        is_seen = is_in(speaker for speaker, _ in state.last_lines)
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
            rows["named"] = is_in(state.named - {last})
            rows["addressed_before"] = is_in(state.addressed_before - {last})
        if last_but_one is not None:
            rows["second_succession"] = log_ratio("second_succession", last_but_one)
            for name in ("succession", "second_succession"):
                rows[f"{name}_of_last_but_one"] = rows[name] * is_in([last_but_one])
            if third_last is not None:
                rows["third_last"] = is_in([third_last])
                if last == third_last != last_but_one:
                    rows["alternation"] = is_in([last_but_one])
        return np.stack([rows[name] for name in FEATURES], axis=1)


@dataclass(frozen=True)
class TurnModel:
    """Model of P(next speaker | scene so far), as small as a page of JSON."""

    cast: tuple[str, ...]  # names; the last one, SOMEONE, collects all who speak seldom
    weights: dict[str, float]  # coefficient of each of `FEATURES`
    lines: tuple[Count, ...]  # number of lines `[cast]` in the training split
    successions: Triples
    second_successions: Triples
    company: Triples

    def __post_init__(self) -> None:
        size, pairs = len(self.cast), chain(self.successions, self.second_successions, self.company)
        is_known = all(first < size and second < size for first, second, _ in pairs)
        if not is_known or len(self.lines) != size or self.weights.keys() != set(FEATURES):
            raise InvalidInputError("turn model: a weight or a count does not fit")

    @classmethod
    def fit(cls, cast: Sequence[str], scenes: Sequence[Sequence[SpokenLine]]) -> Self:
        """Fit the model to scenes, each with the counts of the others, as for a new scene."""
        counts = TurnCounts([0] * len(cast), (), (), ())
        for scene in scenes:
            counts.add(scene)
        step = max(1, -(-sum(map(len, scenes)) * len(cast) * len(FEATURES) // MAX_DESIGN_ELEMENTS))
        rows, chosen, position = [], [], 0
        for scene in scenes:
            counts.add(scene, sign=-1)
            state = TurnState()
            for line in scene:
                if position % step == 0:
                    rows.append(counts.features(state))
                    chosen.append(line.speaker)
                state = state.after(line, cast)
                position += 1
            counts.add(scene)
        design = np.stack(rows) if rows else np.zeros((0, len(cast), len(FEATURES)))
        weights = fit_conditional_logit(design, np.array(chosen, np.int64), TURN_L2)
        triples = (
            tuple((first, second, n) for first, row in sorted(table.items()) for second, n in sorted(row.items()) if n)
            for table in counts.pairs.values()
        )
        named, lines = dict(zip(FEATURES, weights.tolist(), strict=True)), counts.lines.astype(int).tolist()
        return cls(tuple(cast), named, tuple(lines), *triples)

    def log_probs(self, state: TurnState) -> Float64Array:
        """Return the natural-log probabilities `[cast]` of the next speaker."""
        logits = self._counts.features(state) @ np.array([self.weights[name] for name in FEATURES])
        return np.asarray(logits - np.logaddexp.reduce(logits))

    @cached_property
    def log_frequencies(self) -> Float64Array:
        return self._counts.features(TurnState())[:, FEATURES.index("frequency")]

    @cached_property
    def _counts(self) -> TurnCounts:
        return TurnCounts(self.lines, self.successions, self.second_successions, self.company)


def fit_conditional_logit(features: Float64Array, chosen: Int64Array, l2: float) -> Float64Array:
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
    named, addressed = set[int](), set[int]()
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
        named |= {speaker for speaker, _ in found}
        addressed |= {speaker for speaker, last in found if _ADDRESS_END.match(text, matches[last].end())}
    return frozenset(named), frozenset(addressed)


@lru_cache(maxsize=8)
def _index_names(cast: tuple[str, ...]) -> tuple[dict[str, list[tuple[tuple[str, ...], int]]], dict[str, set[int]]]:
    # Names and speakers by first word in lower case, and speakers by beginnings that are long enough.
    by_first_word = defaultdict[str, list[tuple[tuple[str, ...], int]]](list)
    by_prefix = defaultdict[str, set[int]](set)
    for speaker, name in enumerate(cast[:-1]):
        parts = tuple(_WORD.findall(name.lower()))
        by_first_word["".join(parts[:1])].append((parts, speaker))
        for length in range(max(MIN_NAME_LETTERS, (len(name) + 1) // 2), len(name) if len(parts) == 1 else 0):
            by_prefix[name[:length].lower()].add(speaker)
    return by_first_word, by_prefix


@dataclass(frozen=True)
class EvidencePowers:
    """Powers of the evidence on who says a text, with which the probabilities come true on validation lines."""

    prior: Power = 1.0
    text: Power = 1.0


@dataclass(frozen=True)
class SpeakerTextModel:
    """Evidence that the words and letters of a text give on its speaker, without a language model."""

    words: tuple[str, ...]  # words and punctuation marks of the training split, in lower case
    word_counts: tuple[tuple[tuple[Count, Count], ...], ...]  # per speaker: word, lines with it
    groups: tuple[str, ...]  # groups of letters that the regression knows; none for a large cast
    group_lines: tuple[Count, ...]  # number of lines of the training split that each group occurs in
    num_lines: Count  # of the training split
    weights: bytes  # `[groups, cast]` of the regression, in half precision
    powers: tuple[EvidencePowers, EvidencePowers] = (EvidencePowers(), EvidencePowers())  # without and with a scene

    def __post_init__(self) -> None:
        if (
            any(word >= len(self.words) for pairs in self.word_counts for word, _ in pairs)
            or len(self.group_lines) != len(self.groups)
            or len(self.weights) != 2 * len(self.groups) * len(self.word_counts)
            or not np.isfinite(np.frombuffer(self.weights, np.float16)).all()
        ):
            raise InvalidInputError("text model: the words, groups of letters and weights do not fit")

    @classmethod
    def fit(cls, num_speakers: int, scenes: Iterable[Sequence[SpokenLine]]) -> Self:
        lines = [(line.speaker, _TOKEN.findall(line.text.lower())) for scene in scenes for line in scene]
        lines = [(speaker, words) for speaker, words in lines if words]
        vocabulary = {word: index for index, word in enumerate(sorted({word for _, words in lines for word in words}))}
        counts: list[Counter[int]] = [Counter() for _ in range(num_speakers)]
        for speaker, words in lines:
            counts[speaker].update(vocabulary[word] for word in set(words))
        found = Counter(group for _, words in lines for group in set(_letter_groups(words)))
        groups = sorted((-count, group) for group, count in found.items() if count >= MIN_GROUP_LINES)
        groups = groups[: MAX_GROUPS if num_speakers <= MAX_REGRESSION_SPEAKERS else 0]
        word_counts = tuple(tuple(sorted(counter.items())) for counter in counts)
        names, group_lines = tuple(group for _, group in groups), tuple(-count for count, _ in groups)
        no_weights = bytes(2 * len(groups) * num_speakers)
        model = cls(tuple(vocabulary), word_counts, names, group_lines, len(lines), no_weights)
        if not groups:
            return model
        chosen = lines[:: max(1, -(-len(lines) // MAX_REGRESSION_LINES))]
        features = np.zeros((len(chosen), len(groups)), np.float32)
        for row, (_, words) in zip(features, chosen, strict=True):
            positions, values = model._letter_features(words)
            row[positions] = values
        weights = fit_softmax_regression(features, [speaker for speaker, _ in chosen], num_speakers, TEXT_L2)
        return replace(model, weights=weights.astype(np.float16).tobytes())

    def scores(self, text: str) -> Float64Array:
        """Return the log-likelihood ratio `[cast]` of the end of a text for each speaker, relative to all speakers."""
        words, (users_by_word, num_words) = _TOKEN.findall(text[-MAX_CHARACTERS:].lower()), self._users
        unused_word, scores = -np.log1p(num_words / PRIOR_WORDS), np.zeros(len(num_words))
        for word in dict.fromkeys(words):
            if users := users_by_word.get(word):
                frequency = (sum(users.values()) + 0.5) / (num_words.sum() + 0.5 * len(users_by_word))
                scores += unused_word
                scores[list(users)] += [math.log1p(count / (frequency * PRIOR_WORDS)) for count in users.values()]
        positions, values = self._letter_features(words)
        weights = np.frombuffer(self.weights, np.float16).reshape(-1, len(scores))[positions].astype(np.float32)
        return np.asarray(scores * WORD_WEIGHT + LETTER_WEIGHT * (values @ weights))

    @cached_property
    def _users(self) -> tuple[dict[str, dict[int, int]], Float64Array]:
        # Lines of each speaker with each word, and their sums `[cast]`.
        users: dict[str, dict[int, int]] = {word: {} for word in self.words}
        for speaker, pairs in enumerate(self.word_counts):
            for word, count in pairs:
                users[self.words[word]][speaker] = count
        return users, np.array([sum(count for _, count in pairs) for pairs in self.word_counts], np.float64)

    @cached_property
    def _groups(self) -> tuple[dict[str, int], Float32Array]:
        # Position of each group of letters, and the logarithm `[groups]` of all lines divided by the lines with it.
        rarity = np.log((self.num_lines + 1) / (np.array(self.group_lines, np.float64) + 1))
        return {group: position for position, group in enumerate(self.groups)}, rarity.astype(np.float32)

    def _letter_features(self, words: Sequence[str]) -> tuple[list[int], Float32Array]:
        # Positions of groups of letters; their log counts times rarity, divided by the root of their norm.
        index, rarity = self._groups
        counts = Counter(position for group in _letter_groups(words) if (position := index.get(group)) is not None)
        positions = list(counts)
        values: Float32Array = np.log1p(np.array(list(counts.values()), np.float32)) * rarity[positions]
        return positions, values / max(float(np.sqrt(np.linalg.norm(values))), 1e-3)


def _letter_groups(words: Sequence[str]) -> list[str]:
    text = f" {' '.join(words)} "
    return [text[start : start + size] for size in GROUP_SIZES for start in range(len(text) - size + 1)]


def fit_softmax_regression(features: Float32Array, labels: Sequence[int], num_classes: int, l2: float) -> Float32Array:
    """Return the weights `[features, classes]` that make labels likeliest, less `l2` / 2 times their squares."""
    # They are sums of the `features` `[events, features]`, so each of Newton's steps works on events, with an upper
    # bound of the Hessian (Boehning 1992).
    is_label = np.eye(num_classes, dtype=np.float32)[list(labels)]
    constants = np.log((is_label.sum(axis=0) + 1) / len(labels))
    products = features @ features.T
    inverse = np.linalg.inv(products / 2 + l2 * np.eye(len(labels), dtype=np.float32))
    sums = np.zeros_like(is_label)
    for _ in range(NUM_TEXT_STEPS):
        logits = constants + products @ sums
        probs = np.exp(logits - logits.max(axis=1, keepdims=True))
        probs /= probs.sum(axis=1, keepdims=True)
        sums -= inverse @ (probs - is_label + l2 * sums)
    return np.asarray(features.T @ sums)


@dataclass(frozen=True)
class DialogueState:
    model_state: base.ModelState
    turns: TurnState = TurnState()  # the scene's lines before the current one
    line: tuple[int, ...] = ()  # first tokens of the current line


class DialogueModel:
    """A language model that reads and writes a script, and follows who has spoken.

    Its distributions are the language model's. The turn model chooses who speaks next, and the text model recognizes
    who says a text; without one of them, the language model does.
    """

    def __init__(
        self,
        model: base.LanguageModel,
        cast: Sequence[str],
        turn_model: TurnModel | None = None,
        load_text_model: Callable[[], SpeakerTextModel | None] = lambda: None,
    ) -> None:
        """Wrap `model`; `cast` has the canonical names of who can be chosen to speak, in all parts."""
        if not cast:
            raise InvalidInputError("the model knows no speakers; use a model that was trained with --mode dialogue")
        self.model, self.cast, self.turn_model = model, tuple(cast), turn_model
        if turn_model and turn_model.cast != self.cast:
            raise InvalidInputError("the turn model does not fit the cast of the model; use the files of one run")
        self.tokenizer, self._load_text_model = model.tokenizer, cache(load_text_model)  # once at all strengths
        self.end_ids = frozenset(model.tokenizer.line_end_ids.tolist())

    @property
    def strengths(self) -> Mapping[str, float]:
        return base.strengths_of(self.model)

    def with_context_size(self, context_size: int) -> Self:
        """Return the same model with a smaller window, if its network has one."""
        if not isinstance(self.model, base.LimitedModel):
            return self
        return self._with(self.model.with_context_size(context_size))

    def with_strengths(self, strengths: Mapping[str, float]) -> Self:
        return self._with(self.model.with_strengths(strengths)) if isinstance(self.model, base.AdaptedModel) else self

    def with_vector(self, name: str, layer: int, vector: Float32Array) -> Self:
        """Return the same model with a steering vector, see `NumpyTransformer`."""
        network: Any = self.model
        return self._with(network.with_vector(name, layer, vector))

    def _with(self, network: base.LanguageModel) -> Self:
        model = copy.copy(self)
        model.model = network
        return model

    @cached_property
    def text_model(self) -> SpeakerTextModel | None:
        """Model of who says a text, which is large and loaded when it is first used; None if there is none."""
        text_model = self._load_text_model()
        if text_model is not None and len(text_model.word_counts) != len(self.cast):
            raise InvalidInputError("the text model has another cast than the model; use the files of one run")
        return text_model

    def start(self) -> DialogueState:
        return DialogueState(self.model.start())

    def advance(self, state: DialogueState, token: int) -> tuple[base.LogProbs, DialogueState]:
        log_probs, model_state = self.model.advance(state.model_state, token)
        return log_probs, self._follow(state, (token,), model_state)

    def advance_batch(
        self, states: Sequence[DialogueState], tokens: Sequence[int]
    ) -> list[tuple[base.LogProbs, DialogueState]]:
        outputs = base.advance_batch(self.model, [state.model_state for state in states], tokens)
        return [
            (log_probs, self._follow(state, (token,), model_state))
            for state, token, (log_probs, model_state) in zip(states, tokens, outputs, strict=True)
        ]

    def predict_tokens(
        self, state: DialogueState, tokens: Sequence[int], *, last_only: bool = False
    ) -> tuple[Float32Array, DialogueState]:
        rows, model_state = base.predict_tokens(self.model, state.model_state, tokens, last_only=last_only)
        return rows, self._follow(state, tokens, model_state)

    def read_last_again(self, state: DialogueState) -> tuple[base.LogProbs, DialogueState]:
        network: Any = self.model
        log_probs, model_state = network.read_last_again(state.model_state)
        return log_probs, replace(state, model_state=model_state)

    def next_speaker_log_probs(self, state: DialogueState, log_probs: base.LogProbs) -> Float64Array:
        """Return the natural-log probabilities `[cast]` of who says the next line, after the end of a line."""
        if self.turn_model is not None:
            return self.turn_model.log_probs(state.turns)
        first_tokens = [encode_speaker(self.tokenizer, name)[0] for name in self.cast]
        by_name = log_probs[first_tokens] - np.log(np.bincount(first_tokens)[first_tokens])
        return np.asarray(by_name - np.logaddexp.reduce(by_name))

    def _follow(self, state: DialogueState, tokens: Sequence[int], model_state: base.ModelState) -> DialogueState:
        turns, line = state.turns, state.line
        for token in tokens:
            if token not in self.end_ids:
                line = (*line, token) if len(line) < MAX_LINE_TOKENS else line
                continue
            for text in self.tokenizer.decode((*line, token)).split("\n")[:-1]:
                if turn := parse_line(text):
                    turns = turns.after(SpokenLine(cast_index(turn.speaker, self.cast), turn.text), self.cast)
                elif not text.strip():
                    turns = TurnState()  # an empty line ends the scene
            line = ()
        return DialogueState(model_state, turns, line)
