"""Dynamic evaluation: a model that goes on learning from the text it reads (Krause et al. 2017, arXiv 1709.07432)."""

from collections.abc import Sequence
from copy import copy, deepcopy
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from engine.data.dataset import columns_of
from engine.data.vocabulary import EOS_ID, Ids, Vocabulary
from engine.errors import UnusableInput
from engine.models.base import Hidden, LogProbs, Trace
from engine.models.lstm import Network, States
from engine.models.numpy_lstm import Decoder

RATES = (3e-5, 6e-5, 1.2e-4, 2.4e-4)
SEGMENT = 3
BATCH, WINDOW = 20, 20
"""How the training text is cut to measure its gradients."""
FLOOR = 0.1
"""The least a gradient is taken to be, as a share of the mean: a word that training seldom saw must not jump."""


@dataclass(frozen=True)
class DynamicState:
    """The weights as they are after what was read, and the segment that they have not learned from yet."""

    network: Network
    begin: States
    """Before the segment's first word was read."""
    segment: tuple[int, ...]
    """Words read since then."""
    now: States
    top: Hidden


class Dynamic:
    """An LSTM that takes one step of gradient descent after every few words, towards what it has just read.

    Each weight's step is divided by the root mean square of its gradients on the training text, so that
    weights which seldom matter move fast. A state owns its weights and is never changed: it can be kept.
    """

    def __init__(self, decoder: Decoder, training_ids: Ids, lr: float = 6e-5, segment: int = SEGMENT) -> None:
        """Measure how large the gradients are on the training text `[time]`.

        Raises:
            UnusableInput: that text is too short.
        """
        self.decoder = decoder  # the LSTM as it was trained
        self.vocabulary: Vocabulary = decoder.vocabulary
        if len(training_ids) < 2 * BATCH:
            raise UnusableInput(
                f"a training text of {len(training_ids)} words is too short to learn from while reading; "
                f"at least {2 * BATCH} are needed"
            )
        self.lr = lr
        self.segment = segment
        self._network = Network(decoder.config, len(decoder.vocabulary), torch.Generator())
        self._network.load(decoder.weights)
        self._scales = _gradient_scales(self._network, training_ids)

    def with_lr(self, lr: float) -> "Dynamic":
        """The same model that learns faster or slower."""
        other = copy(self)
        other.lr = lr
        return other

    def start(self) -> DynamicState:
        """The weights as trained, hidden and cell states of zeros."""
        states = self._network.start(1)
        return DynamicState(self._network, states, (), states, np.empty(0, np.float32))

    def advance(self, state: DynamicState, token: int) -> tuple[LogProbs, DynamicState]:
        """Read `token`; if that fills the segment, learn from it for the words to come."""
        if len(state.segment) == self.segment:
            state = self._learn(state, token)
        with torch.no_grad():
            logits, now, raw, _ = state.network(torch.tensor([[token]]), state.now)
        log_probs: LogProbs = torch.log_softmax(logits[0, 0], dim=-1).numpy()
        return log_probs, replace(state, segment=(*state.segment, token), now=now, top=raw[0, 0].numpy())

    def _learn(self, state: DynamicState, following: int) -> DynamicState:
        network = deepcopy(state.network)
        inputs = torch.tensor(state.segment)[:, None]
        targets = torch.tensor([*state.segment[1:], following])[:, None]
        logits, _, _, _ = network(inputs, state.begin)
        self._step(network, nn.functional.cross_entropy(logits[:, 0], targets[:, 0]))
        return replace(state, network=network, begin=state.now, segment=())

    def _step(self, network: Network, loss: Tensor) -> None:
        parameters = list(network.parameters())
        gradients = torch.autograd.grad(loss, parameters)
        with torch.no_grad():
            for parameter, gradient, scale in zip(parameters, gradients, self._scales, strict=True):
                parameter.addcdiv_(gradient, scale, value=-self.lr)

    def hidden(self, state: DynamicState) -> Hidden:
        """The top layer's hidden state."""
        return state.top

    def trace(self, ids: Ids) -> Trace:
        """Read a whole text, a segment at a time."""
        network = deepcopy(self._network)
        inputs = torch.tensor([EOS_ID, *ids[:-1].tolist()])[:, None]
        targets = torch.tensor(ids.tolist())[:, None]
        states, scores, hidden = network.start(1), [], []
        for begin in range(0, len(ids), self.segment):
            chunk = slice(begin, begin + self.segment)
            logits, states, raw, _ = network(inputs[chunk], [(h.detach(), c.detach()) for h, c in states])
            log_probs = torch.log_softmax(logits, dim=-1).gather(-1, targets[chunk, :, None]).flatten()
            scores.append(log_probs.detach().double().numpy())
            hidden.append(raw.detach()[:, 0].numpy())
            self._step(network, -log_probs.mean())
        return Trace(np.concatenate(scores), np.concatenate(hidden))


def choose_lr(model: Dynamic, ids: Ids, rates: Sequence[float] = RATES) -> float:
    """The learning rate under which a text is most probable."""
    return max(rates, key=lambda lr: model.with_lr(lr).trace(ids).scores.sum())


def _gradient_scales(network: Network, ids: Ids) -> list[Tensor]:
    """For each parameter, the root mean square of its gradients on the training text; nowhere zero."""
    columns = torch.from_numpy(columns_of(ids, BATCH))
    parameters = list(network.parameters())
    squares = [torch.zeros_like(parameter) for parameter in parameters]
    states, windows = network.start(BATCH), 0
    for begin in range(0, len(columns) - 1, WINDOW):
        window = columns[begin : begin + WINDOW + 1].long()
        inputs, targets = window[:-1], window[1:]
        logits, states, _, _ = network(inputs, [(h.detach(), c.detach()) for h, c in states])
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
        for square, gradient in zip(squares, torch.autograd.grad(loss, parameters), strict=True):
            square.add_(gradient**2)
        windows += 1
    scales = [(square / windows).sqrt() for square in squares]
    mean = sum(float(scale.sum()) for scale in scales) / sum(scale.numel() for scale in scales)
    return [scale + FLOOR * mean for scale in scales]
