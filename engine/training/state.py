"""The mutable state of a training, as one object that a checkpoint stores."""

import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Annotated, Any

import torch
from msgspec import Meta
from torch import Tensor, nn

from engine.config import Config, TrainingConfig
from engine.data.arrays import Float32Array
from engine.data.dataset import Dataset
from engine.models.decoders import trained_shapes
from engine.models.network import Network, RecurrentState
from engine.models.networks import build_network
from engine.models.pretrained.base import Base
from engine.models.weight_checks import check_weights
from engine.runtime.distributed import SINGLE_PROCESS, DistributedContext
from engine.storage.schema import decode
from engine.training import optim
from engine.training.averaging import WeightAverage
from engine.training.batches import Window, WindowReader
from engine.training.device import choose_dtype
from engine.training.distillation.teachers import Teachers

Count = Annotated[int, Meta(ge=0, lt=2**53)]
Amount = Annotated[float, Meta(ge=0, lt=2.0**53)]
Factor = Annotated[float, Meta(ge=0, le=1)]

MAX_MODEL_COPIES = 8
"""Upper limit of a checkpoint's tensors, in copies of the model: five at most, some larger by merged subwords."""
MAX_RNG_STATE_BYTES = 1_000_000


@dataclass
class TrainingProgress:
    """Counters and decisions of a training: the part of the state that is JSON."""

    step: Count = 0
    """Optimizer steps done."""
    epoch: Amount = 0.0
    """Epochs done, with fraction."""
    epoch_index: Count = 0
    """Index of the current or next epoch, counted from 0."""
    end_epoch: Count = 0
    """Epochs after which the current phase (training or fine-tuning) ends."""
    evaluation_due: bool = True
    evaluations_since_best: Count = 0
    valid_perplexities: list[float] = field(default_factory=list)
    """Perplexities of the current phase; the one before its first step is left out."""
    best_perplexity: float = math.inf
    initial_perplexity: float = math.nan
    """Validation perplexity before the first step."""
    notebook_perplexity: float = math.nan
    """Latest value of the notebook's formula; NaN unless `validation_metric` is "notebook"."""
    plateau_factor: Factor = 1.0
    lr_scale: Factor = 1.0
    """Factor of the scheduled learning rate, set by a control command."""
    sample_prompt: str = ""
    fine_tuning: bool = False
    early_stopped: bool = False
    seconds: Amount = 0.0
    """Training time when the state was saved, without pauses."""

    def __post_init__(self) -> None:
        """Check that the sample prompt can be displayed: a lone surrogate raises a ValueError."""
        self.sample_prompt.encode()

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "TrainingProgress":
        """Build the progress from the JSON values of a checkpoint, which must be complete.

        Raises:
            LookupError: If a value is missing.
            InvalidInputError: If a value is unknown, has the wrong type or is out of range.
        """
        if missing := {item.name for item in fields(cls)} - values.keys():
            raise LookupError(f"missing values: {', '.join(sorted(missing))}")
        return decode(cls, values)


