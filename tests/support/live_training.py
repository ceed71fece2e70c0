"""Live trainings of the class without a thread, and events of short ones."""

from types import SimpleNamespace

import numpy as np

from engine.events import Evaluated, Sampled, Started, Step
from tests.support.app import VOCABULARY, FakeJob, make_decoder

STARTED = Started("live", "class-live", 400_000, 2249, 111_538, 13_894, 5, "cpu", "", 285.8, 110.2)


def live_events(valid, train=None, *, models=False):
    """Return the events of a training with an evaluation before the first step, and then four in each epoch.

    `valid` are perplexities of the evaluations, and `train` those of the report before each later one.
    """
    events = [STARTED]
    for number, perplexity in enumerate(valid):
        step, epoch, seconds = 56 * number, number / 4, 0.7 * number
        if number:
            report = perplexity if train is None else train[number - 1]
            events.append(Step(step, epoch, report, 0.01, 0.5, 28_000.0, seconds, 1.0))
        model = make_decoder(number) if models else None
        events.append(Evaluated(step, epoch, perplexity, True, seconds, model))
        events.append(Sampled(step, epoch, "bilbo baggins is", f"a friend of mine {number}", 0, 0.7))
    return events


def live_job(events, failure=None):
    """Return a job for `use_job` with a training text; it yields the events, and then fails or waits to be stopped."""
    job = FakeJob(events, failure).release()
    job.dataset = SimpleNamespace(train=np.arange(700) % len(VOCABULARY))
    return job
