"""The mutable state of a training as one object, its device, and the file `resume.safetensors` that stores it."""

import json
import math
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Any

import torch
from msgspec import Meta
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from engine.config import Config, TrainingConfig
from engine.data.arrays import Float32Array
from engine.errors import ConfigError, InvalidInputError, RunError
from engine.models.decoders import trained_shapes
from engine.models.matrices import check_weights
from engine.models.network import Network, build_network
from engine.models.torch_ops import RecurrentState
from engine.runs.directory import PREVIOUS_RESUME_FILE, RESUME_FILE
from engine.runtime.distributed import SINGLE_PROCESS, DistributedContext
from engine.runtime.process import get_process_info
from engine.storage.files import decode
from engine.storage.tensor_file import UNSEALED, TensorFile, seal
from engine.training import optim
from engine.training.initial_run import TrainingInput
from engine.training.windows import Teachers, Window, WindowReader, load_recurrent_state, recurrent_tensors

Count = Annotated[int, Meta(ge=0, lt=2**53)]
Amount = Annotated[float, Meta(ge=0, lt=2.0**53)]
Factor = Annotated[float, Meta(ge=0, le=1)]

MIN_BF16_UNITS = 400  # of a layer; from there, training in bfloat16 on a CPU was measured to be 1.5 times faster
MAX_MODEL_COPIES = 8  # in a checkpoint: five at most, some larger by merged subwords
MAX_OTHER_BYTES = 256_000_000  # of a checkpoint: recurrent states and random generators
# What reading a damaged file, or loading its content, can raise.
CORRUPT_FILE_ERRORS = (
    InvalidInputError, SafetensorError, OSError, LookupError, TypeError, ValueError, ArithmeticError, RuntimeError,
    AttributeError,
)  # fmt: skip


def choose_device(config: TrainingConfig) -> torch.device:
    """Return the configured device, of several processes an own GPU for each; a missing one raises a ConfigError."""
    process = get_process_info()
    is_single_process = process.world_size == 1
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    available = {
        "cuda": gpus >= process.local_world_size,
        "mps": is_single_process and torch.backends.mps.is_available(),
        "cpu": True,
    }
    best = next(name for name, is_available in available.items() if is_available)
    name = best if config.device == "auto" else config.device
    if not available[name]:
        problem = f"has {gpus} for {process.local_world_size} processes" if gpus else "has none that PyTorch can use"
        raise ConfigError(f"--device {name}: this machine {problem}; try --device cpu")
    return torch.device(name) if is_single_process or name != "cuda" else torch.device(name, process.local_rank)


def choose_dtype(config: Config, device: torch.device) -> torch.dtype:
    """Return the type of the matrix products; weights and losses are always float32."""
    precision, model = config.training.precision, config.model
    if precision != "auto":
        return torch.bfloat16 if precision == "bf16" else torch.float32
    width = model.embedding_size if model.architecture == "transformer" else model.hidden_size
    has_bf16 = False
    if device.type == "cuda":
        has_bf16 = torch.cuda.is_bf16_supported()
    elif device.type == "cpu" and width >= MIN_BF16_UNITS and hasattr(torch.cpu, "get_capabilities"):  # PyTorch 2.9
        capabilities = torch.cpu.get_capabilities()  # without hardware for it, products in bfloat16 are slow
        has_bf16 = any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16"))
    return torch.bfloat16 if has_bf16 else torch.float32


