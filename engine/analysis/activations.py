"""Activations of an LSTM: gates and states token by token, and the tokens that activate a unit most."""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from engine.analysis.model_parts import iter_parts
from engine.data.arrays import Float32Array, Int64Array
from engine.data.tokenizers.base import EOS_ID, TokenIds
from engine.errors import InvalidInputError
from engine.models.base import LanguageModel
from engine.models.numpy_lstm import NumpyLSTM

ActivationName = Literal["input", "forget", "output", "candidate", "cell", "hidden"]
ACTIVATION_NAMES: tuple[ActivationName, ...] = get_args(ActivationName)

BATCH_SIZE = 64
"""Lines read at once when a corpus is searched."""


@dataclass(frozen=True)
class LayerActivations:
    """Activations of one LSTM layer `[time, hidden]`; each row belongs to the step that read the token.

    With cell' for the cell of the previous step: cell = forget · cell' + input · candidate, and
    hidden = output · tanh(cell).
    """

    input: Float32Array
    """Input gate, 0 to 1: fraction of the candidate that is added to the cell."""
    forget: Float32Array
    """Forget gate, 0 to 1: fraction of the previous cell that is kept. 0 forgets everything."""
    output: Float32Array
    """Output gate, 0 to 1: fraction of the cell that is visible outside the layer."""
    candidate: Float32Array
    """New content for the cell, -1 to 1."""
    cell: Float32Array
    """Cell state after the token, unbounded."""
    hidden: Float32Array
    """Hidden state after the token, -1 to 1: the input of the next layer or of the output layer."""
    mogrifier: tuple[Float32Array, ...] = ()
    """Factors `[time, size]` of each mogrifier round, 0 to 2, for the input and the previous hidden state in turn.

    The gates are computed from the input and the hidden state after all rounds. Empty without a mogrifier.
    """

    def get(self, name: ActivationName) -> Float32Array:
        """Return the activation with this name; an unknown name raises an InvalidInputError."""
        _check_activation_name(name)
        values: Float32Array = getattr(self, name)
        return values


@dataclass(frozen=True)
class ActivationExample:
    """A token that activates a unit strongly, with its context."""

    line_index: int
    position: int
    """Number of tokens in the line before the token."""
    value: float
    context_before: tuple[str, ...]
    """Text that each token before adds to the line, as `Tokenizer.pieces` returns it."""
    token: str
    """Text that the token adds to the line, or the name of a byte inside a character."""
    context_after: tuple[str, ...]
    """Text that each token after it adds to the line; the unit has not read these tokens yet."""


@dataclass(frozen=True)
class TopActivations:
    """The tokens with the highest activation of one unit, in descending order, and the lowest, in ascending order."""

    highest: tuple[ActivationExample, ...]
    lowest: tuple[ActivationExample, ...]
    num_tokens: int
    """Number of tokens read; less than the whole corpus if the search was cancelled."""


def find_lstm(model: LanguageModel) -> NumpyLSTM | None:
    """Return the LSTM inside `model`, the first one of a mixture; None if there is none.

    For dynamic evaluation, return the LSTM with its weights after training.
    """
    return next((part for part in iter_parts(model) if isinstance(part, NumpyLSTM)), None)


def record_activations(
    lstm: NumpyLSTM, ids: TokenIds | Sequence[int], heads: Mapping[int, Sequence[int]] | None = None
) -> tuple[LayerActivations, ...]:
    """Read `<eos>` and then `ids`; return the activations for `ids`, first layer first.

    `heads` are the tokens of names that the LSTM reads before tokens of `ids`, by the index of these (see
    `TokenizedText.heads`).
    """
    sizes = [hidden_size for _, hidden_size in lstm.config.layer_sizes()]
    gates = [np.empty((len(ids), 4 * size), np.float32) for size in sizes]
    hiddens = [np.empty((len(ids), size), np.float32) for size in sizes]
    cells = [np.empty((len(ids), size), np.float32) for size in sizes]
    factors: list[tuple[tuple[Float32Array, ...], ...]] = []
    _, state = lstm.advance_state(lstm.start(), EOS_ID)
    for row, token in enumerate(ids):
        for name_token in (heads or {}).get(row, ()):
            _, state = lstm.advance_state(state, name_token)
        before = state
        gates_by_layer, state = lstm.advance_state(before, int(token))
        for layer, (hidden, cell) in enumerate(state):
            gates[layer][row], hiddens[layer][row], cells[layer][row] = gates_by_layer[layer], hidden, cell
        factors.append(lstm.mogrifier_factors(before, int(token), state))
    mogrifiers = [
        tuple(map(np.stack, zip(*(by_layer[layer] for by_layer in factors), strict=True)))
        for layer in range(len(sizes))
    ]
    return tuple(map(_to_layer_activations, gates, cells, hiddens, mogrifiers))


