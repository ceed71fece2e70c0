"""Dynamic evaluation: a model that keeps training on the text it reads (Krause et al. 2017, arXiv 1709.07432)."""

import math
from collections.abc import Iterator, Sequence
from copy import deepcopy

import torch
from torch import nn

from engine.data.dataset import batchify
from engine.data.tokenizers import EOS_ID, TokenIds
from engine.errors import InvalidInputError, RunError
from engine.models.base import SequenceOutput, score_sequence
from engine.models.lstm import LSTMModel
from engine.models.numpy_lstm import NumpyLSTM
from engine.models.torch_ops import RecurrentState

LR_GRID = (3e-5, 6e-5, 1.2e-4, 2.4e-4)
SEGMENT_LENGTH = 3  # tokens read between two gradient steps
BATCH_SIZE, BPTT = 20, 20  # of the windows in which the gradients on the training text are measured
MIN_GRADIENT_FRACTION = 0.1  # of the mean RMS gradient is added to each, so that weights of rare tokens do not jump


class DynamicEvaluation:
    """An LSTM that takes a step of gradient descent after every segment of a few tokens. It scores whole texts only.

    The step of each weight is divided by the root mean square of its gradients on the training text.
    """

    def __init__(self, base_model: NumpyLSTM, training_ids: TokenIds, lr: float = 6e-5) -> None:
        """Measure the gradients of `base_model` on its training text; a too short one raises an InvalidInputError."""
        if len(training_ids) < 2 * BATCH_SIZE:
            raise InvalidInputError(
                f"the training text has {len(training_ids)} tokens; dynamic evaluation needs at least {2 * BATCH_SIZE}"
            )
        self.tokenizer, self.lr = base_model.tokenizer, lr
        self._model = LSTMModel(base_model.config, len(base_model.tokenizer), torch.Generator())
        self._model.load_weights(base_model.weights)
        columns = torch.from_numpy(batchify(training_ids, BATCH_SIZE)).long()
        parameters = list(self._model.parameters())
        squares = [torch.zeros_like(parameter) for parameter in parameters]
        states, starts = self._model.initial_state(BATCH_SIZE), range(0, len(columns) - 1, BPTT)
        for start in starts:
            window = columns[start : start + BPTT + 1]
            logits, states, _, _ = self._model(window[:-1], _detach(states))
            loss = nn.functional.cross_entropy(logits.flatten(0, 1), window[1:].flatten())
            gradients = torch.autograd.grad(loss, parameters, materialize_grads=True)
            for square, gradient in zip(squares, gradients, strict=True):
                square.add_(gradient**2)
        all_rms = [(square / len(starts)).sqrt() for square in squares]
        mean = sum(float(rms.sum()) for rms in all_rms) / sum(rms.numel() for rms in all_rms)
        self._gradient_rms = [rms + MIN_GRADIENT_FRACTION * mean for rms in all_rms]

    def score_chunks(self, ids: TokenIds) -> Iterator[SequenceOutput]:
        model = deepcopy(self._model)
        inputs = torch.tensor([EOS_ID, *ids[:-1].tolist()])[:, None]
        targets = torch.tensor(ids.tolist())[:, None]
        states, parameters = model.initial_state(1), list(model.parameters())
        for start in range(0, len(ids), SEGMENT_LENGTH):
            segment = slice(start, start + SEGMENT_LENGTH)
            logits, states, raw, _ = model(inputs[segment], _detach(states))
            log_probs = torch.log_softmax(logits, dim=-1).gather(-1, targets[segment, :, None]).flatten()
            gradients = torch.autograd.grad(-log_probs.mean(), parameters)
            with torch.no_grad():
                for parameter, gradient, rms in zip(parameters, gradients, self._gradient_rms, strict=True):
                    parameter.addcdiv_(gradient, rms, value=-self.lr)
            yield SequenceOutput(log_probs.detach().double().numpy(), raw.detach()[:, 0].numpy())

    def tune_lr(self, ids: TokenIds, lr_grid: Sequence[float] = LR_GRID) -> None:
        """Set the learning rate that makes `ids` `[time]` likeliest; a RunError if the model diverges at each."""
        likelihoods = dict[float, float]()
        for lr in lr_grid:
            self.lr = lr
            likelihoods[lr] = float(score_sequence(self, ids).sum())
        finite = {lr: likelihood for lr, likelihood in likelihoods.items() if math.isfinite(likelihood)}
        if not finite:
            raise RunError("dynamic evaluation diverges at all learning rates; leave out --dynamic, or use another run")
        self.lr = max(finite, key=finite.__getitem__)


def _detach(states: RecurrentState) -> RecurrentState:
    return [(hidden.detach(), cell.detach()) for hidden, cell in states]
