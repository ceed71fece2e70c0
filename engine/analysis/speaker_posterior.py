"""Speaker of a text: the posterior over the cast after each word, updated while the text is typed."""

import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from engine.data.arrays import Float64Array
from engine.data.script_form import encode_speaker
from engine.data.tokenizers.base import EOS_ID
from engine.generation.prompt import DecoderState, prefill
from engine.generation.turns import SpeakerProb
from engine.models.base import advance_batch
from engine.models.dialogue import DialogueModel

MAX_STEPS = 32
"""Maximum number of tokens at the end of a text whose states are kept, so that the end can be edited at no cost."""
MAX_STEP_ELEMENTS = 6_000_000
"""Maximum number of log-probabilities in the states that are kept."""
WORD = re.compile(r"\S+")


@dataclass(frozen=True)
class WordEvidence:
    """A word of a text, and its evidence on the speaker."""

    word: str
    """The word with its punctuation."""
    evidence: Float64Array
    """Increase `[cast]` of the logarithm of the unnormalized posterior of each speaker by the word."""
    posterior: Float64Array
    """Probability `[cast]` of each speaker after the word."""
    gain: float
    """Increase of the natural-log odds of the speaker who leads after the whole text."""


@dataclass(frozen=True)
class SpeakerGuess:
    """Posterior over the cast after a text."""

    cast: tuple[str, ...]
    prior: Float64Array
    """Probability `[cast]` of each speaker before the text."""
    words: tuple[WordEvidence, ...]
    """Evidence of each word in text order."""

    @property
    def posterior(self) -> Float64Array:
        """Probability `[cast]` of each speaker after the text."""
        return self.words[-1].posterior if self.words else self.prior

    def ranking(self) -> list[SpeakerProb]:
        """Return the speakers with their probabilities, likeliest first."""
        order = np.argsort(-self.posterior, kind="stable").tolist()
        return [SpeakerProb(self.cast[index], float(self.posterior[index])) for index in order]

    def explain(self, speaker: str, other: str) -> list[tuple[str, float]]:
        """Return each word with the natural logarithm by which it changes the odds of `speaker` against `other`."""
        first, second = self.cast.index(speaker), self.cast.index(other)
        return [(word.word, float(word.evidence[first] - word.evidence[second])) for word in self.words]


@dataclass(frozen=True)
class _Step:
    """A token that was read as every speaker."""

    token: int
    log_likelihood: Float64Array
    """Natural-log probability `[cast]` of the text up to this token, for each speaker."""
    states: tuple[DecoderState, ...]
    """State after the token, for each speaker; empty where it is not kept."""