def unit_activations(
    layers: Sequence[LayerActivations], layer: int, unit: int, activation: ActivationName = "cell"
) -> Float32Array:
    """Return the activation `[time]` of one unit, selected from the result of `record_activations`."""
    _check_index("layer", layer, len(layers))
    values = layers[layer].get(activation)
    _check_index("unit", unit, values.shape[1])
    return values[:, unit]


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

    Examples have `context_size` words before and after the token. Each line is read on its own after `<eos>`, so
    `record_activations` on the line gives the same values. A token is listed once if several lines start with the same
    tokens up to it. `cancelled` is called after every step; once it returns True, the result covers the tokens read so
    far. Long lines are read first.

    Raises:
        InvalidInputError: If there is no such layer, unit or activation.
    """
    sizes = [hidden_size for _, hidden_size in lstm.config.layer_sizes()]
    _check_index("layer", layer, len(sizes))
    _check_index("unit", unit, sizes[layer])
    _check_activation_name(activation)
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
        order = read[np.argsort(sort_keys[read], kind="stable")]
        return tuple(make_example(*place) for place in _first_distinct_prefixes(order, lines, line_starts, top_n))

    return TopActivations(highest=make_examples(-values), lowest=make_examples(values), num_tokens=len(read))


def _batched_unit_activations(
    lstm: NumpyLSTM,
    lines: Sequence[TokenIds],
    layer: int,
    unit: int,
    activation: ActivationName,
) -> Iterator[Float32Array]:
    """Read `lines`, sorted from the longest down; yield per step the unit's values `[lines that have this token]`."""
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
        yield _to_layer_activations(gates[layer], cell, hidden).get(activation)[:, unit]


def _to_layer_activations(
    gates: Float32Array, cell: Float32Array, hidden: Float32Array, mogrifier: tuple[Float32Array, ...] = ()
) -> LayerActivations:
    """Split the gates `[rows, 4 hidden]` of `NumpyLSTM.advance_state` by name."""
    input_, forget, output, candidate = np.split(gates, 4, axis=1)
    return LayerActivations(input_, forget, output, candidate, cell, hidden, mogrifier)


def _first_distinct_prefixes(
    order: Int64Array, lines: Sequence[TokenIds], line_starts: Int64Array, top_n: int
) -> list[tuple[int, int]]:
    """Return line index and position of the first `top_n` tokens in `order`, skipping repeated line prefixes.

    `order` contains positions in the concatenated lines; `line_starts` `[lines]` is the position where each line
    starts.
    """
    chosen: dict[bytes, tuple[int, int]] = {}
    for index in order.tolist():
        if len(chosen) == top_n:
            break
        line_index = int(np.searchsorted(line_starts, index, side="right")) - 1
        position = index - int(line_starts[line_index])
        chosen.setdefault(lines[line_index][: position + 1].tobytes(), (line_index, position))
    return list(chosen.values())


def _check_activation_name(name: str) -> None:
    if name not in ACTIVATION_NAMES:
        raise InvalidInputError(f"unknown activation {name!r}; use one of {', '.join(ACTIVATION_NAMES)}")


def _check_index(name: str, index: int, size: int) -> None:
    if not 0 <= index < size:
        raise InvalidInputError(f"{name} {index} is out of range; use a whole number from 0 to {size - 1}")
