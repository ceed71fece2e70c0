"""A Transformer computed plainly in double precision, as the papers define each part."""

import numpy as np

from engine.models.transformer_layout import RMS_NORM_EPS, ROPE_BASE


def reference_layers(model, tokens):
    """Return the outputs `[layers + 1, time, width]` and attention weights `[layers, heads, time, time]` of a window.

    Each head and each position is computed on its own, in double precision, as the papers define it.
    """
    config, weights = model.config, {name: value.astype(np.float64) for name, value in model.weights.items()}
    time, size = len(tokens), config.embedding_size // config.num_heads

    def norm(vectors, weight):
        return vectors / np.sqrt((vectors**2).mean(-1, keepdims=True) + RMS_NORM_EPS) * weight

    def rotate(vectors):
        rotated = np.empty_like(vectors)
        for position in range(time):
            for pair in range(size // 2):
                angle = position / ROPE_BASE ** (2 * pair / size)
                rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
                rotated[position, [pair, pair + size // 2]] = rotation @ vectors[position, [pair, pair + size // 2]]
        return rotated

    vectors = weights["model.embed_tokens.weight"][tokens]
    outputs, attention = [vectors], np.zeros((config.num_layers, config.num_heads, time, time))
    for layer in range(config.num_layers):
        prefix = f"model.layers.{layer}"
        q, k, v, o = (weights[f"{prefix}.self_attn.{name}_proj.weight"] for name in "qkvo")
        normed = norm(vectors, weights[f"{prefix}.input_layernorm.weight"])
        heads = []
        for head in range(config.num_heads):
            units = slice(head * size, (head + 1) * size)
            queries, keys, values = rotate(normed @ q[units].T), rotate(normed @ k[units].T), normed @ v[units].T
            for position in range(time):
                scores = keys[: position + 1] @ queries[position] / np.sqrt(size)
                exponentials = np.exp(scores - scores.max())
                attention[layer, head, position, : position + 1] = exponentials / exponentials.sum()
            heads.append(attention[layer, head] @ values)
        vectors = vectors + np.concatenate(heads, axis=1) @ o.T
        gate, up, down = (weights[f"{prefix}.mlp.{name}_proj.weight"] for name in ("gate", "up", "down"))
        normed = norm(vectors, weights[f"{prefix}.post_attention_layernorm.weight"])
        gates = normed @ gate.T
        vectors = vectors + (gates / (1 + np.exp(-gates)) * (normed @ up.T)) @ down.T
        outputs.append(vectors)
    return np.stack(outputs), attention


def reference_logits(model, last_outputs):
    """Return the logits `[time, vocabulary]` for the outputs `[time, width]` of the last layer."""
    weights = {name: value.astype(np.float64) for name, value in model.weights.items()}
    scale = np.sqrt((last_outputs**2).mean(-1, keepdims=True) + RMS_NORM_EPS)
    return last_outputs / scale * weights["model.norm.weight"] @ weights["model.embed_tokens.weight"].T


def reference_log_probs(model, last_outputs):
    """Return the log-probabilities `[time, vocabulary]` for the outputs `[time, width]` of the last layer."""
    logits = reference_logits(model, last_outputs)
    return logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
