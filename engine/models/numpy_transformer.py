"""The Transformer language model in numpy, for inference without torch."""

import copy
import math
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from engine.config import ModelConfig
from engine.data.arrays import Float32Array
from engine.data.tokenizers import EOS_ID, TokenIds, Tokenizer
from engine.errors import InvalidInputError
from engine.models import weights as layout
from engine.models.adapters import AdaptedMatrix, Adapter, LowRankChange, MergedWeights
from engine.models.base import EXCLUDED_LOG_PROB, LogProbs, SequenceOutput
from engine.models.kv_cache import RowAttention, Segments, attend_chunk, extend_segments, segment_tokens
from engine.runtime.process import use_huge_pages
from engine.storage.tensor_file import Int8Rows, StoredTensor, check_names, to_float32, to_int8

if TYPE_CHECKING:
    from engine.models.pretrained.chat import ChatTemplate

MAX_TRANSFORMER_WEIGHT = 1e4  # so that vectors between the layers of models of usual sizes are finite
MAX_FAST_WEIGHTS = 30_000_000  # with which a token is read in about 2 ms
READ_TOKENS = 128  # at once: the arrays of more tokens do not fit into the processor's cache
MAX_SCORES = 2**23  # attention scores of a layer at once
HUGE_PAGES_DELAY = 1.0  # seconds: who needs new memory during the move is delayed, so the first prompt is read before
SAMPLE_TOKENS, SAMPLE_STRIDE = 16, 7919  # of the text that shows which units are large
_ZERO, _ONE = np.array(0, np.float32), np.array(1, np.float32)  # numpy adds an array faster than a number


@dataclass(frozen=True)
class AttentionRecord:
    """Attention and layer outputs of a text. Position 0 is the start of the text; position `i + 1` is token `i`."""

    # `[layers, heads, positions, positions]`: weight of each earlier position (last axis) for each position
    weights: Float32Array
    layer_outputs: Float32Array  # `[layers + 1, positions, width]`: before the first layer and after each layer


Product = layout.Matrix | AdaptedMatrix


class TransformerLayer(NamedTuple):
    # Matrices that multiply the same vector are one.
    attention_norm: Float32Array  # [width]
    qkv: Product  # [query, key and value units, width]; queries and keys are in the order of `pair_units`
    qkv_bias: Float32Array | None
    output: Product  # [width, query units]
    feed_forward_norm: Float32Array  # [width]
    gate_up: Product  # [2 inner, width]: halves of the gates, and then the values that they are multiplied by
    down: Product  # [width, inner]


class TransformerState(NamedTuple):
    segments: Segments  # tokens of the window with their keys and values; states share them
    num_positions: int  # tokens in the window
    has_slid: bool  # True if the first tokens of the text are no longer in the window
    hidden: Float32Array  # vector `[width]` that the next token is predicted from; zeros before the first token


