"""The Transformer language model in numpy, for inference without torch."""

import math
import threading
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from engine.config import ModelConfig
from engine.data.arrays import Float32Array
from engine.data.tokenizers.base import EOS_ID, TokenIds, Tokenizer
from engine.errors import InvalidInputError
from engine.models.attention import AttentionRecord
from engine.models.base import EXCLUDED_LOG_PROB, LogProbs
from engine.models.key_value_cache import CacheShape, Segments, extend_segments, segment_tokens
from engine.models.numpy_decoder import NumpyDecoder, normalize_logits
from engine.models.transformer_layers import MAX_SUM, MIN_SUM, TransformerLayers
from engine.models.transformer_layout import (
    check_transformer_config,
    head_size,
    num_kept_tokens,
    num_kv_heads,
    transformer_weight_shapes,
)
from engine.models.transformer_weights import prepare_weights
from engine.storage.tensor_file import StoredTensor

if TYPE_CHECKING:
    from engine.models.pretrained.chat import ChatTemplate

MAX_FAST_WEIGHTS = 30_000_000
"""Number of weights up to which a token is read in about 2 ms."""
READ_TOKENS = 128
"""Maximum number of tokens that are read at once; the arrays of more tokens do not fit into the processor's cache."""
MAX_SCORES = 2**23
"""Maximum number of attention scores of a layer at once, where tokens are read at once."""
HUGE_PAGES_DELAY = 1.0
"""Seconds from loading a model until its weights are moved into huge pages."""
SCORING_CHUNK = 128
"""Tokens whose log-probabilities are computed at once when a text is scored."""


class TransformerState(NamedTuple):
    """Everything that the Transformer remembers of a text: its window, which is a pure function of the tokens read."""

    segments: Segments
    """Tokens of the window with their keys and values; states share them."""
    num_positions: int
    """Number of tokens in the window."""
    has_slid: bool
    """True if the first tokens of the text are no longer in the window."""
    hidden: Float32Array
    """Vector `[width]` that the next token is predicted from; zeros before the first token."""


