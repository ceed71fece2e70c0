"""A GPU that waits for the program more than half of the time."""

from dataclasses import dataclass, replace
from typing import ClassVar

from engine.events import CommandApplied, DiagnosisKind, Started, Step
from engine.training.diagnostics.detector import Detector, Finding, GpuReading, Observation, Outcome, TrainingSetup

NUM_READINGS = 120
"""Readings, one per second, that are averaged: a validation or a checkpoint is then a small part of them."""
MIN_UTILIZATION = 0.5
MAX_BATCH_FACTOR = 4
"""Largest factor of the batch size in the remedy."""


@dataclass(frozen=True)
class IdleGpu(Detector):
    """Readings since the last average, while the training was not paused."""

    kind: ClassVar[DiagnosisKind] = "idle_gpu"

    num_readings: int = 0
    utilization_sum: float = 0.0
    is_training: bool = False
    """True from the first step on, except while the training is paused."""
    train_tokens: int = 0

    def observe(self, observation: Observation, setup: TrainingSetup) -> tuple["IdleGpu", Outcome]:
        """Return a finding if the mean utilization of some minutes is less than half."""
        match observation:
            case Started():
                return replace(self, train_tokens=observation.train_tokens), None
            case Step() if not self.is_training:
                return replace(self, is_training=True), None
            case CommandApplied(kind="pause"):
                return replace(self, is_training=False), None
        if not isinstance(observation, GpuReading) or not self.is_training:
            return self, None
        num_readings, total = self.num_readings + 1, self.utilization_sum + observation.utilization
        if num_readings < NUM_READINGS:
            return replace(self, num_readings=num_readings, utilization_sum=total), None
        state = replace(self, num_readings=0, utilization_sum=0.0)
        utilization = total / num_readings
        if utilization >= MIN_UTILIZATION:
            return state, None
        message = f"the GPU was idle {1 - utilization:.0%} of the last {NUM_READINGS // 60} minutes: the model is small"
        return state, Finding(message, _more_work(setup, utilization, self.train_tokens))


def _more_work(setup: TrainingSetup, utilization: float, train_tokens: int) -> str:
    """Return settings with larger steps, or with the CPU if the text is too short for them."""
    options = setup.config.training
    factor = 2 if utilization >= MIN_UTILIZATION / 2 else MAX_BATCH_FACTOR
    batch_size = options.batch_size * factor
    if train_tokens < batch_size * options.bptt * 10:  # an epoch of ten steps learns little
        return "train again with --device cpu, which is about as fast for a model and text of this size"
    return f"train again with --set batch_size={batch_size}, or with --device cpu if the model is tiny"
