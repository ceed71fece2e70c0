"""LSTM layer in bfloat16 on the CPU.

The backward pass of PyTorch's own layer, by oneDNN, runs at half the speed of plain matrix products. This layer uses
plain products, over all time steps at once where possible; gates and cells are in float32.
"""

from typing import Any

import torch
from torch import Tensor

MIN_HIDDEN_SIZE = 512
"""Minimum hidden size for which this layer is faster: in smaller layers the time steps dominate."""


def lstm_bf16(inputs: Tensor, state: tuple[Tensor, Tensor], weights: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Run one LSTM layer over a window `[time, batch, input]`; gradients flow through the outputs only.

    `state` is the hidden and the cell state before the window, each `[1, batch, hidden]`. `weights` are the input
    weights `[4 hidden, input]`, the recurrent weights `[4 hidden, hidden]` and two biases `[4 hidden]`, with gates in
    PyTorch's order: input, forget, candidate, output.

    Returns:
        Outputs `[time, batch, hidden]` in bfloat16, and the hidden and the cell state after the window.
    """
    weight_ih, weight_hh, *biases = weights
    hidden, cell = state
    outputs: Tensor
    outputs, cell = _LSTMBf16.apply(inputs, hidden[0], cell[0], weight_ih, weight_hh, biases[0] + biases[1])  # type: ignore[no-untyped-call]
    return outputs, outputs[-1:].detach(), cell[None]


class _LSTMBf16(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, inputs: Tensor, hidden: Tensor, cell: Tensor, weight_ih: Tensor, weight_hh: Tensor, bias: Tensor
    ) -> tuple[Tensor, Tensor]:
        (time, batch, _), size = inputs.shape, cell.shape[-1]
        with torch.autocast("cpu", enabled=False):
            inputs = inputs.bfloat16().flatten(0, 1)
            weight_ih, weight_hh, bias = (
                _to_sigmoids_first_order(weight).bfloat16() for weight in (weight_ih, weight_hh, bias)
            )
            input_gates = torch.addmm(bias, inputs, weight_ih.t()).view(time, batch, -1)
            hiddens = torch.empty(time + 1, batch, size, dtype=torch.bfloat16)
            hiddens[0] = hidden
            gates, cells, tanh_cells = [], [cell.float()], []
            for step in range(time):
                gate = torch.addmm(input_gates[step], hiddens[step], weight_hh.t()).float()
                input_, forget, output, candidate = gate.chunk(4, dim=1)
                gate[:, : 3 * size].sigmoid_()
                candidate.tanh_()
                cells.append((forget * cells[-1]).addcmul_(input_, candidate))
                tanh_cells.append(torch.tanh(cells[-1]))
                hiddens[step + 1] = output * tanh_cells[-1]
                gates.append(gate)
        ctx.save_for_backward(inputs, weight_ih, weight_hh, hiddens, *gates, *cells, *tanh_cells)
        ctx.mark_non_differentiable(cells[-1])
        return hiddens[1:], cells[-1]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        inputs, weight_ih, weight_hh, hiddens, *steps = ctx.saved_tensors
        time, (batch, size) = len(hiddens) - 1, hiddens[0].shape
        gates, cells, tanh_cells = steps[:time], steps[time : 2 * time + 1], steps[2 * time + 1 :]
        grad_outputs = gradients[0].float()
        # `grad_gates` is the gradient after the sigmoid or tanh of the gates, `grad_sums` the gradient before it.
        grad_gates, grad_sums = torch.empty(batch, 4 * size), torch.empty(batch, 4 * size)
        grad_input, grad_forget, grad_output, grad_candidate = grad_gates.chunk(4, dim=1)
        all_grad_sums = torch.empty(time, batch, 4 * size, dtype=torch.bfloat16)
        grad_bias, grad_cell, scratch = torch.zeros(4 * size), torch.zeros(batch, size), torch.empty(batch, size)
        sigmoids = slice(0, 3 * size)
        for step in reversed(range(time)):
            gate, tanh_cell = gates[step], tanh_cells[step]
            input_, forget, output, candidate = gate.chunk(4, dim=1)
            grad_hidden = grad_outputs[step]
            if step + 1 < time:
                grad_hidden = grad_hidden + all_grad_sums[step + 1] @ weight_hh
            torch.mul(grad_hidden, tanh_cell, out=grad_output)
            grad_cell += torch.ops.aten.tanh_backward(torch.mul(grad_hidden, output, out=scratch), tanh_cell)
            torch.mul(grad_cell, candidate, out=grad_input)
            torch.mul(grad_cell, cells[step], out=grad_forget)
            torch.mul(grad_cell, input_, out=grad_candidate)
            grad_cell *= forget
            torch.ops.aten.sigmoid_backward(
                grad_gates[:, sigmoids], gate[:, sigmoids], grad_input=grad_sums[:, sigmoids]
            )
            torch.ops.aten.tanh_backward(grad_candidate, candidate, grad_input=grad_sums[:, 3 * size :])
            grad_bias += grad_sums.sum(0)
            all_grad_sums[step] = grad_sums
        flat = all_grad_sums.flatten(0, 1)
        grad_weights = (flat.t() @ inputs, flat.t() @ hiddens[:-1].flatten(0, 1), grad_bias)
        grad_inputs = (flat @ weight_ih).view(time, batch, -1)
        return grad_inputs, None, None, *(_to_pytorch_order(gradient.float()) for gradient in grad_weights)


def _to_sigmoids_first_order(weight: Tensor) -> Tensor:
    """Reorder the rows to the gates input, forget, output, candidate, so that one call computes three sigmoids."""
    input_, forget, candidate, output = weight.chunk(4)
    return torch.cat([input_, forget, output, candidate])


def _to_pytorch_order(weight: Tensor) -> Tensor:
    input_, forget, output, candidate = weight.chunk(4)
    return torch.cat([input_, forget, candidate, output])
