"""Record of a Transformer reading a text: attention weights, and the vectors between its layers."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from engine.data.arrays import Float32Array
from engine.data.tokenizers.base import TokenIds, Tokenizer


@dataclass(frozen=True)
class AttentionRecord:
    """Attention and layer outputs of a text. Position 0 is the start of the text; position `i + 1` is token `i`."""

    weights: Float32Array
    """`[layers, heads, positions, positions]`: weight of each earlier position (last axis) for each position. Each row
    sums to 1, and the weights of later positions are 0."""
    layer_outputs: Float32Array
    """`[layers + 1, positions, width]`: the vector of each position before the first layer and after each layer."""


@runtime_checkable
class AttentionModel(Protocol):
    """A model whose attention and layers can be recorded."""

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokens that the model can predict."""

    @property
    def context_size(self) -> int:
        """Maximum number of positions, the start of the text included."""

    def record_attention(self, ids: TokenIds) -> AttentionRecord:
        """Read the start of a text and then `ids` `[time]`, and record all `time + 1` positions.

        Raises:
            InvalidInputError: If the positions do not fit into the context.
        """

    def layer_log_probs(self, layer_outputs: Float32Array) -> Float32Array:
        """Return the log-probabilities `[rows, vocabulary]` that the output layer computes from layer outputs.

        This is the logit lens (nostalgebraist, "interpreting GPT: the logit lens", 2020). Vectors `[rows, width]` of
        any layer are treated as those of the last one.
        """
