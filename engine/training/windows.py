"""Windows of a training: of its text, in an order that a checkpoint can restore, and of runs that teach it.

On a small corpus, teachers have memorized their text. On new text, which they sample, they show all they have learned.
"""

import array
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import index
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from engine.config import TEACHER_SEPARATOR, Config, TrainingConfig
from engine.data.arrays import permute_lines
from engine.data.dataset import Dataset, batchify
from engine.data.tokenizers import EOS_ID, PunctuationIds, TokenIds
from engine.errors import ConfigError
from engine.models.lstm import LSTMModel
from engine.models.network import Network, build_network
from engine.models.torch_ops import NetworkOutput, RecurrentState
from engine.runs.loading import LoadedRun, find_model, load_model
from engine.runtime.distributed import DistributedContext


@dataclass(frozen=True)
class Window:
    """One BPTT window of the training split; all tensors are `[time, batch]`."""

    inputs: Tensor
    targets: Tensor  # each the successor of the input at the same position
    punctuation: Tensor | None = None  # class after each input, if the model learns punctuation
    target_weights: Tensor | None = None  # factors of the losses, 1 on average over all columns; None for 1 everywhere
    start: float = 0.0  # fraction of the epoch read before this window
    end: float = 0.0  # the same after this window; 1 for the last one of an epoch

    def shard(self, distributed: DistributedContext) -> "Window":
        tensors = {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}
        shards: dict[str, Any] = {name: distributed.shard_batch(tensor) for name, tensor in tensors.items()}
        return replace(self, **shards)


class Epoch(NamedTuple):
    columns: Tensor  # tokens `[time, batch]`
    punctuation: Tensor | None  # `[time, batch]` as in `Window`
    is_scored: Tensor | None  # `[time, batch]`, False for names in a script; None if all targets weigh the same
    rng_state: tuple[Any, ...]  # of the generator before the epoch was drawn


