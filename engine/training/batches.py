"""The training split as BPTT windows, in an order that a checkpoint can restore."""

import array
import random
from dataclasses import dataclass, replace
from operator import index
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from engine.config import TrainingConfig
from engine.data.arrays import permute_lines
from engine.data.dataset import Dataset, batchify
from engine.data.tokenizers.base import TokenIds
from engine.data.tokenizers.words import PunctuationIds
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
    """Endless reader of the training split: cuts each epoch into columns and returns window after window.

    The order of the lines and the lengths of the windows come from one seeded generator. A checkpoint stores the
    state of that generator before the epoch, from which `load_state_dict` builds the same epoch again.
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
