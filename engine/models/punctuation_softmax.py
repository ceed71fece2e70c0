"""Output layer that predicts the next word together with the punctuation before it."""

import torch
from torch import Tensor, nn

from engine.data.punctuation import PUNCTUATION_CLASSES
from engine.models.linear import linear


class PunctuationSoftmax(nn.Module):
    """Mixture of softmaxes (Yang et al. 2018, section 2.3) with one component for each punctuation class.

    All components share the output weights; each scales and shifts the hidden state in its own way. In training,
    the punctuation before each word is known and selects the component. In a text without punctuation, the
    probability of a word is summed over all components.
    """

    def __init__(self, hidden_size: int, vocabulary_size: int) -> None:
        """Create parameters of zero: all classes are equally likely, and all components predict the same words."""
        super().__init__()
        num_classes = len(PUNCTUATION_CLASSES)
        self.gate_weight = nn.Parameter(torch.zeros(num_classes, hidden_size))
        self.gate_bias = nn.Parameter(torch.zeros(num_classes))
        self.scale = nn.Parameter(torch.zeros(num_classes, hidden_size))
        """Scale of the hidden state minus one `[classes, hidden]`, so that weight decay pulls the scale to one."""
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

        `weight` `[words, hidden]` and `bias` `[words]` of the output layer belong to the words `class_ids`; None stands
        for the whole vocabulary.
        """
        hidden = hidden * (1 + self.scale[punctuation]) + self.shift[punctuation]
        component_bias = self.bias if class_ids is None else self.bias[:, class_ids]
        return linear(hidden, weight, bias) + component_bias[punctuation]

    def marginal_log_probs(self, hidden: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """Return the log-probabilities `[..., vocabulary]` of the next words, summed over the punctuation classes."""
        gates = self.gate_log_probs(hidden)
        components = []
        for index in range(len(PUNCTUATION_CLASSES)):
            logits = linear(hidden * (1 + self.scale[index]) + self.shift[index], weight, bias)
            components.append(_log_softmax(logits + self.bias[index]) + gates[..., index, None])
        return torch.logsumexp(torch.stack(components), dim=0)


def _log_softmax(logits: Tensor) -> Tensor:
    """Compute the log-softmax over the last axis in float32 or wider."""
    return torch.log_softmax(logits, dim=-1, dtype=torch.promote_types(logits.dtype, torch.float32))
