"""Short trainings: a small corpus and configuration, helpers for events and weights, and runs to start from."""

import random
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import torch

from engine.config import Config
from engine.control import CommandQueue
from engine.data.dataset import load_dataset
from engine.events import Evaluated, Snapshot
from engine.runs.directory import MODEL_FILE, RESUME_FILE
from engine.runs.loading import NumpyDecoder
from engine.storage.tensor_file import serialize_weights
from engine.training import TrainingInput
from engine.training.state import ResumeCheckpoint
from engine.training.trainer import Trainer, train
from tests.support.files import sentences, write_run

NO_DROPOUT = dict.fromkeys(
    ("embedding_dropout", "input_dropout", "hidden_dropout", "output_dropout", "weight_drop"), 0.0
)
SMALL = {
    "embedding_size": 16, "hidden_size": 16, "num_layers": 1, "tie_weights": True, "variational_dropout": True,
    **dict.fromkeys(NO_DROPOUT, 0.1), "initialization": "uniform", "subword_embeddings": False, "punctuation": False,
    "unigram_bias": True, "epochs": 3, "batch_size": 4, "bptt": 12, "variable_bptt": True, "shuffle_lines": True,
    "optimizer": "adamw", "lr": 0.03, "schedule": "one_cycle", "warmup_fraction": 0.1, "beta2": 0.999,
    "weight_decay": 0.0, "clip": 0.25, "ar": 0.1, "tar": 0.1, "label_smoothing": 0.0, "ema_decay": 0.0,
    "eval_every_epochs": 1, "patience": 0, "seed": 0, "threads": 1, "device": "cpu", "precision": "fp32",
    "sample_prompt": "the old hobbit",
}  # fmt: skip
"""Settings of a small model, complete so that changed defaults do not change the tests."""
REPORT_EACH_STEP = {"checkpoint_seconds": 1e-9}
"""Settings with which a training yields a `Step` and a `Snapshot` for each step, whatever the clock says."""


def make_config(**values):
    return Config("test").with_values(**(SMALL | values))


def make_dataset(folder):
    """Return 140 lines of a small grammar in which the previous word predicts the next one well."""
    rng = random.Random(5)
    subjects = ["the old hobbit", "a tall ranger", "the grey wizard", "my cousin"]
    verbs = ["walks slowly to", "remembers", "never speaks of", "waits beside"]
    objects = ["the mill by the water", "an empty road", "the hill", "the last bridge in the north"]
    lines = [f"{rng.choice(subjects)} {rng.choice(verbs)} {rng.choice(objects)} {i % 7}" for i in range(140)]
    return _load_lines(folder, lines)


def make_sentence_dataset(folder, num_lines):
    """Return a dataset of `num_lines` random sentences, which a model cannot learn as well as the small grammar."""
    return _load_lines(folder, sentences(num_lines))


def _load_lines(folder, lines):
    path = folder / "lines.txt"
    path.write_text("\n".join(lines))
    return load_dataset(make_config(corpus=str(path), corpus_format="text").data)


def run_training(dataset, cancelled=lambda: False, **values):
    return train_with(make_config(**values), dataset, cancelled=cancelled)


def train_with(config, dataset, initial_weights=None, cancelled=lambda: False, **options):
    source, commands = TrainingInput(dataset, initial_weights), CommandQueue(cancelled=cancelled)
    return list(train(config, source, "a-run", commands, **options))


def write_checkpoint(events, index, folder):
    """Write the snapshot `events[index]`, and the newest model that a kill before the next one leaves beside it."""
    following = (at for at in range(index + 1, len(events)) if isinstance(events[at], Snapshot))
    before = events[: next(following, len(events))]
    best = next(event for event in reversed(before) if isinstance(event, Evaluated) and event.is_best)
    if best.adapter is None:
        (folder / MODEL_FILE).write_bytes(serialize_weights(best.model.weights))
    (folder / RESUME_FILE).write_bytes(events[index].content)
    return ResumeCheckpoint(folder / RESUME_FILE)


def make_trainer(dataset, initial_weights=None, **values):
    return Trainer(make_config(**values), TrainingInput(dataset, initial_weights), torch.device("cpu"))


def take_step(trainer):
    """Do one optimizer step; return its rate, the weights before and after it, and the clipped gradients by name."""

    def copy(tensors):
        return {name: tensor.detach().numpy().copy() for name, tensor in tensors}

    network = trainer.state.network
    before = copy(network.named_parameters())
    result = trainer.train_step()
    gradients = copy((name, p.grad) for name, p in network.named_parameters() if p.grad is not None)
    after = copy(network.named_parameters())
    return SimpleNamespace(lr=result.lr, before=before, after=after, gradients=gradients)


def events_of(event_type, events):
    return [event for event in events if isinstance(event, event_type)]


def weights_of(event):
    assert isinstance(event.model, NumpyDecoder)
    return dict(event.model.weights)


def weights_equal(first, second):
    return first.keys() == second.keys() and all(np.array_equal(first[name], second[name]) for name in first)


def write_initial_run(path, tokenizer, weights=None, **values):
    """Write a run of the small configuration, with random weights unless others are given; return its configuration."""
    config = make_config(**values)
    config = replace(config, data=replace(config.data, tokenizer=tokenizer.name))
    write_run(path, config, tokenizer, weights)
    return config
