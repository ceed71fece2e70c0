"""Speaker of a text: the posterior over the cast after each word, for models with a cast and for those without."""

import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from engine.data.arrays import Float64Array
from engine.data.scripts import Turn, encode_speaker
from engine.data.tokenizers.base import EOS_ID
from engine.generation.prompt import DecoderState, prefill
from engine.generation.turns import SpeakerProb
from engine.models.base import LanguageModel, advance_batch, predict_tokens
from engine.models.dialogue import DialogueModel

MAX_STEPS = 32
"""Maximum number of tokens at the end of a text whose states are kept, so that the end can be edited at no cost."""
MAX_STEP_ELEMENTS = 6_000_000  # maximum number of log-probabilities in the states that are kept
CHUNK_TOKENS = 64  # tokens that are scored together: a large vocabulary has much memory for the distributions of each
WORD = re.compile(r"\S+")


@dataclass(frozen=True)
class WordEvidence:
    """A word of a text, and its evidence on the speaker."""

    word: str  # the word with its punctuation
    evidence: Float64Array
    """Increase `[cast]` of the logarithm of the unnormalized posterior of each speaker by the word."""
    posterior: Float64Array  # probability `[cast]` of each speaker after the word
    gain: float  # increase of the natural-log odds of the speaker who leads after the whole text


@dataclass(frozen=True)
class SpeakerGuess:
    """Posterior over the cast after a text."""

    cast: tuple[str, ...]
    prior: Float64Array  # probability `[cast]` of each speaker before the text
    words: tuple[WordEvidence, ...]

    @property
    def posterior(self) -> Float64Array:
        return self.words[-1].posterior if self.words else self.prior

    def ranking(self) -> list[SpeakerProb]:
        """Return the speakers with their probabilities, likeliest first."""
        order = np.argsort(-self.posterior, kind="stable").tolist()
        return [SpeakerProb(self.cast[index], float(self.posterior[index])) for index in order]

    def explain(self, speaker: str, other: str) -> list[tuple[str, float]]:
        """Return each word with the natural logarithm by which it changes the odds of `speaker` against `other`."""
        first, second = self.cast.index(speaker), self.cast.index(other)
        return [(word.word, float(word.evidence[first] - word.evidence[second])) for word in self.words]


def explain_guess(cast: tuple[str, ...], words: Sequence[str], joint: Sequence[Float64Array]) -> SpeakerGuess:
    """Return the posterior after `words`, given the log of the unnormalized one `[cast]` before and after each."""
    log_posteriors = [row - np.logaddexp.reduce(row) for row in joint]
    leader, odds = int(np.argmax(log_posteriors[-1])), []
    for row in log_posteriors:
        others = np.delete(row, leader)
        odds.append(float(row[leader] - np.logaddexp.reduce(others)) if len(others) else 0.0)
    evidence = [
        WordEvidence(word, joint[i + 1] - joint[i], np.exp(log_posteriors[i + 1]), odds[i + 1] - odds[i])
        for i, word in enumerate(words)
    ]
    return SpeakerGuess(cast, np.exp(log_posteriors[0]), tuple(evidence))


class _Step(NamedTuple):
    """A token that was read as every speaker."""

    token: int
    log_likelihood: Float64Array  # natural-log probability `[cast]` of the text up to this token, for each speaker
    states: tuple[DecoderState, ...]  # state after the token, for each speaker; empty where it is not kept


