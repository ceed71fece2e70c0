"""Trainings in dialogue mode: whole scenes in a new order, exact resume, utterances that count, and fine-tuning."""

import math
import random
from collections import Counter

import numpy as np
import pytest
import torch

from engine.analysis.evaluation import EncodedText, written_text
from engine.data.dataset import load_dataset
from engine.data.scripts import Turn
from engine.events import Evaluated, Finished, Started
from engine.generation.settings import SamplerSettings
from engine.generation.turns import begin_turn, next_speaker_probs, read_turns
from engine.models.base import predict_tokens, score_sequence
from engine.models.dialogue import TurnState
from engine.runs.loading import load_model, read_dialogue_parts
from engine.training.job import POWER_L2, configure, prepare_job, spoken_scenes
from engine.training.state import WindowReader
from tests.support.random_dialogues import LSTM, write_distinct_dialogues
from tests.support.training import NO_DROPOUT, make_config

DIALOGUE = {"mode": "dialogue", "split": "scenes", "min_characters": -1, "min_speaker_lines": 5}
WITHOUT_WORDS = {"punctuation": False, "subword_embeddings": False}


def dialogue_config(folder, num_lines=100, **values):
    corpus = write_distinct_dialogues(folder / "dialogues.csv", num_lines)
    settings = {**DIALOGUE, **WITHOUT_WORDS, "keep_epoch_checkpoints": False, "sample_prompt": "the precious"}
    open_vocabulary = {"tokenizer": "bpe", "vocabulary_size": 320}
    return make_config(corpus=str(corpus), **(settings | open_vocabulary | values))


def train(config, folder, name="run"):
    job = prepare_job(config, name, folder)
    events = list(job.events(lambda: False))
    assert isinstance(events[-1], Finished)
    return job.run.path, events


def test_scenes_stay_whole_when_they_are_shuffled(tmp_path):
    dataset = load_dataset(dialogue_config(tmp_path).data)
    options = make_config(batch_size=1).training
    reader = WindowReader(dataset, options, torch.device("cpu"), with_punctuation=False, rng=random.Random(0))
    epochs = [reader.begin_epoch().columns.flatten().numpy() for _ in range(2)]
    assert not np.array_equal(*epochs)

    def scenes(ids):
        return Counter(dataset.tokenizer.decode(ids).split("\n\n"))

    for epoch in epochs:
        assert np.array_equal(np.sort(epoch), np.sort(dataset.train))
        whole = scenes(epoch) & scenes(dataset.train)
        assert whole.total() >= scenes(dataset.train).total() - 3  # rolling cuts a scene or two


@pytest.mark.parametrize("name_weight", [0.0, 0.5])
def test_names_count_as_much_in_the_loss_as_is_configured(tmp_path, name_weight):
    config = dialogue_config(tmp_path, name_weight=name_weight, batch_size=3, bptt=20, variable_bptt=False)
    dataset = load_dataset(config.data)
    reader = WindowReader(dataset, config.training, torch.device("cpu"), with_punctuation=False, rng=random.Random(0))
    window = reader.next_window()
    text = reader.epoch.columns.T.flatten().numpy()
    columns = dataset.scored_mask(text).reshape(3, -1)
    expected = np.where(columns[:, 1:21].T, 1, name_weight)
    assert window.target_weights.numpy() == pytest.approx(expected / expected.mean())


def test_a_trained_model_knows_what_each_speaker_says(tmp_path):
    """A line of Gollum's words is far likelier from him, and the speakers take turns as in the corpus."""
    sizes = {"embedding_size": 24, "hidden_size": 24, "bptt": 30, "variable_bptt": False, "batch_size": 8}
    run, _ = train(dialogue_config(tmp_path, 250, epochs=10, **NO_DROPOUT | sizes), tmp_path)
    model = load_model(run).model
    state = read_turns(model, [Turn("FRODO", "the ring"), Turn("SAM", "the garden")])
    assert next_speaker_probs(model, state)[0].name == "GOLLUM"
    ids, scores = model.tokenizer.encode(" precious wants nasty fishes\n").tolist(), {}
    for name in ("GOLLUM", "SAM"):
        begun = begin_turn(model, read_turns(model, []), name, SamplerSettings(), 0).state
        rows = np.stack([begun.log_probs, *predict_tokens(model, begun.model_state, ids[:-1])[0]])
        scores[name] = rows[np.arange(len(ids)), ids].sum()
    assert scores["GOLLUM"] > scores["SAM"] + 5


