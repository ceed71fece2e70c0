"""Sampling of tokens: the whole sampler chain, and Gumbel-max sampling from its probabilities."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.data.tokenizers.base import EOS_ID, UNK_ID, TokenIds
from engine.errors import RunError
from engine.generation import processors
from engine.generation.processors import Logits
from engine.generation.settings import SamplerSettings
from engine.models.base import LogProbs

Probs = npt.NDArray[np.float64]
END_OF_TEXT: TokenIds = np.array([EOS_ID], np.int32)
"""The tokens that end a text which is no line of a conversation."""


def process_log_probs(
    log_probs: LogProbs,
    settings: SamplerSettings,
    history: Sequence[int],
    *,
    suppress_eos: bool,
    unk_id: int | None = UNK_ID,
    end_ids: TokenIds = END_OF_TEXT,
) -> Logits:
    """Apply the sampler chain to a distribution `[vocabulary]`; return log-probabilities, -inf for removed tokens.

    `history` contains the ids of the text so far, of which the repetition penalty ignores `end_ids`, the tokens that
    end the text. `suppress_eos` removes them, because they cannot be the first token. `<unk>`, whose id is `unk_id`, is
    never sampled; None for an open vocabulary.
    """
    logits = _process_logits(log_probs, settings, history, suppress_eos=suppress_eos, unk_id=unk_id, end_ids=end_ids)
    return processors.log_softmax(logits)


def sampling_probs(
    log_probs: LogProbs,
    settings: Sequence[SamplerSettings],
    histories: Sequence[Sequence[int]],
    *,
    suppress_eos: bool,
    unk_id: int | None = UNK_ID,
    end_ids: TokenIds = END_OF_TEXT,
) -> Probs:
    """Return the probabilities `[texts, vocabulary]` after the sampler chain of each text; see `process_log_probs`."""
    probs = stack_rows(
        [
            _process_logits(
                text_log_probs, text_settings, history, suppress_eos=suppress_eos, unk_id=unk_id, end_ids=end_ids
            )
            for text_log_probs, text_settings, history in zip(log_probs, settings, histories, strict=True)
        ]
    )
    probs -= probs.max(axis=1, keepdims=True)
    np.exp(probs, out=probs)
    probs /= probs.sum(axis=1, keepdims=True)
    return probs


def sample_tokens(probs: Probs, noise: Probs) -> npt.NDArray[np.intp]:
    """Sample one token id for each text from probabilities `[texts, vocabulary]`.

    `noise` `[texts, vocabulary]` are samples of the standard exponential distribution; the array is overwritten.
    """
    # Gumbel-max without logarithms: argmax of p/E, with E exponential, is a token with probability p. Double precision
    # is needed because float32 noise is exactly 0 now and then, which would select a removed token.
    tokens: npt.NDArray[np.intp] = np.divide(probs, noise, out=noise).argmax(axis=1)
    return tokens


def stack_rows(vectors: Sequence[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    """Stack vectors as the rows of a matrix, much faster than `np.stack`. A single vector is not copied."""
    return vectors[0][None] if len(vectors) == 1 else np.concatenate(vectors).reshape(len(vectors), -1)


def top_tokens(log_probs: LogProbs, k: int) -> tuple[npt.NDArray[np.intp], LogProbs]:
    """Return ids and log-probabilities `[texts, k]` of the likeliest tokens, all if `k` exceeds the vocabulary size."""
    k = min(k, log_probs.shape[1])
    ids = np.argpartition(log_probs, -k, axis=1)[:, -k:]
    rows = np.arange(len(ids))[:, None]
    values = log_probs[rows, ids]
    order = (-values).argsort(axis=1, kind="stable")
    return ids[rows, order], values[rows, order]


def entropy_bits(log_probs: LogProbs) -> npt.NDArray[np.float32]:
    """Return the entropy, in bits, of distributions `[..., vocabulary]`."""
    entropy: npt.NDArray[np.float32] = np.vecdot(np.exp(log_probs), log_probs) * np.float32(-1 / math.log(2))
    return entropy


def sampling_entropy_bits(logits: Logits) -> float:
    """Return the entropy, in bits, of log-probabilities `[vocabulary]` in which -inf removes a token."""
    kept = logits[np.isfinite(logits)]
    return float(-np.vecdot(np.exp(kept), kept) / math.log(2))


def _process_logits(
    log_probs: LogProbs,
    settings: SamplerSettings,
    history: Sequence[int],
    *,
    suppress_eos: bool,
    unk_id: int | None,
    end_ids: TokenIds,
) -> Logits:
    if math.isnan(log_probs[0]):  # one NaN or infinite logit makes all log-probabilities NaN
        raise RunError("the model's probabilities are not numbers; its weights are damaged, so use another run")
    logits = log_probs.astype(np.float64)
    if unk_id is not None:
        logits[unk_id] = -np.inf
    if suppress_eos:
        logits[end_ids] = -np.inf
    if settings.repetition_penalty != 1:
        ends = set(end_ids.tolist())  # an end in the prompt must not keep the reply from ending
        words = [token for token in history if token not in ends]
        logits = processors.apply_repetition_penalty(logits, words, settings.repetition_penalty)
    logits = processors.apply_temperature(logits, settings.temperature)
    if settings.top_k:
        logits = processors.apply_top_k(logits, settings.top_k)
    if settings.top_p < 1:
        logits = processors.apply_top_p(logits, settings.top_p)
    if settings.min_p:
        logits = processors.apply_min_p(logits, settings.min_p)
    return logits
