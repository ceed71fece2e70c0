"""Loading of models by name: of runs with adapters in PEFT's format, and of models by others. Never of pickles."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy.typing as npt

from engine.config import Config, DataConfig, DataMode, ModelConfig
from engine.data.arrays import Float32Array
from engine.data.speakers import CAST_FILE, cast_from_json
from engine.data.tokenizers.base import Tokenizer
from engine.data.tokenizers.loading import tokenizer_file_name, tokenizer_from_json
from engine.errors import InvalidInputError, RunError
from engine.events import Evaluated, RecordedEvent, Started
from engine.models.adapter import adapter_shapes, check_adapter, lora_targets
from engine.models.base import LanguageModel
from engine.models.decoders import NumpyDecoder, build_decoder, weight_shapes
from engine.models.dialogue import DialogueModel, SpeakerTextModel, TurnModel
from engine.models.pretrained.names import BASE_FILE, HF_PREFIX, SMOLLM2, is_pretrained_name, parse_pretrained_name
from engine.runs import directory
from engine.runs.directory import find_run, needs_base, read_config, resolve_run
from engine.runs.metrics import drop_superseded, read_current_events, read_events
from engine.runs.summary import finite_or_none, saved_perplexity
from engine.storage.files import default_runs_dir
from engine.storage.schema import read_run_json, read_run_text
from engine.storage.tensor_file import UNSEALED, StoredTensor, open_weights, serialize_weights, to_float32

if TYPE_CHECKING:  # runs without a base need none of the modules that read one
    from engine.models.pretrained.base import Base, ProgressCallback

InferencePrecision = Literal["auto", "fp32", "int8"]
PRETRAINED_CONFIG = Config("pretrained", data=DataConfig(corpus="", tokenizer="pretrained", mode="stream"))
"""Configuration of a model by others, of which only the data matter: line ends are characters."""
PEFT_PREFIX, BASE_HASH = "base_model.model.", "base_sha256"  # of the names of tensors, and in the metadata
HUB_IDS = {SMOLLM2: "HuggingFaceTB/SmolLM2-135M-Instruct"}  # of bases that are called otherwise here
MAX_REFERENCE_BYTES, MAX_FILE_BYTES = 1_000_000, 64_000_000  # a vocabulary of a million words needs about 15 million


@dataclass(frozen=True)
class EpochCheckpoint:
    """Weights that a run keeps after a whole epoch, whether they are the best or not."""

    epoch: int
    valid_perplexity: float | None


@dataclass(frozen=True)
class BaseReference:
    name: str  # that `read_base` takes, with an absolute path
    sha256: str


@dataclass(frozen=True)
class DialogueParts:
    """Everything that a played dialogue model has besides its network."""

    run_dir: Path
    cast: tuple[str, ...]  # canonical names of the speakers that can be chosen to speak; the last is SOMEONE
    turn_model: TurnModel | None = None  # of who speaks next; None for a model that was exported without its parts

    def wrap(self, model: LanguageModel) -> DialogueModel:
        """Return `model` with all parts of the run; parts of another cast raise an InvalidInputError."""
        if self.turn_model is None:
            return DialogueModel(model, self.cast)
        read_text_model = partial(read_run_json, SpeakerTextModel, self.run_dir / directory.WHO_FILE, MAX_FILE_BYTES)
        return DialogueModel(model, self.cast, self.turn_model, read_text_model)


@dataclass(frozen=True)
class LoadedModel:
    """Model ready for inference, and facts about its training."""

    name: str  # of the run; RUN@EPOCH for the weights of an epoch
    path: Path  # run directory; of a model by others its folder or file
    config: Config
    decoder: LanguageModel  # network of the run, or the model by others
    valid_perplexity: float | None = None
    started: Started | None = None  # None if the metrics have none
    epoch: int | None = None
    description: str = ""  # family of the pre-trained model, with layers and size where it has no adapter
    dialogue_parts: DialogueParts | None = None  # None in other modes

    @cached_property
    def model(self) -> LanguageModel:
        """The model that people play with: a dialogue model in dialogue mode, and otherwise the network itself."""
        return self.decoder if self.dialogue_parts is None else self.dialogue_parts.wrap(self.decoder)

    @property
    def cast(self) -> tuple[str, ...]:
        """Speakers that can be chosen to speak; none except in dialogue mode."""
        return () if self.dialogue_parts is None else self.dialogue_parts.cast

    @property
    def bits_per_character(self) -> float | None:
        """Bits per character of the validation split; None if the metrics do not tell."""
        if self.started is None or self.valid_perplexity is None:
            return None
        return finite_or_none(self.started.bits_per_character(self.valid_perplexity))


@dataclass(frozen=True)
class LoadedRun(LoadedModel):
    decoder: NumpyDecoder


def load_model_by_name(
    name: str | None,
    runs_dir: Path | None = None,
    precision: InferencePrecision = "auto",
    on_progress: "ProgressCallback | None" = None,
) -> LoadedModel:
    """Load the best model of a run, the model RUN@EPOCH of an epoch, or a model by others, or raise InvalidInputError.

    A run is named as `resolve_run` accepts it, a model by others as `is_pretrained_name` does. `on_progress` is called
    while a model by others, or an adapter of one, is being loaded. The precision "auto" multiplies in 8 bits the
    weights that are stored in 8 bits, and those of models by others that need no transformers; "int8" all large ones.
    """
    if name is not None and is_pretrained_name(name):
        return _load_pretrained(name, precision, on_progress)
    return load_model(*find_model(name, runs_dir), precision, on_progress)


def find_model(name: str | None, runs_dir: Path | None = None) -> tuple[Path, int | None]:
    """Return the run directory of a run or of RUN@EPOCH, and the epoch."""
    is_run = name is not None and find_run(name, runs_dir or default_runs_dir()) is not None  # its name may have an "@"
    match = None if is_run else re.fullmatch(r"(.+)@([0-9]{1,9})", name or "", re.DOTALL)
    return resolve_run(match[1] if match else name, runs_dir), int(match[2]) if match else None


def _load_pretrained(name: str, precision: InferencePrecision, on_progress: "ProgressCallback | None") -> LoadedModel:
    # Imported here: Hugging Face's tokenizers, which models of words do not need.
    from engine.models.pretrained.base import UnsupportedModelError, read_base
    from engine.models.pretrained.chat import find_script_cast

    source = parse_pretrained_name(name)
    try:
        base = read_base(name, on_progress)
    except UnsupportedModelError as error:
        if source.kind == "gguf":
            raise InvalidInputError(f"{error}; only its folder can be read: hf:FOLDER or hf:owner/name") from error
        if precision == "int8":
            raise InvalidInputError(f"{error}, for which there is no --precision int8; leave it out") from error
        # Imported here: it loads PyTorch and transformers.
        from engine.models.pretrained.loading import load_pretrained

        model = load_pretrained(name, on_progress)
        return LoadedModel(name, source.path, PRETRAINED_CONFIG, model, description=model.description)
    config, parts = replace(PRETRAINED_CONFIG, model=base.config), None
    if cast := find_script_cast(base.chat, name):
        config, base = config.with_values(mode="dialogue"), base.for_scripts()
        parts = DialogueParts(source.path, cast)
    decoder = base.decoder(int8=precision != "fp32", on_progress=on_progress)
    return LoadedModel(name, source.path, config, decoder, description=base.description, dialogue_parts=parts)


def load_model(
    run_dir: Path,
    epoch: int | None = None,
    precision: InferencePrecision = "auto",
    on_progress: "ProgressCallback | None" = None,
) -> LoadedRun:
    """Load the best weights of a run, or the weights that it kept after `epoch`, or raise an InvalidInputError.

    An adapter is merged into its base, which takes a second, calls `on_progress`, and gives 8 bits or "fp32".
    """
    config = read_config(run_dir)
    all_events = list(read_events(run_dir / directory.METRICS_FILE, subsample=True))
    events = drop_superseded(all_events)
    name = directory.bundled_run_name(run_dir) or run_dir.name
    file, perplexity = find_weights(run_dir, config, epoch), saved_perplexity(all_events)
    if epoch is not None:
        perplexity, name = _perplexity_at_epoch(events, epoch), directory.epoch_model_name(name, epoch)
    decoder: NumpyDecoder
    if config.model.lora_rank:
        base, adapter = read_run_base(run_dir, config.data.mode), read_adapter(run_dir, config.model, file)
        description, is_int8 = f"{base.family} + adapter", precision != "fp32"
        try:
            decoder = base.decoder(int8=is_int8, on_progress=on_progress, config=config.model, adapter=adapter)
        except InvalidInputError as error:
            raise RunError(f"run {run_dir.name!r} with its base {error}, or train a new run") from error
    else:
        decoder, description = _read_decoder(file, *read_config_and_tokenizer(run_dir), precision), ""
    started = next((event for event in events if isinstance(event, Started)), None)
    parts = read_dialogue_parts(run_dir) if config.data.mode == "dialogue" else None
    return LoadedRun(name, run_dir, config, decoder, perplexity, started, epoch, description, parts)


def read_config_and_tokenizer(run_dir: Path) -> tuple[Config, Tokenizer]:
    """Read the configuration and the tokenizer of a run, which may be that of a pre-trained model."""
    config = read_config(run_dir)
    if needs_base(config):
        return config, read_run_base(run_dir, config.data.mode).tokenizer
    file = run_dir / tokenizer_file_name(config.data.tokenizer)
    return config, tokenizer_from_json(read_run_text(file, MAX_FILE_BYTES), str(file), config.data.tokenizer)


def tokenizer_files(tokenizer: Tokenizer) -> dict[str, bytes]:
    """Return name and content of the file of a tokenizer; there is none for one of a pre-trained model by others."""
    is_stored = tokenizer.name != "pretrained"
    return {tokenizer_file_name(tokenizer.name): tokenizer.to_json().encode()} if is_stored else {}


def read_dialogue_parts(run_dir: Path) -> DialogueParts:
    """Read the files of a run in dialogue mode; a missing or damaged file raises a RunError."""
    file = run_dir / CAST_FILE
    cast = cast_from_json(read_run_text(file, MAX_FILE_BYTES), str(file))
    return DialogueParts(run_dir, cast, read_run_json(TurnModel, run_dir / directory.DIALOGUE_FILE, MAX_FILE_BYTES))


def read_initial_weights(run_dir: Path, config: Config, tokenizer: Tokenizer) -> dict[str, Float32Array] | None:
    """Return the weights that the training of a run starts from; None for random ones, or the weights of a base."""
    if not config.training.init or is_pretrained_name(config.training.init):
        return None
    if config.model.lora_rank:
        file = open_weights(run_dir / directory.INITIAL_FILE, shapes := adapter_shapes(config.model))
        return {name: to_float32(file.read_weight(name)) for name in shapes}
    return _read_decoder(run_dir / directory.INITIAL_FILE, config, tokenizer).weights


def _read_decoder(
    file: Path, config: Config, tokenizer: Tokenizer, precision: InferencePrecision = "auto"
) -> NumpyDecoder:
    tensors = open_weights(file, shapes := weight_shapes(config.model, len(tokenizer)))
    weights = {name: tensors.read_weight(name) for name in shapes}
    if precision == "fp32":
        weights = {name: to_float32(weight) for name, weight in weights.items()}
    try:
        return build_decoder(config.model, tokenizer, weights, int8=precision == "int8")
    except RunError as error:
        raise RunError(f"{file}: {error}") from error
    finally:
        tensors.release_pages()  # products have copies of the matrices


def list_epoch_checkpoints(run_dir: Path) -> list[EpochCheckpoint]:
    """Return the epochs whose weights a run keeps, in ascending order; an empty list if there are none."""
    files = (run_dir / directory.EPOCHS_DIR).glob("*.safetensors")
    epochs = [int(file.stem) for file in files if re.fullmatch("[1-9][0-9]*", file.stem)]
    events = read_current_events(run_dir / directory.METRICS_FILE, subsample=True) if epochs else []
    return [EpochCheckpoint(epoch, _perplexity_at_epoch(events, epoch)) for epoch in sorted(epochs)]


def _perplexity_at_epoch(events: Sequence[RecordedEvent], epoch: int) -> float | None:
    """Return the validation perplexity of the latest evaluation after `epoch` whole epochs."""
    evaluations = [event for event in events if isinstance(event, Evaluated) and event.epoch == epoch]
    return finite_or_none(evaluations[-1].valid_perplexity) if evaluations else None


def find_weights(run_dir: Path, config: Config, epoch: int | None = None) -> Path:
    """Return the file of the best weights of a run, or of those of an epoch, if the run kept it."""
    if epoch is None:
        return run_dir / (directory.ADAPTER_FILE if config.model.lora_rank else directory.MODEL_FILE)
    kept = [str(item.epoch) for item in list_epoch_checkpoints(run_dir)]
    if str(epoch) not in kept:
        run_name = directory.bundled_run_name(run_dir) or run_dir.name
        others = f"{', '.join(kept)}, and the best model" if kept else "only the best model"
        raise RunError(f"run {run_name!r} did not keep epoch {epoch}; it kept {others}")
    return directory.epoch_weights_path(run_dir, epoch)


def base_files(base: "Base", config: ModelConfig) -> dict[str, bytes]:
    """Return name and content of the files of a new run that starts from `base`."""
    contents: dict[str, Any] = {BASE_FILE: asdict(BaseReference(base.name, base.sha256))}
    if config.lora_rank:
        alpha = float(config.lora_alpha)
        contents[directory.ADAPTER_CONFIG_FILE] = {
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
    return {name: json.dumps(content, indent=2).encode() for name, content in contents.items()}


def read_reference(run_dir: Path) -> BaseReference:
    """Read which pre-trained model a run starts from, or raise a RunError."""
    return read_run_json(BaseReference, run_dir / BASE_FILE, MAX_REFERENCE_BYTES)


def read_run_base(run_dir: Path, mode: DataMode) -> "Base":
    """Read the pre-trained model that a run starts from, which must not have changed since, for texts of a mode."""
    from engine.models.pretrained.base import read_base  # loads Hugging Face's tokenizers

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
    """Open the best adapter of a run, or that in `file`; its matrices are read at every access."""
    from engine.models.pretrained.base import LazyTensors

    file, shapes = file or run_dir / directory.ADAPTER_FILE, adapter_shapes(config)
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
