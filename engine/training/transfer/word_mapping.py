"""Weights of a model with a closed vocabulary, mapped to another vocabulary (Howard and Ruder 2018, section 3.2)."""

from collections.abc import Mapping

import numpy as np

from engine.data.arrays import Float32Array
from engine.data.tokenizers.base import Tokenizer

VOCABULARY_AXES = {
    "embedding.weight": 0, "output.weight": 0, "output.bias": 0, "punctuation_softmax.bias": 1,
    "model.embed_tokens.weight": 0,
}  # fmt: skip
"""Axis of the vocabulary in each tensor that has one."""


def map_to_vocabulary(weights: Mapping[str, Float32Array], old: Tokenizer, new: Tokenizer) -> dict[str, Float32Array]:
    """Return `weights` of a model with the vocabulary `old` for a model with the vocabulary `new`.

    Tokens of both vocabularies keep their values. A new token gets the mean over all old tokens.
    """
    if old.tokens == new.tokens:
        return dict(weights)
    old_ids = np.array([old.token_to_id.get(token, -1) for token in new.tokens])
    mapped = dict(weights)
    for name, axis in VOCABULARY_AXES.items():
        if name in weights:
            mean = weights[name].mean(axis, keepdims=True)
            is_known = np.expand_dims(old_ids >= 0, [i for i in range(mean.ndim) if i != axis])
            mapped[name] = np.where(is_known, weights[name].take(old_ids, axis), mean)
    return mapped