class TrainerState:
    """Everything that changes during a training: weights, optimizer, data order, random generators and counters."""

    def __init__(
        self,
        config: Config,
        dataset: Dataset,
        device: torch.device,
        distributed: DistributedContext = SINGLE_PROCESS,
        start_time: float | None = None,
        initial_weights: Mapping[str, Float32Array] | None = None,
        base: Base | None = None,
    ) -> None:
        """Initialize the generators from the configured seed, and the weights as `build_network` does.

        `start_time` is the time of `time.perf_counter` at which the training began; None for now.
        """
        options = config.training
        self.config = config
        self.tokenizer = dataset.tokenizer
        self.device = device
        self.distributed = distributed
        dtype = choose_dtype(config, device)
        self.network = build_network(config, dataset, initial_weights, base, dtype).to(device)
        self.teachers: Teachers | None = None
        """Trained runs that the training learns from; None if there are none."""
        if options.teachers:
            columns = options.batch_size // distributed.process.world_size
            self.teachers = Teachers.from_config(config, dataset, device, columns)
        self.optimizer = optim.build_optimizer(self.network, options)
        self.weight_average: WeightAverage | None = None
        if options.averaging == "ema":
            self.weight_average = WeightAverage(self.network, options.ema_decay, is_pretrained=bool(options.init))
        self.best_weights: dict[str, Float32Array] | None = None
        """Trained weights with the best validation perplexity; None before the first validation."""
        self.windows = WindowReader(dataset, options, device, with_punctuation=config.model.punctuation)
        self.recurrent_state: RecurrentState = []
        """State of the network after the latest window, for the columns of this process."""
        self.dropout_generator = torch.Generator(device).manual_seed(options.seed)
        self.progress = TrainingProgress(end_epoch=options.epochs, sample_prompt=options.sample_prompt)
        self.start_time = time.perf_counter() if start_time is None else start_time
        """Start on the clock `time.perf_counter`, moved by pauses and by the time between two processes."""

    @property
    def seconds(self) -> float:
        """Training time so far, without pauses."""
        return time.perf_counter() - self.start_time

    @property
    def evaluated_network(self) -> Network:
        """The network that validation scores: the averaged one if there is an average."""
        return self.network if self.weight_average is None else self.weight_average.network

    def finish_step(self, window: Window) -> None:
        """Count the optimizer step on `window`, and decide if validation comes next."""
        progress = self.progress
        progress.step += 1
        progress.epoch = progress.epoch_index + window.end
        epoch_done = window.end == 1
        progress.epoch_index += epoch_done
        progress.evaluation_due = _is_evaluation_due(self.config.training, progress, epoch_done=epoch_done)

    def state_dict(self) -> dict[str, Any]:
        """Return tensors under dotted names, as `nn.Module.state_dict` does, and everything else as JSON values.

        Every process of a distributed training must call this method, since the main process gathers the
        recurrent state of all columns.
        """
        average, gather = self.weight_average, self.distributed.gather_batch
        recurrent_state = [(gather(hidden), gather(cell)) for hidden, cell in self.recurrent_state]
        state: dict[str, Any] = {
            "windows": self.windows.state_dict(),
            "averaged_updates": None if average is None else average.updates,
            "progress": asdict(replace(self.progress, seconds=self.seconds)),
            "dropout_generator": self.dropout_generator.get_state(),
        }
        state |= _add_prefix("network", dict(self.network.named_parameters()))
        state |= _add_prefix("optimizer", optim.optimizer_tensors(self.optimizer))
        if average is not None:
            state |= _add_prefix("average", dict(average.network.named_parameters()))
        if self.best_weights is not None:
            weights = {name: torch.from_numpy(weight) for name, weight in self.best_weights.items()}
            state |= _add_prefix("best_model", weights)
        if self.windows.is_mid_epoch:
            for layer, (hidden, cell) in enumerate(recurrent_state):
                state |= {f"lstm_state.{layer}.hidden": hidden, f"lstm_state.{layer}.cell": cell}
            if self.teachers is not None:
                state |= self.teachers.state_dict(gather)
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned, so that training continues bit for bit.

        Raises:
            InvalidInputError: If a JSON value has the wrong type or is out of range.
            LookupError: If a value is missing.
            ValueError: If a tensor has another shape or type, or a generator state is damaged.
        """
        options = self.config.training
        self.progress = TrainingProgress.from_dict(state["progress"])
        self.start_time -= self.progress.seconds
        _load_parameters(self.network, _strip_prefix("network", state))
        self.best_weights = {name: tensor.numpy() for name, tensor in _strip_prefix("best_model", state).items()}
        check_weights(self.best_weights, trained_shapes(self.config.model, len(self.tokenizer)))
        if self.progress.fine_tuning:
            self.optimizer = optim.build_fine_tuning_optimizer(self.network, options)
        optim.load_optimizer_tensors(self.optimizer, _strip_prefix("optimizer", state))
        self._load_weight_average(state)
        self.dropout_generator.set_state(state["dropout_generator"])
        self.windows.load_state_dict(state["windows"])
        if self.windows.is_mid_epoch:
            self._load_recurrent_state(state)
            if self.teachers is not None:
                self.teachers.load_state_dict(state, self.distributed.shard_batch)

    def _load_weight_average(self, state: Mapping[str, Any]) -> None:
        if state["averaged_updates"] is None:
            self.weight_average = None
            return
        if self.weight_average is None or self.progress.fine_tuning:
            self.weight_average = WeightAverage(self.network)
        _load_parameters(self.weight_average.network, _strip_prefix("average", state))
        self.weight_average.updates = decode(int, state["averaged_updates"])

    def _load_recurrent_state(self, state: Mapping[str, Any]) -> None:
        def load(name: str, expected: Tensor) -> Tensor:
            tensor = self.distributed.shard_batch(state[name])
            if tensor.shape != expected.shape or not tensor.is_floating_point():
                raise ValueError(f"unexpected shape or type of {name}")
            return tensor.to(self.device)

        self.recurrent_state = [
            (load(f"lstm_state.{layer}.hidden", hidden), load(f"lstm_state.{layer}.cell", cell))
            for layer, (hidden, cell) in enumerate(self.initial_recurrent_state())
        ]

    def initial_recurrent_state(self) -> RecurrentState:
        """Return the state before the first window of an epoch: zeros for the columns of this process."""
        columns = self.config.training.batch_size // self.distributed.process.world_size
        return self.network.initial_state(columns + (0 if self.teachers is None else self.teachers.num_columns))

    @property
    def max_tensor_bytes(self) -> int:
        """Upper limit for the tensors of a state with this configuration."""
        parameters = sum(parameter.numel() for parameter in self.network.parameters())
        networks = [self.network, *(() if self.teachers is None else self.teachers.networks)]
        columns = [pair for network in networks for pair in network.initial_state(1)]
        options = self.config.training
        num_columns = options.batch_size + options.teacher_columns
        recurrent = sum(hidden.numel() + cell.numel() for hidden, cell in columns) * num_columns
        written = 2 * options.teacher_columns  # last token and speaker of each text that teachers write
        return 4 * (MAX_MODEL_COPIES * parameters + recurrent + written) + MAX_RNG_STATE_BYTES


def _is_evaluation_due(options: TrainingConfig, progress: TrainingProgress, *, epoch_done: bool) -> bool:
    """Return True if validation comes before the next step."""
    if epoch_done and progress.epoch_index == progress.end_epoch:
        return True
    if options.eval_every_steps:
        return progress.step % options.eval_every_steps == 0
    return epoch_done and progress.epoch_index % options.eval_every_epochs == 0


def _add_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def _strip_prefix(prefix: str, state: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the tensors of `state` whose names start with "<prefix>.", without that prefix."""
    return {name.removeprefix(f"{prefix}."): value for name, value in state.items() if name.startswith(f"{prefix}.")}


@torch.no_grad()
def _load_parameters(network: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Copy `tensors` into the parameters of the same names. A tensor of another shape or type raises a ValueError."""
    for name, parameter in network.named_parameters():
        tensor = tensors[name]
        if tensor.shape != parameter.shape or tensor.dtype != parameter.dtype:
            raise ValueError(f"unexpected shape or type of {name}")
        parameter.copy_(tensor)
