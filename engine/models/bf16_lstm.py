"""An LSTM layer in bfloat16 on the CPU, written out step by step.

What PyTorch calls for it, oneDNN's, goes back at half the rate of its own matrix products. Here the products are
plain ones, those of all time steps at once where they can be; gates and cells are in float32.
"""

from typing import Any

import torch
from torch import Tensor

WORTH_IT_FROM = 512
"""Hidden units: in smaller layers the steps cost more than the products gain."""


def lstm_bf16(vectors: Tensor, state: tuple[Tensor, Tensor], weights: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Read a window.

    Args:
        vectors: `[time, batch, input]`.
        state: hidden state and cell before it, each `[1, batch, hidden]`.
        weights: of the input `[4 hidden, input]`, recurrent `[4 hidden, hidden]`, and the two biases `[4 hidden]`;
            gates in PyTorch's order, input, forget, candidate, output.

    Returns:
        Outputs `[time, batch, hidden]` in bfloat16, and hidden state and cell after the window, each
        `[1, batch, hidden]`; gradients go through the outputs alone.
    """
    of_input, recurrent, *biases = weights
    hidden, cell = state
    outputs: Tensor
    outputs, cell = _LSTM.apply(vectors, hidden[0], cell[0], of_input, recurrent, biases[0] + biases[1])  # type: ignore[no-untyped-call]
    return outputs, outputs[-1:].detach(), cell[None]


class _LSTM(torch.autograd.Function):
    @staticmethod
    def forward(
        context: Any, vectors: Tensor, hidden: Tensor, cell: Tensor, of_input: Tensor, recurrent: Tensor, bias: Tensor
    ) -> tuple[Tensor, Tensor]:
        (time, batch, _), size = vectors.shape, cell.shape[-1]
        with torch.autocast("cpu", enabled=False):
            vectors = vectors.bfloat16().flatten(0, 1)
            of_input, recurrent, bias = (_sigmoids_first(weight).bfloat16() for weight in (of_input, recurrent, bias))
            of_inputs = torch.addmm(bias, vectors, of_input.t()).view(time, batch, -1)
            hiddens = torch.empty(time + 1, batch, size, dtype=torch.bfloat16)
            hiddens[0] = hidden
            gates, cells, squashed = [], [cell.float()], []
            for step in range(time):
                gate = torch.addmm(of_inputs[step], hiddens[step], recurrent.t()).float()
                input_, forget, output, candidate = gate.chunk(4, dim=1)
                gate[:, : 3 * size].sigmoid_()
                candidate.tanh_()
                cells.append((forget * cells[-1]).addcmul_(input_, candidate))
                squashed.append(torch.tanh(cells[-1]))
                hiddens[step + 1] = output * squashed[-1]
                gates.append(gate)
        context.save_for_backward(vectors, of_input, recurrent, hiddens, *gates, *cells, *squashed)
        context.mark_non_differentiable(cells[-1])
        return hiddens[1:], cells[-1]

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        vectors, of_input, recurrent, hiddens, *steps = context.saved_tensors
        time, (batch, size) = len(hiddens) - 1, hiddens[0].shape
        gates, cells, squashed = steps[:time], steps[time : 2 * time + 1], steps[2 * time + 1 :]
        # Names are those of what a gradient is of. `activated`: before the derivative of sigmoid or tanh.
        outputs = gradients[0].float()
        sums = torch.empty(time, batch, 4 * size, dtype=torch.bfloat16)
        bias, cell, scratch = torch.zeros(4 * size), torch.zeros(batch, size), torch.empty(batch, size)
        activated, gate_sums = torch.empty(batch, 4 * size), torch.empty(batch, 4 * size)
        for step in reversed(range(time)):
            gate, tanh_cell = gates[step], squashed[step]
            input_, forget, output, candidate = gate.chunk(4, dim=1)
            of_input_, of_forget, of_output, of_candidate = activated.chunk(4, dim=1)
            hidden = outputs[step]
            if step + 1 < time:
                hidden = hidden + sums[step + 1] @ recurrent
            torch.mul(hidden, tanh_cell, out=of_output)
            cell += torch.ops.aten.tanh_backward(torch.mul(hidden, output, out=scratch), tanh_cell)
            torch.mul(cell, candidate, out=of_input_)
            torch.mul(cell, cells[step], out=of_forget)
            torch.mul(cell, input_, out=of_candidate)
            cell *= forget
            three = slice(0, 3 * size)
            torch.ops.aten.sigmoid_backward(activated[:, three], gate[:, three], grad_input=gate_sums[:, three])
            torch.ops.aten.tanh_backward(of_candidate, candidate, grad_input=gate_sums[:, 3 * size :])
            bias += gate_sums.sum(0)
            sums[step] = gate_sums
        flat = sums.flatten(0, 1)
        of_weights = (flat.t() @ vectors, flat.t() @ hiddens[:-1].flatten(0, 1), bias)
        of_vectors = (flat @ of_input).view(time, batch, -1)
        return of_vectors, None, None, *(_in_pytorchs_order(weight.float()) for weight in of_weights)


def _sigmoids_first(weight: Tensor) -> Tensor:
    """Rows of the gates in the order input, forget, output, candidate, so that one call serves three of them."""
    input_, forget, candidate, output = weight.chunk(4)
    return torch.cat([input_, forget, output, candidate])


def _in_pytorchs_order(weight: Tensor) -> Tensor:
    input_, forget, output, candidate = weight.chunk(4)
    return torch.cat([input_, forget, candidate, output])
