"""Mogrifier: the input and the hidden state of an LSTM cell gate each other in turn (Melis et al. 2019, 1909.01792)."""

import torch
from torch import nn


class Mogrifier(nn.Module):
    """Weights of the gates of one LSTM layer, each a product of two thin matrices; `mogrifier_lstm` applies them.

    In the odd rounds, the hidden state gates the input; in the even rounds, the input gates the hidden state:
    x <- 2 sigmoid(up @ (down @ h)) * x, then h <- 2 sigmoid(up @ (down @ x)) * h. The cell state is unchanged.
    """

    def __init__(self, input_size: int, hidden_size: int, rounds: int, rank: int) -> None:
        """Create the matrices of all rounds, with undefined values."""
        super().__init__()
        sizes = [(hidden_size, input_size) if index % 2 == 0 else (input_size, hidden_size) for index in range(rounds)]
        self.down = nn.ParameterList(nn.Parameter(torch.empty(rank, source)) for source, _ in sizes)
        """`[rank, source]` of each round."""
        self.up = nn.ParameterList(nn.Parameter(torch.empty(target, rank)) for _, target in sizes)
        """`[target, rank]` of each round."""
