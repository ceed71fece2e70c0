"""Steps of an LSTM along a text: the gates, the cell before and the cell after each token, unit by unit."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from engine.data.arrays import Float32Array
from engine.data.tokenizers.base import TokenIds
from engine.models.numpy_lstm import LSTMState, NumpyLSTM


@dataclass(frozen=True)
class UnitStep:
    """Values of one unit in one step.

    cell = forget · cell_before + input · candidate, and hidden = output · tanh(cell).
    """

    forget: float
    """Forget gate, 0 to 1: fraction of the cell before that is kept."""
    input: float
    """Input gate, 0 to 1: fraction of the candidate that is added to the cell."""
    candidate: float
    """New content for the cell, -1 to 1."""
    cell_before: float
    """Cell before the token."""
    cell: float
    """Cell after the token."""
    output: float
    """Output gate, 0 to 1: fraction of the cell that is visible outside the layer."""
    hidden: float
    """Hidden value after the token, -1 to 1."""


@dataclass(frozen=True)
class LSTMStep:
    """One step of an LSTM: a token, and the state before and after it."""

    token: int
    before: LSTMState
    gates: tuple[Float32Array, ...]
    """Gates `[4 hidden]` of each layer, in the order input, forget, output, candidate."""
    after: LSTMState

    def unit(self, layer: int, unit: int) -> UnitStep:
        """Return the values of one unit of a layer."""
        input_, forget, output, candidate = self.gates[layer].reshape(4, -1)[:, unit].tolist()
        hidden, cell = self.after[layer]
        return UnitStep(
            forget=forget,
            input=input_,
            candidate=candidate,
            cell_before=float(self.before[layer][1][unit]),
            cell=float(cell[unit]),
            output=output,
            hidden=float(hidden[unit]),
        )


def read_steps(
    lstm: NumpyLSTM, tokens: TokenIds | Sequence[int], known: Sequence[LSTMStep] = ()
) -> tuple[LSTMStep, ...]:
    """Read tokens from a state of zeros; return one step per token.

    Args:
        lstm: LSTM that reads.
        tokens: Tokens `[time]`, with `<eos>` and the tokens of names where the LSTM shall read them.
        known: Steps of an earlier call with the same LSTM; those of the tokens that both texts start with are reused.
    """
    steps: list[LSTMStep] = []
    for step, token in zip(known, tokens, strict=False):
        if step.token != token:
            break
        steps.append(step)
    state = steps[-1].after if steps else lstm.start()
    for token in tokens[len(steps) :]:
        gates, after = lstm.advance_state(state, int(token))
        steps.append(LSTMStep(int(token), state, gates, after))
        state = after
    return tuple(steps)


def liveliest_unit(steps: Sequence[LSTMStep]) -> tuple[int, int]:
    """Return layer and unit whose cell changes most: the largest sum of the absolute changes in all steps."""
    assert steps, "at least one step"
    changes = [
        np.sum([np.abs(step.after[layer][1] - step.before[layer][1]) for step in steps], axis=0)
        for layer in range(len(steps[0].gates))
    ]
    layer = int(np.argmax([change.max() for change in changes]))
    return layer, int(np.argmax(changes[layer]))
