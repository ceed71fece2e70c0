"""Diagnoses of real trainings: the problem is found, the remedy ends it, and a healthy training has none."""

import json

import pytest

from engine.events import Diagnosed, Evaluated
from engine.runs.directory import LOG_FILE, METRICS_FILE
from engine.runs.metrics import read_current_rows
from engine.training.diagnostics.diagnose import diagnose
from engine.training.job import prepare_job, resume_job
from engine.training.run import train
from tests.support.files import sentences, write_csv
from tests.support.training import (
    NO_DROPOUT,
    events_of,
    make_config,
    run_training,
    weights_equal,
    weights_of,
)

pytestmark = pytest.mark.usefixtures("one_thread")

HEALTHY = {"epochs": 6, "variable_bptt": False, "ar": 0.0, "tar": 0.0, "clip": 1.0, "lr": 0.02}
OVERFITTED = {
    **HEALTHY,
    **NO_DROPOUT,
    "embedding_size": 64,
    "hidden_size": 64,
    "epochs": 30,
    "schedule": "constant",
    "averaging": "none",
}


def train_diagnosed(dataset, folder, initial_weights=None, **values):
    """Return all events, and the diagnoses by kind."""
    config = make_config(**values)
    training = train(config, dataset, "r", lambda: False, initial_weights=initial_weights)
    events = list(diagnose(training, config, folder))
    return events, {diagnosis.kind: diagnosis for diagnosis in events_of(Diagnosed, events)}


@pytest.fixture(scope="module")
def healthy_model(dataset):
    return weights_of(run_training(dataset, **HEALTHY)[-1])


def test_healthy_training_has_no_diagnosis_and_its_bits_do_not_change(dataset, healthy_model, tmp_path):
    events, found = train_diagnosed(dataset, tmp_path, **HEALTHY)
    assert found == {}
    assert weights_equal(weights_of(events[-1]), healthy_model)


def test_fine_tuning_rate_that_destroys_the_model_is_found_and_a_lower_one_improves_it(
    dataset, healthy_model, tmp_path
):
    """The weights before the first step are evaluated, and every later evaluation is compared with them."""
    values = HEALTHY | {"init": "base", "lr": 1.0, "epochs": 2, "schedule": "constant", "averaging": "none"}
    _, found = train_diagnosed(dataset, tmp_path, healthy_model, **values)
    assert found["forgetting"].epoch == 1
    assert found["forgetting"].remedy.endswith("--set lr=0.001")
    _, found = train_diagnosed(dataset, tmp_path, healthy_model, **(values | {"lr": 0.001}))
    assert "forgetting" not in found


def test_overfitting_is_found_and_recorded_and_a_resumed_run_does_not_repeat_it(tmp_path):
    corpus = write_csv(tmp_path / "corpus.csv", sentences(100))
    config = make_config(**OVERFITTED, corpus=str(corpus), keep_epoch_checkpoints=False)
    job, evaluated, found = prepare_job(config, "r", tmp_path), [], []
    for event in job.events(lambda: bool(found)):
        if isinstance(event, Evaluated) and not found:
            evaluated.append(event)
        elif isinstance(event, Diagnosed) and event.kind == "rising_validation":
            found.append(event)
    (diagnosis,) = found
    best = min(evaluated, key=lambda event: event.valid_perplexity)
    assert f"its best, {best.valid_perplexity:.1f} at epoch {best.epoch:.1f}" in diagnosis.message
    resumed = resume_job("r", tmp_path)
    events = []
    for event in resumed.events(lambda: len(events_of(Evaluated, events)) == 3):
        events.append(event)
    assert not any(event.kind == "rising_validation" for event in events_of(Diagnosed, events))
    rows = [row for row in read_current_rows(job.run.path / METRICS_FILE) if row.get("kind") == "rising_validation"]
    assert [row["step"] for row in rows] == [diagnosis.step]
    assert json.dumps(diagnosis.message) in (job.run.path / LOG_FILE).read_text()
