"""Records of optimizer steps, and scripted validation results, for tests of trainings."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from torch import Tensor

from engine.analysis import perplexity
from engine.analysis.perplexity import Evaluation
from engine.models.lstm import LSTMModel
from engine.training import reporting, validation
from engine.training.reporting import StepResult
from engine.training.trainer import Trainer
from tests.support.training import Weights


@dataclass
class RecordedStep:
    """One optimizer step of a training; weights and gradients by name."""

    lr: float
    length: int
    """Time steps of the window."""
    loss: float
    before: Weights
    after: Weights
    gradients: Weights
    """Gradients after clipping."""


def record_steps(monkeypatch: pytest.MonkeyPatch) -> list[RecordedStep]:
    """Return a list to which every optimizer step from now on is appended."""
    steps: list[RecordedStep] = []
    train_step: Any = Trainer.train_step

    def copy(tensors: Iterator[tuple[str, Tensor]]) -> Weights:
        return {name: tensor.detach().numpy().copy() for name, tensor in tensors}

    def recording_train_step(self: Trainer) -> StepResult:
        network = self.state.network
        before = copy(network.named_parameters())
        result: StepResult = train_step(self)
        gradients = copy((name, p.grad) for name, p in network.named_parameters() if p.grad is not None)
        steps.append(
            RecordedStep(
                lr=result.lr,
                length=result.num_tokens // self.options.batch_size,
                loss=float(result.loss),
                before=before,
                after=copy(network.named_parameters()),
                gradients=gradients,
            )
        )
        return result

    monkeypatch.setattr(Trainer, "train_step", recording_train_step)
    monkeypatch.setattr(reporting, "REPORT_INTERVAL", 1e9)  # reports do not depend on the clock
    return steps


def script_validation(monkeypatch: pytest.MonkeyPatch, perplexities: list[float]) -> None:
    """Make each validation of the network being trained return the next of `perplexities`."""
    evaluate, script = perplexity.evaluate, iter(perplexities)

    def scripted_evaluate(model: Any, ids: Any) -> Evaluation:
        if isinstance(model, LSTMModel):
            return Evaluation(len(ids), 0.0, next(script), 1.0)
        return evaluate(model, ids)

    monkeypatch.setattr(validation, "evaluate", scripted_evaluate)
