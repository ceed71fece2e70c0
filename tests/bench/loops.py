"""Measurements of training loops and tokenizers, each run in a process of its own."""

import re
import statistics
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from torch import nn

from engine.analysis.evaluation import evaluate
from engine.config import DataConfig
from engine.data.corpus import read_corpus
from engine.data.dataset import TokenIndexer, batchify, encode_open, load_dataset, train_tokenizer
from engine.models.adapters import lora_targets
from engine.models.pretrained.folders import read_base
from engine.models.torch_ops import linear
from engine.presets import PRESETS
from engine.runs.export import hugging_face_files
from engine.storage.tensor_file import to_float32
from engine.training.job import configure, load_training_input
from engine.training.state import keep_freed_memory
from engine.training.trainer import Trainer
from tests.bench.measuring import seconds_of, tokens_per_second

HIDDEN_SIZE, NUM_LAYERS, BATCH_SIZE, BPTT, VOCABULARY_SIZE = 512, 2, 64, 50, 879  # sizes of the notebook


class NotebookLSTM(nn.Module):
    """The network of the notebook, without any optimization."""

    def __init__(self, vocabulary_size=VOCABULARY_SIZE):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary_size, HIDDEN_SIZE)
        self.lstm = nn.LSTM(HIDDEN_SIZE, HIDDEN_SIZE, NUM_LAYERS, dropout=0.65, batch_first=True)
        self.dropout = nn.Dropout(0.65)
        self.output = nn.Linear(HIDDEN_SIZE, vocabulary_size)

    def forward(self, ids, state):
        hidden, state = self.lstm(self.dropout(self.embedding(ids)), state)
        return self.output(self.dropout(hidden)), state


def train_notebook(corpus, epochs):
    """Train by the notebook's loop; return the tokens of an epoch's complete windows, and the seconds of each epoch."""
    dataset = load_dataset(PRESETS["notebook"].with_values(**corpus).data)
    ids = torch.from_numpy(batchify(dataset.train, BATCH_SIZE).T.copy()).long()  # [batch, time]
    model = NotebookLSTM(len(dataset.tokenizer))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    seconds = []
    for _ in range(epochs):
        started, state, total_loss = time.perf_counter(), None, 0.0
        for begin in range(0, ids.shape[1] - BPTT, BPTT):
            inputs, targets = ids[:, begin : begin + BPTT], ids[:, begin + 1 : begin + BPTT + 1]
            logits, state = model(inputs, state)
            state = tuple(tensor.detach() for tensor in state)
            loss = nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 0.25)
            optimizer.step()
            total_loss += loss.item()
        seconds.append(time.perf_counter() - started)
    return {"tokens": len(range(0, ids.shape[1] - BPTT, BPTT)) * BPTT * BATCH_SIZE, "seconds": seconds}


@torch.no_grad()
def play_notebook():
    """Return the words per second of the notebook, which samples one after the other."""
    model = NotebookLSTM().eval()

    def sample():
        token, state = torch.tensor([[2]]), None
        for _ in range(20):
            logits, state = model(token, state)
            token = torch.multinomial(torch.softmax(logits[:, -1] / 0.8, dim=-1), num_samples=1)
        return 20

    return tokens_per_second(sample)


def train_steps(preset, values, warmup=3, steps=18, device="cpu", scored_tokens=0):
    """Train complete windows with our loop, since the notebook's drops the rest; return speeds and memory."""
    keep_freed_memory()
    config = configure(PRESETS[preset], lambda config: config.with_values(**values))
    source = load_training_input(config)
    dataset, trainer = source.dataset, Trainer(config, source, torch.device(device))
    window = config.training.bptt * config.training.batch_size
    seconds, cpu_seconds = [], []
    while len(seconds) < warmup + steps:
        started, cpu_started = time.perf_counter(), time.process_time()
        num_tokens = trainer.train_step().num_tokens
        if device == "cuda":
            torch.cuda.synchronize()
        if num_tokens == window:
            seconds.append(time.perf_counter() - started)
            cpu_seconds.append(time.process_time() - cpu_started)
    layers = sum(4 * size * (inputs + size) for inputs, size in config.model.layer_sizes())
    products = 6 * (layers + config.model.layer_sizes()[-1][1] * len(dataset.tokenizer))  # forward and backward
    rate = steps * window / sum(seconds[warmup:])
    result = {"tokens_per_second": rate, "flops": rate * products}
    result["cpu_seconds"] = statistics.median(cpu_seconds[warmup:])
    result["gpu_megabytes"] = torch.cuda.max_memory_allocated() / 1e6 if device == "cuda" else 0
    if scored_tokens:
        started, ids = time.process_time(), dataset.valid[:scored_tokens]
        evaluate(trainer.state.network, ids)
        result["scored_per_second"] = len(ids) / (time.process_time() - started)
    return result


