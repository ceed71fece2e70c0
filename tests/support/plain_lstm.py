"""An LSTM in double precision, computed token by token with the equations in the docs of `torch.nn.LSTM`."""

import numpy as np

from engine.storage.quantization import Int8Rows


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
