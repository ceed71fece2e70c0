"""The LSTM language model in numpy, for inference without torch."""

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache, partial
from typing import NamedTuple

import numpy as np

from engine.config import ModelConfig
from engine.data.arrays import Float32Array
from engine.data.tokenizers import EOS_ID, TokenIds, Tokenizer
from engine.models import weights as layout
from engine.models.base import LogProbs, SequenceOutput
from engine.storage.tensor_file import Int8Rows, StoredTensor, to_float32

# Hidden and cell state of every layer, each `[hidden]` or `[batch, hidden]`.
LSTMState = tuple[tuple[Float32Array, Float32Array], ...]
SCORING_CHUNK = 128  # tokens whose log-probabilities are computed at once when a text is scored
MIN_PROB = np.finfo(np.float32).tiny  # of a token, so that its logarithm is finite
MAX_GATE_WEIGHT = 1e6  # of a mogrifier, whose products of two matrices would overflow; a training comes nowhere near it
MAX_TABLE_SIZE = 2**22  # of a table of input gates; a larger one takes longer than the products of a long text
NUM_CACHED_TOKENS = 128  # whose gates are kept without a table: two thirds of a text are among the last 128 others


class _Layer(NamedTuple):
    # Gates are in the order input, forget, output, candidate. The weights of the first three are halved: sigmoid(x) =
    # (1 + tanh(x / 2)) / 2, so one tanh computes all gates.
    weight_ih: layout.Matrix | None  # [4 hidden, input]; None in a first layer with `_input_gates`
    weight_hh: layout.Matrix  # [4 hidden, hidden]
    bias: Float32Array  # [4 hidden]
    mogrifier: list[tuple[layout.Matrix, layout.Matrix]]  # [rank, source] and half of [target, rank] of each round

    def mogrify(
        self, inputs: Float32Array, hidden: Float32Array
    ) -> tuple[Float32Array, Float32Array, tuple[Float32Array, ...]]:
        factors = []
        for index, (down, up) in enumerate(self.mogrifier):
            factor = up.matmul(down.matmul(hidden if index % 2 == 0 else inputs))
            np.tanh(factor, out=factor)
            factor += 1  # 2 sigmoid(x) = 1 + tanh(x / 2)
            if index % 2 == 0:
                inputs = factor * inputs
            else:
                hidden = factor * hidden
            factors.append(factor)
        return inputs, hidden, tuple(factors)


class _PunctuationSoftmax(NamedTuple):
    gate_weight: Float32Array  # [hidden, classes]
    gate_bias: Float32Array  # [classes]
    scale: Float32Array  # [classes, hidden]
    bias: Float32Array  # [classes, vocabulary], both biases and the logits that the shift of the hidden state adds


