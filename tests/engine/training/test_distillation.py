"""Training from teachers: their predictions, the text that they write, exact resume, and teachers that do not fit."""

import numpy as np
import pytest
import torch

from engine.data.tokenizers import EOS_ID, WordTokenizer
from engine.errors import ConfigError, InvalidInputError
from engine.events import Snapshot
from engine.models.numpy_lstm import NumpyLSTM
from engine.training.job import canonical_config, prepare_job
from engine.training.teachers import load_teachers
from tests.support import training
from tests.support.models import random_weights
from tests.support.networks import TRANSFORMER


def write_teacher(path, tokenizer, seed=0, **values):
    training.write_initial_run(
        path, tokenizer, random_weights(training.make_config(**values).model, tokenizer, seed), **values
    )
    return str(path)


def make_decoders(tokenizer, number, scale=2.5, **values):
    config, decoders = training.make_config(**values), []
    for seed in range(number):
        weights = {name: scale * tensor for name, tensor in random_weights(config.model, tokenizer, seed).items()}
        decoders.append(NumpyLSTM(config.model, tokenizer, weights))
    return decoders


def test_predictions_are_the_mean_of_what_the_models_predict_after_the_text_so_far(tmp_path, dataset):
    values = {"num_layers": 2, "mogrifier_rounds": 2}
    names = [write_teacher(tmp_path / f"teacher-{seed}", dataset.tokenizer, seed, **values) for seed in range(2)]
    state = training.make_trainer(dataset, teachers=",".join(names), **values).state
    windows = [state.windows.next_window() for _ in range(3)]
    lessons = [state.teachers.teach(window, state.dropout_generator)[1] for window in windows]
    predicted = torch.cat([targets.tokens for targets in lessons])[:, 1]
    decoders = make_decoders(dataset.tokenizer, 2, scale=1, **values)
    states = [decoder.start() for decoder in decoders]
    for step, token in enumerate(torch.cat([window.inputs for window in windows])[:, 1].tolist()):
        outputs = [decoder.advance(state, token) for decoder, state in zip(decoders, states, strict=True)]
        states = [state for _, state in outputs]
        expected = np.mean([np.exp(log_probs) for log_probs, _ in outputs], axis=0)
        np.testing.assert_allclose(predicted[step], expected, atol=1e-6)


def test_written_text_has_the_mean_of_what_each_teacher_predicts_after_it(tmp_path, dataset):
    values = {"num_layers": 2, "mogrifier_rounds": 2}
    names = [write_teacher(tmp_path / f"teacher-{seed}", dataset.tokenizer, seed, **values) for seed in range(2)]
    state = training.make_trainer(dataset, teachers=",".join(names), teacher_columns=3, batch_size=4, **values).state
    lessons = [state.teachers.teach(state.windows.next_window(), state.dropout_generator) for _ in range(2)]
    windows = [window for window, _ in lessons]
    inputs = torch.cat([window.inputs for window in windows])[:, 5].tolist()
    targets = torch.cat([window.targets for window in windows])[:, 5].tolist()
    assert inputs == [EOS_ID, *targets[:-1]]
    tokens = torch.cat([each.tokens for _, each in lessons])[:, 5].numpy()
    decoders = make_decoders(dataset.tokenizer, 2, scale=1, **values)
    states = [decoder.start() for decoder in decoders]
    for step, token in enumerate(inputs):
        outputs = [decoder.advance(state, token) for decoder, state in zip(decoders, states, strict=True)]
        states = [state for _, state in outputs]
        mean = np.mean([np.exp(row) for row, _ in outputs], axis=0)
        np.testing.assert_allclose(tokens[step], mean, atol=1e-5)


@pytest.mark.parametrize("values", [{}, {"teacher_columns": 4}])
def test_student_that_equals_its_only_teacher_has_nothing_to_learn(tmp_path, dataset, values):
    name = write_teacher(tmp_path / "teacher", dataset.tokenizer, punctuation=True)
    values = {"teachers": name, "teacher_weight": 1.0, "ar": 0.0, "tar": 0.0, "punctuation": True, **values}
    weights = random_weights(training.make_config(punctuation=True).model, dataset.tokenizer)
    trainer = training.make_trainer(dataset, weights, **values, **training.NO_DROPOUT)
    assert float(trainer.train_step().gradient_norm) < 1e-6


def test_resume_with_teachers_is_bit_exact(tmp_path, dataset):
    values = {"punctuation": True, "bptt": 24}
    names = [write_teacher(tmp_path / f"teacher-{seed}", dataset.tokenizer, seed, **values) for seed in range(2)]
    config = training.make_config(
        teachers=",".join(names), teacher_columns=3, epochs=1, **values, **training.REPORT_EACH_STEP
    )
    whole = training.train_with(config, dataset)
    checkpoint = training.write_checkpoint(whole, whole.index(training.events_of(Snapshot, whole)[5]), tmp_path)
    resumed = training.train_with(config, dataset, checkpoint=checkpoint, is_resume=True)
    assert training.weights_equal(training.weights_of(resumed[-1]), training.weights_of(whole[-1]))


@pytest.mark.parametrize(
    ("teacher", "student", "message"),
    [
        ({"tokenizer": "whitespace"}, {}, "has the tokenizer whitespace, and the student words"),
        ({"punctuation": True}, {}, "was trained with punctuation=true"),
        ({"word": "zorblax"}, {}, "another vocabulary than the student"),
        (TRANSFORMER, {"teacher_columns": 2}, "teacher_columns=0"),  # a transformer writes no text
    ],
    ids=["tokenizer", "punctuation", "vocabulary", "transformer"],
)
def test_teacher_that_does_not_fit_is_refused(tmp_path, dataset, teacher, student, message):
    values = dict(teacher)
    tokens = (*dataset.tokenizer.tokens, *([values.pop("word")] if "word" in values else []))
    training.write_initial_run(tmp_path / "teacher", WordTokenizer(tokens, values.pop("tokenizer", "words")), **values)
    with pytest.raises(ConfigError, match=message):
        load_teachers(training.make_config(teachers=str(tmp_path / "teacher"), **student), dataset)


def test_missing_and_repeated_teachers_and_the_student_itself_are_refused_and_others_recorded(tmp_path, dataset):
    name = write_teacher(tmp_path / "teacher", dataset.tokenizer)
    with pytest.raises(InvalidInputError, match="no-such"):
        canonical_config(training.make_config(teachers="no-such"), tmp_path)
    with pytest.raises(ConfigError, match="given twice"):
        canonical_config(training.make_config(teachers=f"teacher,{name}"), tmp_path)
    data = {"corpus": dataset.corpus.source, "corpus_format": "text", "teachers": "teacher"}
    with pytest.raises(ConfigError, match="starts with all that it could learn"):
        prepare_job(training.make_config(init="teacher", **data), "student", tmp_path)
    with pytest.raises(InvalidInputError, match="choose another --run name"):
        prepare_job(training.make_config(**data), "teacher", tmp_path)
    assert prepare_job(training.make_config(**data), "student", tmp_path).config.training.teachers == name
