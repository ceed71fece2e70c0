"""Trainings in dialogue mode: whole scenes in a new order, speakers in every window, exact resume, and fine-tuning."""

from collections import Counter

import numpy as np
import pytest
import torch

from engine.data.dataset import load_dataset
from engine.data.tokenizers.base import EOS_ID, current_speakers
from engine.events import Finished
from engine.runs.dialogue_parts import DIALOGUE_FILE, WHO_FILE
from engine.runs.loading import load_model
from engine.training.batches import WindowReader
from engine.training.job import prepare_job, resume_job
from engine.training.transfer.initial_run import configure
from tests.support.random_dialogues import write_distinct_dialogues
from tests.support.training import NO_DROPOUT, make_config

DIALOGUE = {"mode": "dialogue", "split": "scenes", "min_characters": -1, "min_speaker_lines": 5}


def dialogue_config(folder, num_lines=100, **values):
    corpus = write_distinct_dialogues(folder / "dialogues.csv", num_lines)
    settings = {**DIALOGUE, "keep_epoch_checkpoints": False, "sample_prompt": "the precious", "min_count": 1}
    return make_config(corpus=str(corpus), **(settings | values))


def load(config):
    dataset = load_dataset(config)
    assert sorted(dataset.tokenizer.cast[:-1]) == ["FRODO", "GOLLUM", "SAM"]
    return dataset


def make_reader(dataset, **values):
    options = make_config(**values).training
    first = dataset.tokenizer.num_text_tokens
    return WindowReader(
        dataset, options, torch.device("cpu"), lambda ids: current_speakers(ids, first), with_punctuation=False
    )


def split_scenes(ids):
    scenes, scene = Counter[tuple[int, ...]](), list[int]()
    for before, id in zip([0, *ids.tolist()], [*ids.tolist(), EOS_ID], strict=True):
        if id == EOS_ID and before in (0, EOS_ID):
            scenes[tuple(scene)] += 1
            scene = []
        else:
            scene.append(id)
    return scenes


def test_scenes_stay_whole_when_they_are_shuffled(tmp_path):
    dataset = load(dialogue_config(tmp_path).data)
    reader = make_reader(dataset)
    epochs = [reader.draw_epoch()[0] for _ in range(2)]
    assert not np.array_equal(*epochs)
    for epoch in epochs:
        assert np.array_equal(np.sort(epoch), np.sort(dataset.train))
        whole = split_scenes(epoch) & split_scenes(dataset.train)
        assert whole.total() >= split_scenes(dataset.train).total() - 3  # rolling cuts a scene or two


def test_windows_know_the_speaker_of_each_input(tmp_path):
    dataset = load(dialogue_config(tmp_path).data)
    reader = make_reader(dataset, shuffle_lines=False, batch_size=3, variable_bptt=False, bptt=7)
    height = len(dataset.train) // 3
    expected = current_speakers(dataset.train, dataset.tokenizer.num_text_tokens)[: 3 * height].reshape(3, height).T
    inputs, speakers = [], []
    while not inputs or reader.is_mid_epoch:
        window = reader.next_window()
        assert window.speakers is not None
        inputs.append(window.inputs)
        speakers.append(window.speakers)
    assert np.array_equal(torch.cat(speakers).numpy(), expected[: height - 1])
    assert set(np.unique(expected)) == {-1, *range(dataset.tokenizer.num_text_tokens, len(dataset.tokenizer) - 1)}


@pytest.mark.parametrize("speaker_input", ["token", "embedding"])
def test_a_trained_model_knows_what_each_speaker_says(tmp_path, speaker_input):
    """A line of Gollum's words is far likelier from him, and the speakers take turns as in the corpus."""
    config = dialogue_config(tmp_path, 250, speaker_input=speaker_input, epochs=10, **NO_DROPOUT)
    run = train(config, tmp_path)
    model = load_model(run).model
    tokenizer = model.tokenizer
    state = model.advance(model.start(), EOS_ID)[1]
    scores = {}
    for name in ("GOLLUM", "SAM"):
        log_probs, after = model.advance(state, tokenizer.speaker_id(name))
        scores[name] = 0.0
        for id in [*tokenizer.encode("precious wants nasty fishes").tolist(), EOS_ID]:
            scores[name] += float(log_probs[id])
            log_probs, after = model.advance(after, id)
    assert scores["GOLLUM"] > scores["SAM"] + 5
    for name in ("FRODO", "SAM"):
        for id in [tokenizer.speaker_id(name), *tokenizer.encode("the ring").tolist(), EOS_ID]:
            log_probs, state = model.advance(state, id)
    probs = np.exp(log_probs[tokenizer.num_text_tokens :])
    assert tokenizer.cast[int(probs.argmax())] == "GOLLUM"


def test_a_resumed_training_is_bit_exact(tmp_path):
    config = dialogue_config(tmp_path, speaker_input="embedding", epochs=2)
    whole = train(config, tmp_path, "whole")
    calls = iter(range(1000))
    list(prepare_job(config, "stopped", tmp_path).events(lambda: next(calls) > 15))
    assert isinstance(list(resume_job("stopped", tmp_path).events(lambda: False))[-1], Finished)
    for name in ("model.safetensors", DIALOGUE_FILE, WHO_FILE, "cast.json"):
        assert (whole / name).read_bytes() == (tmp_path / "stopped" / name).read_bytes()


def test_fine_tuning_adds_the_cast_of_the_new_text(tmp_path):
    """The words keep their vectors; new speakers get the mean vector, and known ones keep theirs."""
    plain = dialogue_config(tmp_path, mode="line", split="scenes", tokenizer="characters", epochs=1)
    train(plain, tmp_path, "plain")

    def apply_options(config):
        values = {**DIALOGUE, "corpus": plain.data.corpus, "init": "plain", "epochs": 1, "lr": 1e-9, "batch_size": 4}
        return config.with_values(**values)

    tuned = train(configure(make_config(), apply_options, tmp_path), tmp_path, "tuned")
    before, after = (load_model(tmp_path / name).decoder for name in ("plain", "tuned"))
    embedding = before.weights["embedding.weight"]
    assert after.tokenizer.num_text_tokens == len(embedding)
    assert after.weights["embedding.weight"][: len(embedding)] == pytest.approx(embedding, abs=1e-6)
    assert after.weights["embedding.weight"][len(embedding) :] == pytest.approx(
        np.tile(embedding.mean(axis=0), (4, 1)), abs=1e-6
    )
    assert load_model(tuned).config.data.split == "scenes"


def train(config, folder, name="run"):
    job = prepare_job(config, name, folder)
    events = list(job.events(lambda: False))
    assert isinstance(events[-1], Finished)
    return job.run.path