class NumpyLSTM:
    """A trained LSTM as a `LanguageModel`. The model itself never changes, so threads may share it."""

    def __init__(
        self, config: ModelConfig, tokenizer: Tokenizer, weights: Mapping[str, StoredTensor], *, int8: bool = False
    ) -> None:
        """Prepare the weights, named as in `weight_shapes`, or raise a RunError if they are damaged.

        Matrices that are stored in 8 bits are multiplied in 8 bits. With `int8`, all others are quantized too, except
        the embedding and the first layer's input weights.
        """
        layout.check_weights(weights, layout.weight_shapes(config, len(tokenizer)))
        self.tokenizer, self.config, self.int8, self.tensors = tokenizer, config, int8, dict(weights)
        self.has_int8_weights = any(isinstance(tensor, Int8Rows) for tensor in weights.values())
        self._sizes = [hidden_size for _, hidden_size in config.layer_sizes()]
        self._embedding = weights["embedding.weight"]
        output = self._embedding if config.tie_weights else weights["output.weight"]
        self._output = layout.make_matrix(output, quantize=int8, by_columns=not config.punctuation)
        self._output_bias = to_float32(weights["output.bias"])
        self._punctuation: _PunctuationSoftmax | None = None
        if config.punctuation:
            names = ("gate_weight", "gate_bias", "scale", "shift", "bias")
            parts = (to_float32(weights[f"punctuation_softmax.{name}"]) for name in names)
            gate_weight, gate_bias, scale, shift, bias = parts
            bias = bias + self._output_bias + shift @ to_float32(output).T
            self._punctuation = _PunctuationSoftmax(np.ascontiguousarray(gate_weight.T), gate_bias, 1 + scale, bias)
        self._layers: list[_Layer] = []
        for index, size in enumerate(self._sizes):
            order = np.r_[: 2 * size, 3 * size : 4 * size, 2 * size : 3 * size]  # PyTorch has the candidate third
            halved: list[StoredTensor] = []
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
                tensor = weights[f"layers.{index}.{name}_l0"]
                rows = (tensor.scales if isinstance(tensor, Int8Rows) else tensor)[order]
                rows[: 3 * size] *= np.float32(0.5)
                halved.append(Int8Rows(tensor.values[order], rows) if isinstance(tensor, Int8Rows) else rows)
            weight_ih, weight_hh, bias_ih, bias_hh = halved
            rounds: list[tuple[layout.Matrix, layout.Matrix]] = []
            for number in range(config.mogrifier_rounds):
                down, up = (
                    to_float32(weights[f"mogrifiers.{index}.{name}.{number}"]).clip(-MAX_GATE_WEIGHT, MAX_GATE_WEIGHT)
                    for name in ("down", "up")
                )
                rounds.append((layout.Float32Matrix(down), layout.Float32Matrix(up * np.float32(0.5))))
            input_matrix = layout.make_matrix(weight_ih, quantize=int8 and index > 0, by_columns=True)
            hidden_matrix = layout.make_matrix(weight_hh, quantize=int8, by_columns=True)
            self._layers.append(_Layer(input_matrix, hidden_matrix, to_float32(bias_ih) + to_float32(bias_hh), rounds))
        first, self._gate_table = self._layers[0], None
        if not first.mogrifier and first.weight_ih is not None:
            self._layers[0] = first._replace(weight_ih=None)
            if isinstance(first.weight_ih, layout.Float32Matrix) and len(tokenizer) * len(first.bias) <= MAX_TABLE_SIZE:
                self._gate_table = first.weight_ih.matmul(to_float32(self._embedding)) + first.bias
            self._input_gates = partial(_input_gates, first.weight_ih, first.bias, self._embedding)
            self._cached_input_gates = lru_cache(NUM_CACHED_TOKENS)(self._input_gates)

    @property
    def weights(self) -> dict[str, Float32Array]:
        return {name: to_float32(tensor) for name, tensor in self.tensors.items()}

    def start(self) -> LSTMState:
        return tuple((np.zeros(size, np.float32), np.zeros(size, np.float32)) for size in self._sizes)

    def advance(self, state: LSTMState, token: int) -> tuple[LogProbs, LSTMState]:
        _, state = self.advance_state(state, token)
        return self._log_probs(state[-1][0][None])[0], state

    def predict_tokens(
        self, state: LSTMState, tokens: Sequence[int], *, last_only: bool = False
    ) -> tuple[Float32Array, LSTMState]:
        hidden = []
        for token in tokens:
            _, state = self.advance_state(state, token)
            hidden.append(state[-1][0])
        return self._log_probs(np.stack(hidden[-1:] if last_only else hidden)), state

    def advance_batch(self, states: Sequence[LSTMState], tokens: Sequence[int]) -> list[tuple[LogProbs, LSTMState]]:
        layers = tuple(
            (np.concatenate(hiddens).reshape(len(tokens), -1), np.concatenate(cells).reshape(len(tokens), -1))
            for hiddens, cells in (zip(*layer, strict=True) for layer in zip(*states, strict=True))
        )
        _, batch = self.advance_state(layers, np.asarray(tokens))
        log_probs = self._log_probs(batch[-1][0])
        return [
            (log_probs[row], tuple((hidden[row], cell[row]) for hidden, cell in batch)) for row in range(len(tokens))
        ]

    def hidden_vector(self, state: LSTMState) -> Float32Array:
        return state[-1][0]

    def score_chunks(self, ids: TokenIds) -> Iterator[SequenceOutput]:
        state, inputs = self.start(), [EOS_ID, *ids[:-1].tolist()]
        for start in range(0, len(ids), SCORING_CHUNK):
            targets = ids[start : start + SCORING_CHUNK]
            hidden = np.empty((len(targets), self._sizes[-1]), np.float32)
            for row, token in enumerate(inputs[start : start + SCORING_CHUNK]):
                _, state = self.advance_state(state, token)
                hidden[row] = state[-1][0]
            log_probs = self._log_probs(hidden)[np.arange(len(targets)), targets]
            yield SequenceOutput(log_probs.astype(np.float64), hidden)

    def _log_probs(self, hidden: Float32Array) -> Float32Array:
        if self._punctuation is None:
            logits = self._output.matmul(hidden)
            logits += self._output_bias
            return layout.normalize_logits(logits)
        softmax = self._punctuation
        probs = self._output.matmul(hidden[:, None] * softmax.scale)  # [time, classes, vocabulary]
        probs += softmax.bias
        gates = hidden @ softmax.gate_weight + softmax.gate_bias
        for logits in (probs, gates):
            logits -= logits.max(axis=-1, keepdims=True)
            np.exp(logits, out=logits)
        gates /= gates.sum(axis=-1, keepdims=True)
        gates /= probs.sum(axis=2)
        mixed: Float32Array = np.matmul(gates[:, None], probs)[:, 0]
        np.maximum(mixed, MIN_PROB, out=mixed)
        return np.asarray(np.log(mixed, out=mixed))

    def advance_state(self, state: LSTMState, token: int | TokenIds) -> tuple[tuple[Float32Array, ...], LSTMState]:
        """Read `token`, or tokens `[batch]` of several texts, in the layers that `state` has.

        Return the gates of every layer after their activation function, `[4 hidden]` or `[batch, 4 hidden]` in the
        order input, forget, output, candidate; and the new state.
        """
        gates_by_layer: list[Float32Array] = []
        new_layers: list[tuple[Float32Array, Float32Array]] = []
        for layer, (hidden, cell) in zip(self._layers, state, strict=False):
            size = hidden.shape[-1]
            if layer.weight_ih is None:
                gates = layer.weight_hh.matmul(hidden)
                if self._gate_table is not None:
                    gates += self._gate_table[token]
                elif isinstance(token, np.ndarray):
                    gates += self._input_gates(token)
                else:
                    gates += self._cached_input_gates(token)
            else:
                inputs = new_layers[-1][0] if new_layers else layout.embed(self._embedding, token)
                if layer.mogrifier:
                    inputs, hidden, _ = layer.mogrify(inputs, hidden)
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
        """Return the factors, 0 to 2, of inputs and hidden states in turn, of each layer when it reads `token`."""
        inputs = [layout.embed(self._embedding, token), *(hidden for hidden, _ in after[:-1])]
        layers = zip(self._layers, inputs, before, strict=True)
        return tuple(layer.mogrify(vector, hidden)[2] for layer, vector, (hidden, _) in layers)


def _input_gates(
    weight_ih: layout.Matrix, bias: Float32Array, embedding: StoredTensor, tokens: int | TokenIds
) -> Float32Array:
    # What tokens add to the gates `[..., 4 hidden]` of the first layer, not to be changed.
    if isinstance(weight_ih, layout.Int8Matrix) and isinstance(embedding, Int8Rows):  # not quantized again
        rows = np.atleast_1d(tokens)
        gates = weight_ih.matmul_rows(Int8Rows(embedding.values[rows], embedding.scales[rows]))
        return gates.reshape(*np.shape(tokens), -1) + bias
    return weight_ih.matmul(layout.embed(embedding, tokens)) + bias
