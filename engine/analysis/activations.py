"""Inside of a model: the activations of an LSTM, and the attention and the predictions by layer of a Transformer."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from engine.data.arrays import Float32Array, Float64Array
from engine.data.tokenizers import EOS_ID, TokenIds
from engine.generation.generate import entropy_bits, top_tokens
from engine.models.base import LanguageModel, LogProbs
from engine.models.combinations import Mixture, NeuralCache
from engine.models.dialogue import DialogueModel
from engine.models.numpy_lstm import LSTMState, NumpyLSTM
from engine.models.numpy_transformer import AttentionRecord, NumpyTransformer

ActivationName = Literal["input", "forget", "output", "candidate", "cell", "hidden"]
ACTIVATION_NAMES: tuple[ActivationName, ...] = get_args(ActivationName)


def iter_parts(model: LanguageModel) -> Iterator[Any]:
    yield model
    if isinstance(model, (NeuralCache, DialogueModel)):
        yield from iter_parts(model.model)
    elif isinstance(model, Mixture):
        for part in model.models:
            yield from iter_parts(part)


def find_attention_model(model: LanguageModel) -> NumpyTransformer | None:
    """Return the model with attention inside `model`, the first one of a mixture; None if there is none."""
    return next((part for part in iter_parts(model) if hasattr(part, "record_attention")), None)


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
    model: NumpyTransformer, record: AttentionRecord, position: int, target_id: int, top_n: int
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


def find_lstm(model: LanguageModel) -> NumpyLSTM | None:
    """Return the LSTM inside `model`, the first one of a mixture; None if there is none."""
    return next((part for part in iter_parts(model) if isinstance(part, NumpyLSTM)), None)


class UnitStep(NamedTuple):  # of one unit, with the ranges of `LayerActivations`
    forget: float
    input: float
    candidate: float
    cell_before: float
    cell: float
    output: float
    hidden: float


class LSTMStep(NamedTuple):
    token: int
    before: LSTMState
    gates: tuple[Float32Array, ...]  # gates `[4 hidden]` of each layer, in the order input, forget, output, candidate
    after: LSTMState

    def unit(self, layer: int, unit: int) -> UnitStep:
        input_, forget, output, candidate = self.gates[layer].reshape(4, -1)[:, unit].tolist()
        cell_before = float(self.before[layer][1][unit])
        hidden, cell = (float(values[unit]) for values in self.after[layer])
        return UnitStep(forget, input_, candidate, cell_before, cell, output, hidden)


def read_steps(
    lstm: NumpyLSTM, tokens: TokenIds | Sequence[int], known: Sequence[LSTMStep] = ()
) -> tuple[LSTMStep, ...]:
    """Read tokens `[time]` from a state of zeros; reuse the `known` steps of tokens that both texts start with."""
    steps: list[LSTMStep] = []
    for step, token in zip(known, tokens, strict=False):
        if step.token != token:
            break
        steps.append(step)
    state = steps[-1].after if steps else lstm.start()
    for token in tokens[len(steps) :]:
        gates, after = lstm.advance_state(state, int(token))
        steps.append(LSTMStep(int(token), state, gates, after))
        state = after
    return tuple(steps)


def liveliest_unit(step: LSTMStep) -> tuple[int, int]:
    changes = [np.abs(after - before) for (_, after), (_, before) in zip(step.after, step.before, strict=True)]
    layer = int(np.argmax([change.max() for change in changes]))
    return layer, int(np.argmax(changes[layer]))


class NextTokenComparison(NamedTuple):
    ids: TokenIds  # tokens `[count]` by their larger probability, in descending order
    probs: Float64Array  # probabilities `[2, count]` of the tokens in the first and in the second distribution
    best: tuple[int, int]  # likeliest token of the first and of the second distribution
    divergence_bits: float  # Kullback-Leibler, D(first ‖ second); infinite if the second excludes a token of the first

    @property
    def agrees(self) -> bool:
        return self.best[0] == self.best[1]


def compare_next_tokens(log_probs: LogProbs, other: LogProbs, count: int) -> NextTokenComparison:
    """Compare two distributions `[vocabulary]`; list the `count` tokens that are likeliest in either."""
    both = np.stack([log_probs, other])
    ids = np.argsort(-both.max(axis=0), kind="stable")[:count].astype(np.int32)
    first, second = both[:, np.isfinite(log_probs)].astype(np.float64)  # a token with probability 0 adds nothing
    divergence = max(0.0, float(np.exp(first) @ (first - second)) / math.log(2))
    best = both.argmax(axis=1).tolist()
    return NextTokenComparison(ids, np.exp(both[:, ids].astype(np.float64)), (best[0], best[1]), divergence)


@dataclass(frozen=True)
class LayerActivations:
    """Activations of one LSTM layer `[time, hidden]`; each row belongs to the step that read the token.

    cell = forget · cell before + input · candidate, and hidden = output · tanh(cell).
    """

    input: Float32Array  # fraction of the candidate that is added to the cell
    forget: Float32Array  # fraction of the previous cell that is kept
    output: Float32Array  # fraction of the cell that is visible outside the layer
    candidate: Float32Array
    cell: Float32Array
    hidden: Float32Array  # input of the next layer or of the output layer
    # Factors `[time, size]` of each mogrifier round, 0 to 2, for the input and the previous hidden state in turn.
    mogrifier: tuple[Float32Array, ...] = ()

    def get(self, name: ActivationName) -> Float32Array:
        values: Float32Array = getattr(self, name)
        return values


def record_activations(
    lstm: NumpyLSTM, ids: TokenIds | Sequence[int], positions: Sequence[int] | None = None
) -> tuple[LayerActivations, ...]:
    """Read `<eos>` and then `ids`; return the activations at `positions` of them, by default all, first layer first."""
    _, *read = read_steps(lstm, [EOS_ID, *ids])
    steps = read if positions is None else [read[position] for position in positions]
    factors = [lstm.mogrifier_factors(step.before, step.token, step.after) for step in steps]
    layers = []
    for layer, (_, size) in enumerate(lstm.config.layer_sizes()):
        gates = np.array([step.gates[layer] for step in steps], np.float32).reshape(-1, 4 * size)
        hidden, cell = np.array([step.after[layer] for step in steps], np.float32).reshape(-1, 2, size).swapaxes(0, 1)
        mogrifier = tuple(map(np.stack, zip(*(by_layer[layer] for by_layer in factors), strict=True)))
        layers.append(_layer_activations(gates, cell, hidden, mogrifier))
    return tuple(layers)


def _layer_activations(
    gates: Float32Array, cell: Float32Array, hidden: Float32Array, mogrifier: tuple[Float32Array, ...] = ()
) -> LayerActivations:
    input_, forget, output, candidate = np.split(gates, 4, axis=1)
    return LayerActivations(input_, forget, output, candidate, cell, hidden, mogrifier)
