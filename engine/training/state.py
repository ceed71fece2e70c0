"""The mutable state of a training as one object, its device, and the file `resume.safetensors` that stores it."""

import array
import ctypes
import json
import math
import os
import random
import time
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from operator import index
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import psutil
import torch
from msgspec import Meta
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from engine.analysis.token_scores import choose_held_out_lines
from engine.config import Config, TrainingConfig
from engine.data.arrays import Float32Array, permute_lines
from engine.data.dataset import Dataset, batchify
from engine.errors import ConfigError, InvalidInputError, RunError
from engine.models.adapters import adapter_shapes
from engine.models.torch_ops import CROSS_ENTROPY_ROWS, MAX_EXPLICIT_TIME, RecurrentState
from engine.models.transformer import TransformerModel
from engine.models.weights import check_weights, head_size, inner_size, num_kv_heads, weight_shapes
from engine.runtime.distributed import SINGLE_PROCESS, DistributedContext
from engine.runtime.process import get_process_info
from engine.storage import files, tensor_file
from engine.training import TrainingInput, optim, teachers

Count = Annotated[int, Meta(ge=0, lt=2**53)]
Amount = Annotated[float, Meta(ge=0, lt=2.0**53)]
Factor = Annotated[float, Meta(ge=0, le=1)]

# M_ARENA_MAX, M_MMAP_THRESHOLD, M_TRIM_THRESHOLD and M_TOP_PAD of glibc's malloc.h. One arena for all threads, since
# another one than the first still returns large blocks.
ALLOCATOR_OPTIONS = ((-8, 1), (-3, 1 << 30), (-1, (1 << 31) - 1), (-2, 1 << 26))
MIN_BF16_UNITS = 400  # of a layer; from there, training in bfloat16 on a CPU was measured to be 1.5 times faster
MAX_MODEL_COPIES = 8  # in a checkpoint: weights, two moments, an average and the best weights
# Of a parameter: itself, its gradient, two moments and copies for the products; the last for what allocators lose.
ADAPTER_BYTES, MEMORY_MARGIN = 20, 1.1
MIN_PACKED = 1024  # numbers of a tensor; smaller ones are stored as they are
MAX_OTHER_BYTES = 256_000_000  # of a checkpoint: recurrent states and random generators
# What reading a damaged file, or loading its content, can raise.
CORRUPT_FILE_ERRORS = (
    InvalidInputError, SafetensorError, OSError, LookupError, TypeError, ValueError, ArithmeticError, RuntimeError,
    AttributeError, zlib.error,
)  # fmt: skip


def keep_freed_memory() -> None:
    """Let this process reuse freed memory, where glibc would return it, and request it again, a page at a time.

    Without this, a step of the preset `notebook` takes 1.2 times as long, one of `tiny` with 10,000 words 1.5 times.
    """
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):
        for option, value in ALLOCATOR_OPTIONS:
            library.mallopt(option, value)


