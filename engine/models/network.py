"""The interface of the networks that a `Trainer` trains."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from engine.config import ModelConfig
from engine.data.arrays import Float32Array, Float64Array
from engine.data.tokenizers.base import TokenIds, Tokenizer
from engine.models.base import SequenceOutput
from engine.models.numpy_decoder import NumpyDecoder
from engine.models.punctuation_softmax import PunctuationSoftmax
from engine.runtime.distributed import SINGLE_PROCESS, DistributedContext
from engine.storage.tensor_file import StoredTensor

RecurrentState = Sequence[tuple[Tensor, Tensor]]
"""Hidden and cell state of every LSTM layer, each `[1, batch, hidden]`; empty for a Transformer."""
LayerGroup = dict[str, nn.Parameter]
"""Parameters of a layer group by name."""


class NetworkOutput(NamedTuple):
    """Result of reading a window."""

    logits: Tensor
    """`[time, batch, classes]`."""
    state: RecurrentState
    """State after the window."""
    raw: Tensor
    """Output of the last layer `[time, batch, width]` before dropout."""
    dropped: Tensor
    """Output of the last layer `[time, batch, width]` after dropout."""


class Network(nn.Module, ABC):
    """A language model in PyTorch, with dropout if and only if `forward` receives a generator.

    `train()` and `eval()` make no difference.
    """

    config: ModelConfig
    base: Mapping[str, StoredTensor] | None = None
    """Frozen weights that an adapter changes; None if all weights are trained."""
    punctuation_softmax: PunctuationSoftmax | None
    """Output layer that also learns punctuation; None if the model has none."""

    @abstractmethod
    def initial_state(self, batch_size: int) -> RecurrentState:
        """Return the state before a text, for `batch_size` columns."""

    @abstractmethod
    def forward(
        self,
        ids: Tensor,
        state: RecurrentState,
        dropout_generator: torch.Generator | None = None,
        class_ids: Tensor | None = None,
        punctuation: Tensor | None = None,
        distributed: DistributedContext = SINGLE_PROCESS,
    ) -> NetworkOutput:
        """Read a window of tokens and predict the token after each of them.

        Args:
            ids: Token ids `[time, batch]`.
            state: State after the previous window. Detach it to truncate back-propagation there.
            dropout_generator: Generator of the dropout masks; None disables dropout.
            class_ids: Ids `[classes]` of the tokens to compute logits for, in this order; None for the vocabulary.
            punctuation: Punctuation class `[time, batch]` after each token, for a model with a punctuation softmax.
                With None, that model returns log-probabilities summed over the punctuation classes.
            distributed: Processes that read the other columns of the batch. Each process draws the masks of the
                whole batch and uses its own columns.
        """

    def init_output_bias(self, ids: TokenIds) -> None:
        """Set the output bias, if there is one, to the log frequencies of the tokens in `ids` `[time]`."""

    @abstractmethod
    def _iter_scored_chunks(self, ids: TokenIds) -> Iterator[tuple[Float64Array, Tensor]]:
        """Yield the log-probabilities `[time]` of consecutive tokens of a text, and their vectors `[time, width]`."""

    def forward_sequence(self, ids: TokenIds) -> SequenceOutput:
        """Read a whole text, carrying the state from the first to the last token."""
        log_probs, hidden = zip(*self._iter_scored_chunks(ids), strict=True)
        return SequenceOutput(np.concatenate(log_probs), torch.cat(hidden).float().cpu().numpy())

    def score_sequence(self, ids: TokenIds) -> Float64Array:
        """Return the natural-log probability `[time]` of each token without keeping the hidden vectors in memory."""
        return np.concatenate([log_probs for log_probs, _ in self._iter_scored_chunks(ids)])

    @abstractmethod
    def layer_groups(self) -> list[LayerGroup]:
        """Return the layer groups from top to bottom: output layer, layers, embedding.

        A tied embedding is the output layer's matrix and belongs to the output layer's group, as in fastai.
        """

    @abstractmethod
    def export_weights(self) -> dict[str, Float32Array]:
        """Return copies of all trained tensors by name, as `trained_shapes` lists them."""

    @abstractmethod
    def load_weights(self, weights: Mapping[str, Float32Array]) -> None:
        """Copy the tensors that `export_weights` returned into this model."""

    @abstractmethod
    def to_decoder(self, tokenizer: Tokenizer, weights: Mapping[str, Float32Array] | None = None) -> NumpyDecoder:
        """Return the model for inference in numpy; later training does not change it.

        `weights` are what `export_weights` returned, or None for the current ones.
        """

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return next(self.parameters()).device
