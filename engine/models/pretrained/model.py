"""A causal language model by others as a `LanguageModel`."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from engine.data.arrays import Float32Array
from engine.data.tokenizers.base import EOS_ID
from engine.models.base import EXCLUDED_LOG_PROB, HiddenVector, LogProbs
from engine.models.pretrained.chat import ChatTemplate
from engine.models.pretrained.contexts import Context, ContextReader, context_memory
from engine.models.pretrained.forward import CausalForward
from engine.models.pretrained.tokenizer import PretrainedTokenizer
from engine.models.transformer_layout import num_kept_tokens

NORMALIZED_ROWS = 16
"""Distributions that are normalized at once, so that they stay in the processor's cache."""
MAX_CHUNK_TOKENS = 512
"""Maximum number of tokens in one forward pass; a longer text needs more memory and is not faster."""


class PretrainedState(NamedTuple):
    """Everything that a model by others remembers of a text. An immutable value: a kept state is a branch point."""

    context: Context
    """The tokens in the context, and what the model computed for them."""
    hidden: HiddenVector
    """Vector `[width]` that the next token is predicted from; empty before the first token."""
    has_slid: bool = False
    """True if the start of the text has left the context."""


@dataclass(frozen=True)
class PretrainedInfo:
    """Facts about a model by others."""

    name: str
    """Name as the user gave it, such as `hf:owner/name`."""
    description: str
    """Architecture and size, such as "Llama · 30 layers of 576 · 135 M parameters"."""
    context_size: int
    """Maximum number of positions."""


