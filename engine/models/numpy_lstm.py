"""The LSTM language model in numpy, one token at a time: playing needs no torch."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from engine.config import ModelConfig
from engine.data.punctuation import PAUSES
from engine.data.vocabulary import EOS_ID, Ids, Vocabulary
from engine.errors import RunError
from engine.models.base import LogProbs, Trace
from engine.models.matmul import Float32, Floats, Int8, Matrix
from engine.storage.tensor_file import check_shapes

LSTMState = tuple[tuple[Floats, Floats], ...]
"""Hidden and cell state, each `[hidden]`, of every layer."""

SCORING_CHUNK = 128
LARGEST_TABLE = 2**25
"""Numbers; with a vocabulary of 50,000 words the table would be four times as large as the model."""
LEAST = np.finfo(np.float32).tiny
"""The least a probability is taken to be, so that its logarithm is a number."""


def weight_shapes(config: ModelConfig, vocabulary_size: int) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of a model, as in `model.safetensors`; names are PyTorch's."""
    shapes: dict[str, tuple[int, ...]] = {"embedding.weight": (vocabulary_size, config.embedding_size)}
    for i, (inputs, hidden) in enumerate(config.layer_sizes()):
        shapes[f"layers.{i}.weight_ih_l0"] = (4 * hidden, inputs)
        shapes[f"layers.{i}.weight_hh_l0"] = (4 * hidden, hidden)
        shapes[f"layers.{i}.bias_ih_l0"] = (4 * hidden,)
        shapes[f"layers.{i}.bias_hh_l0"] = (4 * hidden,)
    if not config.tied:
        shapes["output.weight"] = (vocabulary_size, config.hidden_size)
    shapes["output.bias"] = (vocabulary_size,)
    if config.pauses:
        top = config.layer_sizes()[-1][1]
        shapes |= {f"pauses.{name}": (len(PAUSES), top) for name in ("gate_weight", "scale", "shift")}
        shapes |= {"pauses.gate_bias": (len(PAUSES),), "pauses.bias": (len(PAUSES), vocabulary_size)}
    return shapes


@dataclass(frozen=True)
class _Layer:
    """Weights in the order the loop wants: gates input, forget, output, candidate; the first three halved,
    since sigmoid(x) = (1 + tanh(x/2)) / 2 lets one tanh serve all four."""

    inputs: Matrix | None
    """`[4 hidden, input]`; None for the first layer, which only ever sees one of the embeddings."""
    recurrent: Matrix
    """`[4 hidden, hidden]`"""
    bias: Floats
    hidden: int


@dataclass(frozen=True)
class _Pauses:
    """Weights of the mixture over pauses (`engine.models.punctuation_softmax`)."""

    gate_weight: Floats
    """`[hidden, pauses]`"""
    gate_bias: Floats
    scale: Floats
    """`[pauses, hidden]`"""
    bias: Floats
    """`[pauses, vocabulary]`, the words' own bias and what the shift of the hidden state adds up to in it."""


