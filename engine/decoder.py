"""The LSTM language model in numpy, one token at a time: playing needs no torch."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from engine.config import ModelConfig
from engine.errors import RunError
from engine.lm import LogProbs, Trace
from engine.pauses import PAUSES
from engine.vocabulary import EOS_ID, Ids, Vocabulary

Floats = npt.NDArray[np.float32]
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

    inputs: Floats
    """`[input, 4 hidden]`; for the first layer the product with every embedding, `[vocabulary, 4 hidden]`."""
    recurrent: Floats
    """`[hidden, 4 hidden]`."""
    bias: Floats
    hidden: int


@dataclass(frozen=True)
class _Pauses:
    """Weights of the mixture over pauses (`engine.pause_softmax`)."""

    gate_weight: Floats
    """`[hidden, pauses]`"""
    gate_bias: Floats
    scale: Floats
    """`[pauses, hidden]`, as `shift`."""
    shift: Floats
    bias: Floats
    """`[vocabulary, pauses]`, the words' own bias in it."""


class Decoder:
    """A trained LSTM as a `LanguageModel`. States are values: keep one, and branch from it later."""

    def __init__(self, config: ModelConfig, vocabulary: Vocabulary, weights: Mapping[str, Floats]) -> None:
        """Arrange the weights for decoding.

        Raises:
            RunError: a tensor is missing, unknown, of the wrong shape or not finite.
        """
        self.vocabulary = vocabulary
        self.config = config
        _check(weights, weight_shapes(config, len(vocabulary)))
        self.weights = weights
        """As they were given, under PyTorch's names: what a file keeps."""
        embedding = weights["embedding.weight"]
        self._output = np.ascontiguousarray(embedding if config.tied else weights["output.weight"])
        self._output_bias = weights["output.bias"]
        self._pauses = _pauses(weights) if config.pauses else None
        self._layers = [_arrange(weights, i, hidden) for i, (_, hidden) in enumerate(config.layer_sizes())]
        self._embedding, first = embedding, self._layers[0]
        self._table: Floats | None = None
        if len(embedding) * first.inputs.shape[1] <= LARGEST_TABLE:
            # The first layer only ever sees one of the embeddings: project them all once.
            self._table = embedding @ first.inputs + first.bias

    def start(self) -> LSTMState:
        """Hidden and cell states of zeros."""
        return tuple((np.zeros(layer.hidden, np.float32), np.zeros(layer.hidden, np.float32)) for layer in self._layers)

    def advance(self, state: LSTMState, token: int) -> tuple[LogProbs, LSTMState]:
        """Read `token`: log-probabilities `[vocabulary]` of the next word, and the new state."""
        _, state = self.read(state, token)
        top = state[-1][0]
        if self._pauses is not None:
            return self._over_pauses(self._pauses, top[None])[0], state
        logits = self._output @ top
        logits += self._output_bias
        logits -= logits.max()
        logits -= np.log(np.exp(logits).sum())
        return logits, state

    def _over_pauses(self, pauses: _Pauses, tops: Floats) -> Floats:
        """Log-probabilities `[time, vocabulary]`, summed over what may stand before the word."""
        seen = tops[:, None] * pauses.scale
        seen += pauses.shift
        # The large matrix first and the pauses last: that way round the product does not copy it.
        probs = self._output @ seen.swapaxes(1, 2)
        probs += pauses.bias
        probs -= probs.max(axis=1, keepdims=True)
        np.exp(probs, out=probs)
        gates = tops @ pauses.gate_weight
        gates += pauses.gate_bias
        gates -= gates.max(axis=1, keepdims=True)
        np.exp(gates, out=gates)
        gates /= gates.sum(axis=1, keepdims=True)
        gates /= probs.sum(axis=1)
        mixed: Floats = (probs @ gates[..., None])[..., 0]
        np.maximum(mixed, LEAST, out=mixed)
        log_probs: Floats = np.log(mixed, out=mixed)
        return log_probs

    def hidden(self, state: LSTMState) -> Floats:
        """The top layer's hidden state."""
        return state[-1][0]

    def trace(self, ids: Ids) -> Trace:
        """Read a whole text."""
        chunks = list(self._read_text(ids))
        hidden = [tops for _, tops in chunks] or [np.empty((0, self._output.shape[1]), np.float32)]
        return Trace(np.concatenate([[], *(scores for scores, _ in chunks)]), np.concatenate(hidden))

    def score(self, ids: Ids) -> npt.NDArray[np.float64]:
        """The scores of `trace` alone; a long text has more hidden vectors than memory."""
        return np.concatenate([[], *(scores for scores, _ in self._read_text(ids))])

    def _read_text(self, ids: Ids) -> Iterator[tuple[npt.NDArray[np.float64], Floats]]:
        """Scores and hidden vectors `[time, hidden]`; the output layer is computed a chunk at a time."""
        state, previous = self.start(), EOS_ID
        for begin in range(0, len(ids), SCORING_CHUNK):
            targets = ids[begin : begin + SCORING_CHUNK]
            tops = np.empty((len(targets), self._output.shape[1]), np.float32)
            for row, target in enumerate(targets):
                _, state = self.read(state, previous)
                tops[row], previous = state[-1][0], int(target)
            if self._pauses is not None:
                log_probs = self._over_pauses(self._pauses, tops)
                yield log_probs[np.arange(len(targets)), targets].astype(np.float64), tops
                continue
            logits = tops @ self._output.T + self._output_bias
            logits -= logits.max(axis=1, keepdims=True)
            normalizer = np.log(np.exp(logits).sum(axis=1))
            yield (logits[np.arange(len(targets)), targets] - normalizer).astype(np.float64), tops

    def _first_gates(self, token: int | Ids) -> Floats:
        """What the word brings to the gates of the first layer."""
        if self._table is not None:
            return self._table[token]
        first = self._layers[0]
        gates: Floats = self._embedding[token] @ first.inputs + first.bias
        return gates

    def read(self, state: LSTMState, token: int | Ids) -> tuple[tuple[Floats, ...], LSTMState]:
        """Read `token` without predicting anything: the gates of every layer, and the new state.

        Gates are `[4 hidden]`, as they act on the cell: input, forget, output, candidate. Given the states of the
        first layers alone, it reads with those. Texts can be read side by side: tokens `[batch]`, states and gates
        with a batch axis before their own.
        """
        seen: list[Floats] = []
        new: list[tuple[Floats, Floats]] = []
        gates = self._first_gates(token)
        for layer, (hidden, cell) in zip(self._layers, state, strict=False):
            if new:
                gates = new[-1][0] @ layer.inputs + layer.bias
            size = layer.hidden
            activated = hidden @ layer.recurrent
            activated += gates
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


