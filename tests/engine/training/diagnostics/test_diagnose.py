"""Diagnoses in the stream of events and of real trainings: once each, also after a resume."""

import json
import shutil
import time
from collections import namedtuple
from dataclasses import replace

import pytest
import torch

from engine.config import Config
from engine.events import Diagnosed, Evaluated, Resume, event_from_dict, event_to_dict
from engine.runs.directory import LOG_FILE, METRICS_FILE
from engine.runs.metrics import read_current_rows
from engine.training.diagnostics import probes
from engine.training.diagnostics.detector import DiskReading
from engine.training.diagnostics.diagnose import diagnose
from engine.training.diagnostics.probes import DISK_INTERVAL, DiskProbe, read_gpu_utilization
from engine.training.job import prepare_job, resume_job
from engine.training.run import train
from tests.support.diagnoses import STARTED, diagnoses, evaluations, norms, step, steps
from tests.support.files import sentences, write_csv
from tests.support.metrics import append_events
from tests.support.training import NO_DROPOUT, events_of, make_config, run_training, weights_equal, weights_of

RISING = evaluations(200, 80, 60, 70, 80, 90, 100, 110)
CONFIG = Config().with_values(epochs=100)


def diagnosed(training, run_dir, config=CONFIG):
    """Return the diagnoses of a stream, whose events and diagnoses are recorded in the run directory."""
    found = []
    for event in diagnose(iter(training), config, run_dir):
        append_events(run_dir, [event])
        if isinstance(event, Diagnosed):
            found.append(event)
    return found


def test_diagnosis_follows_the_event_that_shows_it_and_comes_once(tmp_path):
    events = [STARTED, *RISING]
    stream = list(diagnose(iter(events), CONFIG, tmp_path))
    assert [event for event in stream if not isinstance(event, Diagnosed)] == events
    (index,) = [index for index, event in enumerate(stream) if isinstance(event, Diagnosed)]
    assert stream[index - 1] == RISING[6]
    diagnosis = stream[index]
    assert isinstance(diagnosis, Diagnosed)
    assert (diagnosis.kind, diagnosis.step, diagnosis.epoch) == ("rising_validation", 600, 6.0)
    assert event_from_dict(event_to_dict(diagnosis)) == diagnosis


def test_every_kind_is_reported_once():
    falling = [float(200 - number) for number in range(30)]
    observations = [
        *(STARTED, DiskReading(10), *steps(*falling), *steps(500, 500, 500, 500)),
        *norms(*[0.3] * 20, *[1e-9] * 30, *[99.0] * 50),
        *(step(1, 150), *evaluations(140, 160, 150, 150, 150)),
        *evaluations(140, 139, 150, 150, 160, 170),
        *(DiskReading(10), *steps(500, 500)),
    ]
    kinds = [diagnosis.kind for diagnosis in diagnoses(observations, init="base")]
    assert len(kinds) == len(set(kinds))
    assert set(kinds) == {
        *("rising_validation", "loss_spike", "forgetting", "vanishing_gradients", "exploding_gradients"),
        *("unigram_model", "disk_space"),
    }


def test_resumed_training_repeats_no_diagnosis(tmp_path):
    (first,) = diagnosed([STARTED, *RISING[:7]], tmp_path)
    assert diagnosed([STARTED, Resume(first.step + 1), *RISING[7:]], tmp_path) == []


def test_resume_before_a_diagnosis_reports_it_again_with_what_was_known_before(tmp_path):
    (first,) = diagnosed([STARTED, *RISING[:7]], tmp_path)
    (second,) = diagnosed([STARTED, Resume(first.step), *RISING[6:]], tmp_path)
    assert second == first  # with the best evaluation of the earlier process
    (third,) = diagnosed([STARTED, Resume(0), *RISING], tmp_path)
    assert third == first


# --- disk -------------------------------------------------------------------------------------------------------

Usage = namedtuple("Usage", "total used free")


def test_missing_space_is_reported_before_the_first_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(0, 0, 5_000_000))
    (found,) = diagnosed([STARTED, *steps(80, 79, 78)], tmp_path)
    assert (found.kind, found.step) == ("disk_space", 0)
    assert "it needs 22.0 MB, and 5.0 MB are free" in found.message


def test_disk_is_read_rarely_and_a_missing_folder_is_no_error(tmp_path):
    now = 100.0
    probe = DiskProbe(tmp_path, lambda: now)
    assert [len(probe.read()) for _ in range(3)] == [1, 0, 0]
    now += DISK_INTERVAL
    assert len(probe.read()) == 1
    assert DiskProbe(tmp_path / "gone").read() == []


def gpu_training(run_dir, monkeypatch, readings):
    """Return the stream of a training on a GPU that takes as long as these readings, of which one comes each ms."""
    monkeypatch.setattr(probes, "GPU_INTERVAL", 0.001)
    waiting = list(readings)

    def utilization(device):
        if not waiting:
            raise RuntimeError("driver")  # a GPU that stops to report
        return waiting.pop(0)

    monkeypatch.setattr(torch.cuda, "utilization", utilization)

    def training():
        yield replace(STARTED, device="cuda:0")
        yield step(1)
        for number in range(2, 500):
            time.sleep(0.01)
            yield step(number)
            if not waiting:
                break
        yield step(501)

    return list(diagnose(training(), CONFIG, run_dir))


def test_idle_gpu_is_reported_from_readings_in_a_thread(tmp_path, monkeypatch):
    (found,) = [event for event in gpu_training(tmp_path, monkeypatch, [30] * 140) if isinstance(event, Diagnosed)]
    assert found.kind == "idle_gpu"
    assert "idle 70%" in found.message


@pytest.mark.parametrize("readings", [[90] * 140, [10, *[70] * 140], [0] * 30])
def test_busy_gpu_and_one_that_stops_to_report_are_not_idle(tmp_path, monkeypatch, readings):
    stream = gpu_training(tmp_path, monkeypatch, readings)
    assert not any(isinstance(event, Diagnosed) for event in stream)
    assert stream[-1] == step(501)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_utilization_is_unknown_without_a_gpu():
    assert read_gpu_utilization("cuda:0") is None


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