class SpeakerPosterior:
    """Posterior over the cast of a dialogue model while a text is typed.

    It is the prior times the likelihood ratio of the text model, each to the power that was fitted on validation lines.
    By the language model, and where there is no text model, it is the prior times the likelihood of the text: Bayes'
    rule. The language model reads the text as every speaker, in one batch per token, and only from where the text has
    changed. Threads must not share a posterior.
    """

    def __init__(
        self, model: DialogueModel, context: DecoderState | None = None, *, by_language_model: bool = False
    ) -> None:
        """Prepare the posterior of the line after `context`, whose prior is the distribution of the next speaker.

        Without a context, for a text of an unknown scene, the prior is how often each speaker speaks.
        """
        self.model, num_speakers = model, len(model.cast)
        self._text_model = None if by_language_model else model.text_model
        if context is not None:
            self._log_prior = model.next_speaker_log_probs(context.model_state, context.log_probs)
        elif model.turn_model is not None:
            self._log_prior = model.turn_model.log_frequencies
        else:
            self._log_prior = np.zeros(num_speakers)
        states: tuple[DecoderState, ...] = ()
        if self._text_model is None:
            states = _read_as_speakers(model, context or prefill(model, []))
        else:
            self._powers = self._text_model.powers[context is not None]
            self._log_prior = self._powers.prior * self._log_prior
        self._steps = [_Step(EOS_ID, np.zeros(num_speakers), states)]  # before the text, and after each token
        self._text_scores: dict[str, Float64Array] = {}
        """Scores of the text model for each beginning of the last text that ends with a word."""
        self._num_kept = min(MAX_STEPS, max(2, MAX_STEP_ELEMENTS // (num_speakers * len(model.tokenizer))))

    def update(self, text: str, *, is_complete: bool = False) -> SpeakerGuess:
        """Return the posterior after `text`; the last word of an `is_complete` line includes the end of the line."""
        text = " ".join(text.split())
        ends = [match.end() for match in WORD.finditer(text)]
        if self._text_model is None:
            totals = self._log_likelihoods(text, ends, is_complete=is_complete)
        else:
            # Typing changes the end of a text, so the scores of its other beginnings are known.
            beginnings, known = [text[:end] for end in ends], self._text_scores
            self._text_scores = {
                each: known[each] if each in known else self._text_model.scores(each) for each in beginnings
            }
            totals = [self._powers.text * self._text_scores[each] for each in beginnings]
        joint = [self._log_prior, *(self._log_prior + total for total in totals)]
        return explain_guess(self.model.cast, text.split(), joint)

    def _log_likelihoods(self, text: str, ends: Sequence[int], *, is_complete: bool) -> list[Float64Array]:
        tokenizer = self.model.tokenizer
        spans = tokenizer.spans(f" {text}") if text else []  # as after the name in a script
        self._read([span.id for span in spans])
        token_ends = [span.end - 1 for span in spans]
        totals = [self._steps[bisect_right(token_ends, end)].log_likelihood for end in ends]
        if is_complete and totals:
            line_ends = np.stack([state.log_probs[tokenizer.line_end_ids] for state in self._steps[-1].states])
            totals[-1] = totals[-1] + np.logaddexp.reduce(line_ends, axis=1, dtype=np.float64)
        return totals

    def _read(self, ids: Sequence[int]) -> None:
        """Make `self._steps` the steps of the tokens `ids`, and keep the steps of the common start."""
        steps, size = self._steps, min(len(self._steps) - 1, len(ids))
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


def _read_as_speakers(model: DialogueModel, context: DecoderState) -> tuple[DecoderState, ...]:
    """Return the states `[cast]` after the head of a line of each speaker, read together from `context`."""
    heads = [encode_speaker(model.tokenizer, name) for name in model.cast]
    states = [context] * len(heads)
    for position in range(max(map(len, heads))):
        longer = [index for index, head in enumerate(heads) if len(head) > position]
        model_states = [states[index].model_state for index in longer]
        outputs = advance_batch(model, model_states, [heads[index][position] for index in longer])
        for index, output in zip(longer, outputs, strict=True):
            states[index] = DecoderState(*output)
    return tuple(states)


# Models without a cast: any names are written before the lines, as in a script


def guess_written_speaker(
    model: LanguageModel, cast: tuple[str, ...], turns: Sequence[Turn], text: str, *, eos_per_line: bool
) -> SpeakerGuess:
    """Return the posterior over `cast`, names as the model reads them, of the speaker of a line `text` after `turns`.

    The model reads the line after "NAME:" for each speaker. The posterior is proportional to the prior and to the
    probability of the text and the end of its line: `<eos>` if `eos_per_line`, or else a line feed. The prior is the
    frequency of each speaker in `turns`, with one more line for each, and so uniform without `turns`. White space
    counts as single spaces.
    """
    counts = Counter(turn.speaker for turn in turns)
    prior = np.array([counts[name] + 1 for name in cast], np.float64)
    words = text.split()

    def encode(line: str) -> tuple[list[int], list[int]]:
        spans = model.tokenizer.spans(line if eos_per_line else f"{line}\n")
        ids, ends = [span.id for span in spans], [span.end for span in spans]
        return ([*ids, EOS_ID], [*ends, len(line) + 1]) if eos_per_line else (ids, ends)

    state = prefill(model, [id for turn in turns for id in encode(f"{turn.speaker}: {turn.text}")[0]])
    rows = []
    for name in cast:
        label = f"{name}:"  # a space belongs to the token after it in most vocabularies
        line = f"{label} {' '.join(words)}"
        ids, ends = encode(line)
        first = bisect_right(ends, len(label))
        totals = np.cumsum([0.0, *_iter_scores(model, prefill(model, ids[:first], state), ids[first:])])
        word_ends = [match.end() for match in WORD.finditer(line, len(label))]
        at_words = [totals[max(0, bisect_right(ends, end) - first)] for end in word_ends]
        rows.append([0.0, *at_words[:-1], totals[-1]])  # the last word includes the end of the line
    return explain_guess(cast, words, list(np.log(prior / prior.sum()) + np.array(rows).T))


def _iter_scores(model: LanguageModel, state: DecoderState, ids: Sequence[int]) -> Iterator[float]:
    log_probs, model_state = state.log_probs, state.model_state
    for start in range(0, len(ids), CHUNK_TOKENS):
        chunk = ids[start : start + CHUNK_TOKENS]
        yield float(log_probs[chunk[0]])
        rows, model_state = predict_tokens(model, model_state, chunk)
        yield from rows[np.arange(len(chunk) - 1), list(chunk[1:])].tolist()
        log_probs = rows[-1]
