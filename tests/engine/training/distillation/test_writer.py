"""Tests of the text that teachers write: its tokens, and the predictions that go with them."""

import numpy as np
import pytest
import torch

from engine.data.tokenizers.base import EOS_ID, current_speakers
from engine.errors import ConfigError
from engine.models.decoders import build_decoder
from engine.models.numpy_lstm import NumpyLSTM
from engine.training.distillation.loading import load_teachers
from engine.training.distillation.writer import TeacherWriter
from engine.training.job import prepare_job
from tests.support.initial_runs import random_weights, write_teacher
from tests.support.training import NO_DROPOUT, make_config, make_dataset, make_trainer
from tests.support.transformer import TRANSFORMER

CPU = torch.device("cpu")


@pytest.fixture
def dataset(tmp_path):
    return make_dataset(tmp_path)


def make_decoders(tokenizer, number, **values):
    config = make_config(**values)
    decoders = []
    for seed in range(number):
        weights = {name: 4 * tensor for name, tensor in random_weights(config, tokenizer, seed).items()}
        decoder = build_decoder(config.model, tokenizer, weights)
        assert isinstance(decoder, NumpyLSTM)
        decoders.append(decoder)
    return decoders


@pytest.mark.parametrize("values", [{}, {"punctuation": True}, {"num_layers": 2, "mogrifier_rounds": 2}])
def test_predictions_are_the_mean_of_what_each_teacher_predicts_after_the_text_it_wrote(dataset, values):
    decoders = make_decoders(dataset.tokenizer, 2, **values)
    writer = TeacherWriter(decoders, 3, CPU)
    generator = torch.Generator().manual_seed(0)
    windows, predictions = zip(*(writer.write(length, generator) for length in (5, 4)), strict=True)
    inputs = torch.cat([window.inputs for window in windows])[:, 1].tolist()
    targets = torch.cat([window.targets for window in windows])[:, 1].tolist()
    assert inputs == [EOS_ID, *targets[:-1]]
    # The mean of the joint distribution, summed over the punctuation, is the mean of the distributions of the tokens.
    tokens = torch.cat([each.tokens for each in predictions])[:, 1].numpy()
    states = [decoder.start() for decoder in decoders]
    for step, token in enumerate(inputs):
        outputs = [decoder.advance(state, token) for decoder, state in zip(decoders, states, strict=True)]
        states = [state for _, state in outputs]
        if "punctuation" in values:
            hidden = [decoder.hidden_vector(state)[None] for decoder, state in zip(decoders, states, strict=True)]
            joint = np.mean(
                [
                    decoder.punctuation_probs(vector)[0, :, None]
                    * np.concatenate([decoder.token_probs(vector, np.array([mark], np.uint8)) for mark in range(4)])
                    for decoder, vector in zip(decoders, hidden, strict=True)
                ],
                axis=0,
            )
            np.testing.assert_allclose(
                joint.sum(axis=0), np.mean([np.exp(row) for row, _ in outputs], axis=0), atol=1e-5
            )
            mark = int(windows[step >= 5].punctuation[step - 5 * (step >= 5), 1])
            np.testing.assert_allclose(tokens[step], joint[mark] / joint[mark].sum(), atol=1e-5)
        else:
            np.testing.assert_allclose(tokens[step], np.mean([np.exp(row) for row, _ in outputs], axis=0), atol=1e-5)


def test_tokens_are_sampled_from_the_predictions(dataset):
    (decoder,) = make_decoders(dataset.tokenizer, 1)
    columns = 4000
    window, predictions = TeacherWriter([decoder], columns, CPU).write(1, torch.Generator().manual_seed(1))
    counts = np.bincount(window.targets[0].numpy(), minlength=len(dataset.tokenizer))
    probs = predictions.tokens[0, 0].numpy().astype(np.float64)
    expected, spread = columns * probs, np.sqrt(columns * probs * (1 - probs))
    assert (np.abs(counts - expected) <= 5 * spread + 1).all()


def test_speakers_of_the_columns_follow_the_tokens(dataset):
    tokenizer = dataset.tokenizer.with_cast(("FRODO", "SAM"))
    (decoder,) = make_decoders(tokenizer, 1, speaker_input="embedding")
    window, _ = TeacherWriter([decoder], 5, CPU).write(60, torch.Generator().manual_seed(2))
    assert window.speakers is not None
    assert (window.speakers >= 0).any()
    for column in range(5):
        expected = current_speakers(window.inputs[:, column].numpy(), tokenizer.num_text_tokens)
        np.testing.assert_array_equal(window.speakers[:, column].numpy(), expected)


def test_restored_texts_continue_as_they_would_have(dataset):
    tokenizer = dataset.tokenizer.with_cast(("FRODO", "SAM"))
    decoders = make_decoders(tokenizer, 2, speaker_input="embedding")
    writer, restored = TeacherWriter(decoders, 5, CPU), TeacherWriter(decoders, 5, CPU)
    writer.write(30, torch.Generator().manual_seed(3))
    restored.load_state_dict(writer.state_dict())
    windows = [each.write(20, torch.Generator().manual_seed(4))[0] for each in (writer, restored)]
    assert torch.equal(windows[0].targets, windows[1].targets)
    assert torch.equal(windows[0].speakers, windows[1].speakers)


def test_student_of_its_own_weights_has_nothing_to_learn_from_written_text(tmp_path, dataset):
    values = {"punctuation": True}
    name = write_teacher(tmp_path / "teacher", dataset.tokenizer, **values)
    options = {"teachers": name, "teacher_weight": 1.0, "teacher_columns": 4, "ar": 0.0, "tar": 0.0}
    trainer = make_trainer(
        dataset, random_weights(make_config(**values), dataset.tokenizer), **values, **options, **NO_DROPOUT
    )
    assert float(trainer.train_step().gradient_norm) < 1e-6


def test_text_of_teachers_needs_teachers(tmp_path, dataset):
    config = make_config(teacher_columns=2, corpus=dataset.corpus.source, corpus_format="text")
    with pytest.raises(ConfigError, match="--teacher RUN"):
        prepare_job(config, "student", tmp_path)


def test_transformer_writes_no_text(tmp_path, dataset):
    name = write_teacher(tmp_path / "teacher", dataset.tokenizer, **TRANSFORMER)
    with pytest.raises(ConfigError, match="teacher_columns=0"):
        load_teachers(make_config(teachers=name, teacher_columns=2), dataset)
