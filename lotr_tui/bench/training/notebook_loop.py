"""Baseline of training: the network and the loop of a classroom notebook, without any optimization.

`python -m lotr_tui.bench.training.notebook_loop OPTIONS`, with JSON options `corpus`, `epochs` and `threads`, prints
the tokens of an epoch and the seconds of each epoch.
"""

import json
import sys
import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from engine.data.dataset import Dataset, batchify, load_dataset
from engine.presets import get_preset

HIDDEN_SIZE, NUM_LAYERS, BATCH_SIZE, BPTT, DROPOUT = 512, 2, 64, 50, 0.65


def train_epochs(dataset: Dataset, epochs: int) -> Iterator[float]:
    """Train for some epochs, and yield the seconds of each."""
    ids = torch.from_numpy(batchify(dataset.train, BATCH_SIZE).T.copy()).long()  # [batch, time]
    model = _build_model(len(dataset.tokenizer))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(epochs):
        started, state, total_loss = time.perf_counter(), None, 0.0
        for begin in range(0, ids.shape[1] - BPTT, BPTT):
            inputs, targets = ids[:, begin : begin + BPTT], ids[:, begin + 1 : begin + BPTT + 1]
            logits, state = _forward(model, inputs, state)
            state = tuple(tensor.detach() for tensor in state)
            loss = nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(model.parameters(), 0.25)
            optimizer.step()
            total_loss += loss.item()
        yield time.perf_counter() - started


def tokens_per_epoch(num_train_tokens: int) -> int:
    """Return the number of tokens in the complete windows of an epoch; the notebook drops the rest."""
    return len(range(0, num_train_tokens // BATCH_SIZE - BPTT, BPTT)) * BPTT * BATCH_SIZE


def _build_model(vocabulary_size: int) -> nn.ModuleDict:
    return nn.ModuleDict(
        {
            "embedding": nn.Embedding(vocabulary_size, HIDDEN_SIZE),
            "lstm": nn.LSTM(HIDDEN_SIZE, HIDDEN_SIZE, NUM_LAYERS, dropout=DROPOUT, batch_first=True),
            "dropout": nn.Dropout(DROPOUT),
            "output": nn.Linear(HIDDEN_SIZE, vocabulary_size),
        }
    )


def _forward(model: nn.ModuleDict, ids: Tensor, state: Any) -> tuple[Tensor, Any]:
    hidden, state = model["lstm"](model["dropout"](model["embedding"](ids)), state)
    return model["output"](model["dropout"](hidden)), state


if __name__ == "__main__":
    options = json.loads(sys.argv[1])
    torch.set_num_threads(options["threads"])
    dataset = load_dataset(get_preset("notebook").with_values(**options["corpus"]).data)
    epoch_seconds = list(train_epochs(dataset, options["epochs"]))
    print(json.dumps({"tokens_per_epoch": tokens_per_epoch(len(dataset.train)), "epoch_seconds": epoch_seconds}))
