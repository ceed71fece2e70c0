"""The training split as BPTT windows, in an order that a checkpoint can restore."""

import array
import random
from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import torch
from msgspec import Meta
from torch import Tensor

from engine.config import TrainingConfig
from engine.data.arrays import permute_lines
from engine.data.dataset import Dataset, ScalarT, batchify
from engine.data.punctuation import PunctuationIds
from engine.data.tokenizers.base import TokenIds
from engine.runtime.distributed import DistributedContext
from engine.storage.schema import decode


@dataclass(frozen=True)
class Window:
    """One BPTT window of the training split."""

    inputs: Tensor
    """Token ids `[time, batch]`."""
    targets: Tensor
    """Token ids `[time, batch]`, each the successor of the input at the same position."""
    punctuation: Tensor | None
    """Punctuation class after each input `[time, batch]`; None if the model does not learn punctuation."""
    target_weights: Tensor | None
    """Factor `[time, batch]` of the loss of each target, 1 on average over all columns; None for 1 everywhere."""
    start: float
    """Fraction of the epoch read before this window; 0 for the first window of an epoch."""
    end: float
    """Fraction of the epoch read after this window; 1 for the last window of an epoch."""

    def shard(self, distributed: DistributedContext) -> "Window":
        """Return the columns of the batch that belong to this process."""
        return replace(
            self,
            inputs=distributed.shard_batch(self.inputs),
            targets=distributed.shard_batch(self.targets),
            punctuation=None if self.punctuation is None else distributed.shard_batch(self.punctuation),
            target_weights=None if self.target_weights is None else distributed.shard_batch(self.target_weights),
        )


@dataclass(frozen=True)
class _ReaderState:
    """The JSON form of a `WindowReader`'s state."""

    position: Annotated[int, Meta(ge=0)]
    """Time steps of the current epoch that have been read."""
    rng_state: list[Any]
    """State of the random number generator now, as `random.Random.getstate` returns it."""
    epoch_rng_state: list[Any] | None
    """State of the random number generator before the current epoch; None between two epochs."""


class WindowReader:
    """Endless reader of the training split: cuts each epoch into columns and returns window after window.

    The order of the lines and the lengths of the windows come from one seeded generator. A checkpoint stores the
    state of that generator before the epoch, from which `load_state_dict` builds the same epoch again.
    """

    def __init__(
        self,
        dataset: Dataset,
        options: TrainingConfig,
        device: torch.device,
        *,
        with_punctuation: bool,
    ) -> None:
        """Start before the first epoch."""
        self._dataset = dataset
        self._options = options
        self._device = device
        self._with_punctuation = with_punctuation
        self._rng = random.Random(options.seed)
        self._epoch_rng_state: tuple[Any, ...] | None = None
        self._columns: Tensor | None = None
        self._punctuation: Tensor | None = None
        self._is_scored: Tensor | None = None
        self.position = 0
        """Time steps of the current epoch that have been read."""

    @property
    def is_mid_epoch(self) -> bool:
        """True if the current epoch has windows left."""
        return self._columns is not None

    def next_window(self) -> Window:
        """Return the next window, the first of a new epoch if the current epoch has been read."""
        if self._columns is None:
            self._begin_epoch()
        assert self._columns is not None
        columns, begin = self._columns, self.position
        num_targets = len(columns) - 1
        end = min(begin + sample_bptt_length(self._options, self._rng), num_targets)
        window = Window(
            inputs=columns[begin:end].long(),
            targets=columns[begin + 1 : end + 1].long(),
            punctuation=None if self._punctuation is None else self._punctuation[begin:end].long(),
            target_weights=None if self._is_scored is None else self._weigh(self._is_scored[begin + 1 : end + 1]),
            start=begin / num_targets,
            end=end / num_targets,
        )
        self.position = end
        if end == num_targets:
            self.discard_epoch()
        return window

    def _weigh(self, is_scored: Tensor) -> Tensor:
        """Return the factors of the losses of targets `[time, batch]`, of which some are names in a script."""
        weights = torch.where(is_scored, 1.0, self._options.name_weight)
        return weights / weights.mean().clamp_min(1e-9)

    def discard_epoch(self) -> None:
        """Drop the rest of the current epoch; the next window starts a new one."""
        self._columns = self._punctuation = self._is_scored = self._epoch_rng_state = None

    def draw_epoch(self) -> tuple[TokenIds, PunctuationIds | None]:
        """Return the training tokens `[time]` in the order of a new epoch, and their punctuation if it is learned."""
        data = self._dataset
        punctuation = data.train_punctuation if self._with_punctuation else None
        if not self._options.shuffle_lines:
            return data.train, punctuation
        offsets = data.train_scene_offsets if data.mode == "dialogue" else data.train_lines.offsets
        shuffled = array.array("i", range(len(offsets) - 1))  # a list needs nine times the memory
        self._rng.shuffle(shuffled)
        # Rotating the text moves the column borders, so the same tokens do not lose their context in every epoch.
        first = self._rng.randrange(len(data.train))
        order = np.array(shuffled)
        tokens = permute_lines(data.train, offsets, order, first)
        return tokens, None if punctuation is None else permute_lines(punctuation, offsets, order, first)

    def _begin_epoch(self) -> None:
        """Draw the order of the next epoch and cut the text into `batch_size` columns."""
        rng_state = self._rng.getstate()
        tokens, punctuation = self.draw_epoch()
        self._columns = self._to_columns(tokens)
        self._punctuation = None if punctuation is None else self._to_columns(punctuation)
        if self._dataset.mode == "dialogue" and self._options.name_weight != 1:
            self._is_scored = self._to_columns(self._dataset.scored_mask(tokens))
        self._epoch_rng_state, self.position = rng_state, 0

    def _to_columns(self, values: npt.NDArray[ScalarT]) -> Tensor:
        return torch.from_numpy(batchify(values, self._options.batch_size)).to(self._device)

    def state_dict(self) -> dict[str, Any]:
        """Return the position and the generator states as JSON values."""
        before = self._epoch_rng_state
        return asdict(_ReaderState(self.position, list(self._rng.getstate()), None if before is None else list(before)))

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue where `state_dict` was taken, with the same windows as if reading had never stopped.

        Raises:
            InvalidInputError: If a value has the wrong type.
            ValueError: If a generator state is damaged, or the position lies outside of the epoch.
        """
        state = decode(_ReaderState, state_dict)
        self.discard_epoch()
        if state.epoch_rng_state is not None:
            self._rng.setstate(_rng_state_from_json(state.epoch_rng_state))
            self._begin_epoch()
            assert self._columns is not None
            if state.position >= len(self._columns):
                raise ValueError(f"position {state.position} is behind the end of the epoch")
        self.position = state.position
        self._rng.setstate(_rng_state_from_json(state.rng_state))


def sample_bptt_length(options: TrainingConfig, rng: random.Random) -> int:
    """Return the length of the next BPTT window in time steps.

    With `variable_bptt`, the length is drawn around `bptt`, and in 5 % of the cases around half of it (Merity et al.
    2017, section 4.1).
    """
    if not options.variable_bptt:
        return options.bptt
    base = options.bptt if rng.random() < 0.95 else options.bptt / 2
    return max(5, int(rng.gauss(base, 5)))


def _rng_state_from_json(state: list[Any]) -> tuple[Any, ...]:
    """Convert the lists that JSON made of a `random.Random` state back to tuples."""
    version, numbers, gauss = state
    return version, tuple(numbers), gauss
