"""The group that trains n-grams, LSTMs and Transformers for the same time.

A model that is done is in `--runs-dir`, and is not trained again.
"""

import json
import math
import shutil
import time
from dataclasses import replace
from typing import get_args

import numpy as np
import torch

from engine.analysis.evaluation import EncodedText, TextForm, convert_text, evaluate, native_form, written_text
from engine.config import DataConfig
from engine.data.dataset import load_dataset
from engine.events import Started
from engine.models.base import score_sequence
from engine.presets import PRESETS
from engine.runs.directory import drop_superseded, read_events
from engine.training.job import configure, load_training_input, prepare_job
from engine.training.state import prepare_device
from engine.training.trainer import Trainer
from tests.bench.measuring import Skip, call
from tests.bench.speeds import load_playable

BLOCK_TOKENS = 16_384  # tokens that stay together where a part of a text is chosen
COMMON = {"precision": "fp32", "device": "cpu", "keep_epoch_checkpoints": False}
SMALL = {"embedding_size": 400, "hidden_size": 400, "shuffle_lines": False, "weight_drop": 0.3}
NO_SHUFFLE, MANY_WORDS = {"shuffle_lines": False}, {"tokenizer": "words", "min_count": 12, "softmax_samples": 2000}
FROM_SCRATCH = {
    ("LSTM", "words"): NO_SHUFFLE | {"epochs": 40},
    ("LSTM", "characters"): SMALL
    | {"epochs": 30, "bptt": 100, "embedding_dropout": 0.0, "input_dropout": 0.2, "output_dropout": 0.3},
    ("LSTM", "bpe"): SMALL | {"epochs": 40, "vocabulary_size": 500, "embedding_dropout": 0.1},
    ("Transformer", "words"): NO_SHUFFLE,
    ("Transformer", "characters"): NO_SHUFFLE | {"context_size": 192, "bptt": 192},
    ("Transformer", "bpe"): NO_SHUFFLE | {"vocabulary_size": 500, "context_size": 96, "bptt": 96},
}  # changes of the presets `default` and `gpt-tiny`; more epochs would only overfit
ON_TALES = {
    ("LSTM", "words"): MANY_WORDS | {"punctuation": True},
    ("LSTM", "characters"): {"tokenizer": "characters", "bptt": 128},
    ("Transformer", "words"): MANY_WORDS,
    ("Transformer", "characters"): {"tokenizer": "characters", "context_size": 256, "bptt": 256, "batch_size": 16},
}  # changes of the presets `base` and `gpt`


