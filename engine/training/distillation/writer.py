"""Teachers that write text for a student, and predict each of its tokens.

On a small corpus, teachers have memorized the text they were trained on, so their predictions of that text say little
that the text does not say. On new text, which the teachers sample themselves, they show everything they have learned.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from engine.data.tokenizers.base import EOS_ID, TokenIds
from engine.models.numpy_lstm import LSTMState, NumpyLSTM
from engine.training.batches import Window
from engine.training.distillation.predictions import Predictions

STATE_PREFIX = "teacher_text"


class TeacherWriter:
    """Endless columns of text, each token sampled from the mean distribution of the teachers."""

    def __init__(self, decoders: Sequence[NumpyLSTM], num_columns: int, device: torch.device) -> None:
        """Prepare `num_columns` texts that `decoders` write together, as tensors on `device`."""
        self._decoders = decoders
        self.num_columns = num_columns
        self._device = device
        self._tokenizer = decoders[0].tokenizer
        self.restart()

    def restart(self) -> None:
        """Start new texts, each after `<eos>`."""
        self._tokens: TokenIds = np.full(self.num_columns, EOS_ID, np.int32)
        """Last token `[columns]` of each text; the teachers have not read it yet."""
        self._states = [_repeat_state(decoder.start(), self.num_columns) for decoder in self._decoders]

    def write(self, length: int, generator: torch.Generator) -> tuple[Window, Predictions]:
        """Continue the texts by `length` tokens.

        Returns:
            The window of these tokens, and the mean of the teachers' predictions of them.
        """
        inputs, targets, punctuation, steps = [], [], [], []
        for _ in range(length):
            inputs.append(self._to_tensor(self._tokens).long())
            classes, predictions = self._read_tokens(generator)
            tokens = torch.multinomial(predictions.tokens, 1, generator=generator)[:, 0]
            self._tokens = tokens.cpu().numpy().astype(np.int32)
            targets.append(tokens)
            steps.append(predictions)
            if classes is not None:
                punctuation.append(classes)
        window = Window(
            inputs=torch.stack(inputs),
            targets=torch.stack(targets),
            punctuation=torch.stack(punctuation) if punctuation else None,
            target_weights=None,
            start=0.0,
            end=0.0,
        )
        return window, _stack_steps(steps)

    def _read_tokens(self, generator: torch.Generator) -> tuple[Tensor | None, Predictions]:
        """Read the last token of each text, and sample the punctuation after it.

        Returns:
            The punctuation classes `[columns]`, None if the teachers learn none, and the predictions `[columns, ...]`
            of the next tokens.
        """
        hidden = []
        for index, decoder in enumerate(self._decoders):
            _, self._states[index] = decoder.advance_state(self._states[index], self._tokens)
            hidden.append(self._states[index][-1][0])
        readers = list(zip(self._decoders, hidden, strict=True))
        gate_probs = [probs for each, vectors in readers if (probs := each.punctuation_probs(vectors)) is not None]
        if not gate_probs:
            probs = np.mean([each.token_probs(vectors, None) for each, vectors in readers], axis=0)
            return None, Predictions(self._to_tensor(probs), None)
        gates = np.stack(gate_probs)
        mean_gates = self._to_tensor(gates.mean(axis=0))
        classes = torch.multinomial(mean_gates, 1, generator=generator)[:, 0]
        chosen = classes.cpu().numpy().astype(np.uint8)
        # A teacher counts as much as it expected this punctuation: then the mean is the one of the joint distribution.
        weights = gates[:, np.arange(len(chosen)), chosen, None]
        probs = sum(
            weight * each.token_probs(vectors, chosen) for weight, (each, vectors) in zip(weights, readers, strict=True)
        )
        return classes, Predictions(self._to_tensor(probs / weights.sum(axis=0)), mean_gates)

    def _to_tensor(self, values: Any) -> Tensor:
        return torch.from_numpy(values).to(self._device)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the texts and the teachers' states as tensors, for a checkpoint in the middle of an epoch."""
        tensors = {"tokens": torch.from_numpy(self._tokens)}
        for teacher, state in enumerate(self._states):
            for layer, (hidden, cell) in enumerate(state):
                tensors |= {f"{teacher}.{layer}.hidden": torch.from_numpy(hidden)}
                tensors |= {f"{teacher}.{layer}.cell": torch.from_numpy(cell)}
        return {f"{STATE_PREFIX}.{name}": tensor for name, tensor in tensors.items()}

    def load_state_dict(self, tensors: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned.

        Raises:
            LookupError: If a tensor is missing.
            ValueError: If a tensor has another shape or type.
        """
        self.restart()

        def load(name: str, expected: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
            values: np.ndarray[Any, Any] = tensors[f"{STATE_PREFIX}.{name}"].cpu().numpy()
            if values.shape != expected.shape or values.dtype != expected.dtype:
                raise ValueError(f"unexpected shape or type of {STATE_PREFIX}.{name}")
            return values

        self._tokens = load("tokens", self._tokens)
        if self._tokens.min() < 0 or self._tokens.max() >= len(self._tokenizer):
            raise ValueError(f"{STATE_PREFIX} has tokens outside of the vocabulary")
        for teacher, state in enumerate(self._states):
            self._states[teacher] = tuple(
                (load(f"{teacher}.{layer}.hidden", hidden), load(f"{teacher}.{layer}.cell", cell))
                for layer, (hidden, cell) in enumerate(state)
            )


def _repeat_state(state: LSTMState, num_texts: int) -> LSTMState:
    """Return the state of `num_texts` texts, each with the given state of one text."""
    return tuple((np.tile(hidden, (num_texts, 1)), np.tile(cell, (num_texts, 1))) for hidden, cell in state)


def _stack_steps(steps: Sequence[Predictions]) -> Predictions:
    """Return the predictions `[time, columns, ...]` of consecutive steps `[columns, ...]`."""
    punctuation = [step.punctuation for step in steps if step.punctuation is not None]
    return Predictions(torch.stack([step.tokens for step in steps]), torch.stack(punctuation) if punctuation else None)