class SpeakerPosterior:
    """Posterior over the cast of a dialogue model while a text is typed.

    It is the prior times the likelihood ratio of the text model, each to the power that was fitted on validation lines.
    By the language model, and where there is no text model, it is the prior times the likelihood of the text: Bayes'
    rule. The language model reads the text as every speaker, in one batch per token, and only from where the text has
    changed. Threads must not share a posterior.
    """

    def __init__(
        self,
        model: DialogueModel,
        context: DecoderState | None = None,
        *,
        by_language_model: bool = False,
    ) -> None:
        """Prepare the posterior of the next line.

        Args:
            model: Model that reads the text, with a cast.
            context: State after the lines before, in which the distribution of the next speaker is the prior; None
                for a text of an unknown scene, whose prior is how often each speaker speaks.
            by_language_model: Whether the language model judges the text, also where there is a text model.
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
            states = read_as_speakers(model, context or prefill(model, []))
        else:
            self._powers = self._text_model.powers[context is not None]
            self._log_prior = self._powers.prior * self._log_prior
        self._start = _Step(EOS_ID, np.zeros(num_speakers), states)
        self._steps: list[_Step] = []
        self._text_scores: dict[str, Float64Array] = {}
        """Scores of the text model for each beginning of the last text that ends with a word."""
        self._num_kept = min(MAX_STEPS, max(2, MAX_STEP_ELEMENTS // (num_speakers * len(model.tokenizer))))

    def update(self, text: str, *, is_complete: bool = False) -> SpeakerGuess:
        """Return the posterior after `text`, whose white space counts as single spaces.

        An `is_complete` line ends after the text: the evidence of its last word includes its end.
        """
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
        """Return the log-probability `[cast]` of `text` up to each of `ends`, for each speaker."""
        spans = self.model.tokenizer.spans(f" {text}") if text else []  # as after the name in a script
        self._read([span.id for span in spans])
        steps, token_ends = [self._start, *self._steps], [span.end - 1 for span in spans]
        totals = [steps[bisect_right(token_ends, end)].log_likelihood for end in ends]
        if is_complete and totals:
            totals[-1] = totals[-1] + self._line_end_log_probs()
        return totals

    def _read(self, ids: Sequence[int]) -> None:
        """Make `self._steps` the steps of the tokens `ids`, and keep the steps of the common start."""
        steps = self._steps
        num_common = next(
            (index for index, (step, id) in enumerate(zip(steps, ids, strict=False)) if step.token != id),
            min(len(steps), len(ids)),
        )
        if num_common and not steps[num_common - 1].states:
            num_common = 0  # the text was changed far before its end
        del steps[num_common:]
        for id in ids[num_common:]:
            previous = steps[-1] if steps else self._start
            log_likelihood = previous.log_likelihood + self._token_log_probs(id)
            outputs = advance_batch(
                self.model, [state.model_state for state in previous.states], [id] * len(previous.states)
            )
            steps.append(_Step(id, log_likelihood, tuple(DecoderState(*output) for output in outputs)))
            if len(steps) > self._num_kept:
                oldest = steps[-1 - self._num_kept]
                steps[-1 - self._num_kept] = _Step(oldest.token, oldest.log_likelihood, ())

    def _token_log_probs(self, token: int) -> Float64Array:
        """Return the log-probability `[cast]` of `token` after the text that was read, for each speaker."""
        states = (self._steps[-1] if self._steps else self._start).states
        return np.array([state.log_probs[token] for state in states], np.float64)

    def _line_end_log_probs(self) -> Float64Array:
        """Return the log-probability `[cast]` of the end of the line after the text that was read, for each speaker."""
        states = (self._steps[-1] if self._steps else self._start).states
        line_ends = np.stack([state.log_probs[self.model.tokenizer.line_end_ids] for state in states])
        log_probs: Float64Array = np.logaddexp.reduce(line_ends, axis=1, dtype=np.float64)
        return log_probs


def read_as_speakers(model: DialogueModel, context: DecoderState) -> tuple[DecoderState, ...]:
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


def explain_guess(cast: tuple[str, ...], words: Sequence[str], joint: Sequence[Float64Array]) -> SpeakerGuess:
    """Return the posterior over `cast` after a text, and the evidence of each of its words.

    Args:
        cast: Names of the speakers.
        words: Words of the text, with their punctuation.
        joint: Logarithm of the unnormalized posterior `[cast]`, before the text and after each of `words`.
    """
    log_posteriors = [row - np.logaddexp.reduce(row) for row in joint]
    leader = int(np.argmax(log_posteriors[-1]))
    odds = [_log_odds(row, leader) for row in log_posteriors]
    evidence = [
        WordEvidence(
            word, joint[index + 1] - joint[index], np.exp(log_posteriors[index + 1]), odds[index + 1] - odds[index]
        )
        for index, word in enumerate(words)
    ]
    return SpeakerGuess(cast, np.exp(log_posteriors[0]), tuple(evidence))


def _log_odds(log_probs: Float64Array, index: int) -> float:
    """Return the logarithm of the probability at `index` divided by the sum of all others; 0 if there is no other."""
    others = np.delete(log_probs, index)
    return float(log_probs[index] - np.logaddexp.reduce(others)) if len(others) else 0.0
