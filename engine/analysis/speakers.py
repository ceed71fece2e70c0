"""Speakers: the scores of a dialogue model by speaker, and the posterior over the cast after each word of a text."""

import math
import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from engine.analysis.evaluation import perplexity
from engine.data.arrays import Float64Array
from engine.data.scripts import SCENE_END, Turn, encode_speaker, encode_turn
from engine.data.tokenizers import EOS_ID
from engine.errors import CorpusError
from engine.generation.generate import DecoderState, prefill
from engine.generation.turns import SpeakerProb
from engine.models.base import LanguageModel, advance_batch, predict_tokens
from engine.models.dialogue import DialogueModel, cast_index

MAX_STEPS = 32  # tokens at the end of a text whose states are kept, so that the end can be edited at no cost
MAX_STEP_ELEMENTS = 6_000_000  # log-probabilities in the states that are kept
CHUNK_TOKENS = 64  # that are scored together: a large vocabulary has much memory for the distributions of each
WORD = re.compile(r"\S+")


@dataclass(frozen=True)
class SpeakerScores:  # given the speaker; tokens include line ends, but not the names
    speaker: str
    lines: int
    tokens: int
    characters: int
    perplexity: float
    bits_per_character: float


@dataclass(frozen=True)
class NextSpeakerScores:  # given that there is another line
    turns: int
    bits_per_turn: float
    accuracy: float  # fraction of lines whose speaker is the likeliest; speakers outside the cast count as SOMEONE


@dataclass(frozen=True)
class DialogueEvaluation:
    speakers: tuple[SpeakerScores, ...]  # those with most tokens first
    next_speaker: NextSpeakerScores


def evaluate_by_speaker(model: DialogueModel, scenes: Sequence[Sequence[Turn]]) -> DialogueEvaluation:
    """Score scenes, which the model reads in turn; none with a line raises a CorpusError."""
    if not any(scenes):
        raise CorpusError("the text has no line to score; use a script of lines such as FRODO: Where is Sam?")
    tokenizer, state = model.tokenizer, prefill(model, ())
    scene_end = tokenizer.encode(SCENE_END).tolist()
    sums: dict[str, Float64Array] = {}  # lines, tokens, characters and nats of each speaker
    turn_nats, hits = [], []
    for number, scene in enumerate(scenes):
        state = prefill(model, scene_end if number else (), state)
        for turn in scene:
            expected = model.next_speaker_log_probs(state.model_state, state.log_probs)
            index = cast_index(turn.speaker, model.cast)
            turn_nats.append(-expected[index])
            hits.append(int(expected.argmax()) == index)
            ids = encode_turn(tokenizer, turn)
            num_head = len(encode_speaker(tokenizer, turn.speaker))
            rows, model_state = predict_tokens(model, state.model_state, ids)
            state = DecoderState(rows[-1], model_state)
            log_probs = rows[np.arange(num_head - 1, len(ids) - 1), list(ids[num_head:])]
            num_characters = len(" ".join(turn.text.split())) + 1
            values = [1, len(log_probs), num_characters, -float(log_probs.sum(dtype=np.float64))]
            sums[turn.speaker] = sums.get(turn.speaker, np.zeros(4)) + values
    scores = []
    for name, total in sums.items():
        (lines, tokens, characters), nats = map(int, total[:3]), float(total[3])
        bits_per_character = nats / math.log(2) / characters
        scores.append(SpeakerScores(name, lines, tokens, characters, perplexity(nats / tokens), bits_per_character))
    scores.sort(key=lambda each: -each.tokens)
    bits_per_turn = float(np.mean(turn_nats)) / math.log(2)
    return DialogueEvaluation(tuple(scores), NextSpeakerScores(len(turn_nats), bits_per_turn, float(np.mean(hits))))


class WordEvidence(NamedTuple):
    word: str  # with its punctuation
    evidence: Float64Array  # increase `[cast]` of the log of the unnormalized posterior of each speaker by the word
    posterior: Float64Array  # probability `[cast]` of each speaker after the word
    gain: float  # increase of the natural-log odds of the speaker who leads after the whole text