def train_peft(warmup, steps):
    """Return the CPU seconds of a step of PEFT and transformers with the settings of the preset `lora`."""
    import peft
    import transformers

    base = read_base("smollm2")
    weights = {name: to_float32(tensor) for name, tensor in base.weights.items()}
    with tempfile.TemporaryDirectory() as folder:
        for name, content in hugging_face_files(base.config, base.tokenizer, weights).items():
            Path(folder, name).write_bytes(content)
        model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    settings, training = PRESETS["lora"].model, PRESETS["lora"].training
    options = {"r": settings.lora_rank, "lora_alpha": settings.lora_alpha, "lora_dropout": settings.lora_dropout}
    model = peft.get_peft_model(model, peft.LoraConfig(target_modules=list(lora_targets(settings)), **options))
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer, seconds = torch.optim.AdamW(parameters, lr=1e-4), []
    for _ in range(warmup + steps):
        ids = torch.randint(len(base.tokenizer), (training.batch_size, training.bptt + 1))
        started = time.process_time()
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(ids[:, :-1]).logits
        loss = nn.functional.cross_entropy(logits.float().flatten(0, 1), ids[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        seconds.append(time.process_time() - started)
    return statistics.median(seconds[warmup:])


def multiply_layer(precision):
    """Return the floating-point operations per second of the fastest product of the size of a layer."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    rows, inputs, outputs = BPTT * BATCH_SIZE, HIDDEN_SIZE, 4 * HIDDEN_SIZE
    x, weight, bias = (torch.randn(*shape, dtype=dtype) for shape in ((rows, inputs), (outputs, inputs), (outputs,)))

    with torch.no_grad():
        products = (lambda: x @ weight.t(), lambda: linear(x, weight, bias))
        seconds = [statistics.median(seconds_of(product) for _ in range(21)) for product in products]
    return 2 * rows * inputs * outputs / min(seconds)


def index_words(path):
    """Return the CPU seconds in which our indexer reads and indexes a text, and in which the notebook does."""
    started, indexer = time.process_time(), TokenIndexer()
    with Path(path).open("rb") as file:
        while block := file.read(2**20):
            indexer.index_block((block + file.readline()).decode())
    ours, text = time.process_time() - started, Path(path).read_text()
    started = time.process_time()
    words = re.sub(r"[^a-z0-9']+", " ", text.lower()).split()
    frequent = [word for word, count in Counter(words).items() if count >= 3]
    word_to_id = {word: id for id, word in enumerate(["<unk>", "<eos>", *frequent])}
    _ = [word_to_id.get(word, 0) for word in words]
    return {"ours": ours, "notebook": time.process_time() - started}


def learn_byte_pairs(path, vocabulary_size):
    """Learn byte pairs on a text, and encode it with them; return the seconds of both."""
    config = DataConfig(str(path), "text", tokenizer="bpe", vocabulary_size=vocabulary_size, min_characters=0)
    lines, started = read_corpus(config).lines, time.perf_counter()
    tokenizer = train_tokenizer(lines, config)
    learned_at = time.perf_counter()
    encode_open(lines, np.arange(len(lines), dtype=np.int32), tokenizer, "line")
    return {"learn": learned_at - started, "encode": time.perf_counter() - learned_at}


def write_text(path, num_bytes, num_words=0):
    """Write a text whose word frequencies follow the law of Zipf (1935) and Mandelbrot (1953).

    With `num_words=0`, the number of distinct words grows with the text, as in real texts.
    """
    rng, vocabulary = np.random.default_rng(0), num_words or 500_000
    frequencies = (np.arange(vocabulary) + 2.7) ** -1.3
    cumulative = np.cumsum(frequencies / frequencies.sum())
    words = [_pseudo_word(rank) for rank in range(vocabulary)]
    marks = np.array(["", ",", ".", "?"])

    def to_lines(words):
        return "\n".join(" ".join(words[start : start + 10]) for start in range(0, len(words), 10)) + "\n"

    with Path(path).open("w") as file:
        if num_words:
            file.write(to_lines(words))
        while file.tell() < num_bytes:
            ranks = np.searchsorted(cumulative, rng.random(100_000)).tolist()
            chosen = marks[rng.choice(len(marks), len(ranks), p=[0.85, 0.08, 0.06, 0.01])].tolist()
            file.write(to_lines([words[rank] + mark for rank, mark in zip(ranks, chosen, strict=True)]))


def _pseudo_word(rank):
    """Return a pronounceable word; frequent words are short."""
    syllables = []
    while not syllables or rank:
        rank, syllable = divmod(rank, 70)
        syllables.append("bdfghklmnprstv"[syllable // 5] + "aeiou"[syllable % 5])
    return "".join(syllables)
