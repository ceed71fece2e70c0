"""Recorded runs: a small configuration, the events of a training, run directories made from them, and their views."""

import json
import math
import os

from engine.config import Config, ModelConfig, TrainingConfig
from engine.data.tokenizers import WordTokenizer
from engine.events import Evaluated, Finished, Preparing, Resume, Sampled, Started, Step, event_to_dict
from engine.runs.directory import CONFIG_FILE, METRICS_FILE, SAMPLES_FILE
from engine.runs.locked_run import create_run, record_events
from lotr_tui.monitor.training_view import TrainingView
from tests.support.models import random_lstm

VOCABULARY = WordTokenizer(("<unk>", "<eos>", "bilbo", "is", "here"))
CONFIG = Config(
    "tiny", model=ModelConfig(embedding_size=6, hidden_size=6), training=TrainingConfig(keep_epoch_checkpoints=False)
)
CONFIG_WITH_EPOCHS = CONFIG.with_values(keep_epoch_checkpoints=True)
"""Configuration of a run that keeps the weights of selected epochs."""


def make_decoder(seed):
    return random_lstm(CONFIG.model, VOCABULARY, seed)


def make_events(finish="done"):
    """Return the events of a training whose second of three evaluations is the best; `finish` is how it ends."""
    events = [
        Preparing("counting"), Started("r", "tiny", 99, 5, 100, 10, 40, "cpu", "ab" * 32, 151.0, 94.0),
        Evaluated(0, 0.0, 150.0, True, 0.1, make_decoder(0)), Sampled(0, 0.0, "bilbo is", 'here "é"', 3, 0.7),
        Step(5, 0.5, 120.0, 0.003, math.nan, 1000.0, 1.0, math.inf), Step(9, 1.0, 110.0, 0.003, 0.5, 1000.0, 2.0, 3.0),
        Evaluated(9, 1.0, 90.0, True, 2.1, make_decoder(1)), Sampled(9, 1.0, "bilbo is", "here", 3, 0.7),
        Evaluated(18, 2.0, 95.0, False, 4.1, make_decoder(2)),
    ]  # fmt: skip
    if finish == "stopped":
        events.append(Finished("stopped", "r", 2.0, 90.0, math.nan, 5.0, make_decoder(1)))
    elif finish == "done":
        events.append(Finished("done", "r", 2.0, 90.0, 88.0, 5.0, make_decoder(1)))
    return events


def new_run(runs_dir, name="r", config=CONFIG):
    return create_run(config, VOCABULARY, name, runs_dir)


def record_run(runs_dir, name, events):
    run = new_run(runs_dir, name)
    list(record_events(run, iter(events)))
    return run.path


def record_three_runs(runs_dir):
    paths = [record_run(runs_dir, name, make_events()) for name in ("beta", "alpha", "gamma")]
    for age, path in zip((3, 2, 1), paths, strict=True):
        started_at = 1_700_000_000 - 3600 * age
        os.utime(path / CONFIG_FILE, (started_at, started_at))
    return paths


def read_strict_rows(path):
    """Parse a JSON-lines file, refusing NaN and infinity."""

    def reject_constant(constant):
        raise AssertionError(f"{constant} is not JSON")

    text = path.read_text(encoding="utf-8")
    assert text.endswith("\n")
    return [json.loads(line, parse_constant=reject_constant) for line in text.splitlines()]


def make_step(number):
    """Return the event of one update; four of five gradient norms are NaN, as in a real record."""
    norm = math.nan if number % 5 else 1.0
    return Step(number, number / 7, 100 - number / 100, 0.01, norm, 900.0, number / 3, 5.0)


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
    view = TrainingView()
    for event in events:
        view.apply(event)
    return view
