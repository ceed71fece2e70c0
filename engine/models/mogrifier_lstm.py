"""LSTM layer with a mogrifier, with a hand-written backward pass.

Each step depends on the one before, so a loop over the steps is needed. PyTorch's differentiation of such a loop takes
a third longer: it computes the gradient of each weight matrix once per step, and this layer once per window.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from engine.models.mogrifier import Mogrifier


def mogrifier_lstm(
    mogrifier: Mogrifier, vectors: Tensor, state: tuple[Tensor, Tensor], weights: Sequence[Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """Run an LSTM layer whose input and hidden state gate each other before each step.

    Gradients flow through the outputs only. Under autocast, products have its type; LSTM gates and cells are float32.

    Args:
        mogrifier: Gates of the layer.
        vectors: Inputs `[time, batch, input]`.
        state: Hidden and cell state, each `[1, batch, hidden]`.
        weights: Input weights, recurrent weights and the two biases, as `torch.lstm` takes them.

    Returns:
        The outputs `[time, batch, hidden]`, and the new hidden and cell state.
    """
    weight_ih, weight_hh, bias_ih, bias_hh = weights
    hidden, cell = state
    weight, bias = torch.cat([weight_ih, weight_hh], dim=1), bias_ih + bias_hh
    outputs: Tensor
    outputs, cell = _MogrifierLSTM.apply(vectors, hidden[0], cell[0], weight, bias, *mogrifier.down, *mogrifier.up)  # type: ignore[no-untyped-call]
    return outputs, outputs[-1:].detach(), cell[None]


class _Saved(NamedTuple):
    """Tensors that the backward pass needs."""

    weight: Tensor
    """`[4 hidden, input + hidden]`."""
    downs: list[Tensor]
    ups: list[Tensor]
    chain: list[Tensor]
    """Values that gate each other, `[time, batch, size]` each: input, hidden state, gated input, gated hidden state …

    Round k multiplies value k by a gate, which is computed from value k + 1; the product is value k + 2.
    """
    inners: list[Tensor]
    """Product `[time, batch, rank]` of the source and `down` in each round."""
    factors: list[Tensor]
    """Gate `[time, batch, target]` of each round, 0 to 2."""
    joined: Tensor
    """Input and hidden state after all rounds `[time, batch, input + hidden]`."""
    gates: list[Tensor]
    """LSTM gates `[batch, 4 hidden]` of each step in PyTorch's order: input, forget, candidate, output."""
    cells: list[Tensor]
    """Cell states `[batch, hidden]`, the one before the window included."""
    tanh_cells: list[Tensor]


