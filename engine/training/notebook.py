"""The notebook's own perplexity, mistake and all, to show beside the true one."""

import math

import torch
from torch import nn

from engine.data.dataset import columns_of
from engine.data.vocabulary import Ids
from engine.models.lstm import Network


@torch.no_grad()
def notebook_perplexity(network: Network, ids: Ids, batch: int, window: int) -> float:
    """What the notebook prints for `ids` cut into `batch` columns and read in windows of `window`.

    It trims the columns so that only whole windows remain, and divides by what it trimmed them to. Columns
    shorter than a window are trimmed to a single word: there is nothing to predict, the sum is 0, and
    exp(0) is a perplexity of 1.000.
    """
    columns = torch.from_numpy(columns_of(ids, batch)).to(network.output.bias.device)
    width = len(columns) - (len(columns) - 1) % window if len(columns) else 1
    states, total = network.start(batch), 0.0
    for begin in range(0, width - 1, window):
        logits, states, _, _ = network(columns[begin : begin + window].long(), states)
        targets = columns[begin + 1 : begin + 1 + window].long()
        total += float(nn.functional.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())) * window
    return math.exp(total / width)
