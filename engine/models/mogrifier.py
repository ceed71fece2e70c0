"""Mogrifier: the input and the hidden state of an LSTM cell gate each other in turn (Melis et al. 2019, 1909.01792)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Mogrifier(nn.Module):
    """Gates of one LSTM layer, each a product of two thin matrices.

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

    def forward(self, inputs: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Return the gated inputs `[batch, input]` and hidden states `[batch, hidden]` of one time step."""
        for index, (down, up) in enumerate(zip(self.down, self.up, strict=True)):
            source = hidden if index % 2 == 0 else inputs
            gate = 2 * torch.sigmoid(source @ down.T @ up.T)
            if index % 2 == 0:
                inputs = gate * inputs
            else:
                hidden = gate * hidden
        return inputs, hidden


def mogrifier_lstm(
    mogrifier: Mogrifier, vectors: Tensor, state: tuple[Tensor, Tensor], weights: Sequence[Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """Run an LSTM layer whose input and hidden state gate each other before each step.

    Args:
        mogrifier: Gates of the layer.
        vectors: Inputs `[time, batch, input]`.
        state: Hidden and cell state, each `[1, batch, hidden]`.
        weights: Input weights, recurrent weights and the two biases, as `torch.lstm` takes them.

    Returns:
        The outputs `[time, batch, hidden]`, and the new hidden and cell state.
    """
    weight_ih, weight_hh, bias_ih, bias_hh = weights
    hidden, cell = state[0][0], state[1][0]
    bias = bias_ih + bias_hh
    outputs = []
    for inputs in vectors.unbind():
        gated_inputs, gated_hidden = mogrifier(inputs, hidden)
        gates = torch.addmm(bias, gated_inputs, weight_ih.T) + gated_hidden @ weight_hh.T
        input_gate, forget_gate, candidate, output_gate = gates.chunk(4, dim=1)
        cell = torch.sigmoid(forget_gate) * cell + torch.sigmoid(input_gate) * torch.tanh(candidate)
        hidden = torch.sigmoid(output_gate) * torch.tanh(cell)
        outputs.append(hidden)
    return torch.stack(outputs), hidden[None], cell[None]
