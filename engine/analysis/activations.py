"""Inside of a model: the activations of an LSTM, and the attention and the predictions by layer of a Transformer."""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from engine.data.arrays import Float32Array, Float64Array, Int64Array
from engine.data.tokenizers import EOS_ID, TokenIds
from engine.generation.generate import entropy_bits, top_tokens
from engine.models.base import LanguageModel, LogProbs
from engine.models.combinations import Mixture, NeuralCache
from engine.models.dialogue import DialogueModel
from engine.models.numpy_lstm import LSTMState, NumpyLSTM
from engine.models.numpy_transformer import AttentionRecord, NumpyTransformer

ActivationName = Literal["input", "forget", "output", "candidate", "cell", "hidden"]
ACTIVATION_NAMES: tuple[ActivationName, ...] = get_args(ActivationName)
BATCH_SIZE = 64  # lines read at once when a corpus is searched


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


class ActivationExample(NamedTuple):
    line_index: int
    position: int  # number of tokens in the line before the token
    value: float
    context_before: tuple[str, ...]
    token: str  # text that the token adds to the line, or the name of a byte inside a character
    context_after: tuple[str, ...]  # text of the tokens that the unit has not read yet


class TopActivations(NamedTuple):
    highest: tuple[ActivationExample, ...]  # in descending order
    lowest: tuple[ActivationExample, ...]  # in ascending order
    num_tokens: int  # number of tokens read; less than the whole corpus if the search was cancelled


def find_top_activations(
    lstm: NumpyLSTM,
    lines: Sequence[TokenIds],
    layer: int,
    unit: int,
    activation: ActivationName = "cell",
    top_n: int = 10,
    context_size: int = 6,
    cancelled: Callable[[], bool] = lambda: False,
) -> TopActivations:
    """Find the `top_n` tokens of a corpus with the highest, and with the lowest, activation of one unit.

    Examples have `context_size` words before and after the token; equal beginnings of lines are listed once. Each line
    is read on its own after `<eos>`, long ones first. When `cancelled` returns True, the tokens read so far count.
    """
    lengths = np.array([len(line) for line in lines], np.int64)
    line_starts = np.cumsum(lengths) - lengths
    values = np.full(int(lengths.sum()), np.nan, np.float32)  # of all lines, one after the other
    longest_first = np.argsort(-lengths, kind="stable")
    for begin in range(0, len(lines), BATCH_SIZE):
        batch = longest_first[begin : begin + BATCH_SIZE]
        steps = _batched_unit_activations(lstm, [lines[i] for i in batch], layer, unit, activation)
        for position, step_values in enumerate(steps):
            values[line_starts[batch[: len(step_values)]] + position] = step_values
            if cancelled():
                break
        if cancelled():
            break
    read = np.flatnonzero(~np.isnan(values))

    def make_example(line_index: int, position: int) -> ActivationExample:
        ids, tokenizer = lines[line_index].tolist(), lstm.tokenizer
        pieces = tokenizer.pieces(ids)
        word_starts = np.append(np.flatnonzero(tokenizer.word_starts[ids]), len(ids)).tolist()
        first = bisect_left(word_starts, position) - context_size
        last = bisect_right(word_starts, position) + context_size
        return ActivationExample(
            line_index=line_index,
            position=position,
            value=float(values[line_starts[line_index] + position]),
            context_before=tuple(pieces[word_starts[first] if first >= 0 else 0 : position]),
            token=pieces[position] or tokenizer.tokens[ids[position]],
            context_after=tuple(pieces[position + 1 : word_starts[min(last, len(word_starts) - 1)]]),
        )

    def make_examples(sort_keys: Float32Array) -> tuple[ActivationExample, ...]:
        order: Int64Array = read[np.argsort(sort_keys[read], kind="stable")]
        chosen: dict[bytes, tuple[int, int]] = {}  # by the line up to the token
        for index in order.tolist():
            if len(chosen) == top_n:
                break
            line_index = int(np.searchsorted(line_starts, index, side="right")) - 1
            position = index - int(line_starts[line_index])
            chosen.setdefault(lines[line_index][: position + 1].tobytes(), (line_index, position))
        return tuple(make_example(*place) for place in chosen.values())

    return TopActivations(highest=make_examples(-values), lowest=make_examples(values), num_tokens=len(read))


def _batched_unit_activations(
    lstm: NumpyLSTM, lines: Sequence[TokenIds], layer: int, unit: int, activation: ActivationName
) -> Iterator[Float32Array]:
    # `lines` are sorted from the longest down; a step yields the values `[lines that have this token]`.
    # The state after <eos> is the same for all lines. Layers above `layer` are not needed.
    _, state = lstm.advance_state(lstm.start()[: layer + 1], EOS_ID)
    state = tuple((np.tile(hidden, (len(lines), 1)), np.tile(cell, (len(lines), 1))) for hidden, cell in state)
    lengths = np.array([len(line) for line in lines])
    for position in range(lengths[0]):
        num_unfinished = int(np.count_nonzero(lengths > position))
        tokens = np.array([line[position] for line in lines[:num_unfinished]], np.int32)
        unfinished = tuple((hidden[:num_unfinished], cell[:num_unfinished]) for hidden, cell in state)
        gates, state = lstm.advance_state(unfinished, tokens)
        hidden, cell = state[layer]
        yield _layer_activations(gates[layer], cell, hidden).get(activation)[:, unit]
