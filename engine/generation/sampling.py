"""The next token of a text: the stages of the sampler chain, in which a logit of -inf removes a token, and previews."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal
from zlib import crc32

import numpy as np
import numpy.typing as npt

from engine.data.tokenizers.base import EOS_ID, PieceDecoder
from engine.errors import RunError
from engine.generation.prompt import DecoderState, prefill_prompt
from engine.generation.settings import SamplerSettings, check_seed
from engine.models.base import LanguageModel, LogProbs
from engine.models.dialogue import DialogueModel

Logits = npt.NDArray[np.float64]
Probs = npt.NDArray[np.float64]
Unit = Literal["word", "token"]
END_OF_TEXT = frozenset([EOS_ID])  # ends a text that is no line of a conversation
MAX_CHARACTER_TOKENS = 4  # the bytes of the longest character
NUM_NOISE_TOKENS = 64  # before a line of a conversation, which its noise depends on


class TextInProgress:
    """A text, and all that its next token depends on. Sampling a token updates it."""

    def __init__(
        self,
        model: LanguageModel,
        ids: Sequence[int],
        settings: SamplerSettings,
        seed: int = 0,
        state: DecoderState | None = None,
        *,
        is_first_token: bool = True,
        end_ids: frozenset[int] | None = None,
        noise_context: Sequence[int] = (),
    ) -> None:
        """Continue the text `ids` from `state`, or after the model has read it as a prompt.

        One of `end_ids`, by default those of the model, ends a reply, but is not its first token. The noise covers the
        whole vocabulary (Gumbel-max), so texts with different settings stay comparable, and depends on the seed and the
        lines before a line of a conversation, which would else begin alike. A seed may raise an InvalidInputError.
        """
        check_seed(seed)
        self.model, self.ids, self.settings, self.seed = model, list(ids), settings, seed
        self.state = prefill_prompt(model, ids) if state is None else state
        self.is_first_token, self.noise_context = is_first_token, noise_context
        self.end_ids = model_end_ids(model) if end_ids is None else end_ids
        self.num_tokens, self.seconds = 0, 0.0

    @property
    def history(self) -> Sequence[int]:
        return self.ids[: len(self.ids) - self.state.num_reread_tokens]

    @cached_property
    def rng(self) -> np.random.Generator:
        context = np.array(self.noise_context[-NUM_NOISE_TOKENS:], np.int32)
        return np.random.default_rng((self.seed, *([crc32(context.tobytes())] if len(context) else [])))

    @cached_property
    def piece_decoder(self) -> PieceDecoder:
        decoder = self.model.tokenizer.piece_decoder()
        for id in self.history[-MAX_CHARACTER_TOKENS:]:
            decoder.decode(id)
        return decoder


def model_end_ids(model: LanguageModel) -> frozenset[int]:
    """Return the tokens that end a reply: a line end of a model with a cast, and else `<eos>`."""
    return frozenset(model.tokenizer.line_end_ids.tolist()) if isinstance(model, DialogueModel) else END_OF_TEXT


def sampling_probs(text: TextInProgress) -> Probs:
    """Return the probabilities `[vocabulary]` of the next token after the sampler chain."""
    probs: Probs = batch_probs([text])[0]
    return probs


def batch_probs(texts: Sequence[TextInProgress]) -> Probs:
    """Return the probabilities `[texts, vocabulary]` of the next token of each text after the sampler chain."""
    rows = [_apply_chain(text) for text in texts]
    probs = rows[0][None] if len(rows) == 1 else np.concatenate(rows).reshape(len(rows), -1)  # faster than np.stack
    probs -= probs.max(axis=1, keepdims=True)
    np.exp(probs, out=probs)
    probs /= probs.sum(axis=1, keepdims=True)
    return probs


def _apply_chain(text: TextInProgress) -> Logits:
    settings, log_probs = text.settings, text.state.log_probs
    if math.isnan(log_probs[0]):  # one NaN or infinite logit makes all log-probabilities NaN
        raise RunError("the model's probabilities are not numbers; its weights are damaged, so use another run")
    logits = log_probs.astype(np.float64)
    if text.model.tokenizer.unk_id is not None:
        logits[text.model.tokenizer.unk_id] = -np.inf
    if text.is_first_token:
        logits[[*text.end_ids]] = -np.inf
    if settings.repetition_penalty != 1:  # an end in the prompt must not keep the reply from ending
        logits = apply_repetition_penalty(logits, {*text.history} - text.end_ids, settings.repetition_penalty)
    logits = apply_temperature(logits, settings.temperature)
    if 0 < settings.top_k < len(logits):
        logits = apply_top_k(logits, settings.top_k)
    if settings.top_p < 1:
        logits = apply_top_p(logits, settings.top_p)
    if settings.min_p:
        logits = apply_min_p(logits, settings.min_p)
    return logits


def apply_repetition_penalty(logits: Logits, words: set[int], penalty: float) -> Logits:
    seen = np.array(sorted(words), dtype=np.int64)
    penalized, values = logits.copy(), logits[seen]
    penalized[seen] = np.where(values > 0, values / penalty, values * penalty)
    return penalized


def apply_temperature(logits: Logits, temperature: float) -> Logits:
    if temperature < 1e-3:  # lower temperatures are greedy in effect, and the division could overflow
        return np.where(np.arange(len(logits)) == logits.argmax(), 0.0, -np.inf)
    return logits / temperature


def apply_top_k(logits: Logits, top_k: int) -> Logits:
    kept = logits.copy()
    kept[np.argpartition(-logits, top_k)[top_k:]] = -np.inf
    return kept


def apply_top_p(logits: Logits, top_p: float) -> Logits:
    order = np.argsort(-logits, kind="stable")
    highest = float(logits.max())
    log_total = highest + math.log(np.exp(logits - highest).sum())
    cumulative = np.cumsum(np.exp(logits - log_total)[order])
    kept = logits.copy()
    kept[order[int(np.searchsorted(cumulative, top_p)) + 1 :]] = -np.inf
    return kept


def apply_min_p(logits: Logits, min_p: float) -> Logits:
    return np.where(logits >= logits.max() + math.log(min_p), logits, -np.inf)


@dataclass(frozen=True)
class Candidate:
    """A possible next token or word, with its probability by the model itself and after the sampler chain."""

    text: str
    model_prob: float
    sampling_prob: float
    ids: tuple[int, ...] = ()  # of its tokens; of several token sequences with this text, the likeliest

    @property
    def highest_prob(self) -> float:
        return max(self.model_prob, self.sampling_prob)


@dataclass(frozen=True)
class NextTokenProbs:
    """The likeliest next tokens or words, likeliest after the sampler chain first. The numbers are about tokens."""

    candidates: tuple[Candidate, ...]
    num_kept: int  # tokens that the sampler chain left to sample from
    vocabulary_size: int
    entropy: float  # of the model's own distribution, in bits
    candidate_unit: Unit = "word"
    token_unit: Unit = "word"
    is_final: bool = True  # False if further words may be found


def next_token_probs(text: TextInProgress, top_n: int) -> NextTokenProbs:
    """Return the `top_n` likeliest next tokens without sampling one."""
    tokenizer, log_probs = text.model.tokenizer, text.state.log_probs
    probs, model_probs = sampling_probs(text), np.exp(log_probs.astype(np.float64))
    order = np.lexsort((-model_probs, -probs))[:top_n].tolist()
    unit: Unit = "token" if tokenizer.is_open else "word"
    found = tuple(Candidate(tokenizer.tokens[id], float(model_probs[id]), float(probs[id]), (id,)) for id in order)
    num_kept, entropy = int(np.count_nonzero(probs)), float(entropy_bits(log_probs))
    return NextTokenProbs(found, num_kept, len(tokenizer), entropy, candidate_unit=unit, token_unit=unit)


def top_tokens(log_probs: LogProbs, k: int) -> tuple[npt.NDArray[np.intp], LogProbs]:
    """Return ids and log-probabilities `[texts, k]` of the likeliest tokens, all if `k` exceeds the vocabulary size."""
    k = min(k, log_probs.shape[1])
    ids = np.argpartition(log_probs, -k, axis=1)[:, -k:]
    values = np.take_along_axis(log_probs, ids, axis=1)
    order = (-values).argsort(axis=1, kind="stable")
    return np.take_along_axis(ids, order, axis=1), np.take_along_axis(values, order, axis=1)


def entropy_bits(log_probs: LogProbs) -> npt.NDArray[np.float32]:
    """Return the entropy, in bits, of distributions `[..., vocabulary]`."""
    entropy: npt.NDArray[np.float32] = np.vecdot(np.exp(log_probs), log_probs) * np.float32(-1 / math.log(2))
    return entropy