@dataclass(frozen=True)
class SpeakerGuess:
    """Posterior over the cast after a text."""

    cast: tuple[str, ...]
    prior: Float64Array  # probability `[cast]` of each speaker before the text
    words: tuple[WordEvidence, ...]

    @property
    def posterior(self) -> Float64Array:  # probability `[cast]` of each speaker after the text
        return self.words[-1].posterior if self.words else self.prior

    def ranking(self) -> list[SpeakerProb]:
        """Return the speakers with their probabilities, likeliest first."""
        order = np.argsort(-self.posterior, kind="stable").tolist()
        return [SpeakerProb(self.cast[index], float(self.posterior[index])) for index in order]


def explain_guess(cast: tuple[str, ...], words: Sequence[str], joint: Sequence[Float64Array]) -> SpeakerGuess:
    """Return the posterior after `words`, given the log of the unnormalized one `[cast]` before and after each."""
    log_posteriors = [row - np.logaddexp.reduce(row) for row in joint]
    leader = int(np.argmax(log_posteriors[-1]))
    odds = [row[leader] - np.logaddexp.reduce(np.delete(row, leader)) if len(cast) > 1 else 0 for row in log_posteriors]
    evidence = [
        WordEvidence(word, joint[i + 1] - joint[i], np.exp(log_posteriors[i + 1]), float(odds[i + 1] - odds[i]))
        for i, word in enumerate(words)
    ]
    return SpeakerGuess(cast, np.exp(log_posteriors[0]), tuple(evidence))


class _Step(NamedTuple):  # a token that was read as every speaker
    token: int
    log_likelihood: Float64Array  # natural-log probability `[cast]` of the text up to this token, for each speaker
    states: tuple[DecoderState, ...]  # state after the token, for each speaker; empty where it is not kept


