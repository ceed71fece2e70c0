"""The next word as a mixture over the pause before it: as likely as each pause is, times the word after that pause."""

import torch
from torch import Tensor, nn

from engine.data.punctuation import PAUSES
from engine.models.linear import linear


class PauseSoftmax(nn.Module):
    """An output layer for each pause, all of the same words: each sees the hidden state scaled and shifted its own way.

    A mixture of softmaxes (Yang et al. 2018, section 2.3) whose parts are not left to chance: the training text says
    which of them each word came from. In a text without punctuation the mixture is summed over what might stand there.
    """

    def __init__(self, hidden_size: int, vocabulary_size: int) -> None:
        """Start with all pauses equally likely, and the words the same after each."""
        super().__init__()
        self.gate_weight = nn.Parameter(torch.zeros(len(PAUSES), hidden_size))
        self.gate_bias = nn.Parameter(torch.zeros(len(PAUSES)))
        self.scale = nn.Parameter(torch.zeros(len(PAUSES), hidden_size))
        """How much more than once the hidden state counts; so that decay draws it to nothing out of the ordinary."""
        self.shift = nn.Parameter(torch.zeros(len(PAUSES), hidden_size))
        self.bias = nn.Parameter(torch.zeros(len(PAUSES), vocabulary_size))

    def gate(self, vectors: Tensor) -> Tensor:
        """Log-probabilities `[..., pauses]` of what stands after the words read."""
        return _log_softmax(linear(vectors, self.gate_weight, self.gate_bias))

    def loss(self, vectors: Tensor, pauses: Tensor) -> Tensor:
        """Mean negative log-probability of the `pauses` `[time, batch]` that were there."""
        gates = self.gate(vectors.to(self.gate_weight.dtype))  # they may be in bfloat16
        return nn.functional.nll_loss(gates.flatten(0, -2), pauses.flatten())

    def given(self, vectors: Tensor, pauses: Tensor, weight: Tensor, bias: Tensor, words: Tensor | None) -> Tensor:
        """Logits `[time, batch, words]` where the `pauses` `[time, batch]` are known."""
        vectors = vectors * (1 + self.scale[pauses]) + self.shift[pauses]
        own = self.bias if words is None else self.bias[:, words]
        return linear(vectors, weight, bias) + own[pauses]

    def log_probs(self, vectors: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """Log-probabilities `[..., vocabulary]` where they are not."""
        gates = self.gate(vectors)
        parts = []
        for pause in range(len(PAUSES)):
            logits = linear(vectors * (1 + self.scale[pause]) + self.shift[pause], weight, bias)
            parts.append(_log_softmax(logits + self.bias[pause]) + gates[..., pause, None])
        return torch.logsumexp(torch.stack(parts), dim=0)


def _log_softmax(logits: Tensor) -> Tensor:
    """In single precision at least."""
    return torch.log_softmax(logits, dim=-1, dtype=torch.promote_types(logits.dtype, torch.float32))