def _arrange(weights: Mapping[str, Floats], i: int, hidden: int) -> _Layer:
    def arranged(name: str) -> Floats:
        # PyTorch's order of gates is input, forget, candidate, output.
        input_, forget, candidate, output = np.split(weights[f"layers.{i}.{name}"], 4)
        half = np.float32(0.5)
        return np.concatenate([input_ * half, forget * half, output * half, candidate])

    return _Layer(
        inputs=np.ascontiguousarray(arranged("weight_ih_l0").T),
        recurrent=np.ascontiguousarray(arranged("weight_hh_l0").T),
        bias=arranged("bias_ih_l0") + arranged("bias_hh_l0"),
        hidden=hidden,
    )


def _pauses(weights: Mapping[str, Floats]) -> _Pauses:
    return _Pauses(
        gate_weight=np.ascontiguousarray(weights["pauses.gate_weight"].T),
        gate_bias=weights["pauses.gate_bias"],
        scale=1 + weights["pauses.scale"],
        shift=weights["pauses.shift"],
        bias=np.ascontiguousarray((weights["output.bias"] + weights["pauses.bias"]).T),
    )


def _check(weights: Mapping[str, Floats], shapes: Mapping[str, tuple[int, ...]]) -> None:
    if missing := sorted(shapes.keys() - weights.keys()):
        raise RunError(f"the model lacks {', '.join(missing[:3])}; it is none of this configuration")
    if unknown := sorted(weights.keys() - shapes.keys()):
        raise RunError(f"the model holds unknown {', '.join(unknown[:3])}; it is none of this configuration")
    for name, shape in shapes.items():
        if weights[name].shape != shape or weights[name].dtype != np.float32:
            found = f"{weights[name].dtype} {list(weights[name].shape)}"
            raise RunError(f"{name} is {found}, not float32 {list(shape)}; the run is damaged")
        if not np.isfinite(weights[name]).all():
            raise RunError(f"{name} holds values that are not finite; the run is damaged")