def set_num_threads(config: TrainingConfig) -> None:
    """Set the number of PyTorch's threads. Without a configured number, the processes share all cores."""
    torch.set_num_threads(config.threads or max(1, (os.cpu_count() or 1) // get_process_info().local_world_size))


@dataclass
class TrainingProgress:
    """Counters and decisions of a training: the part of the state that is JSON."""

    step: Count = 0  # optimizer steps done
    epoch: Amount = 0.0  # epochs done, with fraction
    epoch_index: Count = 0  # of the current or next epoch, counted from 0
    end_epoch: Count = 0  # epochs after which the current phase (training or fine-tuning) ends
    evaluation_due: bool = True
    evaluations_since_best: Count = 0
    valid_perplexities: list[float] = field(default_factory=list)  # of the phase, without that before its first step
    best_perplexity: float = math.inf
    initial_perplexity: float = math.nan  # before the first step
    notebook_perplexity: float = math.nan  # latest, if `validation_metric` is "notebook"
    plateau_factor: Factor = 1.0  # of the schedule "plateau": halved after each validation without improvement
    lr_scale: Factor = 1.0  # of the scheduled learning rate, set by a control command
    sample_prompt: str = ""
    fine_tuning: bool = False
    early_stopped: bool = False
    seconds: Amount = 0.0  # training time when the state was saved, without pauses


class TrainerState:
    """All that changes in a training: weights, optimizer, data order, random generators and counters."""

    def __init__(
        self,
        config: Config,
        source: TrainingInput,
        device: torch.device,
        distributed: DistributedContext = SINGLE_PROCESS,
        start_time: float | None = None,
    ) -> None:
        options, dataset = config.training, source.dataset
        self.config, self.dataset, self.distributed = config, dataset, distributed
        self.dtype = choose_dtype(config, device)
        network = build_network(config, dataset, source.initial_weights, source.base, self.dtype)
        self.network: Network = network.to(device)
        self._num_columns = options.batch_size // distributed.process.world_size
        self.teachers = Teachers(config, dataset, device, self._num_columns) if options.teachers else None
        self.optimizer = optim.build_optimizer(self.network, options)
        self.weight_average: optim.WeightAverage | None = None
        if options.averaging == "ema":
            self.weight_average = optim.WeightAverage(self.network, options.ema_decay, is_pretrained=bool(options.init))
        self.best_weights: dict[str, Float32Array] | None = None  # None before the first validation
        self.windows = WindowReader(dataset, options, device, with_punctuation=config.model.punctuation)
        self.recurrent_state: RecurrentState = []  # after the latest window, for the columns of this process
        self.dropout_generator = torch.Generator(device).manual_seed(options.seed)
        self.progress = TrainingProgress(end_epoch=options.epochs, sample_prompt=options.sample_prompt)
        # On the clock `time.perf_counter`, moved by pauses and by the time between two processes.
        self.start_time = time.perf_counter() if start_time is None else start_time

    @property
    def seconds(self) -> float:  # without pauses
        return time.perf_counter() - self.start_time

    def initial_recurrent_state(self) -> RecurrentState:
        return self.network.initial_state(self._num_columns + self.config.training.teacher_columns)

    def finish_step(self, window: Window) -> None:
        """Count the optimizer step on `window`, and decide if validation comes next."""
        options, progress = self.config.training, self.progress
        epoch_done = window.end == 1
        progress.step += 1
        progress.epoch = progress.epoch_index + window.end
        progress.epoch_index += epoch_done
        if epoch_done and progress.epoch_index == progress.end_epoch:
            progress.evaluation_due = True
        elif options.eval_every_steps:
            progress.evaluation_due = progress.step % options.eval_every_steps == 0
        else:
            progress.evaluation_due = epoch_done and progress.epoch_index % options.eval_every_epochs == 0

    def start_fine_tuning(self) -> None:
        """Go on with averaged SGD from the best weights (Merity et al. 2017, section 5)."""
        assert self.best_weights is not None, "fine-tuning starts from validated weights"
        options, progress = self.config.training, self.progress
        self.network.load_weights(self.best_weights)
        self.optimizer = optim.build_optimizer(self.network, options, fine_tuning=True)
        self.weight_average = optim.WeightAverage(self.network)
        self.windows.epoch = None
        progress.fine_tuning, progress.early_stopped = True, False
        progress.valid_perplexities, progress.evaluations_since_best = [], 0
        progress.epoch_index = math.ceil(progress.epoch)
        progress.end_epoch = progress.epoch_index + options.fine_tune_epochs

    def state_dict(self) -> dict[str, Any]:
        """Return tensors under dotted names, and JSON values; every process calls it, to gather its columns."""
        average, gather = self.weight_average, self.distributed.gather_batch
        parts: dict[str, Mapping[str, Tensor]] = {
            "network": dict(self.network.named_parameters()),
            "optimizer": optim.optimizer_tensors(self.optimizer),
            "average": {} if average is None else dict(average.network.named_parameters()),
            "best_model": {name: torch.from_numpy(weight) for name, weight in (self.best_weights or {}).items()},
        }
        if self.windows.epoch is not None:
            tensors = recurrent_tensors(self.recurrent_state)
            parts["lstm_state"] = {name: gather(tensor) for name, tensor in tensors.items()}
            if self.teachers is not None:
                parts["teachers"] = self.teachers.state_dict(gather)
        return {
            "windows": self.windows.state_dict(),
            "averaged_updates": None if average is None else average.updates,
            "progress": asdict(replace(self.progress, seconds=self.seconds)),
            "dropout_generator": self.dropout_generator.get_state(),
            **{f"{part}.{name}": tensor for part, tensors in parts.items() for name, tensor in tensors.items()},
        }

    def serialize(self) -> bytes | None:
        """Return the content of `resume.safetensors`; None except in the main process."""
        state_dict = self.state_dict()
        if self.distributed.process.rank != 0:
            return None
        # Tied weights are one tensor with two names; safetensors wants a copy for each name.
        tensors = {k: v.detach().cpu().contiguous().clone() for k, v in state_dict.items() if isinstance(v, Tensor)}
        values = {k: v for k, v in state_dict.items() if not isinstance(v, Tensor)}
        config = json.dumps(asdict(self.config))
        return seal(save(tensors, {**UNSEALED, "config": config, "trainer_state": json.dumps(values)}))

    def load_state_dict(self, state: Mapping[str, Any], progress: TrainingProgress) -> None:
        def part(prefix: str) -> dict[str, Tensor]:
            start = f"{prefix}."
            return {name.removeprefix(start): value for name, value in state.items() if name.startswith(start)}

        options = self.config.training
        self.progress = progress
        self.start_time -= progress.seconds
        _load_parameters(self.network, part("network"))
        self.best_weights = {name: tensor.numpy() for name, tensor in part("best_model").items()}
        check_weights(self.best_weights, trained_shapes(self.config.model, len(self.dataset.tokenizer)))
        if progress.fine_tuning:
            self.optimizer = optim.build_optimizer(self.network, options, fine_tuning=True)
        optim.load_optimizer_tensors(self.optimizer, part("optimizer"))
        if (updates := state["averaged_updates"]) is None:
            self.weight_average = None
        else:
            if self.weight_average is None or progress.fine_tuning:
                self.weight_average = optim.WeightAverage(self.network)
            _load_parameters(self.weight_average.network, part("average"))
            self.weight_average.updates = decode(int, updates)
        self.dropout_generator.set_state(state["dropout_generator"])
        self.windows.load_state_dict(state["windows"])
        if self.windows.epoch is not None:
            like, shard = self.initial_recurrent_state(), self.distributed.shard_batch
            self.recurrent_state = load_recurrent_state(state, "lstm_state.", like, shard)
            if self.teachers is not None:
                self.teachers.load_state_dict(part("teachers"), shard)


@torch.no_grad()
def _load_parameters(network: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    for name, parameter in network.named_parameters():
        tensor = tensors[name]
        if tensor.shape != parameter.shape or tensor.dtype != parameter.dtype:
            raise ValueError(f"unexpected shape or type of {name}")
        parameter.copy_(tensor)


class ResumeCheckpoint:
    """A `resume.safetensors` file whose bytes were checked; the tensors are read by `restore`."""

    def __init__(self, path: Path) -> None:
        """Check a file and read its JSON values; a missing or damaged file raises a RunError."""
        self.path = path
        try:
            file = TensorFile(path)
            file.check_bytes()
            metadata, self._tensor_bytes = file.metadata, file.tensor_bytes
            self._config = Config.from_json(metadata["config"], str(path))
            self._values: dict[str, Any] = json.loads(metadata["trainer_state"])
            progress = self._values["progress"]
            if {item.name for item in fields(TrainingProgress)} - progress.keys():
                raise LookupError("values are missing")
            self.progress = decode(TrainingProgress, progress)
            self.progress.sample_prompt.encode()  # a lone surrogate cannot be displayed
        except FileNotFoundError as error:
            raise RunError(f"{path} is missing; the run cannot be resumed") from error
        except CORRUPT_FILE_ERRORS as error:
            raise self._corrupt_file_error() from error

    def check_config(self, config: Config) -> None:
        """Raise a RunError that names the first setting in which `config` differs from the training that was saved."""
        if change := self._config.difference(config):
            name, before, now = change
            raise RunError(
                f"{self.path} was saved with {name}={before}, but the configuration has {name}={now}; set {name} back, "
                "or train a new run"
            )

    def restore(self, state: TrainerState) -> None:
        """Load the tensors, and restore the saved `state`; tensors of another training raise a RunError."""
        try:
            parameters = sum(parameter.numel() for parameter in state.network.parameters())
            if self._tensor_bytes > 4 * MAX_MODEL_COPIES * parameters + MAX_OTHER_BYTES:
                raise ValueError("the file contains more tensors than a training has")
            with safe_open(self.path, framework="pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            state.load_state_dict(self._values | tensors, self.progress)
        except CORRUPT_FILE_ERRORS as error:
            raise self._corrupt_file_error() from error

    def _corrupt_file_error(self) -> RunError:
        return RunError(f"{self.path} is damaged or not a checkpoint; the run cannot be resumed from it")


def load_latest_checkpoint(run_dir: Path) -> tuple[ResumeCheckpoint | None, str]:
    """Return the latest usable checkpoint of a run, if there is one, and a warning if it is not the last one written.

    It replaces a damaged one, which the next save would keep as the previous one. If all are damaged, a RunError is
    raised.
    """
    path, previous = run_dir / RESUME_FILE, run_dir / PREVIOUS_RESUME_FILE
    if not path.exists() and not previous.exists():
        return None, ""
    try:
        return ResumeCheckpoint(path), ""
    except RunError as error:
        problem = "damaged" if path.exists() else "missing"
        try:
            ResumeCheckpoint(previous)
            previous.replace(path)
        except (RunError, OSError):
            raise error from None
        checkpoint = ResumeCheckpoint(path)
        step = checkpoint.progress.step
        return checkpoint, f"{path} was {problem}; resuming from the previous checkpoint, at step {step:,}"
