"""Why a Transformer predicts a token: attention rollout over all layers, and the prediction of each layer."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from engine.data.arrays import Float32Array
from engine.generation.sampling import entropy_bits, top_tokens
from engine.models.attention import AttentionModel, AttentionRecord
from engine.models.base import LanguageModel
from engine.models.combinations import Mixture, NeuralCache
from engine.models.dialogue import DialogueModel


def iter_parts(model: LanguageModel) -> Iterator[LanguageModel]:
    yield model
    if isinstance(model, (NeuralCache, DialogueModel)):
        yield from iter_parts(model.model)
    elif isinstance(model, Mixture):
        for part in model.models:
            yield from iter_parts(part)


def find_attention_model(model: LanguageModel) -> AttentionModel | None:
    """Return the model with attention inside `model`, the first one of a mixture; None if there is none."""
    return next((part for part in iter_parts(model) if isinstance(part, AttentionModel)), None)


def attention_rollouts(weights: Float32Array) -> Float32Array:
    """Return how much each position contributes to each one through all layers (Abnar and Zuidema 2020, 2005.00928).

    The weights `[layers, heads, positions, positions]` are averaged over the heads. The rows of the result sum to 1.
    """
    rollouts: Float32Array = np.eye(weights.shape[-1], dtype=np.float32)
    for layer_weights in weights:
        rollouts += layer_weights.mean(axis=0) @ rollouts
        rollouts /= 2  # half of what a layer returns is its input, by the residual connection
    return rollouts


class LayerPrediction(NamedTuple):
    layer: int  # number of the layer, counted from 1; 0 is the embedding, before all layers
    top_tokens: tuple[tuple[str, float], ...]  # the most likely tokens with their probabilities, in descending order
    entropy_bits: float
    target_prob: float
    target_rank: int  # rank of the target in the distribution, 1 for the most likely token


def logit_lens(
    model: AttentionModel, record: AttentionRecord, position: int, target_id: int, top_n: int
) -> tuple[LayerPrediction, ...]:
    """Return the predictions of the embedding and of each layer at a position, as if it were the last layer.

    The position that predicts the target is the one before its own (nostalgebraist, "interpreting GPT", 2020).
    """
    log_probs = model.layer_log_probs(record.layer_outputs[:, position])
    token_texts, target_log_probs = model.tokenizer.tokens, log_probs[:, target_id]
    ranks = 1 + np.count_nonzero(log_probs > target_log_probs[:, None], axis=1)
    top_ids, top_log_probs = top_tokens(log_probs, top_n)
    return tuple(
        LayerPrediction(
            layer=layer,
            top_tokens=tuple(
                (token_texts[id], float(np.exp(value)))
                for id, value in zip(top_ids[layer].tolist(), top_log_probs[layer], strict=True)
            ),
            entropy_bits=float(entropy_bits(log_probs[layer])),
            target_prob=float(np.exp(target_log_probs[layer])),
            target_rank=int(ranks[layer]),
        )
        for layer in range(len(log_probs))
    )
