"""A causal language model by others as a `LanguageModel`."""

from collections.abc import Iterator, Sequence

from engine.data.arrays import Float32Array, Float64Array
from engine.data.tokenizers.base import TokenIds
from engine.models.attention import AttentionRecord
from engine.models.base import HiddenVector, LogProbs
from engine.models.pretrained.chat import ChatTemplate
from engine.models.pretrained.tokenizer import PretrainedTokenizer


class PretrainedState:
    """Everything that a model by others remembers of a text. An immutable value: a kept state is a branch point."""


class PretrainedModel:
    """A causal language model by others (`AutoModelForCausalLM` of transformers). Threads may share it.

    Implements `LanguageModel`, `BatchModel`, `ParallelModel`, `HiddenVectorModel`, `SequenceScorer` and
    `DistributionModel`; the subclass `AttentionPretrainedModel` also implements `AttentionModel`.
    """

    is_slow = True
    """True: reading a token takes long enough to delay the keyboard, so screens call the model in a thread."""
    tokenizer: PretrainedTokenizer
    name: str
    """Name as the user gave it, such as `hf:owner/name`."""
    description: str
    """Architecture and size, such as "Llama · 30 layers of 576 · 135 M parameters"."""
    context_size: int
    """Maximum number of positions; a longer text slides out of the context."""
    num_parameters: int
    memory_bytes: int
    """Bytes of the weights in memory."""
    chat: ChatTemplate | None
    """Form of a conversation; None if the model has no chat template."""

    def start(self) -> PretrainedState:
        """Return the state before any token. Advance it with `<eos>` to read the token that starts a text."""
        raise NotImplementedError

    def start_chat(self) -> PretrainedState:
        """Return the state from which the ids of `ChatTemplate.encode` are read, without `<eos>` before them."""
        raise NotImplementedError

    def advance(self, state: PretrainedState, token: int) -> tuple[LogProbs, PretrainedState]:
        """Read `token`; return the log-probabilities `[vocabulary]` of the next token and the new state."""
        raise NotImplementedError

    def advance_batch(
        self, states: Sequence[PretrainedState], tokens: Sequence[int]
    ) -> list[tuple[LogProbs, PretrainedState]]:
        """Read one token in each of several texts in one forward pass."""
        raise NotImplementedError

    def advance_tokens(self, state: PretrainedState, tokens: Sequence[int]) -> tuple[LogProbs, PretrainedState]:
        """Read at least one token; return the distribution after the last one, and the state there."""
        raise NotImplementedError

    def predict_tokens(self, state: PretrainedState, tokens: Sequence[int]) -> tuple[Float32Array, PretrainedState]:
        """Read at least one token; return the distributions `[tokens, vocabulary]` after each, and the last state."""
        raise NotImplementedError

    def hidden_vector(self, state: PretrainedState) -> HiddenVector:
        """Return the vector `[width]` that the token after `state` is predicted from."""
        raise NotImplementedError

    def score_sequence(self, ids: TokenIds) -> Float64Array:
        """Return the natural-log probability `[time]` of each token."""
        raise NotImplementedError

    def iter_log_probs(self, ids: TokenIds) -> Iterator[LogProbs]:
        """Yield the distribution `[vocabulary]` that each token of `ids` is predicted with."""
        raise NotImplementedError

    def num_positions(self, state: PretrainedState) -> int:
        """Return the number of positions of the context that `state` uses."""
        raise NotImplementedError

    def has_slid(self, state: PretrainedState) -> bool:
        """Return True if the start of the text has left the context."""
        raise NotImplementedError


class AttentionPretrainedModel(PretrainedModel):
    """A model by others whose attention and layers can be recorded."""

    def record_attention(self, ids: TokenIds) -> AttentionRecord:
        """Read the start of a text and then `ids` `[time]`, and record all `time + 1` positions.

        Raises:
            InvalidInputError: If the positions do not fit into the context, or the record into memory.
        """
        raise NotImplementedError

    def layer_log_probs(self, layer_outputs: Float32Array) -> Float32Array:
        """Return what the model would predict from vectors `[rows, width]` if they were the last layer's (logit lens).

        The result are natural-log probabilities `[rows, vocabulary]`.
        """
        raise NotImplementedError
