"""The LSTM language model in numpy, for inference without torch."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from engine.config import ModelConfig
from engine.data.arrays import Float32Array
from engine.data.punctuation import PUNCTUATION_CLASSES, PunctuationIds
from engine.data.tokenizers.base import EOS_ID, TokenIds, Tokenizer
from engine.models.base import LogProbs
from engine.models.input_gates import InputGates, embed
from engine.models.matmul import Int8Matrix, Matrix, make_matrix
from engine.models.numpy_decoder import NumpyDecoder, normalize_logits
from engine.models.numpy_mogrifier import MogrifierRounds, make_rounds, mogrify
from engine.models.numpy_punctuation import NumpyPunctuationSoftmax, softmax
from engine.models.weight_checks import check_weights
from engine.storage.quantization import Int8Rows
from engine.storage.tensor_file import StoredTensor, to_float32

Number = TypeVar("Number", bound=np.generic)


LSTMState = tuple[tuple[Float32Array, Float32Array], ...]
"""Hidden and cell state of every layer, each `[hidden]`, or `[batch, hidden]` for several texts read together."""
SCORING_CHUNK = 128
"""Tokens whose log-probabilities are computed at once when a text is scored."""


def weight_shapes(config: ModelConfig, vocabulary_size: int) -> dict[str, tuple[int, ...]]:
    """Return name and shape of every tensor in `model.safetensors`; PyTorch uses the same names."""
    sizes = config.layer_sizes()
    shapes: dict[str, tuple[int, ...]] = {"embedding.weight": (vocabulary_size, config.embedding_size)}
    for i, (input_size, hidden_size) in enumerate(sizes):
        shapes[f"layers.{i}.weight_ih_l0"] = (4 * hidden_size, input_size)
        shapes[f"layers.{i}.weight_hh_l0"] = (4 * hidden_size, hidden_size)
        shapes[f"layers.{i}.bias_ih_l0"] = (4 * hidden_size,)
        shapes[f"layers.{i}.bias_hh_l0"] = (4 * hidden_size,)
        for index in range(config.mogrifier_rounds):
            source, target = (hidden_size, input_size) if index % 2 == 0 else (input_size, hidden_size)
            shapes[f"mogrifiers.{i}.down.{index}"] = (config.mogrifier_rank, source)
            shapes[f"mogrifiers.{i}.up.{index}"] = (target, config.mogrifier_rank)
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
    """`[4 hidden, input]`; None in a first layer whose products with the embeddings are in `InputGates`."""
    weight_hh: Matrix  # [4 hidden, hidden]
    bias: Float32Array  # [4 hidden]
    hidden_size: int
    mogrifier: MogrifierRounds = ()


class NumpyLSTM(NumpyDecoder):
    """A trained LSTM as a `LanguageModel`. The model itself never changes, so threads may share it."""

    def __init__(
        self, config: ModelConfig, tokenizer: Tokenizer, weights: Mapping[str, StoredTensor], *, int8: bool = False
    ) -> None:
        """Prepare the weights, named as in `weight_shapes`, for inference.

        Matrices that are stored in 8 bits are multiplied in 8 bits. With `int8`, all other weight matrices are
        quantized too, except the embedding and the first layer's input weights.

        Raises:
            RunError: If a tensor is missing, unknown, of the wrong shape, or contains NaN or huge values.
            InvalidInputError: If 8 bits are needed and numkong is not installed.
        """
        self.tokenizer = tokenizer
        self.config = config
        self.int8 = int8
        check_weights(weights, weight_shapes(config, len(tokenizer)))
        self._tensors: dict[str, StoredTensor | Int8Matrix] = dict(weights)
        """Tensors as given, except that layers in 8 bits are kept only once, in the form of `self._layers`."""
        self._embedding = weights["embedding.weight"]
        output = self._embedding if config.tie_weights else weights["output.weight"]
        self._output = make_matrix(output, quantize=int8, by_columns=not config.punctuation)
        self._output_bias = to_float32(weights["output.bias"])
        self._punctuation: NumpyPunctuationSoftmax | None = None
        if config.punctuation:
            self._punctuation = NumpyPunctuationSoftmax.from_weights(weights, self._output, to_float32(output))
        self._layers = [self._make_layer(weights, i, size) for i, (_, size) in enumerate(config.layer_sizes())]
        first = self._layers[0]
        self.input_gates: InputGates | None = None
        """Input gates of the first layer by token; None with a mogrifier, where the input depends on the state."""
        if not first.mogrifier and first.weight_ih is not None:
            self.input_gates = InputGates(first.weight_ih, first.bias, self._embedding)
            self._layers[0] = replace(first, weight_ih=None)

    def _make_layer(self, weights: Mapping[str, StoredTensor], index: int, hidden_size: int) -> _LSTMLayer:
        """Convert the weights of a layer."""
        weight_ih, weight_hh, bias_ih, bias_hh = (
            f"layers.{index}.{name}_l0" for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        )
        layer = _LSTMLayer(
            weight_ih=make_matrix(
                _to_sigmoids_first_order(weights[weight_ih]), quantize=self.int8 and index > 0, by_columns=True
            ),
            weight_hh=make_matrix(_to_sigmoids_first_order(weights[weight_hh]), quantize=self.int8, by_columns=True),
            bias=to_float32(_to_sigmoids_first_order(weights[bias_ih]))
            + to_float32(_to_sigmoids_first_order(weights[bias_hh])),
            hidden_size=hidden_size,
            mogrifier=make_rounds(weights, index, self.config.mogrifier_rounds),
        )
        for name, matrix in ((weight_ih, layer.weight_ih), (weight_hh, layer.weight_hh)):
            if isinstance(weights[name], Int8Rows) and isinstance(matrix, Int8Matrix):
                self._tensors[name] = matrix
        return layer

    @property
    def has_int8_weights(self) -> bool:
        """True if a matrix was stored in 8 bits."""
        return any(isinstance(tensor, (Int8Rows, Int8Matrix)) for tensor in self._tensors.values())

    @property
    def tensors(self) -> dict[str, StoredTensor]:
        """Tensors by name, as they were given; layers in 8 bits are computed at every access."""
        return {
            name: _from_sigmoids_first_order(tensor.to_rows()) if isinstance(tensor, Int8Matrix) else tensor
            for name, tensor in self._tensors.items()
        }

    def start(self) -> LSTMState:
        """Return hidden and cell states of zeros."""
        return tuple(
            (np.zeros(layer.hidden_size, np.float32), np.zeros(layer.hidden_size, np.float32)) for layer in self._layers
        )

    def advance(self, state: LSTMState, token: int) -> tuple[LogProbs, LSTMState]:
        """Read `token`; return the log-probabilities `[vocabulary]` of the next token and the new state."""
        return self.advance_tokens(state, (token,))

    def advance_tokens(self, state: LSTMState, tokens: Sequence[int]) -> tuple[LogProbs, LSTMState]:
        """Read at least one token; compute only the log-probabilities `[vocabulary]` after the last one."""
        for token in tokens:
            _, state = self.advance_state(state, token)
        return self._log_probs(state[-1][0][None])[0], state

    def advance_batch(self, states: Sequence[LSTMState], tokens: Sequence[int]) -> list[tuple[LogProbs, LSTMState]]:
        """Read one token in each of several texts, with one product per weight matrix."""
        layers = tuple(
            (np.concatenate(hiddens).reshape(len(tokens), -1), np.concatenate(cells).reshape(len(tokens), -1))
            for hiddens, cells in (zip(*layer, strict=True) for layer in zip(*states, strict=True))
        )
        _, batch = self.advance_state(layers, np.asarray(tokens))
        log_probs = self._log_probs(batch[-1][0])
        return [
            (log_probs[row], tuple((hidden[row], cell[row]) for hidden, cell in batch)) for row in range(len(tokens))
        ]

    def _log_probs(self, hidden: Float32Array) -> Float32Array:
        """Return the log-probabilities `[time, vocabulary]` of the tokens after the hidden states `[time, hidden]`."""
        if self._punctuation is not None:
            return self._punctuation.marginal_log_probs(hidden)
        logits = self._output.matmul(hidden)
        logits += self._output_bias
        return normalize_logits(logits)

    def punctuation_probs(self, hidden: Float32Array) -> Float32Array | None:
        """Return the probabilities `[texts, classes]` of the punctuation after the hidden states `[texts, hidden]`.

        None if the model does not learn punctuation.
        """
        return None if self._punctuation is None else self._punctuation.gate_probs(hidden)

    def token_probs(self, hidden: Float32Array, punctuation: PunctuationIds | None) -> Float32Array:
        """Return the probabilities `[texts, vocabulary]` of the tokens after the hidden states `[texts, hidden]`.

        `punctuation` `[texts]` are the classes before these tokens; None for a model that does not learn punctuation.
        """
        if self._punctuation is not None and punctuation is not None:
            return self._punctuation.conditional_probs(hidden, punctuation)
        return softmax(self._output.matmul(hidden) + self._output_bias)

    def hidden_vector(self, state: LSTMState) -> Float32Array:
        """Return the hidden state `[hidden]` of the last layer."""
        return state[-1][0]

    def _iter_chunks(self, ids: TokenIds) -> Iterator[tuple[Float32Array, Float32Array]]:
        """Yield distributions `[time, vocabulary]` and hidden vectors `[time, hidden]` of consecutive chunks."""
        state, previous = self.start(), EOS_ID
        for start in range(0, len(ids), SCORING_CHUNK):
            targets = ids[start : start + SCORING_CHUNK]
            hidden = np.empty((len(targets), self._layers[-1].hidden_size), np.float32)
            for row, target in enumerate(targets):
                _, state = self.advance_state(state, previous)
                hidden[row], previous = state[-1][0], int(target)
            yield self._log_probs(hidden), hidden

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
        new_layers: list[tuple[Float32Array, Float32Array]] = []
        for layer, (hidden, cell) in zip(self._layers, state, strict=False):
            size, is_first = layer.hidden_size, not new_layers
            if is_first and self.input_gates is not None:
                gates = layer.weight_hh.matmul(hidden)
                gates += self.input_gates[token]
            else:
                assert layer.weight_ih is not None
                inputs = embed(self._embedding, token) if is_first else new_layers[-1][0]
                if layer.mogrifier:
                    inputs, hidden, _ = mogrify(layer.mogrifier, inputs, hidden)
                gates = layer.weight_hh.matmul(hidden)
                gates += layer.weight_ih.matmul(inputs)
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
            new_layers.append((hidden, cell))
        return tuple(gates_by_layer), tuple(new_layers)

    def mogrifier_factors(
        self, before: LSTMState, token: int, after: LSTMState
    ) -> tuple[tuple[Float32Array, ...], ...]:
        """Return the factors `[target]` of each round of each layer in the step that reads `token`.

        A factor is 0 to 2. The first round multiplies the input, the second the hidden state before the step, and so
        on. There are no rounds without a mogrifier.
        """
        inputs, factors_by_layer = embed(self._embedding, token), []
        for layer, (hidden_before, _), (hidden_after, _) in zip(self._layers, before, after, strict=True):
            _, _, factors = mogrify(layer.mogrifier, inputs, hidden_before)
            factors_by_layer.append(factors)
            inputs = hidden_after
        return tuple(factors_by_layer)


def _to_sigmoids_first_order(tensor: StoredTensor) -> StoredTensor:
    """Convert `[4 hidden, ...]` from PyTorch's gate order (input, forget, candidate, output) to `_LSTMLayer`'s."""
    if isinstance(tensor, Int8Rows):
        return Int8Rows(_swap_last_gates(tensor.values), to_float32(_to_sigmoids_first_order(tensor.scales)))
    gates: Float32Array = _swap_last_gates(tensor)
    gates[: 3 * (len(gates) // 4)] *= np.float32(0.5)
    return gates


def _from_sigmoids_first_order(gates: Int8Rows) -> Int8Rows:
    """Convert gates back to PyTorch's order."""
    scales = gates.scales.copy()
    scales[: 3 * (len(scales) // 4)] *= np.float32(2)
    return Int8Rows(_swap_last_gates(gates.values), _swap_last_gates(scales))


def _swap_last_gates(tensor: npt.NDArray[Number]) -> npt.NDArray[Number]:
    """Return a copy of `[4 hidden, ...]` with the last two of the four gates exchanged."""
    first, second, third, fourth = np.split(tensor, 4)
    return np.concatenate([first, second, fourth, third])
