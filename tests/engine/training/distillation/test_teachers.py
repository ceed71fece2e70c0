"""Tests of training from teachers: their predictions, exact resume, and teachers that do not fit."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from engine.errors import ConfigError, InvalidInputError
from engine.events import Finished, Snapshot
from engine.models.decoders import build_decoder
from engine.training.checkpoint import ResumeCheckpoint
from engine.training.distillation.loading import canonical_teachers, load_teachers
from engine.training.distillation.reader import TeacherReader
from engine.training.job import prepare_job
from engine.training.run import train
from tests.support.initial_runs import random_weights, write_initial_run, write_teacher
from tests.support.training import (
    NO_DROPOUT,
    events_of,
    make_config,
    make_dataset,
    make_trainer,
    weights_equal,
    weights_of,
)

FIXED = {"variable_bptt": False}


@pytest.fixture
def dataset(tmp_path):
    return make_dataset(tmp_path)


@pytest.mark.parametrize("values", [{}, {"punctuation": True}, {"num_layers": 2, "mogrifier_rounds": 2}])
def test_predictions_are_the_mean_of_what_the_models_predict_after_the_text_so_far(tmp_path, dataset, values):
    names = [write_teacher(tmp_path / f"teacher-{seed}", dataset.tokenizer, seed, **values) for seed in range(2)]
    trainer = make_trainer(dataset, teachers=",".join(names), **values)
    teachers = trainer.state.teachers
    assert teachers is not None
    windows = [trainer.state.windows.next_window() for _ in range(3)]
    lessons = [teachers.teach(window, trainer.state.dropout_generator) for window in windows]
    predicted = torch.cat([targets.predictions.tokens for _, targets in lessons])
    column = torch.cat([window.inputs for window in windows])[:, 1].tolist()
    expected = np.zeros(predicted.shape[::2])
    for run in load_teachers(trainer.config, dataset):
        network = TeacherReader.from_runs([run], dataset, torch.device("cpu"), 1).networks[0]
        punctuation = None
        if values.get("punctuation"):
            punctuation = torch.cat([window.punctuation for window in windows])[:, 1:2]
        with torch.no_grad():
            output = network(torch.tensor(column)[:, None], network.initial_state(1), punctuation=punctuation)
        expected += torch.softmax(output.logits[:, 0].double(), -1).numpy() / 2
    np.testing.assert_allclose(predicted[:, 1], expected, atol=1e-6)


def test_teacher_predicts_what_its_decoder_predicts(tmp_path, dataset):
    name = write_teacher(tmp_path / "teacher", dataset.tokenizer)
    trainer = make_trainer(dataset, teachers=name, **FIXED)
    assert trainer.state.teachers is not None
    window = trainer.state.windows.next_window()
    _, targets = trainer.state.teachers.teach(window, trainer.state.dropout_generator)
    predicted = targets.predictions.tokens
    weights = random_weights(trainer.config, dataset.tokenizer)
    decoder = build_decoder(trainer.config.model, dataset.tokenizer, weights)
    state = decoder.start()
    for step, token in enumerate(window.inputs[:, 0].tolist()):
        log_probs, state = decoder.advance(state, token)
        np.testing.assert_allclose(predicted[step, 0], np.exp(log_probs), atol=1e-6)


def test_students_learn_in_bfloat16(tmp_path, dataset):
    name = write_teacher(tmp_path / "teacher", dataset.tokenizer, punctuation=True)
    trainer = make_trainer(dataset, teachers=name, teacher_columns=2, punctuation=True, precision="bf16")
    first = float(trainer.train_step().loss)
    losses = [float(trainer.train_step().loss) for _ in range(40)]
    assert np.mean(losses[-5:]) < first


def test_student_that_equals_its_only_teacher_has_nothing_to_learn(tmp_path, dataset):
    name = write_teacher(tmp_path / "teacher", dataset.tokenizer)
    values = {"teachers": name, "teacher_weight": 1.0, "ar": 0.0, "tar": 0.0, **FIXED}
    weights = random_weights(make_config(), dataset.tokenizer)
    trainer = make_trainer(dataset, weights, **values, **NO_DROPOUT)
    result = trainer.train_step()
    assert float(result.gradient_norm) < 1e-6


@pytest.mark.parametrize("values", [{}, {"teacher_columns": 3}, {"teacher_columns": 3, "punctuation": True}])
def test_resume_with_teachers_is_bit_exact(tmp_path, dataset, values):
    model = {"punctuation": True} if "punctuation" in values else {}
    names = [write_teacher(tmp_path / f"teacher-{seed}", dataset.tokenizer, seed, **model) for seed in range(2)]
    config = make_config(teachers=",".join(names), checkpoint_seconds=0.0, epochs=2, **values)
    complete = events_of(Finished, list(train(config, dataset, "run", lambda: False)))[0]
    steps = 0

    def stop_in_the_middle():
        nonlocal steps
        steps += 1
        return steps > 7

    stopped = list(train(config, dataset, "run", stop_in_the_middle))
    path = tmp_path / "resume.safetensors"
    path.write_bytes(events_of(Snapshot, stopped)[-1].content)
    resumed = list(train(config, dataset, "run", lambda: False, checkpoint=ResumeCheckpoint(path), is_resume=True))
    assert weights_equal(weights_of(events_of(Finished, resumed)[0]), weights_of(complete))


def test_job_records_where_its_teachers_are(tmp_path, dataset, monkeypatch):
    runs = tmp_path / "runs"
    runs.mkdir()
    write_teacher(runs / "first", dataset.tokenizer)
    data = {"corpus": dataset.corpus.source, "corpus_format": "text"}
    job = prepare_job(make_config(teachers="first", **data), "student", runs)
    job.run.lock.release()
    assert job.config.training.teachers == str(runs / "first")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"tokenizer": "whitespace"}, "has the tokenizer whitespace, and the student words"),
        ({"punctuation": True}, "was trained with punctuation=true"),
    ],
)
def test_teacher_that_does_not_fit_is_refused(tmp_path, dataset, values, message):
    tokenizer = dataset.tokenizer
    if "tokenizer" in values:
        tokenizer = type(tokenizer)(tokenizer.tokens, "whitespace")
        values = {}
    write_initial_run(tmp_path / "teacher", tokenizer, **values)
    with pytest.raises(ConfigError, match=message):
        load_teachers(make_config(teachers=str(tmp_path / "teacher")), dataset)


def test_teacher_with_another_vocabulary_is_refused(tmp_path, dataset):
    other = replace(dataset, tokenizer=type(dataset.tokenizer)((*dataset.tokenizer.tokens, "zorblax")))
    write_teacher(tmp_path / "teacher", other.tokenizer)
    with pytest.raises(ConfigError, match="another vocabulary than the student"):
        load_teachers(make_config(teachers=str(tmp_path / "teacher")), dataset)


def test_missing_and_repeated_teachers_are_refused(tmp_path, dataset):
    write_teacher(tmp_path / "teacher", dataset.tokenizer)
    with pytest.raises(InvalidInputError, match="no-such"):
        canonical_teachers(["no-such"], tmp_path)
    with pytest.raises(ConfigError, match="given twice"):
        canonical_teachers(["teacher", str(tmp_path / "teacher")], tmp_path)


def test_teacher_that_equals_the_student_is_refused(tmp_path, dataset):
    name = write_teacher(tmp_path / "teacher", dataset.tokenizer)
    data = {"corpus": dataset.corpus.source, "corpus_format": "text", "teachers": name}
    with pytest.raises(ConfigError, match="starts with all that it could learn"):
        prepare_job(make_config(init="teacher", **data), "student", tmp_path)
    with pytest.raises(InvalidInputError, match="choose another --run name"):
        prepare_job(make_config(**data), "teacher", tmp_path)


def test_sampled_softmax_has_no_teachers():
    with pytest.raises(ConfigError, match="softmax_samples=0"):
        make_config(softmax_samples=5, teachers="a")