class WindowReader:
    """Endless reader of the training split, window after window.

    A checkpoint stores the state of its generator before the epoch, from which the same epoch is built again.
    """

    def __init__(
        self, dataset: Dataset, options: TrainingConfig, device: torch.device, *, with_punctuation: bool
    ) -> None:
        self._dataset, self._options, self._device = dataset, options, device
        self._with_punctuation = with_punctuation
        self._rng = random.Random(options.seed)
        self._position = 0
        self.epoch: Epoch | None = None  # that has windows left

    def next_window(self) -> Window:
        """Return the next window, the first of a new epoch if the current epoch has been read."""
        epoch = self.epoch = self.epoch or self._begin_epoch()
        begin, num_targets = self._position, len(epoch.columns) - 1
        end = min(begin + sample_bptt_length(self._options, self._rng), num_targets)
        target_weights = None
        if epoch.is_scored is not None:
            weights = torch.where(epoch.is_scored[begin + 1 : end + 1], 1.0, self._options.name_weight)
            target_weights = weights / weights.mean().clamp_min(1e-9)
        window = Window(
            inputs=epoch.columns[begin:end].long(),
            targets=epoch.columns[begin + 1 : end + 1].long(),
            punctuation=None if epoch.punctuation is None else epoch.punctuation[begin:end].long(),
            target_weights=target_weights,
            start=begin / num_targets,
            end=end / num_targets,
        )
        self._position = end
        if end == num_targets:
            self.epoch = None
        return window

    def draw_epoch(self) -> tuple[TokenIds, PunctuationIds | None]:
        """Return the training tokens `[time]` in the order of a new epoch, and their punctuation if it is learned."""
        data = self._dataset
        punctuation = data.train_punctuation if self._with_punctuation else None
        if not self._options.shuffle_lines:
            return data.train, punctuation
        offsets = data.train_scene_offsets if data.mode == "dialogue" else data.train_offsets
        shuffled = array.array("i", range(len(offsets) - 1))  # a list needs nine times the memory
        self._rng.shuffle(shuffled)
        # Rotating the text moves the column borders, so the same tokens do not lose their context in every epoch.
        first = self._rng.randrange(len(data.train))
        order = np.array(shuffled)
        tokens = permute_lines(data.train, offsets, order, first)
        return tokens, None if punctuation is None else permute_lines(punctuation, offsets, order, first)

    def _begin_epoch(self) -> Epoch:
        rng_state, self._position = self._rng.getstate(), 0
        tokens, punctuation = self.draw_epoch()
        is_weighted = self._dataset.mode == "dialogue" and self._options.name_weight != 1
        texts = (tokens, punctuation, self._dataset.scored_mask(tokens) if is_weighted else None)
        columns = [None if text is None else batchify(text, self._options.batch_size) for text in texts]
        tensors = [None if text is None else torch.from_numpy(text).to(self._device) for text in columns]
        assert tensors[0] is not None
        return Epoch(tensors[0], tensors[1], tensors[2], rng_state)

    def state_dict(self) -> dict[str, Any]:
        epoch_rng_state = None if self.epoch is None else self.epoch.rng_state
        return {"position": self._position, "rng_state": self._rng.getstate(), "epoch_rng_state": epoch_rng_state}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue where `state_dict` was taken; damaged values raise an error of `CORRUPT_FILE_ERRORS`."""

        def set_rng_state(name: str) -> None:
            version, numbers, gauss = state_dict[name]  # JSON has no tuples
            self._rng.setstate((version, tuple(numbers), gauss))

        position = index(state_dict["position"])
        self.epoch = None
        if state_dict["epoch_rng_state"] is not None:
            set_rng_state("epoch_rng_state")
            self.epoch = self._begin_epoch()
            if not 0 <= position < len(self.epoch.columns):
                raise ValueError(f"position {position} is outside of the epoch")
        self._position = position
        set_rng_state("rng_state")


def sample_bptt_length(options: TrainingConfig, rng: random.Random) -> int:
    """Return the time steps of the next window; a variable length is that of Merity et al. (2017, section 4.1)."""
    if not options.variable_bptt:
        return options.bptt
    base = options.bptt if rng.random() < 0.95 else options.bptt / 2
    return max(5, int(rng.gauss(base, 5)))


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


@dataclass(frozen=True)
class SoftTargets:
    """Distributions of the teachers over the targets of a window."""

    tokens: Tensor  # [time, batch, vocabulary], given the punctuation before the target if the model learns it
    punctuation: Tensor | None  # [time, batch, classes], of the punctuation before the target
    weights: Tensor  # [batch], the fraction of a column's loss that compares with predictions instead of the text
    num_corpus_columns: int  # the teachers wrote the text of the columns after them

    def mix_losses(self, losses: Tensor, log_probs: Tensor, probs: Tensor) -> Tensor:
        """Mix losses `[time, batch]` with the cross-entropies of the teachers' `probs` `[time, batch, classes]`."""
        cross_entropies = -(probs * log_probs).sum(dim=-1)
        return (1 - self.weights) * losses + self.weights * cross_entropies


class Teachers:
    """Trained runs that predict the windows of the corpus, and write columns of text of their own."""

    def __init__(self, config: Config, dataset: Dataset, device: torch.device, num_columns: int) -> None:
        self.networks: list[Network] = []
        for run in load_teachers(config, dataset):
            # Exported embeddings include the vectors of subwords.
            teacher_config = run.config.with_values(subword_embeddings=False, init="")
            network = build_network(teacher_config, dataset, run.decoder.weights)
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


def recurrent_tensors(state: RecurrentState) -> dict[str, Tensor]:
    parts = ("hidden", "cell")
    return {f"{layer}.{parts[index]}": pair[index] for layer, pair in enumerate(state) for index in (0, 1)}


def load_recurrent_state(
    tensors: Mapping[str, Tensor], prefix: str, like: RecurrentState, shard: Callable[[Tensor], Tensor]
) -> RecurrentState:
    """Load what `recurrent_tensors` returned; a tensor of another shape or type than in `like` raises a ValueError."""
    loaded = []
    for name, expected in recurrent_tensors(like).items():
        tensor = shard(tensors[f"{prefix}{name}"])
        if tensor.shape != expected.shape or not tensor.is_floating_point():
            raise ValueError(f"unexpected shape or type of {prefix}{name}")
        loaded.append(tensor.to(expected.device))
    return list(zip(loaded[::2], loaded[1::2], strict=True))