def prepare_device(config: TrainingConfig) -> torch.device:
    """Set PyTorch's threads and the allocator, and return the configured device; a missing one raises a ConfigError.

    Several processes share all cores unless the number is configured, and have a GPU each.
    """
    keep_freed_memory()
    process = get_process_info()
    torch.set_num_threads(config.threads or max(1, (os.cpu_count() or 1) // process.local_world_size))
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


def training_memory(config: Config, num_tokens: int, device: torch.device, *, checkpointing: bool) -> int:
    """Return about how many bytes the training of an adapter takes on its device, with `num_tokens` in the vocabulary.

    For each token of a window, a layer keeps what its norms, products, attention and SwiGLU read, or its own input.
    """
    model, options, dtype = config.model, config.training, choose_dtype(config, device)
    width, size = model.embedding_size, head_size(model)
    layer = 4 * (width + model.num_heads * size + inner_size(model)) + 3 * num_kv_heads(model) * size
    if device.type == "cpu" and dtype == torch.bfloat16 and options.bptt <= MAX_EXPLICIT_TIME:
        layer += model.num_heads * options.bptt
    kept = model.num_layers * (width if checkpointing else layer) + 1.5 * layer  # and what a layer's gradients take
    numbers = kept * options.bptt * (options.batch_size // get_process_info().world_size)
    numbers += sum(map(math.prod, weight_shapes(model, num_tokens).values())) + 3 * CROSS_ENTROPY_ROWS * num_tokens
    adapter = ADAPTER_BYTES * sum(map(math.prod, adapter_shapes(model).values()))
    return int(MEMORY_MARGIN * (dtype.itemsize * numbers + adapter))


def plan_memory(config: Config, source: TrainingInput, device: torch.device) -> tuple[bool, str]:
    """Return whether a training checkpoints gradients, and a line about the memory that it needs: "" for no adapter.

    An adapter for which the device has too little free memory raises a ConfigError.
    """
    setting, num_tokens = config.training.gradient_checkpointing, len(source.dataset.tokenizer)
    if not config.model.lora_rank:
        return False, ""
    is_cuda = device.type == "cuda"
    free = torch.cuda.mem_get_info(device)[0] if is_cuda else psutil.virtual_memory().available
    # On the CPU, the model that answers the sample prompt is in the same memory.
    other = 0 if is_cuda or source.base is None else source.base.required_memory(int8=True)

    def required(size: int, *, checkpointing: bool) -> int:
        return other + training_memory(
            config.with_values(batch_size=size), num_tokens, device, checkpointing=checkpointing
        )

    size = config.training.batch_size
    checkpointing = setting == "true" or (setting == "auto" and required(size, checkpointing=False) > free)
    needed = required(size, checkpointing=checkpointing)
    memory = f"needs about {needed / 1e9:,.1f} GB of the {free / 1e9:,.1f} GB free on {device}"
    if needed <= free:
        return checkpointing, f"loading the base: {memory}{', with gradient checkpointing' if checkpointing else ''}"
    smaller = (size >> shift for shift in range(size.bit_length()))
    fitting = next((each for each in smaller if required(each, checkpointing=True) <= free), None)
    changes = [f"--set batch_size={fitting}"] if fitting != size else []
    changes += ["--set gradient_checkpointing=auto"] if setting == "false" else []
    remedy = f"use {' '.join(changes)}" if fitting else "choose a smaller model or another device"
    raise ConfigError(f"the training of this adapter {memory}; {remedy}")


class Epoch(NamedTuple):
    columns: Tensor  # tokens `[time, batch]`
    punctuation: Tensor | None  # `[time, batch]` as in `Window`
    is_scored: Tensor | None  # `[time, batch]`, False for names in a script; None if all targets weigh the same
    rng_state: tuple[Any, ...]  # of the generator before the epoch was drawn


@dataclass
class WindowReader:
    """Endless reader of the training split, window after window.

    A checkpoint stores the state of its generator before the epoch, from which the same epoch is built again.
    """

    dataset: Dataset
    options: TrainingConfig
    device: torch.device
    with_punctuation: bool
    rng: random.Random
    position: int = 0  # in the epoch
    epoch: Epoch | None = None  # that has windows left

    def next_window(self) -> optim.Window:
        """Return the next window, the first of a new epoch if the current epoch has been read."""
        epoch = self.epoch = self.epoch or self.begin_epoch()
        begin, num_targets, length = self.position, len(epoch.columns) - 1, self.options.bptt
        if self.options.variable_bptt:
            length = sample_bptt_length(length, self.rng)
        end = min(begin + length, num_targets)
        target_weights = None
        if epoch.is_scored is not None:
            weights = torch.where(epoch.is_scored[begin + 1 : end + 1], 1.0, self.options.name_weight)
            target_weights = weights / weights.mean().clamp_min(1e-9)
        self.position = end
        if end == num_targets:
            self.epoch = None
        return optim.Window(
            inputs=epoch.columns[begin:end].long(),
            targets=epoch.columns[begin + 1 : end + 1].long(),
            punctuation=None if epoch.punctuation is None else epoch.punctuation[begin:end].long(),
            target_weights=target_weights,
            start=begin / num_targets,
            end=end / num_targets,
        )

    def begin_epoch(self) -> Epoch:
        """Return the training tokens in the order of a new epoch, with their punctuation if the model learns it."""
        data, rng_state, self.position = self.dataset, self.rng.getstate(), 0
        tokens, punctuation = data.train, data.train_punctuation if self.with_punctuation else None
        if self.options.shuffle_lines:
            offsets = data.train_scene_offsets if data.mode == "dialogue" else data.train_offsets
            shuffled = array.array("i", range(len(offsets) - 1))  # a list needs nine times the memory
            self.rng.shuffle(shuffled)
            # Rotating the text moves the column borders, so the same tokens do not lose their context in every epoch.
            first, order = self.rng.randrange(len(tokens)), np.array(shuffled)
            tokens = permute_lines(tokens, offsets, order, first)
            punctuation = None if punctuation is None else permute_lines(punctuation, offsets, order, first)
        is_weighted = data.mode == "dialogue" and self.options.name_weight != 1
        columns = [
            None if text is None else torch.from_numpy(batchify(text, self.options.batch_size)).to(self.device)
            for text in (tokens, punctuation, data.scored_mask(tokens) if is_weighted else None)
        ]
        assert columns[0] is not None
        return Epoch(columns[0], columns[1], columns[2], rng_state)

    def state_dict(self) -> dict[str, Any]:
        epoch_rng_state = None if self.epoch is None else self.epoch.rng_state
        return {"position": self.position, "rng_state": self.rng.getstate(), "epoch_rng_state": epoch_rng_state}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue where `state_dict` was taken; damaged values raise an error of `CORRUPT_FILE_ERRORS`."""

        def set_rng_state(name: str) -> None:
            version, numbers, gauss = state_dict[name]  # JSON has no tuples
            self.rng.setstate((version, tuple(numbers), gauss))

        position = index(state_dict["position"])
        self.epoch = None
        if state_dict["epoch_rng_state"] is not None:
            set_rng_state("epoch_rng_state")
            self.epoch = self.begin_epoch()
            if not 0 <= position < len(self.epoch.columns):
                raise ValueError(f"position {position} is outside of the epoch")
        self.position = position
        set_rng_state("rng_state")


def sample_bptt_length(bptt: int, rng: random.Random) -> int:
    """Return the time steps of a window of variable length (Merity et al. 2017, section 4.1)."""
    return max(5, int(rng.gauss(bptt if rng.random() < 0.95 else bptt / 2, 5)))


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
    best_step: Count = 0  # of the best validation; 0 before the first step
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
        checkpointing, _ = plan_memory(config, source, device)
        build, weights = optim.NETWORKS[config.model.architecture].build, source.initial_weights
        self.network: optim.Network = build(config, dataset, weights, source.base, self.dtype).to(device)
        if isinstance(self.network, TransformerModel):
            self.network.checkpoints_gradients = checkpointing
        num_columns = options.batch_size // distributed.process.world_size
        self.num_columns = num_columns + options.teacher_columns  # of this process
        self.teachers = teachers.Teachers(config, dataset, device, num_columns) if options.teachers else None
        self.optimizer = optim.build_optimizer(self.network, options)
        self.weight_average: optim.WeightAverage | None = None
        if options.averaging == "ema":
            self.weight_average = optim.WeightAverage(self.network, options.ema_decay, is_pretrained=bool(options.init))
        self.best_weights: dict[str, Float32Array] | None = None  # None before the first validation
        # Lines whose words show what an adapter changes in its base.
        self.held_out_lines = choose_held_out_lines(dataset) if config.model.lora_rank else []
        self.windows = WindowReader(dataset, options, device, config.model.punctuation, random.Random(options.seed))
        self.recurrent_state: RecurrentState = []  # after the latest window, for the columns of this process
        self.dropout_generator = torch.Generator(device).manual_seed(options.seed)
        self.progress = TrainingProgress(end_epoch=options.epochs, sample_prompt=options.sample_prompt)
        # On the clock `time.perf_counter`, moved by pauses and by the time between two processes.
        self.start_time = time.perf_counter() if start_time is None else start_time

    def start_fine_tuning(self) -> None:
        """Continue with averaged SGD from the best weights (Merity et al. 2017, section 5)."""
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
        of_optimizer = self.optimizer.state_dict()["state"].items()
        parts: dict[str, Mapping[str, Tensor]] = {
            "network": dict(self.network.named_parameters()),
            "optimizer": {f"{number}.{key}": each for number, values in of_optimizer for key, each in values.items()},
            "average": {} if average is None else dict(average.network.named_parameters()),
        }
        if self.best_weights is not None:  # also a file of the run, which may be damaged when the run is resumed
            dtype = "float16" if self.config.model.lora_rank else "float32"  # as in that file
            best = {name: torch.from_numpy(each.astype(dtype, copy=False)) for name, each in self.best_weights.items()}
            parts["best_model"] = best
        if self.windows.epoch is not None:
            tensors = optim.recurrent_tensors(self.recurrent_state)
            parts["lstm_state"] = {name: gather(tensor) for name, tensor in tensors.items()}
            if self.teachers is not None:
                parts["teachers"] = self.teachers.state_dict(gather)
        return {
            "windows": self.windows.state_dict(),
            "averaged_updates": None if average is None else average.updates,
            "progress": asdict(replace(self.progress, seconds=time.perf_counter() - self.start_time)),
            "dropout_generator": self.dropout_generator.get_state(),
            **{f"{part}.{name}": tensor for part, tensors in parts.items() for name, tensor in tensors.items()},
        }

    def serialize(self) -> bytes | None:
        """Return the content of `resume.safetensors`; None except in the main process."""
        state_dict = self.state_dict()
        if self.distributed.process.rank != 0:
            return None
        values: dict[str, Any] = {k: v for k, v in state_dict.items() if not isinstance(v, Tensor)}
        # Tied weights are one tensor with two names; safetensors wants a copy for each name.
        tensors = {k: v.detach().cpu().contiguous().clone() for k, v in state_dict.items() if isinstance(v, Tensor)}
        packed = {k: v for k, v in tensors.items() if v.dtype == torch.float32 and v.numel() >= MIN_PACKED}
        values["packed_shapes"] = {name: list(tensor.shape) for name, tensor in packed.items()}
        tensors |= {name: pack_floats(tensor) for name, tensor in packed.items()}
        config = json.dumps(asdict(self.config))
        return tensor_file.seal(
            save(tensors, {**tensor_file.UNSEALED, "config": config, "trainer_state": json.dumps(values)})
        )

    def load_state_dict(self, state: Mapping[str, Any], progress: TrainingProgress) -> None:
        def part(prefix: str) -> dict[str, Tensor]:
            start = f"{prefix}."
            return {name.removeprefix(start): value for name, value in state.items() if name.startswith(start)}

        options = self.config.training
        self.progress = progress
        self.start_time -= progress.seconds
        _load_parameters(self.network, part("network"))
        self.best_weights = {name: tensor.float().numpy() for name, tensor in part("best_model").items()}
        model, num_tokens = self.config.model, len(self.dataset.tokenizer)
        check_weights(self.best_weights, adapter_shapes(model) if model.lora_rank else weight_shapes(model, num_tokens))
        if progress.fine_tuning:
            self.optimizer = optim.build_optimizer(self.network, options, fine_tuning=True)
        optim.load_optimizer_tensors(self.optimizer, part("optimizer"))
        if (updates := state["averaged_updates"]) is None:
            self.weight_average = None
        else:
            if self.weight_average is None or progress.fine_tuning:
                self.weight_average = optim.WeightAverage(self.network)
            _load_parameters(self.weight_average.network, part("average"))
            self.weight_average.updates = files.decode(int, updates)
        self.dropout_generator.set_state(state["dropout_generator"])
        self.windows.load_state_dict(state["windows"])
        if self.windows.epoch is not None:
            like, shard = self.network.initial_state(self.num_columns), self.distributed.shard_batch
            self.recurrent_state = optim.load_recurrent_state(state, "lstm_state.", like, shard)
            if self.teachers is not None:
                self.teachers.load_state_dict(part("teachers"), shard)


@torch.no_grad()
def _load_parameters(network: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    for name, parameter in network.named_parameters():
        tensor = tensors[name]
        if tensor.shape != parameter.shape or tensor.dtype != parameter.dtype:
            raise ValueError(f"unexpected shape or type of {name}")
        parameter.copy_(tensor)


def pack_floats(tensor: Tensor) -> Tensor:
    """Return the bytes of a float32 tensor with compressed exponents, which makes it a sixth smaller.

    The other three bytes of each number, of the sign and the mantissa, are as good as random.
    """
    bits = tensor.numpy().reshape(-1).view(np.uint32)
    numbers = ((bits << 1) | (bits >> 31)).astype("<u4").view(np.uint8).reshape(-1, 4)
    encoder = zlib.compressobj(1, strategy=zlib.Z_HUFFMAN_ONLY)
    exponents = encoder.compress(numbers[:, 3].tobytes()) + encoder.flush()
    return torch.from_numpy(np.concatenate([numbers[:, :3].reshape(-1), np.frombuffer(exponents, np.uint8)]))


def unpack_floats(packed: Tensor, shape: Sequence[int]) -> Tensor:
    """Return a tensor that `pack_floats` has packed; damaged bytes raise an error of `CORRUPT_FILE_ERRORS`."""
    count, content = math.prod(shape), packed.numpy()
    if packed.dtype != torch.uint8 or not 0 < 3 * count < len(content):
        raise ValueError(f"unexpected shape {shape} or type")
    numbers = np.empty((count, 4), np.uint8)
    numbers[:, :3] = content[: 3 * count].reshape(-1, 3)
    exponents = zlib.decompressobj().decompress(content[3 * count :].tobytes(), count + 1)  # and checks their checksum
    numbers[:, 3] = np.frombuffer(exponents, np.uint8)
    bits = numbers.view("<u4").reshape(shape).astype(np.uint32)
    return torch.from_numpy(((bits >> 1) | (bits << 31)).view(np.float32))


class ResumeCheckpoint:
    """A `resume.safetensors` file whose bytes were checked; the tensors are read by `restore`."""

    def __init__(self, path: Path) -> None:
        """Check a file and read its JSON values; a missing or damaged file raises a RunError."""
        self.path = path
        try:
            file = tensor_file.TensorFile(path)
            file.check_bytes()
            metadata, self._tensor_bytes = file.metadata, file.tensor_bytes
            self._config = Config.from_json(metadata["config"], str(path))
            self._values: dict[str, Any] = json.loads(metadata["trainer_state"])
            progress = self._values["progress"]
            if {item.name for item in fields(TrainingProgress)} - progress.keys():
                raise LookupError("values are missing")
            self.progress = files.decode(TrainingProgress, progress)
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
            for name, shape in self._values["packed_shapes"].items():
                tensors[name] = unpack_floats(tensors[name], shape)
            state.load_state_dict(self._values | tensors, self.progress)
        except CORRUPT_FILE_ERRORS as error:
            raise self._corrupt_file_error() from error

    def _corrupt_file_error(self) -> RunError:
        name = self.path.parent.name
        return RunError(f"{self.path} is damaged or not a checkpoint; start from the run's model with --init {name}")