def test_the_perplexity_and_the_bits_are_those_of_the_utterances(tmp_path):
    config = dialogue_config(tmp_path, epochs=1)
    _, events = train(config, tmp_path)
    started = next(event for event in events if isinstance(event, Started))
    evaluated = [event for event in events if isinstance(event, Evaluated)][-1]
    dataset = load_dataset(config.data)
    log_probs = score_sequence(evaluated.model, dataset.valid)
    script = EncodedText(written_text(dataset.splits.valid, "dialogue"), dataset.tokenizer, "dialogue")
    assert started.valid_characters == sum(len(line.text) + 1 for line in dataset.splits.valid)
    assert started.valid_tokens == script.is_scored.sum() < len(dataset.valid)
    assert evaluated.valid_perplexity == pytest.approx(math.exp(-log_probs[script.is_scored].mean()), rel=1e-4)
    expected = script.bits_per_character(log_probs)
    assert started.bits_per_character(evaluated.valid_perplexity) == pytest.approx(expected, rel=1e-4)


def test_the_powers_of_the_evidence_make_the_speakers_of_validation_lines_likeliest(tmp_path):
    job = prepare_job(dialogue_config(tmp_path, 400), "run", tmp_path)
    model = read_dialogue_parts(job.run.path)(LSTM)
    priors, scores, speakers = ([], []), [], []
    for scene in spoken_scenes(job.dataset.splits.valid, model.cast):
        state = TurnState()
        for line in scene:
            priors[0].append(model.turn_model.log_frequencies)
            priors[1].append(model.turn_model.log_probs(state))
            scores.append(model.text_model.scores(line.text))
            speakers.append(line.speaker)
            state = state.after(line, model.cast)

    def loss(prior, powers):
        joint = powers[0] * np.array(prior) + powers[1] * np.array(scores)
        log_probs = joint - np.log(np.exp(joint).sum(axis=1, keepdims=True))
        return POWER_L2 / 2 * np.square(powers).sum() - log_probs[range(len(speakers)), speakers].sum()

    assert len(speakers) == 40
    for prior, powers in zip(priors, model.text_model.powers, strict=True):
        best = np.array([powers.prior, powers.text])
        assert all(loss(prior, best) < loss(prior, best + step) for step in np.eye(2) * 0.05)
        assert all(loss(prior, best) < loss(prior, best - step) for step in np.eye(2) * 0.05)


def test_fine_tuning_on_a_dialogue_keeps_the_vocabulary(tmp_path):
    plain = dialogue_config(tmp_path, mode="line", tokenizer="characters", epochs=1)
    train(plain, tmp_path, "plain")

    def apply_options(config):
        values = {**DIALOGUE, "corpus": plain.data.corpus, "init": "plain", "epochs": 1, "lr": 1e-9, "batch_size": 4}
        return config.with_values(**values)

    tuned, _ = train(configure(make_config(), apply_options, tmp_path), tmp_path, "tuned")
    before, after = load_model(tmp_path / "plain"), load_model(tuned)
    assert after.decoder.tokenizer == before.decoder.tokenizer
    embeddings = (each.decoder.weights["embedding.weight"] for each in (after, before))
    assert next(embeddings) == pytest.approx(next(embeddings), abs=1e-6)
    assert sorted(after.model.cast[:-1]) == ["FRODO", "GOLLUM", "SAM"]
    assert after.config.data.split == "scenes"
