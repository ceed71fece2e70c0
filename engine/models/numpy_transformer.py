"""The Transformer language model in numpy, for inference without torch."""

import math
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from engine.config import ModelConfig
from engine.data.arrays import Float32Array
from engine.data.tokenizers import EOS_ID, TokenIds, Tokenizer
from engine.errors import InvalidInputError
from engine.models import attention
from engine.models import transformer_layout as layout
from engine.models.base import EXCLUDED_LOG_PROB, LogProbs, SequenceOutput
from engine.models.matrices import Int8Matrix, Matrix, check_weights, embed, make_matrix, normalize_logits
from engine.runtime.process import use_huge_pages
from engine.storage.tensor_file import Int8Rows, StoredTensor, check_names, to_float32

if TYPE_CHECKING:
    from engine.models.pretrained.chat import ChatTemplate

MAX_TRANSFORMER_WEIGHT = 1e4  # so that vectors between the layers of models of usual sizes are finite
MAX_FAST_WEIGHTS = 30_000_000  # with which a token is read in about 2 ms
READ_TOKENS = 128  # at once: the arrays of more tokens do not fit into the processor's cache
MAX_SCORES = 2**23  # attention scores of a layer at once
HUGE_PAGES_DELAY = 1.0  # seconds: who needs new memory during the move is delayed, so the first prompt is read before
SAMPLE_TOKENS, SAMPLE_STRIDE = 16, 7919  # of the text that shows which units are large
MIN_SUM, MAX_SUM = 1e-30, 1e30  # sums of exponentials that single precision represents well
_ONE = np.array(1, np.float32)  # numpy adds an array faster than a number


class TransformerLayer(NamedTuple):
    # Matrices that multiply the same vector are one.
    attention_norm: Float32Array  # [width]
    qkv: Matrix  # [query, key and value units, width]; units of queries and keys are in the order of `pair_units`
    qkv_bias: Float32Array | None
    output: Matrix  # [width, query units]
    feed_forward_norm: Float32Array  # [width]
    gate_up: Matrix  # [2 inner, width]: halves of the gates, and then the values that they are multiplied by
    down: Matrix  # [width, inner]


class TransformerState(NamedTuple):
    segments: attention.Segments  # tokens of the window with their keys and values; states share them
    num_positions: int  # tokens in the window
    has_slid: bool  # True if the first tokens of the text are no longer in the window
    hidden: Float32Array  # vector `[width]` that the next token is predicted from; zeros before the first token


