"""The plain way to train, as a classroom notebook does it: its network, its loop, nothing else thought of.

Run as `python -m lotr_tui.bench.training.notebook_loop JSON`; it prints the seconds of each epoch.
"""

import json
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from engine.config import preset
from engine.data.dataset import columns_of, prepare

if TYPE_CHECKING:
    from torch import Tensor, nn

HIDDEN, LAYERS, BATCH, WINDOW, DROPOUT = 512, 2, 64, 50, 0.65


def train(corpus: dict[str, Any], epochs: int) -> Iterator[float]:
    """Seconds of each of so many epochs over the corpus that these settings name."""
    import torch
    from torch import nn

    dataset = prepare(preset("notebook").with_values(**corpus).data)
    data = torch.from_numpy(columns_of(dataset.train, BATCH).T.copy()).long()
    network = _network(len(dataset.vocabulary))
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    for _ in range(epochs):
        started, state, total = time.perf_counter(), None, 0.0
        for begin in range(0, data.shape[1] - WINDOW, WINDOW):
            inputs, targets = data[:, begin : begin + WINDOW], data[:, begin + 1 : begin + WINDOW + 1]
            logits, state = _logits(network, inputs, state)
            state = tuple(part.detach() for part in state)
            loss = nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(network.parameters(), 0.25)
            optimizer.step()
            total += loss.item()
        yield time.perf_counter() - started


def tokens_an_epoch(train_tokens: int) -> int:
    """Of the whole windows that an epoch reads."""
    return len(range(0, train_tokens // BATCH - WINDOW, WINDOW)) * WINDOW * BATCH


def _network(vocabulary_size: int) -> "nn.ModuleDict":
    from torch import nn

    return nn.ModuleDict(
        {
            "embedding": nn.Embedding(vocabulary_size, HIDDEN),
            "lstm": nn.LSTM(HIDDEN, HIDDEN, LAYERS, dropout=DROPOUT, batch_first=True),
            "dropout": nn.Dropout(DROPOUT),
            "output": nn.Linear(HIDDEN, vocabulary_size),
        }
    )


def _logits(network: "nn.ModuleDict", ids: "Tensor", state: Any) -> "tuple[Tensor, Any]":
    vectors, state = network["lstm"](network["dropout"](network["embedding"](ids)), state)
    return network["output"](network["dropout"](vectors)), state


if __name__ == "__main__":
    import torch

    told = json.loads(sys.argv[1])
    torch.set_num_threads(told["threads"])
    print(json.dumps(list(train(told["corpus"], told["epochs"]))))