class PretrainedModel:
    """A causal language model by others (`AutoModelForCausalLM` of transformers). Threads may share it.

    Implements `LanguageModel`, `BatchModel` and `HiddenVectorModel`; the subclass `AttentionPretrainedModel` also
    implements `AttentionModel`.

    A text that fills the context slides: its last half is read again from position 0, and the next tokens after it. So
    a state depends only on the tokens read.
    """

    is_slow = True
    """True: reading a token takes long enough to delay the keyboard, so screens call the model in a thread."""

    def __init__(
        self,
        forward: CausalForward,
        reader: ContextReader,
        tokenizer: PretrainedTokenizer,
        info: PretrainedInfo,
        chat: ChatTemplate | None = None,
        *,
        reads_ragged_batches: bool = False,
    ) -> None:
        """Create a model.

        Args:
            forward: The model of transformers.
            reader: The way to keep the tokens read so far.
            tokenizer: Its tokenizer.
            info: Facts about it.
            chat: Form of a conversation; None if the model has no chat template.
            reads_ragged_batches: True if `reader` can read texts of different lengths together.
        """
        self.tokenizer = tokenizer
        self.info = info
        self.chat = chat
        self.name = info.name
        self.description = info.description
        self.context_size = info.context_size
        parameters = {id(parameter): parameter for parameter in forward.module.parameters()}.values()
        self.num_parameters = sum(parameter.numel() for parameter in parameters)
        self.memory_bytes = sum(parameter.nbytes for parameter in parameters)
        """Bytes of the weights in memory."""
        self._forward = forward
        self._reader = reader
        self._reads_ragged_batches = reads_ragged_batches
        self._num_kept_tokens = num_kept_tokens(info.context_size)
        others = [tokenizer.swap_id(id) for id in tokenizer.other_end_ids]
        self._other_end_ids = torch.tensor(others, dtype=torch.long, device=forward.device)
        """The model's ids of the tokens that count as `<eos>` when they are predicted."""

    @property
    def module(self) -> Any:
        """The model of transformers, a `torch.nn.Module`."""
        return self._forward.module

    def start(self) -> PretrainedState:
        """Return the state before any token. Advance it with `<eos>` to read the token that starts a text."""
        return PretrainedState(self._reader.empty(), np.empty(0, np.float32))

    def advance(self, state: PretrainedState, token: int) -> tuple[LogProbs, PretrainedState]:
        """Read `token`; return the log-probabilities `[vocabulary]` of the next token and the new state."""
        rows, state = self.predict_tokens(state, (token,), last_only=True)
        return rows[0], state

    def advance_batch(
        self, states: Sequence[PretrainedState], tokens: Sequence[int]
    ) -> list[tuple[LogProbs, PretrainedState]]:
        """Read one token in each of several texts in one forward pass, or one per length of the texts."""
        groups: dict[int, list[int]] = {}
        results: dict[int, tuple[LogProbs, PretrainedState]] = {}
        for row, state in enumerate(states):
            length = state.context.num_positions
            if length >= self.context_size or not length:
                results[row] = self.advance(state, tokens[row])
            else:
                groups.setdefault(0 if self._reads_ragged_batches else length, []).append(row)
        for rows in groups.values():
            ids = [[self.tokenizer.swap_id(tokens[row])] for row in rows]
            with torch.inference_mode():
                output = self._reader.read([states[row].context for row in rows], ids, last_only=True)
                log_probs = self._log_probs(output.logits[:, -1]).cpu().numpy()
                hidden = _last_vectors(output.hidden, len(rows))
            for index, row in enumerate(rows):
                state = PretrainedState(output.contexts[index], hidden[index], has_slid=states[row].has_slid)
                results[row] = log_probs[index], state
        return [results[row] for row in range(len(states))]

    def predict_tokens(
        self, state: PretrainedState, tokens: Sequence[int], *, last_only: bool = False
    ) -> tuple[Float32Array, PretrainedState]:
        """Read several tokens of a text; see `BatchModel`."""
        parts = []
        with torch.inference_mode():
            for logits, num_new, last_state in self._read(state, tokens, last_only=last_only):  # noqa: B007
                # A copy: a kept distribution must not keep the logits of the whole text in memory.
                rows = logits[-1:].clone() if last_only else logits[-num_new:]
                parts.append(self._log_probs(rows).cpu().numpy())
        return np.concatenate(parts[-1:] if last_only else parts), last_state

    def _read(
        self, state: PretrainedState, tokens: Sequence[int], *, last_only: bool, max_tokens: int = MAX_CHUNK_TOKENS
    ) -> Iterator[tuple[Tensor, int, PretrainedState]]:
        """Read tokens in passes of at most `max_tokens`, and slide where the context is full.

        Yields:
            The logits `[time, vocabulary]` of a pass, `[1, vocabulary]` with `last_only`; the number of tokens of
            `tokens` that it read, which are the last ones of the pass; and the state after it.
        """
        ids = self._model_ids(state, tokens)
        while ids:
            context, reread = state.context, []
            room = self.context_size - context.num_positions
            if room <= 0:
                reread = context.tokens[-self._num_kept_tokens :] if self._num_kept_tokens else []
                context, room = self._reader.empty(), self.context_size - len(reread)
            new, ids = ids[: min(room, max_tokens)], ids[min(room, max_tokens) :]
            output = self._reader.read([context], [[*reread, *new]], last_only=last_only)
            hidden = _last_vectors(output.hidden, 1)[0]
            has_slid = state.has_slid or state.context.num_positions >= self.context_size
            state = PretrainedState(output.contexts[0], hidden, has_slid=has_slid)
            yield output.logits[0], len(new), state

    def _model_ids(self, state: PretrainedState, tokens: Sequence[int]) -> list[int]:
        """Return the model's ids of `tokens`; `<eos>` at the start of a text is the token that starts a text."""
        ids = [self.tokenizer.swap_id(token) for token in tokens]
        if not state.context.num_positions and tokens[0] == EOS_ID:
            ids[0] = self.tokenizer.specials.start_id
        return ids

    def _log_probs(self, logits: Tensor) -> Tensor:
        """Return log-probabilities `[rows, vocabulary]` of our tokens, given logits `[rows, model vocabulary]`.

        The logits are overwritten: another large array would take longer to allocate than to compute.
        """
        log_probs = logits[:, : len(self.tokenizer)].float()
        for rows in torch.split(log_probs, NORMALIZED_ROWS):
            rows -= torch.logsumexp(rows, -1, keepdim=True)
        end_id = self.tokenizer.end_id
        if len(self._other_end_ids):
            others = log_probs[:, self._other_end_ids]
            ends = torch.cat([log_probs[:, end_id, None], others], 1).logsumexp(1)
            log_probs[:, self._other_end_ids] = EXCLUDED_LOG_PROB
            log_probs[:, end_id] = ends
        if end_id != EOS_ID:
            swapped = log_probs[:, EOS_ID].clone()
            log_probs[:, EOS_ID] = log_probs[:, end_id]
            log_probs[:, end_id] = swapped
        return log_probs

    def hidden_vector(self, state: PretrainedState) -> HiddenVector:
        """Return the vector `[width]` that the token after `state` is predicted from."""
        return state.hidden

    def num_positions(self, state: PretrainedState) -> int:
        """Return the number of positions of the context that `state` uses."""
        return state.context.num_positions

    def state_memory(self, state: PretrainedState) -> tuple[int, int]:
        """Return the identity of the memory that `state` shares with others of its text, and its size in bytes."""
        return context_memory(state.context)

    def has_slid(self, state: PretrainedState) -> bool:
        """Return True if the start of the text has left the context."""
        return state.has_slid


def _last_vectors(hidden: Any, num_texts: int) -> Float32Array:
    """Return the last vectors `[texts, width]` of `[texts, time, width]`; without width if there are none."""
    if hidden is None:
        return np.empty((num_texts, 0), np.float32)
    vectors: Float32Array = hidden[:, -1].float().cpu().numpy()
    return vectors
