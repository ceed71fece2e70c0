"""Live trainings of the class without a thread, and events of short ones."""

from collections.abc import Sequence
from types import SimpleNamespace

import numpy as np

from engine.config import Config
from engine.control import ControlCommand
from engine.events import Evaluated, Sampled, Started, Step, TrainingEvent
from lotr_tui.learn.live_training import TrainScore
from lotr_tui.monitor.training_view import TrainingView
from tests.support.app import VOCABULARY, FakeJob, make_decoder

STARTED = Started("live", "class-live", 400_000, 2249, 111_538, 13_894, 5, "cpu", "", 285.8, 110.2)


def live_events(
    valid: Sequence[float], train: Sequence[float] | None = None, *, started: Started = STARTED, models: bool = False
) -> list[TrainingEvent]:
    """Return the events of a training with an evaluation before the first step, and then four in each epoch.

    Args:
        valid: Perplexities of the evaluations.
        train: Perplexities of the report before each later evaluation; None for those of the evaluations.
        started: First event.
        models: True if the evaluations have a model.
    """
    events: list[TrainingEvent] = [started]
    for number, perplexity in enumerate(valid):
        step, epoch, seconds = 56 * number, number / 4, 0.7 * number
        if number:
            report = perplexity if train is None else train[number - 1]
            events.append(Step(step, epoch, report, 0.01, 0.5, 28_000.0, seconds, 1.0))
        model = make_decoder(number) if models else None
        events.append(Evaluated(step, epoch, perplexity, True, seconds, model))
        events.append(Sampled(step, epoch, "bilbo baggins is", f"a friend of mine {number}", 0, 0.7))
    return events


def live_job(events: list[TrainingEvent], failure: Exception | None = None) -> FakeJob:
    """Return a job for `use_job` with a training text; it yields the events, and then fails or waits to be stopped."""
    job = FakeJob(events, failure).release()
    job.dataset = SimpleNamespace(train=np.arange(700) % len(VOCABULARY))  # type: ignore[attr-defined]
    return job


class FakeTraining:
    """Training whose events have all come, and which runs until it is stopped."""

    def __init__(self, events: Sequence[TrainingEvent], config: Config, train: Sequence[float] = ()) -> None:
        self.view, self.config = TrainingView(), config
        for event in events:
            self.view.apply(event)
        self.train_scores = [
            TrainScore(event.step, event.epoch, score)
            for event, score in zip(self.view.evaluations, train, strict=False)
        ]
        self.commands: list[ControlCommand] = []
        self.is_stopped = False

    def poll(self) -> tuple[list[TrainingEvent], bool]:
        return [], self.is_stopped

    def send_command(self, command: ControlCommand) -> None:
        self.commands.append(command)

    def stop(self) -> None:
        self.is_stopped = True