class NumpyTransformer:
    """A trained Transformer as a `LanguageModel`. The model itself never changes, so threads may share it.

    A text is read in windows of at most `context_size` tokens. A full window is replaced by one with its last
    `context_size // 2` tokens. In 8 bits, a text that is read token by token has the same
    results whatever is read beside it.
    """

    def __init__(
        self,
        config: ModelConfig,
        tokenizer: Tokenizer,
        weights: Mapping[str, StoredTensor],
        *,
        int8: bool = False,
        chat: "ChatTemplate | None" = None,
        adapters: Sequence[Adapter] = (),
    ) -> None:
        """Prepare the weights, named as in `weight_shapes`, with `int8` all in 8 bits; each is read once, in threads.

        Tensors of another shape, with NaN or huge values raise a RunError, impossible settings a ConfigError.
        """
        layout.check_transformer_config(config)
        self._stored, self._int8, self._adapters = weights, int8, tuple(adapters)
        self._strengths = {adapter.name: 1.0 for adapter in adapters}
        self._vectors: dict[str, tuple[int, Float32Array]] = {}  # layer and change of each steering vector
        self._added: dict[int, Float32Array] = {}  # sum of the steering vectors at their strengths before each layer
        self.tokenizer, self.config, self.chat = tokenizer, config, chat
        self.context_size, self._num_heads = config.context_size, config.num_heads
        self._num_kv_heads, self._head_size = layout.num_kv_heads(config), layout.head_size(config)
        self._num_each = np.array([self._num_heads, self._num_kv_heads])
        # Of the positions, for queries and keys. Queries are also divided by the root of the head size, so that their
        # products with keys are the scores.
        angles = np.multiply.outer(np.arange(config.context_size), layout.rotary_frequencies(config))
        scales = np.array([[1 / math.sqrt(self._head_size)], [1]])
        self._rotations = (np.exp(1j * angles)[:, None] * scales).astype(np.complex64)
        self.has_int8_weights = False  # True if a matrix was stored in 8 bits
        self._shapes = layout.weight_shapes(config, len(tokenizer))
        check_names(weights, self._shapes)
        with ThreadPoolExecutor(os.cpu_count()) as threads:
            embedding = threads.submit(self._read, "model.embed_tokens.weight")
            untied = None if config.tie_weights else threads.submit(self._read, "lm_head.weight")
            output = threads.submit(lambda: layout.make_matrix((untied or embedding).result()))
            self._layers = list(threads.map(self._read_layer, range(config.num_layers)))
            self._final_norm = to_float32(self._read("model.norm.weight"))
            self._embedding, self._output = embedding.result(), output.result()
        if isinstance(self._output, layout.Int8Matrix):
            self._multiply_large_inputs_exactly()  # of the base alone, whose texts are the same with adapters
        self._layers = self._layers_at([1.0] * len(self._adapters))
        if self.has_int8_weights:
            parts = (getattr(part, "joined", part) for part in (*chain(*self._layers), self._output))
            blocks = (matrix.memory() for matrix in parts if isinstance(matrix, layout.Int8Matrix))
            timer = threading.Timer(HUGE_PAGES_DELAY, use_huge_pages, (blocks,))  # a product is then an eighth faster
            timer.daemon = True
            timer.start()

    def _read(self, name: str) -> StoredTensor:
        tensor = to_int8(self._stored[name]) if self._int8 else self._stored[name]
        if isinstance(tensor, Int8Rows):
            self.has_int8_weights = True
        layout.check_weights({name: tensor}, {name: self._shapes[name]}, MAX_TRANSFORMER_WEIGHT)
        return tensor

    def _read_layer(self, index: int) -> TransformerLayer:
        prefix, pair = f"model.layers.{index}", partial(_map_rows, partial(pair_units, size=self._head_size))
        norms = [to_float32(self._read(f"{prefix}.{name}_layernorm.weight")) for name in ("input", "post_attention")]
        bias = None
        if self.config.qkv_bias:
            biases = [to_float32(self._read(f"{prefix}.self_attn.{name}_proj.bias")) for name in "qkv"]
            bias = np.concatenate([*(pair_units(each, self._head_size) for each in biases[:2]), biases[2]])
        attention, mlp = f"{prefix}.self_attn", f"{prefix}.mlp"
        qkv = self._join({f"{attention}.q_proj": pair, f"{attention}.k_proj": pair, f"{attention}.v_proj": None})
        output, gate_up = (
            self._join({f"{attention}.o_proj": None}),
            self._join({f"{mlp}.gate_proj": _halve, f"{mlp}.up_proj": None}),
        )
        return TransformerLayer(norms[0], qkv, bias, output, norms[1], gate_up, self._join({f"{mlp}.down_proj": None}))

    def _join(self, parts: Mapping[str, Callable[[StoredTensor], StoredTensor] | None]) -> Product:
        # One matrix with the rows of several, each after its function.
        rows, changes = list[StoredTensor](), list[list[LowRankChange]]()
        for name, function in ((f"{matrix}.weight", function) for matrix, function in parts.items()):
            tensor = self._read(name)
            rows.append(function(tensor) if function else tensor)
            changes.append([])
            for index, adapter in enumerate(self._adapters):
                if change := adapter.change(name):
                    first, second = change
                    changes[-1].append((index, first, to_float32(function(second)) if function else second))
        return AdaptedMatrix(rows, changes) if any(changes) else layout.join_rows(*rows)

    def _multiply_large_inputs_exactly(self) -> None:
        # The two largest units of the vectors between layers are not rounded to 8 bits: large Transformers have few
        # such units (LLM.int8, Dettmers et al. 2022, arXiv 2208.07339), and any text shows which.
        sample = np.arange(min(SAMPLE_TOKENS, self.context_size)) * SAMPLE_STRIDE % len(self.tokenizer)
        outputs = self._record(sample.astype(np.int32)).layer_outputs

        inputs: list[tuple[Product, Float32Array, Float32Array]] = [(self._output, outputs[-1], self._final_norm)]
        for layer, rows in zip(self._layers, outputs, strict=False):
            inputs += (layer.qkv, rows, layer.attention_norm), (layer.gate_up, rows, layer.feed_forward_norm)
        for product, rows, norm in inputs:
            matrix = product.joined if isinstance(product, AdaptedMatrix) else product
            if isinstance(matrix, layout.Int8Matrix):
                squares = np.square(self._normalize(rows, norm)).sum(axis=0)
                matrix.multiply_exactly(*np.argsort(squares)[-2:].tolist())

    @property
    def tensors(self) -> Mapping[str, StoredTensor]:
        """Weights by name; with adapters, each is merged at their strengths when it is read."""
        strengths = [(adapter, self._strengths[adapter.name]) for adapter in self._adapters]
        return MergedWeights(self._stored, strengths) if strengths else self._stored

    @property
    def weights(self) -> dict[str, Float32Array]:
        return {name: to_float32(tensor) for name, tensor in self.tensors.items()}

    @property
    def strengths(self) -> Mapping[str, float]:
        return self._strengths

    def with_strengths(self, strengths: Mapping[str, float]) -> Self:
        model = copy.copy(self)
        model._strengths = self._strengths | {name: strengths[name] for name in self._strengths if name in strengths}
        model._layers = self._layers_at([model._strengths[adapter.name] for adapter in self._adapters])
        model._added = {}
        for name, (index, vector) in self._vectors.items():
            if strength := model._strengths[name]:
                model._added[index] = model._added.get(index, _ZERO) + np.float32(strength) * vector
        return model

    def _layers_at(self, strengths: Sequence[float]) -> list[TransformerLayer]:
        of_adapters, layers = np.array(strengths, np.float32), []
        for layer in self._layers:
            parts = layer._asdict().items()
            adapted: dict[str, Any] = {name: p.at(of_adapters) for name, p in parts if isinstance(p, AdaptedMatrix)}
            layers.append(layer._replace(**adapted))
        return layers

    def with_vector(self, name: str, layer: int, vector: Float32Array) -> Self:
        """Return the same model with a steering vector `[width]` at strength 0 (Turner et al. 2023, arXiv 2308.10248).

        It is added to the output of `layer` layers, at every position.
        """
        model = copy.copy(self)
        model._vectors = self._vectors | {name: (layer, vector.astype(np.float32))}
        model._strengths = self._strengths | {name: 0.0}
        return model.with_strengths({})

    def with_context_size(self, context_size: int) -> Self:
        model = copy.copy(self)
        model.context_size = context_size
        return model

    @cached_property
    def is_slow(self) -> bool:
        # Reading a token delays the keyboard, so screens read in a thread.
        return sum(map(math.prod, self._shapes.values())) > MAX_FAST_WEIGHTS

    def start(self) -> TransformerState:
        return TransformerState((), 0, False, np.zeros(self.config.embedding_size, np.float32))

    def hidden_vector(self, state: TransformerState) -> Float32Array:
        return state.hidden

    def has_slid(self, state: TransformerState) -> bool:
        return state.has_slid

    def advance(self, state: TransformerState, token: int) -> tuple[LogProbs, TransformerState]:
        if state.num_positions == self.context_size:
            rows, state = self.predict_tokens(state, (token,))
            return rows[0], state
        return self._advance_each([state], [token])[0]

    def _advance_each(
        self, states: Sequence[TransformerState], tokens: Sequence[int]
    ) -> list[tuple[LogProbs, TransformerState]]:
        # As `_read_chunk`, with fewer operations, whose overhead takes much time. In 8 bits, no text depends on the
        # others: rounding would make a large difference of a small one.
        num_units, num_kv_heads, size = self._num_heads * self._head_size, self._num_kv_heads, self._head_size
        num_rotated = num_units + num_kv_heads * size
        ids = np.array(tokens)
        texts = list[Segments]()
        for index, state in enumerate(states):
            if ids[index] == EOS_ID and not state.num_positions:
                ids[index] = self.tokenizer.start_id
            texts.append(extend_segments(self.config, state.segments, state.num_positions, ids[index : index + 1]))
        attention = RowAttention(texts)
        positions = [state.num_positions for state in states]
        rotations = self._rotations[positions].repeat(self._num_each, axis=1).reshape(len(ids), -1)
        vectors = layout.embed(self._embedding, ids)
        for index, layer in enumerate(self._layers):
            if index in self._added:
                vectors = vectors + self._added[index]
            # A norm divides by a number, which is left to the product.
            norms = self._norm_factors(vectors)
            qkv = layer.qkv.matmul_each(vectors * layer.attention_norm, norms, layer.qkv_bias)
            pairs = qkv[:, :num_rotated].view(np.complex64)
            pairs *= rotations
            keys_values = qkv[:, num_units:].reshape(-1, 2, num_kv_heads, size)
            for new_row, (*_, (buffer, length)) in zip(keys_values, texts, strict=True):
                buffer.layers[index][:, :, length - 1] = new_row
            attended = attention.attend(qkv[:, :num_units].reshape(len(ids), num_kv_heads, -1, size), index)
            vectors = layer.output.matmul_each(attended, plus=vectors)
            norms = self._norm_factors(vectors)
            gate_up = layer.gate_up.matmul_each(vectors * layer.feed_forward_norm, norms)
            vectors = layer.down.matmul_each(_swiglu(gate_up), plus=vectors)
        vectors *= self._final_norm * np.array(self._norm_factors(vectors), np.float32)[:, None]
        log_probs = merge_ends(layout.normalize_logits(self._output.matmul_each(vectors)), self.tokenizer)
        return [
            # A view of the vectors would keep those of other texts in memory.
            (row, TransformerState(segments, state.num_positions + 1, state.has_slid, vector.copy()))
            for row, segments, state, vector in zip(log_probs, texts, states, vectors, strict=True)
        ]

    def read_last_again(self, state: TransformerState) -> tuple[LogProbs, TransformerState]:
        *earlier, (buffer, length) = state.segments
        before = (*earlier, (buffer, length - 1)) if length > 1 else tuple(earlier)
        state = state._replace(segments=before, num_positions=state.num_positions - 1)
        return self.advance(state, int(buffer.tokens[length - 1]))

    def _norm_factors(self, vectors: Float32Array) -> list[float]:
        means = (vector.dot(vector) / len(vector) for vector in vectors)
        return [1 / math.sqrt(mean + self.config.norm_eps) for mean in means]

    def advance_batch(
        self, states: Sequence[TransformerState], tokens: Sequence[int]
    ) -> list[tuple[LogProbs, TransformerState]]:
        if any(state.num_positions == self.context_size for state in states):
            return [self.advance(state, token) for state, token in zip(states, tokens, strict=True)]
        return self._advance_each(states, tokens)

    def predict_tokens(
        self, state: TransformerState, tokens: Sequence[int], *, last_only: bool = False
    ) -> tuple[Float32Array, TransformerState]:
        rows = []
        for hidden, new_state in self._read_text(state, tokens):
            state = new_state
            rows += [] if last_only else [self._log_probs(hidden)]
        return self._log_probs(state.hidden[None]) if last_only else np.concatenate(rows), state

    def score_chunks(self, ids: TokenIds) -> Iterator[SequenceOutput]:
        start = 0
        for hidden, _ in self._read_text(self.start(), np.append(np.int32(EOS_ID), ids)[: len(ids)]):
            targets = ids[start : start + len(hidden)]
            log_probs = self._log_probs(hidden)[np.arange(len(hidden)), targets]
            yield SequenceOutput(log_probs.astype(np.float64), hidden)
            start += len(hidden)

    def _read_text(
        self, state: TransformerState, tokens: Sequence[int] | TokenIds
    ) -> Iterator[tuple[Float32Array, TransformerState]]:
        # Yields the vectors `[tokens, width]` of consecutive tokens of a text, and the state after them.
        num_kept = 0  # tokens before the next ones that are read again
        while len(tokens):
            if state.num_positions == self.context_size:
                num_kept = layout.num_kept_tokens(self.context_size)
                tokens = np.concatenate([segment_tokens(state.segments)[-num_kept:], tokens])
                state = self.start()._replace(has_slid=True)
            room = self.context_size - state.num_positions
            max_positions = min(self.context_size, state.num_positions + READ_TOKENS)
            count = max(1, min(room, READ_TOKENS, MAX_SCORES // (self._num_heads * max_positions)))
            hidden, state = self._read_chunk(state, tokens[:count])
            tokens, hidden, num_kept = tokens[count:], hidden[num_kept:], max(0, num_kept - len(hidden))
            if len(hidden):
                yield hidden, state

    def _read_chunk(
        self, state: TransformerState, chunk: Sequence[int] | TokenIds, record: AttentionRecord | None = None
    ) -> tuple[Float32Array, TransformerState]:
        # Reads the next tokens of a text, for which its window has room, with one product per matrix. Returns the
        # vectors `[tokens, width]` that predict the token after each token, and the state.
        tokens = np.array(chunk, np.int32)
        if tokens[0] == EOS_ID and not state.num_positions and not state.has_slid:
            tokens[0] = self.tokenizer.start_id
        segments = extend_segments(self.config, state.segments, state.num_positions, tokens)
        buffer, length = segments[-1]
        num_positions = state.num_positions + len(tokens)
        rotations = self._rotations[state.num_positions : num_positions].repeat(self._num_each, axis=1)
        num_rotated, size = self._num_heads + self._num_kv_heads, self._head_size
        vectors = layout.embed(self._embedding, tokens)
        for index, layer in enumerate(self._layers):
            if index in self._added:
                vectors += self._added[index]
            if record is not None:
                record.layer_outputs[index] = vectors
            qkv = layer.qkv.matmul(self._normalize(vectors, layer.attention_norm))
            if layer.qkv_bias is not None:
                qkv += layer.qkv_bias
            heads = qkv.reshape(len(tokens), -1, size)
            pairs = heads[:, :num_rotated].view(np.complex64)
            pairs *= rotations
            keys_values = heads[:, self._num_heads :].reshape(-1, 2, self._num_kv_heads, size).transpose(1, 2, 0, 3)
            buffer.layers[index][:, :, length - len(tokens) : length] = keys_values
            queries = heads[:, : self._num_heads].reshape(len(tokens), self._num_kv_heads, -1, size)
            attended = attend_chunk(queries, index, segments, None if record is None else record.weights[index])
            vectors += layer.output.matmul(attended)
            gate_up = layer.gate_up.matmul(self._normalize(vectors, layer.feed_forward_norm))
            vectors += layer.down.matmul(_swiglu(gate_up))
        if record is not None:
            record.layer_outputs[-1] = vectors
        hidden = self._normalize(vectors, self._final_norm)
        # A view of the last vector would keep the others in memory.
        return hidden, TransformerState(segments, num_positions, state.has_slid, hidden[-1].copy())

    def _normalize(self, vectors: Float32Array, weight: Float32Array) -> Float32Array:
        # RMSNorm of vectors `[rows, width]`
        mean_squares = np.einsum("rw,rw->r", vectors, vectors) / np.float32(vectors.shape[1])
        normalized = vectors * weight
        normalized /= np.sqrt(mean_squares + np.float32(self.config.norm_eps))[:, None]
        return normalized

    def record_attention(self, ids: TokenIds) -> AttentionRecord:
        if len(ids) >= self.context_size:
            needed = f"a text of {len(ids)} tokens and its start do not fit into the context of {self.context_size}"
            raise InvalidInputError(f"{needed}; use a shorter text")
        return self._record(np.append(np.int32(EOS_ID), ids))

    def _record(self, tokens: TokenIds) -> AttentionRecord:
        time, num_layers = len(tokens), len(self._layers)
        weights = np.empty((num_layers, self._num_heads, time, time), np.float32)
        outputs = np.empty((num_layers + 1, time, self.config.embedding_size), np.float32)
        record = AttentionRecord(weights, outputs)
        self._read_chunk(self.start(), tokens, record)
        return record

    def layer_log_probs(self, layer_outputs: Float32Array) -> Float32Array:
        return self._log_probs(self._normalize(layer_outputs, self._final_norm))

    def _log_probs(self, hidden: Float32Array) -> Float32Array:
        return merge_ends(layout.normalize_logits(self._output.matmul(hidden)), self.tokenizer)


def merge_ends(log_probs: Float32Array, tokenizer: Tokenizer) -> Float32Array:
    """Give `<eos>` the probability of all tokens that end a text, in place, in each row `[rows, vocabulary]`."""
    if tokenizer.other_end_ids:
        end_ids = [EOS_ID, *tokenizer.other_end_ids]
        ends = np.logaddexp.reduce(log_probs[:, end_ids], axis=1)
        log_probs[:, end_ids] = EXCLUDED_LOG_PROB
        log_probs[:, EOS_ID] = ends
    return log_probs


def _swiglu(gate_up: Float32Array) -> Float32Array:
    # Silu(gates) · values `[..., inner]` for halves of gates, and values, `[..., 2 inner]`.
    inner = gate_up.shape[-1] // 2
    half_gates = gate_up[..., :inner]
    activated: Float32Array = np.tanh(half_gates)  # silu(x) = x / 2 · (1 + tanh(x / 2)), which does not overflow
    activated += _ONE
    activated *= half_gates
    activated *= gate_up[..., inner:]
    return activated


def pair_units(units: npt.NDArray[Any], size: int) -> npt.NDArray[Any]:
    """Reorder heads of `size` units so that both units of a pair of `rotary_frequencies` are neighbours."""
    heads = units.reshape(-1, 2, size // 2, *units.shape[1:])
    return heads.swapaxes(1, 2).reshape(units.shape)


def _halve(matrix: StoredTensor) -> StoredTensor:
    half = np.float32(0.5)
    return Int8Rows(matrix.values, matrix.scales * half) if isinstance(matrix, Int8Rows) else matrix * half


def _map_rows(function: Callable[[npt.NDArray[Any]], npt.NDArray[Any]], matrix: StoredTensor) -> StoredTensor:
    if isinstance(matrix, Int8Rows):
        return Int8Rows(function(matrix.values), function(matrix.scales))
    return function(matrix)
