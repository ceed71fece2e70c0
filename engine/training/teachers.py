"""Trained runs that teach a student: they predict its windows, and write text of their own.

On a small corpus, teachers have memorized their text. On new text, which they sample, they show all they have learned.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from engine.config import TEACHER_SEPARATOR, Config
from engine.data.dataset import Dataset
from engine.data.tokenizers import EOS_ID
from engine.errors import ConfigError
from engine.models.lstm import LSTMModel
from engine.models.torch_ops import NetworkOutput
from engine.runs.loading import LoadedRun, find_model, load_model
from engine.training.optim import NETWORKS, Network, SoftTargets, Window, load_recurrent_state, recurrent_tensors


def load_teachers(config: Config, dataset: Dataset) -> list[LoadedRun]:
    """Load the runs that the setting `teachers` names; one that cannot teach the student raises a ConfigError."""
    loaded = []
    for name in config.training.teachers.split(TEACHER_SEPARATOR):
        teacher = load_model(*find_model(name))
        tokenizer, kind, own_kind = teacher.decoder.tokenizer, teacher.config.data.tokenizer, config.data.tokenizer
        model, punctuation = teacher.config.model, str(teacher.config.model.punctuation).lower()
        sizes = f"{len(tokenizer):,} and {len(dataset.tokenizer):,} tokens"
        writes = model.architecture == "lstm" or not config.training.teacher_columns
        checks = [
            (not model.lora_rank, "is an adapter, which cannot teach; start from it with --init"),
            (kind == own_kind, f"has the tokenizer {kind}, and the student {own_kind}; use --tokenizer {kind}"),
            (tokenizer == dataset.tokenizer, f"has another vocabulary than the student ({sizes}); use the same corpus"),
            (model.punctuation == config.model.punctuation,
             f"was trained with punctuation={punctuation}, and its predictions fit no other student; "
             f"use --set punctuation={punctuation}"),
            (writes, "is a transformer, and only LSTMs write text for a student; use --set teacher_columns=0"),
        ]  # fmt: skip
        if problem := next((text for fits, text in checks if not fits), ""):
            raise ConfigError(f"teacher {teacher.name} {problem}, or another teacher")
        loaded.append(teacher)
    return loaded


class Teachers:
    """Trained runs that predict the windows of the corpus, and write columns of text of their own."""

    def __init__(self, config: Config, dataset: Dataset, device: torch.device, num_columns: int) -> None:
        self.networks: list[Network] = []
        for run in load_teachers(config, dataset):
            # Exported embeddings include the vectors of subwords.
            teacher_config = run.config.with_values(subword_embeddings=False, init="")
            network = NETWORKS[teacher_config.model.architecture].build(teacher_config, dataset, run.decoder.weights)
            self.networks.append(network.to(device).requires_grad_(False))
        softmaxes = [network.punctuation_softmax for network in self.networks]
        self._softmaxes = [softmax for softmax in softmaxes if softmax is not None]  # of all teachers, or of none
        self._num_written = config.training.teacher_columns
        self._num_columns, self._vocabulary_size = num_columns, len(dataset.tokenizer)
        self._weights = torch.ones(num_columns + self._num_written, device=device)
        self._weights[:num_columns] = config.training.teacher_weight
        self._restart()

    def _restart(self) -> None:
        self._states = [network.initial_state(self._num_columns) for network in self.networks]
        self._writing_states = [network.initial_state(self._num_written) for network in self.networks]
        # Last token `[columns]` of each text, which the teachers have not read yet.
        self._last_tokens = torch.full((self._num_written,), EOS_ID, device=self._weights.device)

    @torch.no_grad()
    def teach(self, window: Window, generator: torch.Generator) -> tuple[Window, SoftTargets]:
        """Return `window` with the columns that the teachers write, and the teachers' predictions of all columns."""
        if window.start == 0:
            self._restart()
        outputs = [
            network(window.inputs, state, punctuation=window.punctuation)
            for network, state in zip(self.networks, self._states, strict=True)
        ]
        self._states = [output.state for output in outputs]
        tokens = torch.stack([torch.softmax(output.logits.float(), dim=-1) for output in outputs]).mean(dim=0)
        gates = self._gate_probs(outputs).mean(dim=0) if self._softmaxes else None
        if self._num_written:
            written, written_tokens, written_gates = self._write(len(window.inputs), generator)
            names = [name for name, value in vars(window).items() if isinstance(value, Tensor)]
            columns: dict[str, Any] = {
                name: torch.cat([getattr(window, name), getattr(written, name)], dim=1) for name in names
            }
            window, tokens = replace(window, **columns), torch.cat([tokens, written_tokens], dim=1)
            gates = None if gates is None else torch.cat([gates, written_gates], dim=1)
        return window, SoftTargets(tokens, gates, self._weights, self._num_columns)

    def _gate_probs(self, outputs: Sequence[NetworkOutput]) -> Tensor:
        # Of the punctuation after the tokens read, `[teachers, time, columns, classes]`.
        pairs = zip(self._softmaxes, outputs, strict=True)
        return torch.stack([softmax.gate_log_probs(output.raw).exp() for softmax, output in pairs])

    def _write(self, length: int, generator: torch.Generator) -> tuple[Window, Tensor, Tensor]:
        """Sample `length` tokens; return their window, and the predictions of tokens and of punctuation."""
        steps = []
        for _ in range(length):
            tokens = self._last_tokens
            punctuation, gates, probs = self._predict_next(generator)
            self._last_tokens = torch.multinomial(probs, 1, generator=generator)[:, 0]
            steps.append((tokens, self._last_tokens, punctuation, probs, gates))
        inputs, targets, punctuation, probs, gates = map(torch.stack, zip(*steps, strict=True))
        return Window(inputs, targets, punctuation, torch.ones_like(targets, dtype=torch.float32)), probs, gates

    def _predict_next(self, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Read the last tokens; return the punctuation sampled after each, its distribution and the next token's."""
        tokens = self._last_tokens
        # With punctuation, the logits follow below.
        options = {"class_ids": tokens[:0], "punctuation": torch.zeros_like(tokens[None])} if self._softmaxes else {}
        outputs = [
            network(tokens[None], state, **options)
            for network, state in zip(self.networks, self._writing_states, strict=True)
        ]
        self._writing_states = [output.state for output in outputs]
        if not self._softmaxes:
            probs = torch.stack([torch.softmax(output.logits[0].float(), dim=-1) for output in outputs]).mean(dim=0)
            return torch.zeros_like(tokens), probs[:, :0], probs
        gates = self._gate_probs(outputs)[:, 0]
        classes = torch.multinomial(gates.mean(dim=0), 1, generator=generator)
        logits = []
        for network, softmax, output in zip(self.networks, self._softmaxes, outputs, strict=True):
            assert isinstance(network, LSTMModel)
            layer = network.output
            logits.append(softmax.conditional_logits(output.raw, classes.T, layer.weight, layer.bias, None)[0])
        # A teacher counts as much as it expected this punctuation: then the mean is the one of the joint distribution.
        weights = gates.gather(2, classes.expand(len(gates), -1, -1))
        probs = (weights * torch.softmax(torch.stack(logits).float(), dim=-1)).sum(dim=0) / weights.sum(dim=0)
        return classes[:, 0], gates.mean(dim=0), probs

    def state_dict(self, gather: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
        states = [*self._states, *(self._writing_states if self._num_written else ())]
        tensors = {
            f"{index}.{name}": gather(tensor)
            for index, state in enumerate(states)
            for name, tensor in recurrent_tensors(state).items()
        }
        return tensors | {"last_tokens": self._last_tokens}

    def load_state_dict(self, tensors: Mapping[str, Tensor], shard: Callable[[Tensor], Tensor]) -> None:
        self._restart()
        states = [*self._states, *(self._writing_states if self._num_written else ())]
        loaded = [load_recurrent_state(tensors, f"{index}.", like, shard) for index, like in enumerate(states)]
        self._states, self._writing_states = loaded[: len(self.networks)], loaded[len(self.networks) :]
        tokens = tensors["last_tokens"]
        is_known = (tokens >= 0) & (tokens < self._vocabulary_size)
        if tokens.shape != self._last_tokens.shape or tokens.dtype != torch.int64 or not is_known.all():
            raise ValueError("the tokens of the teachers have another shape or type, or are outside of the vocabulary")
        self._last_tokens = tokens.to(self._last_tokens.device)
