"""Training events, records of runs and views for tests of the metrics."""

import json
import math

from engine.events import Resume, Sampled, Step, event_to_dict
from engine.runs.directory import METRICS_FILE, SAMPLES_FILE
from lotr_tui.monitor.training_view import TrainingView


def make_step(number):
    """Return the event of one update; four of five gradient norms are NaN, as in a real record."""
    return Step(
        step=number,
        epoch=number / 7,
        train_perplexity=100 - number / 100,
        lr=0.01,
        gradient_norm=math.nan if number % 5 else 1.0,
        tokens_per_second=900.0,
        seconds=number / 3,
        eta_seconds=5.0,
    )


def append_events(run_dir, events):
    """Append events to the metrics and samples of a run, as the writer of a run does."""
    for event in events:
        line = json.dumps(event_to_dict(event)) + "\n"
        if not isinstance(event, Sampled):
            with (run_dir / METRICS_FILE).open("a") as file:
                file.write(line)
        if isinstance(event, (Sampled, Resume)):
            with (run_dir / SAMPLES_FILE).open("a") as file:
                file.write(line)


def view_of(events):
    """Return the view after the events."""
    view = TrainingView()
    for event in events:
        view.apply(event)
    return view
