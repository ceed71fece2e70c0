"""Distillation: trained runs, the teachers, predict the windows of a student, and write text for it.

On a small corpus, teachers have memorized the text they were trained on, so their predictions of that text say little
that the text does not say. On new text, which the teachers sample themselves, they show everything they have learned.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from engine.config import Config
from engine.data.dataset import Dataset
from engine.data.tokenizers.base import EOS_ID, TokenIds
from engine.errors import ConfigError
from engine.models.network import Network, RecurrentState
from engine.models.networks import build_network
from engine.models.numpy_lstm import LSTMState, NumpyLSTM
from engine.runs.loading import LoadedRun, find_model, load_model
from engine.training.batches import Window


def load_teachers(config: Config, dataset: Dataset) -> list[LoadedRun]:
    """Load the runs that the setting `teachers` names; one that cannot teach the student raises a ConfigError."""
    loaded = []
    for name in config.training.teacher_names:
        teacher = load_model(*find_model(name))
        tokenizer, kind, own_kind = teacher.decoder.tokenizer, teacher.config.data.tokenizer, config.data.tokenizer
        punctuation = str(teacher.config.model.punctuation).lower()
        sizes = f"{len(tokenizer):,} and {len(dataset.tokenizer):,} tokens"
        writes = isinstance(teacher.decoder, NumpyLSTM) or not config.training.teacher_columns
        checks = [
            (not teacher.config.model.lora_rank, "is an adapter, which cannot teach; start from it with --init"),
            (kind == own_kind, f"has the tokenizer {kind}, and the student {own_kind}; use --tokenizer {kind}"),
            (tokenizer == dataset.tokenizer, f"has another vocabulary than the student ({sizes}); use the same corpus"),
            (
                teacher.config.model.punctuation == config.model.punctuation,
                f"was trained with punctuation={punctuation}, and its predictions fit no other student; "
                f"use --set punctuation={punctuation}",
            ),
            (writes, "is a transformer, and only LSTMs write text for a student; use --set teacher_columns=0"),
        ]
        if problem := next((text for fits, text in checks if not fits), ""):
            raise ConfigError(f"teacher {teacher.name} {problem}, or another teacher")
        loaded.append(teacher)
    return loaded


@dataclass(frozen=True)
class Predictions:
    """Distributions of the teachers over the targets of a window."""

    tokens: Tensor  # [time, batch, vocabulary], given the punctuation before the target if the model learns it
    punctuation: Tensor | None  # [time, batch, classes], of the punctuation before the target


def _combine(combine: Callable[[list[Tensor]], Tensor], parts: Sequence[Predictions]) -> Predictions:
    punctuation = [part.punctuation for part in parts if part.punctuation is not None]
    return Predictions(combine([part.tokens for part in parts]), combine(punctuation) if punctuation else None)


@dataclass(frozen=True)
class SoftTargets:
    """Predictions of teachers for a window, and how much each column of the window learns from them."""

    predictions: Predictions
    weights: Tensor  # [batch], the fraction of a column's loss that compares with predictions instead of the text
    num_corpus_columns: int  # the teachers wrote the text of the columns after them

    def mix_losses(self, losses: Tensor, log_probs: Tensor, probs: Tensor) -> Tensor:
        """Return the losses `[time, batch]` of the text mixed with the cross-entropies of predictions.

        `log_probs` of the student and `probs` of the teachers are `[time, batch, classes]`.
        """
        cross_entropies = -(probs * log_probs).sum(dim=-1)
        return (1 - self.weights) * losses + self.weights * cross_entropies


class Teachers:
    """Trained runs that predict the windows of the corpus, and write columns of text of their own."""

    def __init__(self, config: Config, dataset: Dataset, device: torch.device, num_columns: int) -> None:
        """Load the runs that the setting `teachers` names; windows of the corpus have `num_columns` columns."""
        runs, options = load_teachers(config, dataset), config.training
        self.networks: list[Network] = []
        for run in runs:
            # Exported embeddings include the vectors of subwords.
            teacher_config = run.config.with_values(subword_embeddings=False, init="")
            source = build_network(teacher_config, dataset, run.decoder.weights)
            self.networks.append(source.to(device).requires_grad_(False))
        self.num_written_columns = options.teacher_columns
        self._writer: TeacherWriter | None = None
        if options.teacher_columns:
            decoders = [cast(NumpyLSTM, run.decoder) for run in runs]
            self._writer = TeacherWriter(decoders, options.teacher_columns, device)
        self._teacher_weight = options.teacher_weight
        self._num_columns = num_columns
        self._states: list[RecurrentState] = []

    def teach(self, window: Window, generator: torch.Generator) -> tuple[Window, SoftTargets]:
        """Return `window` with the columns that the teachers write, and the teachers' predictions of all columns."""
        if window.start == 0 or not self._states:
            self._states = [network.initial_state(self._num_columns) for network in self.networks]
            if self._writer is not None:
                self._writer.restart()
        predictions = self._predict(window)
        num_corpus_columns = window.targets.shape[1]
        weights = torch.ones(num_corpus_columns + self.num_written_columns, device=window.targets.device)
        weights[:num_corpus_columns] = self._teacher_weight
        if self._writer is not None:
            written, own_predictions = self._writer.write(len(window.inputs), generator)
            window = _append_columns(window, written)
            predictions = _combine(lambda tensors: torch.cat(tensors, dim=1), [predictions, own_predictions])
        return window, SoftTargets(predictions, weights, num_corpus_columns)

    @torch.no_grad()
    def _predict(self, window: Window) -> Predictions:
        """Return the mean of the teachers' predictions of the targets of a window."""
        predictions = []
        for index, network in enumerate(self.networks):
            output = network(window.inputs, self._states[index], punctuation=window.punctuation)
            self._states[index] = output.state
            softmax = network.punctuation_softmax
            gates = None if softmax is None else softmax.gate_log_probs(output.raw).exp()
            predictions.append(Predictions(torch.softmax(output.logits.float(), dim=-1), gates))
        return _combine(lambda tensors: torch.stack(tensors).mean(dim=0), predictions)

    def state_dict(self, gather: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
        tensors = {
            f"states.{index}.{name}": gather(tensor)
            for index, state in enumerate(self._states)
            for name, tensor in recurrent_tensors(state).items()
        }
        written = {} if self._writer is None else self._writer.state_dict()
        return tensors | {f"text.{name}": tensor for name, tensor in written.items()}

    def load_state_dict(self, tensors: Mapping[str, Tensor], shard: Callable[[Tensor], Tensor]) -> None:
        self._states = [
            load_recurrent_state(tensors, f"states.{index}.", network.initial_state(self._num_columns), shard)
            for index, network in enumerate(self.networks)
        ]
        if self._writer is not None:
            self._writer.load_state_dict(tensors, "text.")


def recurrent_tensors(state: RecurrentState) -> dict[str, Tensor]:
    parts = ("hidden", "cell")
    return {f"{layer}.{parts[index]}": pair[index] for layer, pair in enumerate(state) for index in (0, 1)}


def load_recurrent_state(
    tensors: Mapping[str, Tensor], prefix: str, like: RecurrentState, shard: Callable[[Tensor], Tensor] = lambda t: t
) -> RecurrentState:
    """Load what `recurrent_tensors` returned; a tensor of another shape or type than in `like` raises a ValueError."""
    loaded = []
    for name, expected in recurrent_tensors(like).items():
        tensor = shard(tensors[f"{prefix}{name}"])
        if tensor.shape != expected.shape or not tensor.is_floating_point():
            raise ValueError(f"unexpected shape or type of {prefix}{name}")
        loaded.append(tensor.to(expected.device))
    return list(zip(loaded[::2], loaded[1::2], strict=True))


def _append_columns(window: Window, written: Window) -> Window:
    others = vars(written) | {"target_weights": torch.ones_like(written.targets, dtype=torch.float32)}
    tensors = {name: value for name, value in vars(window).items() if isinstance(value, Tensor)}
    columns: dict[str, Any] = {name: torch.cat([own, others[name]], dim=1) for name, own in tensors.items()}
    return replace(window, **columns)


class TeacherWriter:
    """Endless columns of text, each token sampled from the mean distribution of the teachers."""

    def __init__(self, decoders: Sequence[NumpyLSTM], num_columns: int, device: torch.device) -> None:
        self._decoders = decoders
        self._num_columns = num_columns
        self._device = device
        self.restart()

    def restart(self) -> None:
        """Start new texts, each after `<eos>`."""
        # Last token [columns] of each text, which the teachers have not read yet.
        self._tokens: TokenIds = np.full(self._num_columns, EOS_ID, np.int32)
        shape = (self._num_columns, 1)
        starts = [decoder.start() for decoder in self._decoders]
        self._states: list[LSTMState] = [
            tuple((np.tile(hidden, shape), np.tile(cell, shape)) for hidden, cell in state) for state in starts
        ]

    def write(self, length: int, generator: torch.Generator) -> tuple[Window, Predictions]:
        """Continue the texts by `length` tokens; return their window, and the teachers' predictions of them."""
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
        stacked = torch.stack(punctuation) if punctuation else None
        return Window(torch.stack(inputs), torch.stack(targets), stacked), _combine(torch.stack, steps)

    def _read_tokens(self, generator: torch.Generator) -> tuple[Tensor | None, Predictions]:
        """Read the last token of each text, sample the punctuation after it, and predict the next token.

        The punctuation classes are `[columns]`, or None if the teachers learn none, and the predictions `[columns, …]`.
        """
        readers = []
        for index, decoder in enumerate(self._decoders):
            _, self._states[index] = decoder.advance_state(self._states[index], self._tokens)
            readers.append((decoder, self._states[index][-1][0]))
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

    def _state_tensors(self) -> list[RecurrentState]:
        return [
            [(torch.from_numpy(hidden), torch.from_numpy(cell)) for hidden, cell in state] for state in self._states
        ]

    def state_dict(self) -> dict[str, Tensor]:
        tensors = {"tokens": torch.from_numpy(self._tokens)}
        for index, state in enumerate(self._state_tensors()):
            tensors |= {f"{index}.{name}": tensor for name, tensor in recurrent_tensors(state).items()}
        return tensors

    def load_state_dict(self, tensors: Mapping[str, Tensor], prefix: str) -> None:
        self.restart()
        tokens = tensors[f"{prefix}tokens"].numpy()
        is_known = (tokens >= 0) & (tokens < len(self._decoders[0].tokenizer))
        if tokens.shape != self._tokens.shape or tokens.dtype != self._tokens.dtype or not is_known.all():
            raise ValueError("the tokens of the teachers have another shape or type, or are outside of the vocabulary")
        self._tokens = tokens
        for index, like in enumerate(self._state_tensors()):
            state = load_recurrent_state(tensors, f"{prefix}{index}.", like)
            self._states[index] = tuple((hidden.numpy(), cell.numpy()) for hidden, cell in state)
