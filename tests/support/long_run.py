"""A finished run with as many steps as wanted."""

import json

from engine import events
from engine.config import Config
from engine.runs.directory import CONFIG_FILE, METRICS_FILE, SAMPLES_FILE

NUM_EVALUATIONS = 1000
TEST_PERPLEXITY = 72.3
SECONDS_PER_STEP = 0.0371


def write_long_run(path, num_steps):
    """Write a finished run with `num_steps` steps and evenly spaced evaluations and samples."""
    path.mkdir(parents=True)
    (path / CONFIG_FILE).write_text(Config("tiny").to_json())
    eval_interval = max(1, num_steps // NUM_EVALUATIONS)
    with (path / METRICS_FILE).open("w") as metrics, (path / SAMPLES_FILE).open("w") as samples:
        started = events.Started(
            run=path.name,
            preset="tiny",
            parameters=752_239,
            vocabulary_size=879,
            train_tokens=19_022,
            valid_tokens=2_227,
            epochs=NUM_EVALUATIONS,
            device="cpu",
            corpus_sha256="",
            unigram_perplexity=150.9,
            kneser_ney_perplexity=90.8,
        )
        _write_event(metrics, started)
        for number in range(1, num_steps + 1):
            fraction = number / num_steps
            epoch, seconds = NUM_EVALUATIONS * fraction, number * SECONDS_PER_STEP
            step = events.Step(
                step=number,
                epoch=epoch,
                train_perplexity=60 + 90 * (1 - fraction) ** 2 + number * 7919 % 1009 / 100,
                lr=0.006 * (1 - fraction),
                gradient_norm=0.2 + number * 31 % 97 / 1000,
                tokens_per_second=9000 + number % 997 / 7,
                seconds=seconds,
                eta_seconds=(num_steps - number) * SECONDS_PER_STEP,
            )
            _write_event(metrics, step)
            if number % eval_interval == 0:
                perplexity = 70 + 80 * (1 - fraction) ** 2
                _write_event(metrics, events.Evaluated(number, epoch, perplexity, is_best=True, seconds=seconds))
                texts = ("bilbo baggins is", "a friend of mine")
                _write_event(samples, events.Sampled(number, epoch, *texts, seed=0, temperature=0.7))
        end = (float(NUM_EVALUATIONS), 70.0, TEST_PERPLEXITY, num_steps * SECONDS_PER_STEP)
        _write_event(metrics, events.Finished("done", path.name, *end))


def _write_event(file, event):
    file.write(json.dumps(events.event_to_dict(event)) + "\n")