class NumpyTransformer(NumpyDecoder):
    """A trained Transformer as a `LanguageModel`.

    A text is read in windows of at most `context_size` tokens. A full window is replaced by one with its last
    `context_size // 2` tokens before the next token is read. Results for equal texts are equal to within rounding:
    sums over the window depend on which of its rows are shared with other texts.
    """

    def __init__(
        self,
        config: ModelConfig,
        tokenizer: Tokenizer,
        weights: Mapping[str, StoredTensor],
        *,
        int8: bool = False,
        chat: "ChatTemplate | None" = None,
    ) -> None:
        """Prepare the weights, named as in `transformer_weight_shapes`, for inference.

        Matrices that are stored in 8 bits are multiplied in 8 bits. With `int8`, all others are quantized too.
        `weights` may compute its tensors when they are read: this reads each of them once, in threads, and `tensors`
        reads them again. `chat` is the form of a conversation that the model knows.

        Raises:
            RunError: If a tensor is missing, unknown, of the wrong shape, or contains NaN or huge values.
            ConfigError: If a setting is impossible, see `check_transformer_config`.
            InvalidInputError: If 8 bits are needed and numkong is not installed.
        """
        check_transformer_config(config)
        prepared = prepare_weights(config, len(tokenizer), weights, int8=int8)
        self.tokenizer = tokenizer
        self.config = config
        self.int8 = int8
        self.chat = chat
        self._tensors, self._has_int8 = weights, prepared.has_int8
        self._layers, self._output = TransformerLayers(config, prepared), prepared.output
        if int8 or prepared.has_int8:
            # Who needs new memory meanwhile is delayed, so a screen shows the model first, and a prompt is read.
            huge_pages = threading.Timer(HUGE_PAGES_DELAY, prepared.use_huge_pages)
            huge_pages.daemon = True
            huge_pages.start()
        self._shape = CacheShape(config.num_layers, num_kv_heads(config), head_size(config), config.context_size)
        self._num_kept = num_kept_tokens(config.context_size)
        self._end_ids = [EOS_ID, *tokenizer.other_end_ids]

    @property
    def context_size(self) -> int:
        """Maximum number of tokens in a window, the start of the text included."""
        return self.config.context_size

    @cached_property
    def is_slow(self) -> bool:
        """True if reading a token takes long enough to delay the keyboard, so that screens read in a thread."""
        shapes = transformer_weight_shapes(self.config, len(self.tokenizer))
        return sum(map(math.prod, shapes.values())) > MAX_FAST_WEIGHTS

    @property
    def has_int8_weights(self) -> bool:
        """True if a matrix was stored in 8 bits."""
        return self._has_int8

    @property
    def tensors(self) -> Mapping[str, StoredTensor]:
        """Tensors by name, as they were given."""
        return self._tensors

    def start(self) -> TransformerState:
        """Return an empty window."""
        return TransformerState((), 0, False, np.zeros(self.config.embedding_size, np.float32))

    def hidden_vector(self, state: TransformerState) -> Float32Array:
        """Return the normalized output `[width]` of the last layer."""
        return state.hidden

    def has_slid(self, state: TransformerState) -> bool:
        """Return True if the first tokens of the text are no longer in the window."""
        return state.has_slid

    def state_memory(self, state: TransformerState) -> tuple[int, int]:
        """Return the identity of the memory that `state` shares with others of its text, and its size in bytes."""
        buffer = state.segments[-1].buffer if state.segments else None
        return id(buffer), 0 if buffer is None else sum(layer.nbytes for layer in buffer.layers)

    def num_positions(self, state: TransformerState) -> int:
        """Return the number of tokens in the window."""
        return state.num_positions

    def advance(self, state: TransformerState, token: int) -> tuple[LogProbs, TransformerState]:
        """Read `token`; return the log-probabilities `[vocabulary]` of the next token and the new state."""
        position = state.num_positions
        if position == self._shape.context_size:
            rows, state = self.predict_tokens(state, (token,), last_only=True)
            return rows[0], state
        if token == EOS_ID and not position:
            token = self.tokenizer.start_id
        segments = extend_segments(state.segments, position, (token,), self._shape)
        hidden = self._layers.read_token(token, position, segments)
        log_probs = self._output.matmul_vector(hidden)
        with np.errstate(over="ignore", invalid="ignore"):
            total = np.add.reduce(np.exp(log_probs))
        if not MIN_SUM < total < MAX_SUM:
            log_probs -= np.maximum.reduce(log_probs)
            total = np.add.reduce(np.exp(log_probs))
        log_probs -= math.log(total)
        if len(self._end_ids) > 1:
            self._merge_ends(log_probs[None])
        return log_probs, TransformerState(segments, position + 1, state.has_slid, hidden)

    def advance_batch(
        self, states: Sequence[TransformerState], tokens: Sequence[int]
    ) -> list[tuple[LogProbs, TransformerState]]:
        """Read one token in each of several texts, with one product per weight matrix."""
        states = [self._make_room(state) for state in states]
        tokens = [
            self.tokenizer.start_id if token == EOS_ID and not state.num_positions else token
            for state, token in zip(states, tokens, strict=True)
        ]
        texts = [
            extend_segments(state.segments, state.num_positions, (token,), self._shape)
            for state, token in zip(states, tokens, strict=True)
        ]
        hidden = self._layers.read_batch(tokens, [state.num_positions for state in states], texts)
        log_probs = self._log_probs(hidden)
        return [
            (row, TransformerState(segments, state.num_positions + 1, state.has_slid, vector))
            for row, segments, state, vector in zip(log_probs, texts, states, hidden, strict=True)
        ]

    def _make_room(self, state: TransformerState) -> TransformerState:
        """Return the state with its last tokens in a new window if the window was full."""
        if state.num_positions < self._shape.context_size:
            return state
        kept = segment_tokens(state.segments)[-self._num_kept :]
        emptied = TransformerState((), 0, True, state.hidden)
        *_, (_, restarted) = self._iter_hidden(emptied, kept)
        return restarted

    def predict_tokens(
        self, state: TransformerState, tokens: Sequence[int], *, last_only: bool = False
    ) -> tuple[Float32Array, TransformerState]:
        """Read several tokens of a text, together as far as a window has room for them; see `BatchModel`.

        With `last_only`, windows that the last token does not depend on are not read.
        """
        if last_only:
            text = np.concatenate([segment_tokens(state.segments), np.asarray(tokens, np.int32)])
            stride = self._shape.context_size - self._num_kept
            num_slides = max(0, -(-(len(text) - self._shape.context_size) // stride))
            if num_slides:
                state, tokens = TransformerState((), 0, True, state.hidden), text[num_slides * stride :].tolist()
            *_, (_, state) = self._iter_hidden(state, tokens)
            return self._log_probs(state.hidden[None]), state
        rows = []
        for hidden, last_state in self._iter_hidden(state, tokens):  # noqa: B007
            rows.append(self._log_probs(hidden))
        return np.concatenate(rows), last_state

    def record_attention(self, ids: TokenIds) -> AttentionRecord:
        """Read `<eos>` and then `ids` `[time]`, and record the attention and the layers of all `time + 1` positions.

        Raises:
            InvalidInputError: If the positions do not fit into the context.
        """
        if len(ids) >= self._shape.context_size:
            raise InvalidInputError(
                f"a text of {len(ids)} tokens and its start do not fit into the context of {self._shape.context_size}; "
                "use a shorter text"
            )
        return AttentionRecord(*self._layers.record(np.append(np.int32(self.tokenizer.start_id), ids)))

    def layer_log_probs(self, layer_outputs: Float32Array) -> Float32Array:
        """Return the log-probabilities `[rows, vocabulary]` that the output layer computes from layer outputs."""
        return self._log_probs(self._layers.normalize(layer_outputs))

    def _log_probs(self, hidden: Float32Array) -> Float32Array:
        """Return the log-probabilities `[rows, vocabulary]` of the tokens after the vectors `[rows, width]`."""
        log_probs = normalize_logits(self._output.matmul(hidden))
        if len(self._end_ids) > 1:
            self._merge_ends(log_probs)
        return log_probs

    def _merge_ends(self, log_probs: Float32Array) -> None:
        """Give `<eos>` the probability of all tokens that end a text, in each row `[rows, vocabulary]`."""
        ends = np.logaddexp.reduce(log_probs[:, self._end_ids], axis=1)
        log_probs[:, self._end_ids] = EXCLUDED_LOG_PROB
        log_probs[:, EOS_ID] = ends

    def _iter_hidden(
        self, state: TransformerState, tokens: Sequence[int] | TokenIds
    ) -> Iterator[tuple[Float32Array, TransformerState]]:
        """Read at least one token; yield vectors `[tokens, width]` of consecutive tokens, and the state after them."""
        context = self._shape.context_size
        text = np.concatenate([segment_tokens(state.segments), np.asarray(tokens, np.int32)])
        if text[0] == EOS_ID and not state.num_positions and not state.has_slid:
            text[0] = self.tokenizer.start_id
        segments, has_slid = state.segments, state.has_slid
        num_done = num_read = state.num_positions  # tokens of `text`; those read again after a slide are done already
        window_start = 0
        while num_done < len(text):
            if num_read - window_start == context:
                window_start = num_read = num_read - self._num_kept
                segments, has_slid = (), True
            max_positions = min(context, num_read - window_start + READ_TOKENS)
            max_tokens = max(1, min(READ_TOKENS, MAX_SCORES // (self.config.num_heads * max_positions)))
            chunk = text[num_read : min(window_start + context, num_read + max_tokens)]
            segments = extend_segments(segments, num_read - window_start, chunk, self._shape)
            hidden = self._layers.read_tokens(chunk, segments)
            num_read += len(chunk)
            if num_read > num_done:
                num_new, num_done = num_read - num_done, num_read
                yield (
                    hidden[-num_new:],
                    TransformerState(segments, num_read - window_start, has_slid, hidden[-1].copy()),
                )

    def _iter_chunks(self, ids: TokenIds) -> Iterator[tuple[Float32Array, Float32Array]]:
        """Yield the distributions `[time, vocabulary]` of consecutive tokens, and their vectors `[time, width]`."""
        if not len(ids):
            return
        inputs = np.append(np.int32(self.tokenizer.start_id), ids[:-1])
        is_long = self._shape.context_size > READ_TOKENS
        long_parts = (hidden for hidden, _ in self._iter_hidden(self.start(), inputs))
        for part in long_parts if is_long else self._iter_windows(inputs):
            for start in range(0, len(part), SCORING_CHUNK):
                hidden = part[start : start + SCORING_CHUNK]
                yield self._log_probs(hidden), hidden

    def _iter_windows(self, inputs: TokenIds) -> Iterator[Float32Array]:
        """Yield vectors `[tokens, width]` of consecutive tokens of a text `[time]`, several windows at once."""
        context, num_kept = self._shape.context_size, self._num_kept
        stride = context - num_kept
        yield self._layers.read_windows(inputs[None, :context])[0]
        # Each further window reads `num_kept` tokens again, and then up to `stride` new ones.
        num_full = max(0, len(inputs) - context) // stride
        windows = np.lib.stride_tricks.sliding_window_view(inputs, context)[::stride] if num_full else inputs[None]
        per_batch = max(1, READ_TOKENS // context)
        for first in range(1, num_full + 1, per_batch):
            batch = windows[first : min(first + per_batch, num_full + 1)]
            yield self._layers.read_windows(batch)[:, num_kept:].reshape(-1, self.config.embedding_size)
        last = inputs[(num_full + 1) * stride :]
        if len(inputs) > context and len(last) > num_kept:
            yield self._layers.read_windows(last[None])[0, num_kept:]
