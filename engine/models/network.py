"""The interface of the networks that a `Trainer` trains, and the softmax that also learns punctuation."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from engine.config import ModelConfig
from engine.data.arrays import Float32Array
from engine.data.tokenizers.base import TokenIds, Tokenizer
from engine.data.tokenizers.words import Punctuation
from engine.models.base import SequenceOutput
from engine.models.decoders import NumpyDecoder
from engine.models.torch_ops import linear
from engine.runtime.distributed import SINGLE_PROCESS, DistributedContext
from engine.storage.tensor_file import StoredTensor

RecurrentState = Sequence[tuple[Tensor, Tensor]]
"""Hidden and cell state of every LSTM layer, each `[1, batch, hidden]`; empty for a Transformer."""
LayerGroup = dict[str, nn.Parameter]
"""Parameters of a layer group by name."""


class NetworkOutput(NamedTuple):
    """Result of reading a window."""

    logits: Tensor  # [time, batch, classes]
    state: RecurrentState  # after the window
    raw: Tensor  # output of the last layer [time, batch, width] before dropout
    dropped: Tensor  # and after dropout


class PunctuationSoftmax(nn.Module):
    """Mixture of softmaxes (Yang et al. 2018, section 2.3) with one component for each punctuation class.

    All components share the output weights; each scales and shifts the hidden state in its own way. In training,
    the punctuation before each word is known and selects the component. In a text without punctuation, the
    probability of a word is summed over all components.
    """

    def __init__(self, hidden_size: int, vocabulary_size: int) -> None:
        super().__init__()
        num_classes = len(Punctuation)  # with zeros, all are equally likely and predict the same words
        self.gate_weight = nn.Parameter(torch.zeros(num_classes, hidden_size))
        self.gate_bias = nn.Parameter(torch.zeros(num_classes))
        # The scale minus one, so that weight decay pulls the scale to one.
        self.scale = nn.Parameter(torch.zeros(num_classes, hidden_size))
        self.shift = nn.Parameter(torch.zeros(num_classes, hidden_size))
        self.bias = nn.Parameter(torch.zeros(num_classes, vocabulary_size))

    def gate_log_probs(self, hidden: Tensor) -> Tensor:
        """Return the log-probabilities `[..., classes]` of the punctuation that follows the words read."""
        hidden = hidden.to(self.gate_weight.dtype)  # bfloat16 after a forward pass with autocast
        return _log_softmax(linear(hidden, self.gate_weight, self.gate_bias))

    def conditional_logits(
        self, hidden: Tensor, punctuation: Tensor, weight: Tensor, bias: Tensor, class_ids: Tensor | None
    ) -> Tensor:
        """Return the logits `[time, batch, words]` of the next words, given the punctuation before them.

        `weight` and `bias` of the output layer belong to the words `class_ids`, or to the whole vocabulary.
        """
        hidden = hidden * (1 + self.scale[punctuation]) + self.shift[punctuation]
        component_bias = self.bias if class_ids is None else self.bias[:, class_ids]
        return linear(hidden, weight, bias) + component_bias[punctuation]

    def marginal_log_probs(self, hidden: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """Return the log-probabilities `[..., vocabulary]` of the next words, summed over the punctuation classes."""
        gates = self.gate_log_probs(hidden)
        components = []
        for index in range(len(Punctuation)):
            logits = linear(hidden * (1 + self.scale[index]) + self.shift[index], weight, bias)
            components.append(_log_softmax(logits + self.bias[index]) + gates[..., index, None])
        return torch.logsumexp(torch.stack(components), dim=0)


def _log_softmax(logits: Tensor) -> Tensor:
    """Compute the log-softmax over the last axis in float32 or wider."""
    return torch.log_softmax(logits, dim=-1, dtype=torch.promote_types(logits.dtype, torch.float32))


class Network(nn.Module, ABC):
    """A language model in PyTorch, with dropout if and only if `forward` receives a generator."""

    config: ModelConfig
    base: Mapping[str, StoredTensor] | None = None
    """Frozen weights that an adapter changes; None if all weights are trained."""
    punctuation_softmax: PunctuationSoftmax | None  # without a default, which would hide the module
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
    def score_chunks(self, ids: TokenIds) -> Iterator[SequenceOutput]:
        """Score a whole text; see `SequenceModel`."""

    @abstractmethod
    def layer_groups(self) -> list[LayerGroup]:
        """Return the layer groups from top to bottom: output layer with a tied embedding, layers, embedding."""

    @abstractmethod
    def export_weights(self) -> dict[str, Float32Array]:
        """Return copies of all trained tensors by name, as `trained_shapes` lists them."""

    @abstractmethod
    def load_weights(self, weights: Mapping[str, Float32Array]) -> None:
        """Copy the tensors that `export_weights` returned into this model."""

    @abstractmethod
    def to_decoder(self, tokenizer: Tokenizer, weights: Mapping[str, Float32Array] | None = None) -> NumpyDecoder:
        """Return the model with `weights`, by default a copy of the current ones, for inference in numpy."""

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device
