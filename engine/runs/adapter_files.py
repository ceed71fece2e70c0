"""Runs that start from a pre-trained model by others: the model's name and hash, and the adapter in PEFT's format."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from engine.config import Config, DataMode, ModelConfig
from engine.errors import InvalidInputError, RunError
from engine.models.adapter import adapter_shapes, check_adapter, lora_targets
from engine.models.pretrained.names import BASE_FILE, HF_PREFIX, SMOLLM2
from engine.storage.schema import read_run_json
from engine.storage.tensor_file import UNSEALED, StoredTensor, open_weights, serialize_weights

if TYPE_CHECKING:  # runs without a base need none of the modules that read one
    from engine.models.numpy_transformer import NumpyTransformer
    from engine.models.pretrained.base import Base, ProgressCallback

ADAPTER_FILE, ADAPTER_CONFIG_FILE = "adapter_model.safetensors", "adapter_config.json"
PEFT_PREFIX, BASE_HASH = "base_model.model.", "base_sha256"  # of the names of tensors, and in the metadata
HUB_IDS = {SMOLLM2: "HuggingFaceTB/SmolLM2-135M-Instruct"}  # of bases that are called otherwise here
MAX_REFERENCE_BYTES = 1_000_000


@dataclass(frozen=True)
class BaseReference:
    name: str
    """Name that `read_base` takes, with an absolute path."""
    sha256: str


def needs_base(config: Config) -> bool:
    """Return True for a run whose tokenizer, and for an adapter also the weights, are those of a pre-trained model."""
    return config.data.tokenizer == "pretrained"


def base_files(base: "Base", config: ModelConfig) -> dict[str, bytes]:
    """Return name and content of the files of a new run that starts from `base`."""
    files = {BASE_FILE: json.dumps(asdict(BaseReference(base.name, base.sha256)), indent=2).encode()}
    if config.lora_rank:
        alpha = float(config.lora_alpha)
        settings = {
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": HUB_IDS.get(base.name, base.name.removeprefix(HF_PREFIX)),
            "r": config.lora_rank,
            "lora_alpha": int(alpha) if alpha.is_integer() else alpha,
            "lora_dropout": config.lora_dropout,
            "target_modules": lora_targets(config),
            "bias": "none",
            "inference_mode": True,
        }
        files[ADAPTER_CONFIG_FILE] = json.dumps(settings, indent=2).encode()
    return files


def read_reference(run_dir: Path) -> BaseReference:
    """Read which pre-trained model a run starts from; a missing or damaged file raises a RunError."""
    return read_run_json(BaseReference, run_dir / BASE_FILE, MAX_REFERENCE_BYTES)


def read_run_base(run_dir: Path, mode: DataMode) -> "Base":
    """Read the pre-trained model that a run starts from, which must not have changed since, for texts of a mode."""
    from engine.models.pretrained.store import read_base  # loads Hugging Face's tokenizers

    reference = read_reference(run_dir)
    try:
        base = read_base(reference.name)
    except InvalidInputError as error:
        raise RunError(f"run {run_dir.name!r} needs its base: {error}") from error
    if base.sha256 != reference.sha256:
        remedy = f"run `lotr-tui fetch {SMOLLM2}` again" if reference.name == SMOLLM2 else "restore it"
        raise RunError(
            f"{reference.name} has changed since run {run_dir.name!r} was trained: its SHA-256 was "
            f"{reference.sha256[:12]}… and is now {base.sha256[:12]}…; {remedy}, or train a new run"
        )
    return base.for_scripts() if mode == "dialogue" else base


def serialize_adapter(tensors: Mapping[str, npt.NDArray[Any]], base_sha256: str) -> bytes:
    named = {f"{PEFT_PREFIX}{name}": tensor for name, tensor in tensors.items()}
    return serialize_weights(named, {**UNSEALED, "format": "pt", BASE_HASH: base_sha256})


def read_adapter(run_dir: Path, config: ModelConfig, file: Path | None = None) -> Mapping[str, StoredTensor]:
    """Open the best adapter of a run, or that in `file`, whose matrices are read at every access.

    A file that is missing, damaged, or belongs to another base or configuration raises a RunError.
    """
    from engine.models.pretrained.base import LazyTensors

    file = file or run_dir / ADAPTER_FILE
    shapes = adapter_shapes(config)
    mapped = open_weights(file, {f"{PEFT_PREFIX}{name}": shape for name, shape in shapes.items()})
    expected = read_reference(run_dir).sha256
    if (sha256 := mapped.metadata.get(BASE_HASH, expected)) != expected:
        raise RunError(
            f"{file} is an adapter of another base, with the SHA-256 {sha256[:12]}… and not {expected[:12]}…; "
            "use the files of one run"
        )
    adapter = LazyTensors({name: partial(mapped.read_weight, f"{PEFT_PREFIX}{name}") for name in shapes})
    try:
        check_adapter(config, adapter)
    except RunError as error:
        raise RunError(f"{file}: {error}") from error
    return adapter


def load_adapted(
    run_dir: Path,
    config: Config,
    file: Path | None = None,
    *,
    int8: bool = True,
    on_progress: "ProgressCallback | None" = None,
) -> tuple["NumpyTransformer", str]:
    """Load the pre-trained model of a run with the run's adapter, in 8 bits or in single precision.

    Return the model, and the family of the pre-trained one, such as "SmolLM2".
    """
    base, adapter = read_run_base(run_dir, config.data.mode), read_adapter(run_dir, config.model, file)
    try:
        decoder = base.decoder(int8=int8, on_progress=on_progress, config=config.model, adapter=adapter)
    except InvalidInputError as error:
        raise RunError(f"run {run_dir.name!r} with its base {error}, or train a new run") from error
    return decoder, base.family