class _MogrifierLSTM(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, inputs: Tensor, hidden: Tensor, cell: Tensor, weight: Tensor, bias: Tensor, *matrices: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the outputs and the last cell state; `matrices` are `down` of all rounds, then `up` of all rounds."""
        device = inputs.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else inputs.dtype
        with torch.autocast(device, enabled=False):
            inputs, weight, bias, *cast_matrices = (tensor.to(dtype) for tensor in (inputs, weight, bias, *matrices))
            saved, hiddens = _forward(inputs, hidden, cell, weight, bias, cast_matrices)
        ctx.num_rounds = len(matrices) // 2
        flat: list[Tensor] = []
        for item in saved:
            flat += [item] if isinstance(item, Tensor) else item
        ctx.save_for_backward(*flat)
        last_cell = saved.cells[-1]
        ctx.mark_non_differentiable(last_cell)
        return hiddens[1:], last_cell

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        rounds: int = ctx.num_rounds
        tensors = list(ctx.saved_tensors)

        def take(count: int) -> list[Tensor]:
            taken, tensors[:count] = tensors[:count], []
            return taken

        [weight], downs, ups = take(1), take(rounds), take(rounds)
        chain, inners, factors, [joined] = take(rounds + 2), take(rounds), take(rounds), take(1)
        time = len(joined)
        saved = _Saved(weight, downs, ups, chain, inners, factors, joined, take(time), take(time + 1), tensors)
        return _backward(saved, gradients[0])


def _forward(
    inputs: Tensor, hidden: Tensor, cell: Tensor, weight: Tensor, bias: Tensor, matrices: list[Tensor]
) -> tuple[_Saved, Tensor]:
    """Run the layer; return what the backward pass needs, and the hidden states `[time + 1, batch, hidden]`."""
    (time, batch, _), size, num_rounds = inputs.shape, cell.shape[1], len(matrices) // 2
    downs, ups = matrices[:num_rounds], matrices[num_rounds:]
    hiddens = inputs.new_empty(time + 1, batch, size)
    hiddens[0] = hidden
    chain = [inputs, hiddens[:time]]
    for index in range(num_rounds):
        chain.append(torch.empty_like(chain[index]))
    inners = [inputs.new_empty(time, batch, len(down)) for down in downs]
    factors = [torch.empty_like(product) for product in chain[2:]]
    joined = inputs.new_empty(time, batch, weight.shape[1])
    wide = torch.promote_types(inputs.dtype, torch.float32)
    gates, cells, tanh_cells = [], [cell.to(wide)], []
    # The views of all steps are made at once, since indexing in each step takes longer.
    steps = [tensor.unbind() for tensor in chain]
    inner_steps, factor_steps = ([tensor.unbind() for tensor in tensors] for tensors in (inners, factors))
    downs_t, ups_t = ([matrix.t() for matrix in half] for half in (downs, ups))
    rounds = list(zip(steps, steps[1:], steps[2:], inner_steps, factor_steps, downs_t, ups_t, strict=False))
    last_values = steps[-2:] if num_rounds % 2 == 0 else steps[:-3:-1]  # input, hidden state
    weight_t = weight.t()
    for step in range(time):
        for target, source, product, inner, factor, down_t, up_t in rounds:
            torch.mm(source[step], down_t, out=inner[step])
            torch.mm(inner[step], up_t, out=factor[step]).sigmoid_().mul_(2)
            torch.mul(factor[step], target[step], out=product[step])
        vector = torch.cat([values[step] for values in last_values], dim=1, out=joined[step])
        gate = torch.addmm(bias, vector, weight_t).to(wide)
        gate[:, : 2 * size].sigmoid_()
        input_, forget, candidate, output = gate.chunk(4, dim=1)
        candidate.tanh_()
        output.sigmoid_()
        gates.append(gate)
        cells.append((forget * cells[-1]).addcmul_(input_, candidate))
        tanh_cells.append(torch.tanh(cells[-1]))
        hiddens[step + 1] = output * tanh_cells[-1]
    return _Saved(weight, downs, ups, chain, inners, factors, joined, gates, cells, tanh_cells), hiddens


def _backward(saved: _Saved, grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
    """Return the gradients of the inputs, the weights, the biases and the matrices of the rounds."""
    weight, downs, ups, chain, inners, factors, joined, gates, cells, tanh_cells = saved
    num_rounds, time, (batch, size) = len(downs), len(gates), cells[0].shape
    input_size = joined.shape[2] - size
    grad_sums = joined.new_empty(time, batch, 4 * size)
    grad_inputs = torch.empty_like(chain[0])
    grad_inners = [torch.empty_like(inner) for inner in inners]
    grad_factor_sums = [torch.empty_like(factor) for factor in factors]
    # Each factor is 2 sigmoid(x), so the gradients that come from sigmoid(x) are doubled.
    rounds = [
        (chain[index].unbind(), factors[index].unbind(), (factors[index] / 2).unbind(),
         grad_inners[index].unbind(), grad_factor_sums[index].unbind(), 2 * ups[index], downs[index])
        for index in reversed(range(num_rounds))
    ]  # fmt: skip
    sigmoid_backward, tanh_backward = torch.ops.aten.sigmoid_backward, torch.ops.aten.tanh_backward
    grad_gate, grad_sum = torch.empty_like(gates[0]), torch.empty_like(gates[0])
    grad_input, grad_forget, grad_candidate, grad_output = grad_gate.chunk(4, dim=1)
    grad_cell = torch.zeros_like(cells[0])
    grad_hidden: Tensor | None = None
    for step in reversed(range(time)):
        gate, tanh_cell = gates[step], tanh_cells[step]
        input_, forget, candidate, output = gate.chunk(4, dim=1)
        grad = grad_outputs[step] if grad_hidden is None else grad_outputs[step] + grad_hidden
        torch.mul(grad, tanh_cell, out=grad_output)
        grad_cell += tanh_backward(grad * output, tanh_cell)
        torch.mul(grad_cell, candidate, out=grad_input)
        torch.mul(grad_cell, cells[step], out=grad_forget)
        torch.mul(grad_cell, input_, out=grad_candidate)
        grad_cell *= forget
        sigmoid_backward(grad_gate[:, : 2 * size], gate[:, : 2 * size], grad_input=grad_sum[:, : 2 * size])
        tanh_backward(grad_candidate, candidate, grad_input=grad_sum[:, 2 * size : 3 * size])
        sigmoid_backward(grad_output, output, grad_input=grad_sum[:, 3 * size :])
        grad_sums[step] = grad_sum
        grad_vector, grad_hidden = (grad_sums[step] @ weight).tensor_split([input_size], dim=1)
        for index, (target, factor, half, grad_inner, grad_factor_sum, up, down) in enumerate(rounds):
            of_target, of_source = grad_vector, grad_hidden
            if (num_rounds - index) % 2 == 0:
                of_target, of_source = of_source, of_target
            sigmoid_backward(of_target * target[step], half[step], grad_input=grad_factor_sum[step])
            of_target *= factor[step]
            torch.mm(grad_factor_sum[step], up, out=grad_inner[step])
            of_source.addmm_(grad_inner[step], down)
        grad_inputs[step] = grad_vector
    return (
        grad_inputs,
        None,
        None,
        _weight_gradient(grad_sums, joined),
        grad_sums.sum((0, 1)),
        *(_weight_gradient(grad_inners[index], chain[index + 1]) for index in range(num_rounds)),
        *(2 * _weight_gradient(grad_factor_sums[index], inners[index]) for index in range(num_rounds)),
    )


def _weight_gradient(gradients: Tensor, inputs: Tensor) -> Tensor:
    """Return the gradient `[output, input]` of a matrix from the `gradients` of its outputs `[time, batch, output]`."""
    return gradients.flatten(0, 1).t() @ inputs.flatten(0, 1)