def train_within(preset, values, name, options, seconds):
    """Train a run for `seconds`, and return the time that it took and its size.

    The speed is measured first, and the epochs follow from it, since the learning rate falls to zero over them. Where
    an epoch takes too long, blocks of the training text are read once.
    """
    runs_dir = options.runs_dir
    shutil.rmtree(runs_dir / name, ignore_errors=True)
    values = values | COMMON

    def apply(config):
        return config.with_values(*options.set, **values)

    config = configure(PRESETS[preset], apply, runs_dir)
    prepare_device(config.training)
    source = load_training_input(config, runs_dir)
    trainer = Trainer(config, source, torch.device("cpu"))
    trainer.train_step()  # not counted: it allocates memory
    num_tokens = num_steps = 0
    started = time.perf_counter()
    while num_steps < 3 or time.perf_counter() < started + min(5, seconds):
        num_tokens, num_steps = num_tokens + trainer.train_step().num_tokens, num_steps + 1
    budget = 0.94 * seconds * num_tokens / (time.perf_counter() - started)  # validations take the rest
    size, training = len(source.dataset.train), config.training
    epochs = budget / size if training.shuffle_lines else math.ceil(budget / size)
    epochs = min(training.epochs, max(1, int(epochs)))
    window = training.batch_size * training.bptt
    part = size if training.shuffle_lines else min(size, max(2 * window, int(budget / epochs)))
    steps = 0 if epochs > 2 or training.shuffle_lines else max(1, epochs * part // window // 8)
    job = prepare_job(config.with_values(epochs=epochs, eval_every_steps=steps), name, runs_dir)
    order = np.random.default_rng(training.seed).permutation(math.ceil(size / BLOCK_TOKENS))
    is_chosen = np.isin(np.arange(size) // BLOCK_TOKENS, order[: math.ceil(part / BLOCK_TOKENS)])
    ids = np.flatnonzero(is_chosen)[:part]
    dataset = job.dataset
    dataset = replace(dataset, train=dataset.train[ids], train_punctuation=dataset.train_punctuation[ids])
    started = time.perf_counter()
    job.dataset = dataset
    for _ in job.events(lambda: time.perf_counter() > started + seconds):
        pass
    events = drop_superseded(read_events(runs_dir / name / "metrics.jsonl", subsample=True))
    start = next(event for event in events if isinstance(event, Started))
    seconds = max(getattr(event, "seconds", 0) for event in events)
    return {"seconds": seconds, "size": f"{start.parameters / 1e6:.1f} M"}


def measure_comparison(options):
    """The table of n-grams, LSTMs and Transformers by tokens (--csv, --tales, --seconds, --only)."""
    if not options.csv or not options.tales:
        raise Skip("give the dialogues with --csv, and the text to pre-train on with --tales")
    options.runs_dir.mkdir(parents=True, exist_ok=True)
    data = DataConfig(corpus=str(options.csv), tokenizer="characters", split="scenes", min_characters=1)
    dataset, texts = load_dataset(data), {}
    for split in ("train", "valid", "test"):  # one line an utterance, which all tokenizers then read
        texts[split] = written_text(getattr(dataset.splits, split), "line")
        (options.runs_dir / f"{split}.txt").write_text(texts[split])
    files = {split: str((options.runs_dir / f"{split}.txt").resolve()) for split in texts}
    corpus = {"corpus": files["train"], "valid_corpus": files["valid"], "test_corpus": files["test"]}
    corpus |= {"corpus_format": "text", "split": "lines", "min_characters": 1}

    def cell(kind, tokenizer, pretrained, name):
        values, order = corpus | {"tokenizer": tokenizer} | FROM_SCRATCH.get((kind, tokenizer), {}), 0
        if kind == "n-gram":
            values |= {"vocabulary_size": 500} if tokenizer == "bpe" else {}
            valid = load_dataset(DataConfig(**values)).valid
            orders = (2, 3, 4, 5, 6, 8)
            order = min(orders, key=lambda each: evaluate(load_playable("", values, each), valid).perplexity)
            result = {"size": f"order {order}"}
        elif not pretrained:
            preset = "gpt-tiny" if kind == "Transformer" else "default"
            result = train_within(preset, values, name, options, options.seconds)
        else:
            preset, values = "gpt" if kind == "Transformer" else "base", ON_TALES.get((kind, tokenizer), {})
            tales = {"corpus": str(options.tales.resolve()), "corpus_format": "text"}
            first = train_within(preset, tales | values, f"{name}-base", options, 0.8 * options.seconds)
            values = corpus | {"init": f"{name}-base"} | ({"lr": 0.0005} if kind == "Transformer" else {})
            result = train_within("finetune", values, name, options, 0.2 * options.seconds)
            result["seconds"] += first["seconds"]
        model = str(options.runs_dir.resolve() / name), values, order
        result |= call("speeds", "model_speed", *model)[0]
        model = load_playable(*model)
        forms = get_args(TextForm)
        for form in ("words", "original"):
            if forms.index(native_form(model.tokenizer)) <= forms.index(form):
                for split in ("valid", "test"):
                    encoded = EncodedText(convert_text(texts[split], form), model.tokenizer, "line")
                    result[f"{form} {split}"] = encoded.bits_per_character(score_sequence(model, encoded.ids))
        return result

    columns = ("words valid", "words test", "original valid", "original test")
    yield f"| model | tokens | pre-trained | size | {' | '.join(columns)} | words/s | memory | training |"
    yield f"|{' --- |' * 11}"
    for pretrained in (False, True):
        for kind in ("n-gram", "LSTM", "Transformer")[pretrained:]:
            for tokenizer in ("words", "characters", "bpe"):
                start = "pretrained" if pretrained else "scratch"
                name = f"{kind}-{tokenizer}-{start}-{options.seconds:g}s".lower()
                if options.only not in name:
                    continue
                file = options.runs_dir / f"{name}.json"
                if not file.exists():
                    file.write_text(json.dumps(cell(kind, tokenizer, pretrained, name)))
                each = json.loads(file.read_text())
                bits = [f"{each[column]:.3f}" if column in each else "" for column in columns]
                figures = [f"{each['words_per_second']:,.0f}", f"{each['megabytes']:.0f} MB"]
                seconds = f"{each['seconds']:.0f} s" if "seconds" in each else ""
                row = [kind, tokenizer, "tales" if pretrained else "no", each["size"], *bits, *figures, seconds]
                yield f"| {' | '.join(row)} |"