class Decoder:
    """A trained LSTM as a `LanguageModel`. States are values: keep one, and branch from it later.

    It keeps nothing of what it read, so threads may share one.
    """

    def __init__(
        self, config: ModelConfig, vocabulary: Vocabulary, weights: Mapping[str, Floats], *, int8: bool = False
    ) -> None:
        """Arrange the weights for decoding; with `int8`, the large ones rounded to 8 bits.

        Raises:
            RunError: a tensor is missing, unknown, of the wrong shape or not finite.
            UnusableInput: numkong, which `int8` needs, is not installed.
        """
        self.vocabulary = vocabulary
        self.config = config
        self.int8 = int8
        _check(weights, weight_shapes(config, len(vocabulary)))
        self.weights = weights
        """As they were given, under PyTorch's names: what a file keeps."""
        arrange: Callable[[Floats], Matrix] = Int8 if int8 else Float32
        embedding = weights["embedding.weight"]
        output = embedding if config.tied else weights["output.weight"]
        self._output = arrange(output)
        self._output_bias = weights["output.bias"]
        self._pauses = _pauses(weights, output) if config.pauses else None
        inputs = [_gates(weights[f"layers.{i}.weight_ih_l0"]) for i in range(config.layers)]
        self._layers = [
            _Layer(
                inputs=arrange(inputs[i]) if i else None,
                recurrent=arrange(_gates(weights[f"layers.{i}.weight_hh_l0"])),
                bias=_gates(weights[f"layers.{i}.bias_ih_l0"]) + _gates(weights[f"layers.{i}.bias_hh_l0"]),
                hidden=hidden,
            )
            for i, (_, hidden) in enumerate(config.layer_sizes())
        ]
        self._embedding, self._of_embedding = embedding, np.ascontiguousarray(inputs[0].T)
        self._table: Floats | None = None
        if len(embedding) * len(inputs[0]) <= LARGEST_TABLE:
            # What the first layer makes of each word, `[vocabulary, 4 hidden]`, once for all.
            self._table = embedding @ self._of_embedding + self._layers[0].bias

    def start(self) -> LSTMState:
        """Hidden and cell states of zeros."""
        return tuple((np.zeros(layer.hidden, np.float32), np.zeros(layer.hidden, np.float32)) for layer in self._layers)

    def advance(self, state: LSTMState, token: int) -> tuple[LogProbs, LSTMState]:
        """Read `token`: log-probabilities `[vocabulary]` of the next word, and the new state."""
        _, state = self.read(state, token)
        return self._log_probs(state[-1][0][None])[0], state

    def advance_all(self, states: Sequence[LSTMState], tokens: Sequence[int]) -> list[tuple[LogProbs, LSTMState]]:
        """Read a word in each of several texts, all in one product with each matrix."""
        together = tuple(
            (np.concatenate(hiddens).reshape(len(tokens), -1), np.concatenate(cells).reshape(len(tokens), -1))
            for hiddens, cells in (zip(*layer, strict=True) for layer in zip(*states, strict=True))
        )
        _, together = self.read(together, np.asarray(tokens))
        log_probs = self._log_probs(together[-1][0])
        return [
            (log_probs[row], tuple((hidden[row], cell[row]) for hidden, cell in together)) for row in range(len(tokens))
        ]

    def _log_probs(self, tops: Floats) -> Floats:
        """Log-probabilities `[time, vocabulary]` of the words after the hidden states `[time, hidden]`."""
        if self._pauses is not None:
            return self._over_pauses(self._pauses, tops)
        logits = self._output.times(tops)
        logits += self._output_bias
        logits -= logits.max(axis=1, keepdims=True)
        logits -= np.log(np.exp(logits).sum(axis=1, keepdims=True), dtype=np.float32)
        return logits

    def _over_pauses(self, pauses: _Pauses, tops: Floats) -> Floats:
        """The same, summed over what may stand before the word."""
        probs = self._output.times(tops[:, None] * pauses.scale)  # [time, pauses, vocabulary]
        probs += pauses.bias
        probs -= probs.max(axis=2, keepdims=True)
        np.exp(probs, out=probs)
        gates = tops @ pauses.gate_weight
        gates += pauses.gate_bias
        gates -= gates.max(axis=1, keepdims=True)
        np.exp(gates, out=gates)
        gates /= gates.sum(axis=1, keepdims=True)
        gates /= probs.sum(axis=2)
        mixed: Floats = np.matmul(gates[:, None], probs)[:, 0]
        np.maximum(mixed, LEAST, out=mixed)
        log_probs: Floats = np.log(mixed, out=mixed)
        return log_probs

    def hidden(self, state: LSTMState) -> Floats:
        """The top layer's hidden state."""
        return state[-1][0]

    def trace(self, ids: Ids) -> Trace:
        """Read a whole text."""
        chunks = list(self._read_text(ids))
        hidden = [tops for _, tops in chunks] or [np.empty((0, self._layers[-1].hidden), np.float32)]
        return Trace(np.concatenate([[], *(scores for scores, _ in chunks)]), np.concatenate(hidden))

    def score(self, ids: Ids) -> npt.NDArray[np.float64]:
        """The scores of `trace` alone; a long text has more hidden vectors than memory."""
        return np.concatenate([[], *(scores for scores, _ in self._read_text(ids))])

    def _read_text(self, ids: Ids) -> Iterator[tuple[npt.NDArray[np.float64], Floats]]:
        """Scores and hidden vectors `[time, hidden]`; the output layer is computed a chunk at a time."""
        state, previous = self.start(), EOS_ID
        for begin in range(0, len(ids), SCORING_CHUNK):
            targets = ids[begin : begin + SCORING_CHUNK]
            tops = np.empty((len(targets), self._layers[-1].hidden), np.float32)
            for row, target in enumerate(targets):
                _, state = self.read(state, previous)
                tops[row], previous = state[-1][0], int(target)
            log_probs = self._log_probs(tops)
            yield log_probs[np.arange(len(targets)), targets].astype(np.float64), tops

    def _first_gates(self, token: int | Ids) -> Floats:
        """What the word brings to the gates of the first layer."""
        if self._table is not None:
            return self._table[token]
        gates: Floats = self._embedding[token] @ self._of_embedding + self._layers[0].bias
        return gates

    def read(self, state: LSTMState, token: int | Ids) -> tuple[tuple[Floats, ...], LSTMState]:
        """Read `token` without predicting anything: the gates of every layer, and the new state.

        Gates are `[4 hidden]`, as they act on the cell: input, forget, output, candidate. Given the states of the
        first layers alone, it reads with those. Texts can be read side by side: tokens `[batch]`, states and gates
        with a batch axis before their own.
        """
        seen: list[Floats] = []
        new: list[tuple[Floats, Floats]] = []
        for layer, (hidden, cell) in zip(self._layers, state, strict=False):
            size = layer.hidden
            activated = layer.recurrent.times(hidden)
            if layer.inputs is None:
                activated += self._first_gates(token)
            else:
                activated += layer.inputs.times(new[-1][0])
                activated += layer.bias
            np.tanh(activated, out=activated)
            sigmoids = activated[..., : 3 * size]
            sigmoids *= 0.5
            sigmoids += 0.5
            cell = activated[..., size : 2 * size] * cell
            cell += activated[..., :size] * activated[..., 3 * size :]
            hidden = np.tanh(cell)
            hidden *= activated[..., 2 * size : 3 * size]
            seen.append(activated)
            new.append((hidden, cell))
        return tuple(seen), tuple(new)


def _gates(tensor: Floats) -> Floats:
    """`[4 hidden, ...]` in the order of `_Layer`; PyTorch's order of gates is input, forget, candidate, output."""
    input_, forget, candidate, output = np.split(tensor, 4)
    half = np.float32(0.5)
    return np.concatenate([input_ * half, forget * half, output * half, candidate])


def _pauses(weights: Mapping[str, Floats], output: Floats) -> _Pauses:
    return _Pauses(
        gate_weight=np.ascontiguousarray(weights["pauses.gate_weight"].T),
        gate_bias=weights["pauses.gate_bias"],
        scale=1 + weights["pauses.scale"],
        bias=weights["output.bias"] + weights["pauses.bias"] + weights["pauses.shift"] @ output.T,
    )


def _check(weights: Mapping[str, Floats], shapes: Mapping[str, tuple[int, ...]]) -> None:
    check_shapes({name: (str(array.dtype), array.shape) for name, array in weights.items()}, shapes)
    for name in shapes:
        if not np.isfinite(weights[name]).all():
            raise RunError(f"{name} holds values that are not finite; the run is damaged")