class SpeakerPosterior:
    """Posterior over the cast of a dialogue model while a text is typed; not for several threads at once.

    It is the prior times the likelihood ratio of the text model, each to a fitted power, or the prior times the
    likelihood by the language model, which reads the text as every speaker.
    """

    def __init__(
        self, model: DialogueModel, context: DecoderState | None = None, *, by_language_model: bool = False
    ) -> None:
        """Prepare the posterior of the line after `context`, or of a line anywhere in a scene."""
        self.model, num_speakers = model, len(model.cast)
        self._text_model = None if by_language_model else model.text_model
        if context is not None:
            self._log_prior = model.next_speaker_log_probs(context.model_state, context.log_probs)
        else:
            self._log_prior = np.zeros(num_speakers) if model.turn_model is None else model.turn_model.log_frequencies
        self._text_scores: dict[str, Float64Array] = {}  # of each beginning of the last text that ends with a word
        if self._text_model is not None:
            self._powers = self._text_model.powers[context is not None]
            self._log_prior = self._powers.prior * self._log_prior
            return
        heads = [encode_speaker(model.tokenizer, name) for name in model.cast]
        states = [context or prefill(model, [])] * num_speakers
        for position in range(max(map(len, heads))):
            longer = [index for index, head in enumerate(heads) if len(head) > position]
            model_states = [states[index].model_state for index in longer]
            outputs = advance_batch(model, model_states, [heads[index][position] for index in longer])
            for index, output in zip(longer, outputs, strict=True):
                states[index] = DecoderState(*output)
        self._steps = [_Step(EOS_ID, np.zeros(num_speakers), tuple(states))]  # before the text, and after each token
        self._num_kept = min(MAX_STEPS, max(2, MAX_STEP_ELEMENTS // (num_speakers * len(model.tokenizer))))

    def update(self, text: str, *, is_complete: bool = False) -> SpeakerGuess:
        """Return the posterior after `text`; the last word of an `is_complete` line includes the end of the line."""
        words = text.split()
        text = " ".join(words)
        ends = [match.end() for match in WORD.finditer(text)]
        if self._text_model is None:
            totals = self._log_likelihoods(text, ends, is_complete=is_complete)
        else:
            # Typing changes the end of a text, so the scores of its other beginnings are known.
            known, score = self._text_scores, self._text_model.scores
            starts = [text[:end] for end in ends]
            self._text_scores = {each: known[each] if each in known else score(each) for each in starts}
            totals = [self._powers.text * each for each in self._text_scores.values()]
        return explain_guess(self.model.cast, words, [self._log_prior, *(self._log_prior + each for each in totals)])

    def _log_likelihoods(self, text: str, ends: Sequence[int], *, is_complete: bool) -> list[Float64Array]:
        tokenizer, steps = self.model.tokenizer, self._steps
        spans = tokenizer.spans(f" {text}") if text else []  # as after the name in a script
        ids, token_ends = [span.id for span in spans], [span.end - 1 for span in spans]
        size = min(len(steps) - 1, len(ids))
        num_common = next((index for index in range(size) if steps[index + 1].token != ids[index]), size)
        if not steps[num_common].states:
            num_common = 0  # the text was changed far before its end
        del steps[num_common + 1 :]
        for id in ids[num_common:]:
            states = steps[-1].states
            log_probs = np.array([state.log_probs[id] for state in states], np.float64)
            outputs = advance_batch(self.model, [state.model_state for state in states], [id] * len(states))
            new_states = tuple(DecoderState(*output) for output in outputs)
            steps.append(_Step(id, steps[-1].log_likelihood + log_probs, new_states))
            if len(steps) - 1 > self._num_kept:
                steps[-1 - self._num_kept] = steps[-1 - self._num_kept]._replace(states=())
        totals = [steps[bisect_right(token_ends, end)].log_likelihood for end in ends]
        if is_complete and totals:
            line_ends = np.stack([state.log_probs[tokenizer.line_end_ids] for state in steps[-1].states])
            totals[-1] = totals[-1] + np.logaddexp.reduce(line_ends, axis=1, dtype=np.float64)
        return totals


def guess_written_speaker(
    model: LanguageModel, cast: tuple[str, ...], turns: Sequence[Turn], text: str, *, eos_per_line: bool
) -> SpeakerGuess:
    """Return the posterior over `cast` of the speaker of a line `text` after `turns`, by a model without a cast.

    It is proportional to the lines of each speaker in `turns`, plus one, and to the probability of the text and its end
    after "NAME:", which is `<eos>` if `eos_per_line`, or else a line feed.
    """
    prior = np.array([1 + sum(turn.speaker == name for turn in turns) for name in cast], np.float64)
    words = text.split()

    def encode(line: str) -> tuple[list[int], list[int]]:
        spans = model.tokenizer.spans(line if eos_per_line else f"{line}\n")
        ids, ends = [span.id for span in spans], [span.end for span in spans]
        return ([*ids, EOS_ID], [*ends, len(line) + 1]) if eos_per_line else (ids, ends)

    context = prefill(model, [id for turn in turns for id in encode(f"{turn.speaker}: {turn.text}")[0]])
    rows = []
    for name in cast:
        label = f"{name}:"  # a space belongs to the token after it in most vocabularies
        line = f"{label} {' '.join(words)}"
        ids, ends = encode(line)
        first = bisect_right(ends, len(label))
        log_probs, model_state, *_ = prefill(model, ids[:first], context)
        scores = [0.0]
        for start in range(first, len(ids), CHUNK_TOKENS):
            chunk = ids[start : start + CHUNK_TOKENS]
            scores.append(float(log_probs[chunk[0]]))
            distributions, model_state = predict_tokens(model, model_state, chunk)
            scores += distributions[np.arange(len(chunk) - 1), chunk[1:]].tolist()
            log_probs = distributions[-1]
        totals = np.cumsum(scores)
        word_ends = [match.end() for match in WORD.finditer(line, len(label))]
        at_words = [totals[max(0, bisect_right(ends, end) - first)] for end in word_ends]
        rows.append([0.0, *at_words[:-1], totals[-1]])  # the last word includes the end of the line
    return explain_guess(cast, words, list(np.log(prior / prior.sum()) + np.array(rows).T))
