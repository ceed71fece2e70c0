"""Progress reports: averages over optimizer steps, throughput, time left, and the check for divergence."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.errors import TrainingError
from engine.events import Step
from engine.training.device import choose_dtype
from engine.training.state import TrainerState

REPORT_INTERVAL = 0.25
"""Seconds between two `Step` events. Reading a loss makes a GPU wait, so losses are not read at every step."""


@dataclass(frozen=True)
class StepResult:
    """The outcome of one optimizer step."""

    loss: Tensor
    """Mean negative log-probability of the window's targets, a scalar on the training device."""
    gradient_norm: Tensor
    """Norm of all gradients before clipping, a scalar on the training device."""
    num_tokens: int
    """Number of targets in the window, over all processes."""
    lr: float


class StepReporter:
    """Running averages over optimizer steps, reported as `Step` events."""

    def __init__(self, state: TrainerState) -> None:
        """Start the first report now."""
        self._state = state
        self._reset()

    def _reset(self) -> None:
        self.num_steps = 0
        """Number of steps since the last report."""
        self._start_seconds = self._state.seconds
        self._loss_sum: Tensor | float = 0.0
        self._gradient_norm_sum: Tensor | float = 0.0
        self._num_tokens = 0
        self._lr = 0.0

    @property
    def is_due(self) -> bool:
        """True if the last report is long enough ago."""
        return self._state.seconds - self._start_seconds >= REPORT_INTERVAL

    def add(self, result: StepResult) -> None:
        """Add one optimizer step, without reading its tensors."""
        self.num_steps += 1
        self._loss_sum = self._loss_sum + result.loss * result.num_tokens
        self._gradient_norm_sum = self._gradient_norm_sum + result.gradient_norm
        self._num_tokens += result.num_tokens
        self._lr = result.lr

    def report(self) -> Step:
        """Return the averages over the steps since the last report, check the loss, and start the next report."""
        loss = float(self._loss_sum) / self._num_tokens
        check_finite(loss, self._state)
        seconds = self._state.seconds
        options, progress = self._state.config.training, self._state.progress
        epochs_left = options.epochs + options.fine_tune_epochs - progress.epoch
        step = Step(
            step=progress.step,
            epoch=progress.epoch,
            train_perplexity=math.exp(min(loss, 700)),
            lr=self._lr,
            gradient_norm=float(self._gradient_norm_sum) / self.num_steps,
            tokens_per_second=self._num_tokens / (seconds - self._start_seconds),
            seconds=seconds,
            eta_seconds=seconds * epochs_left / progress.epoch,
        )
        self._reset()
        return step


def check_finite(loss: float, state: TrainerState) -> None:
    """Raise a TrainingError unless a loss is finite. The message names a likely cause, a remedy and the best model."""
    if math.isfinite(loss):
        return
    options, dtype = state.config.training, choose_dtype(state.config, state.device)
    cause, remedy = "the learning rate is too high", f"--set lr={options.lr / 3:.2g}"
    if not options.clip:
        cause, remedy = "gradients are not clipped", f"--set clip=1 or {remedy}"
    elif dtype != torch.float32:
        cause, remedy = f"the learning rate is too high or {dtype} too coarse", f"{remedy} or --precision fp32"
    best = f"; the best model (perplexity {state.progress.best_perplexity:.1f}) is saved" if state.best_weights else ""
    raise TrainingError(f"the loss is {loss} at step {state.progress.step}, likely because {cause}; try {remedy}{best}")
