"""Independent references: a vocabulary, Kneser-Ney with dictionaries, an LSTM and a Transformer in double precision."""

from collections import Counter, defaultdict

import numpy as np

from engine.data.tokenizers import EOS, EOS_ID, UNK, WordTokenizer
from engine.storage.tensor_file import Int8Rows


def word_tokenizer(words, min_count=1, name="words"):
    """Return a tokenizer of the words with at least `min_count` occurrences, in order of first appearance."""
    kept = [word for word, count in Counter(words).items() if count >= min_count and word not in (UNK, EOS)]
    return WordTokenizer((UNK, EOS, *kept), name)


class ReferenceKneserNey:
    """Interpolated modified Kneser-Ney (Chen and Goodman 1999) with dictionaries and recursion only."""

    def __init__(self, ids, size, order):
        self.size, self.order = size, order
        text = [EOS_ID, *ids]
        ngrams = {n: Counter(tuple(text[i : i + n]) for i in range(len(text) - n + 1)) for n in range(1, order + 1)}
        self.counts = {order: dict(ngrams[order])}
        for n in range(1, order):
            tokens_before = defaultdict(set)
            for ngram in ngrams[n + 1]:
                tokens_before[ngram[1:]].add(ngram[0])
            self.counts[n] = {ngram: len(tokens) for ngram, tokens in tokens_before.items()}
        self.discounts = {n: self._discounts(counts) for n, counts in self.counts.items()}

    @staticmethod
    def _discounts(counts):
        count_of_counts = Counter(counts.values())
        n1, n2, n3, n4 = (count_of_counts[k] for k in (1, 2, 3, 4))
        if 0 in (n1, n2, n3, n4):
            return 0.5, 1.0, 1.5
        y = n1 / (n1 + 2 * n2)
        estimates = 1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3
        return estimates if min(estimates) > 0 else (0.5, 1.0, 1.5)

    def prob(self, token, context):
        lower = self.prob(token, context[1:]) if context else 1 / self.size
        n = len(context) + 1
        following = {ngram[-1]: c for ngram, c in self.counts[n].items() if ngram[:-1] == context}
        total = sum(following.values())
        if not total:
            return lower
        discounted = sum(self._discount(n, c) for c in following.values())
        count = following.get(token, 0)
        return (count - self._discount(n, count)) / total + discounted / total * lower

    def _discount(self, n, count):
        return self.discounts[n][min(count, 3) - 1] if count else 0.0

    def distribution(self, history):
        context = tuple(history[len(history) - min(len(history), self.order - 1) :])
        return [self.prob(token, context) for token in range(self.size)]


def dequantize(tensor):
    if isinstance(tensor, Int8Rows):
        return tensor.values.astype(np.float64) * tensor.scales.astype(np.float64)[:, None]
    return tensor.astype(np.float64)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def plain_cells(lstm, tokens):
    """Return the values of each unit, by name, for each token and layer: the equations of `torch.nn.LSTM`.

    Factors of a mogrifier (Melis et al. 2019, equations 1 and 2) have the names "0", "1" and so on.
    """
    weights = {name: dequantize(tensor) for name, tensor in lstm.tensors.items()}
    sizes = [hidden for _, hidden in lstm.config.layer_sizes()]
    states = [(np.zeros(size), np.zeros(size)) for size in sizes]
    rows = []
    for token in tokens:
        x, row = weights["embedding.weight"][token], []
        for index, (h, c) in enumerate(states):
            w_ih, w_hh, b_ih, b_hh = (
                weights[f"layers.{index}.{name}_l0"] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            )
            factors = {}
            for r in range(lstm.config.mogrifier_rounds):
                product = weights[f"mogrifiers.{index}.up.{r}"] @ weights[f"mogrifiers.{index}.down.{r}"]
                factor = factors[str(r)] = 2 * sigmoid(product @ (x if r % 2 else h))
                x, h = (x, factor * h) if r % 2 else (factor * x, h)
            i, f, g, o = np.split(w_ih @ x + b_ih + w_hh @ h + b_hh, 4)
            i, f, g, o = sigmoid(i), sigmoid(f), np.tanh(g), sigmoid(o)
            after = f * c + i * g
            x = o * np.tanh(after)
            states[index] = x, after
            cells = {"cell_before": c, "cell": after, "hidden": x}
            row.append({"forget": f, "input": i, "candidate": g, "output": o, **cells, **factors})
        rows.append(row)
    return rows


def plain_next_probs(lstm, tokens):
    """Return the probabilities `[vocabulary]` of the token after `tokens`, for tied weights."""
    hidden = plain_cells(lstm, tokens)[-1][-1]["hidden"]
    logits = dequantize(lstm.tensors["embedding.weight"]) @ hidden + dequantize(lstm.tensors["output.bias"])
    exps = np.exp(logits - logits.max())
    return exps / exps.sum()


def reference_layers(model, tokens):
    """Return the outputs `[layers + 1, time, width]` and attention weights `[layers, heads, time, time]` of a window.

    Each head and each position is computed on its own, in double precision, as the papers define it.
    """
    config, weights = model.config, {name: value.astype(np.float64) for name, value in model.weights.items()}
    time, size = len(tokens), config.head_size or config.embedding_size // config.num_heads
    group = config.num_heads // (config.num_kv_heads or config.num_heads)
    factor = config.rope_factor if config.rope_scaling == "linear" else 1

    def norm(vectors, weight):
        return vectors / np.sqrt((vectors**2).mean(-1, keepdims=True) + config.norm_eps) * weight

    def rotate(vectors):
        rotated = np.empty_like(vectors)
        for position in range(time):
            for pair in range(size // 2):
                angle = position / factor / config.rope_base ** (2 * pair / size)
                rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
                rotated[position, [pair, pair + size // 2]] = rotation @ vectors[position, [pair, pair + size // 2]]
        return rotated

    vectors = weights["model.embed_tokens.weight"][tokens]
    outputs, attention = [vectors], np.zeros((config.num_layers, config.num_heads, time, time))
    for layer in range(config.num_layers):
        prefix = f"model.layers.{layer}"
        q, k, v, o = (weights[f"{prefix}.self_attn.{name}_proj.weight"] for name in "qkvo")
        q_bias, k_bias, v_bias = (
            weights.get(f"{prefix}.self_attn.{name}_proj.bias", np.zeros(len(q))) for name in "qkv"
        )
        normed = norm(vectors, weights[f"{prefix}.input_layernorm.weight"])
        heads = []
        for head in range(config.num_heads):
            units, shared = (slice(index * size, (index + 1) * size) for index in (head, head // group))
            queries = rotate(normed @ q[units].T + q_bias[units])
            keys, values = rotate(normed @ k[shared].T + k_bias[shared]), normed @ v[shared].T + v_bias[shared]
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
    scale = np.sqrt((last_outputs**2).mean(-1, keepdims=True) + model.config.norm_eps)
    output = weights["model.embed_tokens.weight" if model.config.tie_weights else "lm_head.weight"]
    return last_outputs / scale * weights["model.norm.weight"] @ output.T


def reference_log_probs(model, last_outputs):
    """Return the log-probabilities `[time, vocabulary]` for the outputs `[time, width]` of the last layer."""
    logits = reference_logits(model, last_outputs)
    return logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
