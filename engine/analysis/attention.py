"""Why a Transformer predicts a token: attention rollout over all layers, and the prediction of each layer."""

from dataclasses import dataclass

import numpy as np

from engine.analysis.model_parts import iter_parts
from engine.data.arrays import Float32Array
from engine.errors import InvalidInputError
from engine.generation.sampling import entropy_bits, top_tokens
from engine.models.attention import AttentionModel, AttentionRecord
from engine.models.base import LanguageModel


@dataclass(frozen=True)
class LayerPrediction:
    """The distribution that a model would predict if it ended after one of its layers."""

    layer: int
    """Number of the layer, counted from 1; 0 is the embedding, before all layers."""
    top_tokens: tuple[tuple[str, float], ...]
    """The most likely tokens with their probabilities, in descending order."""
    entropy_bits: float
    """Entropy of the distribution, in bits."""
    target_prob: float
    """Probability of the target."""
    target_rank: int
    """Rank of the target in the distribution, 1 for the most likely token."""


def find_attention_model(model: LanguageModel) -> AttentionModel | None:
    """Return the model with attention inside `model`, the first one of a mixture; None if there is none."""
    return next((part for part in iter_parts(model) if isinstance(part, AttentionModel)), None)


def attention_rollout(weights: Float32Array, position: int) -> Float32Array:
    """Return how much each position contributes to one position through all layers (Abnar and Zuidema 2020).

    The weights of each layer are averaged over its heads. Half of what a layer returns is taken from its input at the
    same position, as the residual connection does: the matrices (weights + identity) / 2 are multiplied. See arXiv
    2005.00928.

    Args:
        weights: Attention `[layers, heads, positions, positions]` as in `AttentionRecord`.
        position: Position whose row of the product is computed.

    Returns:
        Contributions `[positions]`, which sum to 1 and are 0 after `position`.

    Raises:
        InvalidInputError: If there is no such position.
    """
    _check_position(position, weights.shape[-1])
    contributions: Float32Array = np.zeros(weights.shape[-1], np.float32)
    contributions[position] = 1
    for layer_weights in weights[::-1]:
        attended = (
            contributions[: position + 1] @ layer_weights[:, : position + 1, : position + 1]
        )  # [heads, positions]
        contributions[: position + 1] += attended.mean(axis=0)
        contributions /= 2
    return contributions


def attention_rollouts(weights: Float32Array) -> Float32Array:
    """Return `attention_rollout` of every position, `[positions, positions]`, for all `weights` of a record."""
    rollouts: Float32Array = np.eye(weights.shape[-1], dtype=np.float32)
    for layer_weights in weights:
        rollouts += layer_weights.mean(axis=0) @ rollouts
        rollouts /= 2
    return rollouts


def logit_lens(
    model: AttentionModel, record: AttentionRecord, position: int, target_id: int, top_n: int
) -> tuple[LayerPrediction, ...]:
    """Return the prediction of each layer at a position if it were the last one, and first that of the embedding.

    See nostalgebraist, "interpreting GPT: the logit lens" (2020).

    Args:
        model: The model that `record` was made with.
        record: Layer outputs of a text.
        position: Position that predicts the target: the one before the target's own.
        target_id: Token whose probability is stated.
        top_n: Number of most likely tokens to return.

    Raises:
        InvalidInputError: If there is no such position or token.
    """
    _check_position(position, record.layer_outputs.shape[1])
    log_probs = model.layer_log_probs(record.layer_outputs[:, position])
    if not 0 <= target_id < log_probs.shape[1]:
        raise InvalidInputError(
            f"token {target_id} is out of range; use a whole number from 0 to {log_probs.shape[1] - 1}"
        )
    token_texts = model.tokenizer.tokens
    target_log_probs = log_probs[:, target_id]
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


def _check_position(position: int, num_positions: int) -> None:
    if not 0 <= position < num_positions:
        raise InvalidInputError(
            f"position {position} is out of range; use a whole number from 0 to {num_positions - 1}"
        )