class NumpyTransformer:
    """A trained Transformer as a `LanguageModel`. The model itself never changes, so threads may share it.

    A text is read in windows of at most `context_size` tokens. A full window is replaced by one with its last
    `context_size // 2` tokens. Results for equal texts are equal to within rounding: sums depend on the shared rows.
    """

    def __init__(
        self,
        config: ModelConfig,
        tokenizer: Tokenizer,
        weights: Mapping[str, StoredTensor],
        *,
        chat: "ChatTemplate | None" = None,
    ) -> None:
        """Prepare the weights, named as in `transformer_weight_shapes`; each tensor is read once, in threads.

        Tensors of another shape, with NaN or huge values raise a RunError, impossible settings a ConfigError.
        """
        layout.check_transformer_config(config)
        self.tokenizer, self.config, self.chat, self.tensors = tokenizer, config, chat, weights
        self.context_size, self._num_kept = config.context_size, layout.num_kept_tokens(config.context_size)
        self._num_heads, self._num_kv_heads = config.num_heads, layout.num_kv_heads(config)
        self._head_size = layout.head_size(config)
        self.has_int8_weights = False  # True if a matrix was stored in 8 bits
        self._shapes = layout.transformer_weight_shapes(config, len(tokenizer))
        check_names(weights, self._shapes)
        with ThreadPoolExecutor(os.cpu_count()) as threads:
            embedding = threads.submit(self._read, "model.embed_tokens.weight")
            untied = None if config.tie_weights else threads.submit(self._read, "lm_head.weight")
            output = threads.submit(lambda: make_matrix((untied or embedding).result()))
            self._layers = list(threads.map(self._read_layer, range(config.num_layers)))
            self._final_norm = to_float32(self._read("model.norm.weight"))
            self._embedding, self._output = embedding.result(), output.result()
        self._rotary = attention.RotaryEmbedding(config)
        if isinstance(self._output, Int8Matrix):
            self._multiply_large_inputs_exactly()
        if self.has_int8_weights:
            timer = threading.Timer(HUGE_PAGES_DELAY, self._use_huge_pages)
            timer.daemon = True
            timer.start()

    def _read(self, name: str) -> StoredTensor:
        tensor = self.tensors[name]
        if isinstance(tensor, Int8Rows):
            self.has_int8_weights = True
        check_weights({name: tensor}, {name: self._shapes[name]}, MAX_TRANSFORMER_WEIGHT)
        return tensor

    def _read_layer(self, index: int) -> TransformerLayer:
        prefix, half, pair = f"model.layers.{index}", np.float32(0.5), partial(pair_units, size=self._head_size)
        q, k, v, o = (self._read(f"{prefix}.self_attn.{name}_proj.weight") for name in "qkvo")
        gate, up, down = (self._read(f"{prefix}.mlp.{name}_proj.weight") for name in ("gate", "up", "down"))
        norms = [to_float32(self._read(f"{prefix}.{name}_layernorm.weight")) for name in ("input", "post_attention")]
        bias = None
        if self.config.qkv_bias:
            biases = [to_float32(self._read(f"{prefix}.self_attn.{name}_proj.bias")) for name in "qkv"]
            bias = np.concatenate([*map(pair, biases[:2]), biases[2]])
        half_gate = Int8Rows(gate.values, gate.scales * half) if isinstance(gate, Int8Rows) else gate * half
        qkv, gate_up = _join(_map_rows(pair, q), _map_rows(pair, k), v), _join(half_gate, up)
        return TransformerLayer(norms[0], qkv, bias, _join(o), norms[1], gate_up, _join(down))

    def _multiply_large_inputs_exactly(self) -> None:
        # The two largest units of the vectors between layers are not rounded to 8 bits: large Transformers have few
        # such units (LLM.int8, Dettmers et al. 2022, arXiv 2208.07339), and any text shows which.
        sample = np.arange(min(SAMPLE_TOKENS, self.context_size)) * SAMPLE_STRIDE % len(self.tokenizer)
        outputs = self._record(sample.astype(np.int32)).layer_outputs

        inputs = [(self._output, outputs[-1], self._final_norm)]
        for layer, rows in zip(self._layers, outputs, strict=False):
            inputs += (layer.qkv, rows, layer.attention_norm), (layer.gate_up, rows, layer.feed_forward_norm)
        for matrix, rows, norm in inputs:
            if isinstance(matrix, Int8Matrix):
                squares = np.square(self._normalize(rows, norm)).sum(axis=0)
                matrix.multiply_exactly(*np.argsort(squares)[-2:].tolist())

    def _use_huge_pages(self) -> None:
        # A product is about an eighth faster.
        weights = [weight for layer in self._layers for weight in layer]
        use_huge_pages(matrix.memory for matrix in (*weights, self._output) if isinstance(matrix, Int8Matrix))

    @property
    def weights(self) -> dict[str, Float32Array]:
        return {name: to_float32(tensor) for name, tensor in self.tensors.items()}

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

    def num_positions(self, state: TransformerState) -> int:
        return state.num_positions

    def state_memory(self, state: TransformerState) -> tuple[int, int]:
        """Return the identity of the memory that `state` shares with others of its text, and its size in bytes."""
        buffer = state.segments[-1].buffer if state.segments else None
        return id(buffer), 0 if buffer is None else sum(layer.nbytes for layer in buffer.layers)

    def advance(self, state: TransformerState, token: int) -> tuple[LogProbs, TransformerState]:
        state = self._make_room(state)
        position = state.num_positions
        if token == EOS_ID and not position:
            token = self.tokenizer.start_id
        segments = attention.extend_segments(self.config, state.segments, position, (token,))
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
            sums = np.empty((len(self._layers), self._num_heads), np.float32)
            hidden = self._read_token(token, position, segments, sums)
            if not MIN_SUM < sums.min() <= sums.max() < MAX_SUM:  # NaN fails the comparison
                hidden = self._read_token(token, position, segments, None)
            log_probs = self._output.matmul_vector(hidden)
            total = np.add.reduce(np.exp(log_probs))
            if not MIN_SUM < total < MAX_SUM:
                log_probs -= np.maximum.reduce(log_probs)
                total = np.add.reduce(np.exp(log_probs))
        log_probs -= math.log(total)
        state = TransformerState(segments, position + 1, state.has_slid, hidden)
        return merge_ends(log_probs[None], self.tokenizer)[0], state

    def _read_token(
        self, token: int, position: int, segments: attention.Segments, sums: Float32Array | None
    ) -> Float32Array:
        # As `_read_chunks`, with fewer operations, whose overhead takes much time. For `sums`, see `attend_one`.
        num_units, size = self._num_heads * self._head_size, self._head_size
        num_rotated = num_units + self._num_kv_heads * size
        query_shape, row_shape = (self._num_kv_heads, -1, size, 1), (2, self._num_kv_heads, size)
        rotations = self._rotary.rotations(position).reshape(-1)
        buffer, length = segments[-1]
        row = length - 1
        vector = embed(self._embedding, token)
        for index, layer in enumerate(self._layers):
            # A norm divides by a number, which is left to the product.
            qkv = layer.qkv.matmul_vector(vector * layer.attention_norm, self._norm_factor(vector), layer.qkv_bias)
            pairs = qkv[:num_rotated].view(np.complex64)
            pairs *= rotations
            buffer.layers[index][:, :, row] = qkv[num_units:].reshape(row_shape)
            queries = qkv[:num_units].reshape(query_shape)
            attended = attention.attend_one(queries, index, segments, None if sums is None else sums[index])
            vector = layer.output.matmul_vector(attended, plus=vector)
            gate_up = layer.gate_up.matmul_vector(vector * layer.feed_forward_norm, self._norm_factor(vector))
            vector = layer.down.matmul_vector(_swiglu(gate_up), plus=vector)
        vector *= self._final_norm * np.float32(self._norm_factor(vector))
        return vector

    def _norm_factor(self, vector: Float32Array) -> float:
        return 1 / math.sqrt(vector.dot(vector) / len(vector) + self.config.norm_eps)

    def advance_batch(
        self, states: Sequence[TransformerState], tokens: Sequence[int]
    ) -> list[tuple[LogProbs, TransformerState]]:
        read = self._read_chunks([self._make_room(state) for state in states], [(token,) for token in tokens])
        log_probs = self._log_probs(np.concatenate([hidden for hidden, _ in read]))
        return [(row, state) for row, (_, state) in zip(log_probs, read, strict=True)]

    def predict_tokens(
        self, state: TransformerState, tokens: Sequence[int], *, last_only: bool = False
    ) -> tuple[Float32Array, TransformerState]:
        # With `last_only`, no windows that the last token does not depend on.
        if last_only:
            text = np.concatenate([attention.segment_tokens(state.segments), np.asarray(tokens, np.int32)])
            stride = self.context_size - self._num_kept
            num_slides = max(0, -(-(len(text) - self.context_size) // stride))
            if num_slides:
                state, tokens = self._slid_start(), text[num_slides * stride :].tolist()
            *_, (_, state) = self._read_text(state, tokens)
            return self._log_probs(state.hidden[None]), state
        rows = []
        for hidden, last_state in self._read_text(state, tokens):  # noqa: B007
            rows.append(self._log_probs(hidden))
        return np.concatenate(rows), last_state

    def score_chunks(self, ids: TokenIds) -> Iterator[SequenceOutput]:
        inputs, start = np.append(np.int32(EOS_ID), ids[:-1]), 0
        is_short = self.context_size <= READ_TOKENS
        parts = self._read_windows(inputs) if is_short else (it for it, _ in self._read_text(self.start(), inputs))
        for hidden in parts if len(ids) else ():
            targets = ids[start : start + len(hidden)]
            log_probs = self._log_probs(hidden)[np.arange(len(hidden)), targets]
            yield SequenceOutput(log_probs.astype(np.float64), hidden)
            start += len(hidden)

    def _read_windows(self, inputs: TokenIds) -> Iterator[Float32Array]:
        # As `_read_text`, but several windows at once.
        context, num_kept = self.context_size, self._num_kept
        # Each window after the first one reads `num_kept` tokens again, and then new ones.
        starts = [0, *range(context - num_kept, len(inputs) - num_kept, context - num_kept)]
        per_pass = max(1, READ_TOKENS // context)
        for group in (starts[first : first + per_pass] for first in range(0, len(starts), per_pass)):
            states = [self._slid_start() if start else self.start() for start in group]
            read = self._read_chunks(states, [inputs[start : start + context] for start in group])
            parts = [hidden[num_kept if start else 0 :] for start, (hidden, _) in zip(group, read, strict=True)]
            yield np.concatenate(parts)

    def _read_text(
        self, state: TransformerState, tokens: Sequence[int] | TokenIds
    ) -> Iterator[tuple[Float32Array, TransformerState]]:
        # Yields the vectors `[tokens, width]` of consecutive tokens of a text, and the state after them.
        while len(tokens):
            state = self._make_room(state)
            room = self.context_size - state.num_positions
            max_positions = min(self.context_size, state.num_positions + READ_TOKENS)
            count = max(1, min(room, READ_TOKENS, MAX_SCORES // (self._num_heads * max_positions)))
            ((hidden, state),) = self._read_chunks([state], [tokens[:count]])
            tokens = tokens[count:]
            yield hidden, state

    def _make_room(self, state: TransformerState) -> TransformerState:
        # The state with its last tokens in a new window if the window was full.
        if state.num_positions < self.context_size:
            return state
        kept = attention.segment_tokens(state.segments)[-self._num_kept :]
        *_, (_, restarted) = self._read_text(self._slid_start(), kept)
        return restarted

    def _slid_start(self) -> TransformerState:
        return self.start()._replace(has_slid=True)

    def _read_chunks(
        self,
        states: Sequence[TransformerState],
        chunks: Sequence[Sequence[int] | TokenIds],
        record: attention.AttentionRecord | None = None,
    ) -> list[tuple[Float32Array, TransformerState]]:
        # Reads the next tokens of several texts, for which their windows have room, with one product per matrix.
        # Returns the vectors `[tokens, width]` that the tokens after those of each chunk are predicted from, and its
        # state.
        tokens = np.concatenate(chunks).astype(np.int32)
        counts, ends = list(map(len, chunks)), np.cumsum(list(map(len, chunks))).tolist()
        texts, new_rows = list[attention.Segments](), list[tuple[attention.CacheBuffer, slice, slice]]()
        for state, count, end in zip(states, counts, ends, strict=True):
            rows = slice(end - count, end)
            if tokens[rows.start] == EOS_ID and not state.num_positions and not state.has_slid:
                tokens[rows.start] = self.tokenizer.start_id
            texts.append(attention.extend_segments(self.config, state.segments, state.num_positions, tokens[rows]))
            buffer, length = texts[-1][-1]
            new_rows.append((buffer, slice(length - count, length), rows))
        batch = attention.BatchAttention(texts, counts)
        rotations = self._rotary.rotations(batch.positions)
        num_rotated, size = self._num_heads + self._num_kv_heads, self._head_size
        vectors = embed(self._embedding, tokens)
        for index, layer in enumerate(self._layers):
            if record is not None:
                record.layer_outputs[index] = vectors
            qkv = layer.qkv.matmul(self._normalize(vectors, layer.attention_norm))
            if layer.qkv_bias is not None:
                qkv += layer.qkv_bias
            heads = qkv.reshape(len(tokens), -1, size)
            pairs = heads[:, :num_rotated].view(np.complex64)
            pairs *= rotations
            keys_values = heads[:, self._num_heads :].reshape(-1, 2, self._num_kv_heads, size).transpose(1, 2, 0, 3)
            for buffer, buffer_rows, rows in new_rows:
                buffer.layers[index][:, :, buffer_rows] = keys_values[:, :, rows]
            queries = heads[:, : self._num_heads].reshape(len(tokens), self._num_kv_heads, -1, size)
            attended = batch.attend(queries, index, None if record is None else record.weights[index])
            vectors += layer.output.matmul(attended)
            gate_up = layer.gate_up.matmul(self._normalize(vectors, layer.feed_forward_norm))
            vectors += layer.down.matmul(_swiglu(gate_up))
        if record is not None:
            record.layer_outputs[-1] = vectors
        hidden = self._normalize(vectors, self._final_norm)
        return [
            # A view of the last vector would keep the others in memory.
            (hidden[rows], TransformerState(text, state.num_positions + count, state.has_slid, hidden[end - 1].copy()))
            for text, state, count, end, (*_, rows) in zip(texts, states, counts, ends, new_rows, strict=True)
        ]

    def _normalize(self, vectors: Float32Array, weight: Float32Array) -> Float32Array:
        # RMSNorm of vectors `[rows, width]`
        mean_squares = np.einsum("rw,rw->r", vectors, vectors) / np.float32(vectors.shape[1])
        normalized = vectors * weight
        normalized /= np.sqrt(mean_squares + np.float32(self.config.norm_eps))[:, None]
        return normalized

    def record_attention(self, ids: TokenIds) -> attention.AttentionRecord:
        if len(ids) >= self.context_size:
            needed = f"a text of {len(ids)} tokens and its start do not fit into the context of {self.context_size}"
            raise InvalidInputError(f"{needed}; use a shorter text")
        return self._record(np.append(np.int32(EOS_ID), ids))

    def _record(self, tokens: TokenIds) -> attention.AttentionRecord:
        time, num_layers = len(tokens), len(self._layers)
        weights = np.empty((num_layers, self._num_heads, time, time), np.float32)
        outputs = np.empty((num_layers + 1, time, self.config.embedding_size), np.float32)
        record = attention.AttentionRecord(weights, outputs)
        self._read_chunks([self.start()], [tokens], record)
        return record

    def layer_log_probs(self, layer_outputs: Float32Array) -> Float32Array:
        return self._log_probs(self._normalize(layer_outputs, self._final_norm))

    def _log_probs(self, hidden: Float32Array) -> Float32Array:
        return merge_ends(normalize_logits(self._output.matmul(hidden)), self.tokenizer)


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


def _map_rows(function: Callable[[npt.NDArray[Any]], npt.NDArray[Any]], matrix: StoredTensor) -> StoredTensor:
    if isinstance(matrix, Int8Rows):
        return Int8Rows(function(matrix.values), function(matrix.scales))
    return function(matrix)


def _join(*parts: StoredTensor) -> Matrix:
    # One matrix with the rows of all parts, in 8 bits if all of them are.
    rows = [part for part in parts if isinstance(part, Int8Rows)]
    if len(rows) < len(parts):
        return make_matrix(np.concatenate([to_float32(part) for part in parts]), by_columns=True)
    return make_matrix(Int8Rows(*map(np.concatenate, zip(*rows, strict=True))))
