"""The LSTM language model in numpy, for inference without torch."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from engine.config import ModelConfig
from engine.data.arrays import Float32Array, Float64Array
from engine.data.punctuation import PUNCTUATION_CLASSES
from engine.data.vocabulary import EOS_ID, TokenIds, Vocabulary
from engine.errors import RunError
from engine.models.base import LogProbs, SequenceOutput
from engine.models.matmul import Float32Matrix, Int8Matrix, Matrix
from engine.storage.tensor_file import check_tensors

LSTMState = tuple[tuple[Float32Array, Float32Array], ...]
"""Hidden and cell state of every layer, each `[hidden]`."""

SCORING_CHUNK = 128
"""Tokens whose log-probabilities are computed at once when a text is scored."""
MAX_TABLE_SIZE = 2**25
"""Maximum elements of the input gate table; for 50,000 words the table would be four times as large as the model."""
MIN_PROB = np.finfo(np.float32).tiny
"""Lower bound of a probability, so that its logarithm is finite."""
MAX_WEIGHT = 1e15
"""Maximum absolute value of a weight. Sums of products of two weights are then finite, and so are all probabilities."""


def weight_shapes(config: ModelConfig, vocabulary_size: int) -> dict[str, tuple[int, ...]]:
    """Return name and shape of every tensor in `model.safetensors`; PyTorch uses the same names."""
    sizes = config.layer_sizes()
    shapes: dict[str, tuple[int, ...]] = {"embedding.weight": (vocabulary_size, config.embedding_size)}
    for i, (input_size, hidden_size) in enumerate(sizes):
        shapes[f"layers.{i}.weight_ih_l0"] = (4 * hidden_size, input_size)
        shapes[f"layers.{i}.weight_hh_l0"] = (4 * hidden_size, hidden_size)
        shapes[f"layers.{i}.bias_ih_l0"] = (4 * hidden_size,)
        shapes[f"layers.{i}.bias_hh_l0"] = (4 * hidden_size,)
    if not config.tie_weights:
        shapes["output.weight"] = (vocabulary_size, config.hidden_size)
    shapes["output.bias"] = (vocabulary_size,)
    if config.punctuation:
        num_classes = len(PUNCTUATION_CLASSES)
        for name in ("gate_weight", "scale", "shift"):
            shapes[f"punctuation_softmax.{name}"] = (num_classes, sizes[-1][1])
        shapes["punctuation_softmax.gate_bias"] = (num_classes,)
        shapes["punctuation_softmax.bias"] = (num_classes, vocabulary_size)
    return shapes


@dataclass(frozen=True)
class _LSTMLayer:
    """Weights of one layer, with gates in the order input, forget, output, candidate.

    The weights of the first three gates are halved: sigmoid(x) = (1 + tanh(x / 2)) / 2, so one tanh computes all gates.
    """

    weight_ih: Matrix | None
    """`[4 hidden, input]`; None in the first layer, whose inputs are embeddings and can be looked up in a table."""
    weight_hh: Matrix  # [4 hidden, hidden]
    bias: Float32Array  # [4 hidden]
    hidden_size: int


@dataclass(frozen=True)
class _PunctuationWeights:
    """Weights of the mixture over punctuation classes, see `engine.models.punctuation_softmax`."""

    gate_weight: Float32Array  # [hidden, classes]
    gate_bias: Float32Array  # [classes]
    scale: Float32Array  # [classes, hidden]
    bias: Float32Array
    """`[classes, vocabulary]`: sum of both biases and of the logits that the shift of the hidden state contributes."""


class NumpyLSTM:
    """A trained LSTM as a `LanguageModel`. The model itself never changes, so threads may share it."""

    def __init__(
        self, config: ModelConfig, vocabulary: Vocabulary, weights: Mapping[str, Float32Array], *, int8: bool = False
    ) -> None:
        """Prepare the weights, named as in `weight_shapes`, for inference.

        With `int8`, all weight matrices are quantized to 8 bits, except the embedding and the first layer's input
        weights.

        Raises:
            RunError: If a tensor is missing, unknown, of the wrong shape, or contains NaN or huge values.
            InvalidInputError: If `int8` is set and numkong is not installed.
        """
        self.vocabulary = vocabulary
        self.config = config
        self.int8 = int8
        _check_weights(weights, weight_shapes(config, len(vocabulary)))
        self.weights = weights
        """Tensors as they are stored in `model.safetensors`."""
        matrix: Callable[[Float32Array], Matrix] = Int8Matrix if int8 else Float32Matrix
        embedding = weights["embedding.weight"]
        output = embedding if config.tie_weights else weights["output.weight"]
        self._output = matrix(output)
        self._output_bias = weights["output.bias"]
        self._punctuation = _punctuation_weights(weights, output) if config.punctuation else None
        input_weights = [
            _to_sigmoids_first_order(weights[f"layers.{i}.weight_ih_l0"]) for i in range(config.num_layers)
        ]
        self._layers = [
            _LSTMLayer(
                weight_ih=matrix(input_weights[i]) if i else None,
                weight_hh=matrix(_to_sigmoids_first_order(weights[f"layers.{i}.weight_hh_l0"])),
                bias=_to_sigmoids_first_order(weights[f"layers.{i}.bias_ih_l0"])
                + _to_sigmoids_first_order(weights[f"layers.{i}.bias_hh_l0"]),
                hidden_size=hidden_size,
            )
            for i, (_, hidden_size) in enumerate(config.layer_sizes())
        ]
        self._embedding, self._first_weight_ih = embedding, np.ascontiguousarray(input_weights[0].T)
        self.input_gate_table: Float32Array | None = None
        """Contribution `[vocabulary, 4 hidden]` of every token to the gates of the first layer, unless too large."""
        if len(embedding) * len(input_weights[0]) <= MAX_TABLE_SIZE:
            self.input_gate_table = embedding @ self._first_weight_ih + self._layers[0].bias

    def start(self) -> LSTMState:
        """Return hidden and cell states of zeros."""
        return tuple(
            (np.zeros(layer.hidden_size, np.float32), np.zeros(layer.hidden_size, np.float32)) for layer in self._layers
        )

    def advance(self, state: LSTMState, token: int) -> tuple[LogProbs, LSTMState]:
        """Read `token`; return the log-probabilities `[vocabulary]` of the next token and the new state."""
        _, state = self.advance_state(state, token)
        return self._log_probs(state[-1][0][None])[0], state

    def advance_batch(self, states: Sequence[LSTMState], tokens: Sequence[int]) -> list[tuple[LogProbs, LSTMState]]:
        """Read one token in each of several texts, with one product per weight matrix."""
        batch = tuple(
            (np.concatenate(hiddens).reshape(len(tokens), -1), np.concatenate(cells).reshape(len(tokens), -1))
            for hiddens, cells in (zip(*layer, strict=True) for layer in zip(*states, strict=True))
        )
        _, batch = self.advance_state(batch, np.asarray(tokens))
        log_probs = self._log_probs(batch[-1][0])
        return [
            (log_probs[row], tuple((hidden[row], cell[row]) for hidden, cell in batch)) for row in range(len(tokens))
        ]

    def _log_probs(self, hidden: Float32Array) -> Float32Array:
        """Return the log-probabilities `[time, vocabulary]` of the tokens after the hidden states `[time, hidden]`."""
        if self._punctuation is not None:
            return self._marginal_log_probs(self._punctuation, hidden)
        logits = self._output.matmul(hidden)
        logits += self._output_bias
        logits -= logits.max(axis=1, keepdims=True)
        logits -= np.log(np.exp(logits).sum(axis=1, keepdims=True), dtype=np.float32)
        return logits

    def _marginal_log_probs(self, punctuation: _PunctuationWeights, hidden: Float32Array) -> Float32Array:
        """Return the same log-probabilities, summed over the punctuation classes before the token."""
        probs = self._output.matmul(hidden[:, None] * punctuation.scale)  # [time, classes, vocabulary]
        probs += punctuation.bias
        probs -= probs.max(axis=2, keepdims=True)
        np.exp(probs, out=probs)
        gates = hidden @ punctuation.gate_weight
        gates += punctuation.gate_bias
        gates -= gates.max(axis=1, keepdims=True)
        np.exp(gates, out=gates)
        gates /= gates.sum(axis=1, keepdims=True)
        gates /= probs.sum(axis=2)
        mixed: Float32Array = np.matmul(gates[:, None], probs)[:, 0]
        np.maximum(mixed, MIN_PROB, out=mixed)
        log_probs: Float32Array = np.log(mixed, out=mixed)
        return log_probs

    def hidden_vector(self, state: LSTMState) -> Float32Array:
        """Return the hidden state `[hidden]` of the last layer."""
        return state[-1][0]

    def forward_sequence(self, ids: TokenIds) -> SequenceOutput:
        """Read a whole text, carrying the state from the first to the last token."""
        chunks = list(self._iter_scored_chunks(ids))
        hidden = [vectors for _, vectors in chunks] or [np.empty((0, self._layers[-1].hidden_size), np.float32)]
        return SequenceOutput(np.concatenate([[], *(log_probs for log_probs, _ in chunks)]), np.concatenate(hidden))

    def score_sequence(self, ids: TokenIds) -> Float64Array:
        """Return the log-probability `[time]` of each token without keeping the hidden vectors in memory."""
        return np.concatenate([[], *(log_probs for log_probs, _ in self._iter_scored_chunks(ids))])

    def _iter_scored_chunks(self, ids: TokenIds) -> Iterator[tuple[Float64Array, Float32Array]]:
        """Yield log-probabilities `[time]` and hidden vectors `[time, hidden]`; one output product per chunk."""
        state, previous = self.start(), EOS_ID
        for start in range(0, len(ids), SCORING_CHUNK):
            targets = ids[start : start + SCORING_CHUNK]
            hidden = np.empty((len(targets), self._layers[-1].hidden_size), np.float32)
            for row, target in enumerate(targets):
                _, state = self.advance_state(state, previous)
                hidden[row], previous = state[-1][0], int(target)
            log_probs = self._log_probs(hidden)
            yield log_probs[np.arange(len(targets)), targets].astype(np.float64), hidden

    def _first_layer_gates(self, token: int | TokenIds) -> Float32Array:
        """Return the contribution `[..., 4 hidden]` of `token` to the gates of the first layer, bias included."""
        if self.input_gate_table is not None:
            return self.input_gate_table[token]
        gates: Float32Array = self._embedding[token] @ self._first_weight_ih + self._layers[0].bias
        return gates

    def advance_state(self, state: LSTMState, token: int | TokenIds) -> tuple[tuple[Float32Array, ...], LSTMState]:
        """Read `token` without predicting the next one.

        Args:
            state: State before the token, or only its first layers: the layers above are not computed then.
            token: One token, or tokens `[batch]` of several texts; the states then are `[batch, hidden]`.

        Returns:
            The gates of every layer after their activation function, `[4 hidden]` or `[batch, 4 hidden]` in the order
            input, forget, output, candidate; and the new state.
        """
        gates_by_layer: list[Float32Array] = []
        new_state: list[tuple[Float32Array, Float32Array]] = []
        for layer, (hidden, cell) in zip(self._layers, state, strict=False):
            size = layer.hidden_size
            gates = layer.weight_hh.matmul(hidden)
            if layer.weight_ih is None:
                gates += self._first_layer_gates(token)
            else:
                gates += layer.weight_ih.matmul(new_state[-1][0])
                gates += layer.bias
            np.tanh(gates, out=gates)
            sigmoids = gates[..., : 3 * size]
            sigmoids *= 0.5
            sigmoids += 0.5
            cell = gates[..., size : 2 * size] * cell
            cell += gates[..., :size] * gates[..., 3 * size :]
            hidden = np.tanh(cell)
            hidden *= gates[..., 2 * size : 3 * size]
            gates_by_layer.append(gates)
            new_state.append((hidden, cell))
        return tuple(gates_by_layer), tuple(new_state)


def _to_sigmoids_first_order(tensor: Float32Array) -> Float32Array:
    """Convert `[4 hidden, ...]` from PyTorch's gate order (input, forget, candidate, output) to `_LSTMLayer`'s."""
    input_, forget, candidate, output = np.split(tensor, 4)
    half = np.float32(0.5)
    return np.concatenate([input_ * half, forget * half, output * half, candidate])


def _punctuation_weights(weights: Mapping[str, Float32Array], output: Float32Array) -> _PunctuationWeights:
    gate_weight, gate_bias, scale, shift, bias = (
        weights[f"punctuation_softmax.{name}"] for name in ("gate_weight", "gate_bias", "scale", "shift", "bias")
    )
    return _PunctuationWeights(
        gate_weight=np.ascontiguousarray(gate_weight.T),
        gate_bias=gate_bias,
        scale=1 + scale,
        bias=weights["output.bias"] + bias + shift @ output.T,
    )


def _check_weights(weights: Mapping[str, Float32Array], shapes: Mapping[str, tuple[int, ...]]) -> None:
    check_tensors({name: (str(array.dtype), array.shape) for name, array in weights.items()}, shapes)
    for name in shapes:
        lowest, highest = float(weights[name].min()), float(weights[name].max())
        if not -MAX_WEIGHT <= lowest <= highest <= MAX_WEIGHT:  # NaN fails the comparison
            value = lowest if abs(lowest) > abs(highest) else highest
            raise RunError(
                f"{name} holds values that are not finite or beyond {MAX_WEIGHT:g}, such as {value:g}; "
                "the run is damaged"
            )
