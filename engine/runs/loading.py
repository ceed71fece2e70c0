"""Loading of models by name: of runs with adapters in PEFT's format, and of models by others. Never of pickles."""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy.typing as npt

from engine.config import Config, DataConfig, DataMode, ModelConfig
from engine.data.arrays import Float32Array
from engine.data.speakers import CAST_FILE, cast_from_json
from engine.data.tokenizers import TOKENIZER_FILES, Tokenizer, tokenizer_from_json
from engine.errors import InvalidInputError, RunError
from engine.events import Evaluated, RecordedEvent, Started
from engine.models.base import LanguageModel
from engine.models.dialogue import DialogueModel, SpeakerTextModel, TurnModel
from engine.models.numpy_lstm import NumpyLSTM
from engine.models.numpy_transformer import NumpyTransformer
from engine.models.pretrained.names import BASE_FILE, HF_PREFIX, SMOLLM2, is_pretrained_name, parse_pretrained_name
from engine.models.weights import MAX_ADAPTER_WEIGHT, adapter_shapes, check_weights, lora_targets, weight_shapes
from engine.runs import directory
from engine.runs.metrics import drop_superseded, read_events
from engine.storage.files import default_runs_dir
from engine.storage.tensor_file import UNSEALED, StoredTensor, open_weights, serialize_weights, to_float32

if TYPE_CHECKING:  # runs without a base need none of the modules that read one
    from engine.models.pretrained.base import Base, ProgressCallback

InferencePrecision = Literal["auto", "fp32", "int8"]
NumpyDecoder = NumpyLSTM | NumpyTransformer
# Of a model by others, whose line ends are characters.
PRETRAINED_CONFIG = Config("pretrained", data=DataConfig(corpus="", tokenizer="pretrained", mode="stream"))
PEFT_PREFIX, BASE_HASH = "base_model.model.", "base_sha256"  # of the names of tensors, and in the metadata


@dataclass(frozen=True)
class BaseReference:
    name: str  # that `read_base` takes, with an absolute path
    sha256: str


@dataclass(frozen=True)
class LoadedModel:
    """Model ready for inference, with the facts about its training, which are read when they are used."""

    name: str  # of the run; RUN@EPOCH for the weights of an epoch
    path: Path  # run directory; of a model by others its folder or file
    config: Config
    decoder: LanguageModel  # network of the run, or the model by others
    epoch: int | None = None
    description: str = ""  # family of the pre-trained model, with layers and size where it has no adapter
    with_cast: Callable[[LanguageModel], LanguageModel] = lambda network: network  # adds the parts of a dialogue model

    @cached_property
    def model(self) -> LanguageModel:
        """The model that people play with; parts of another cast raise an InvalidInputError."""
        return self.with_cast(self.decoder)

    @cached_property
    def _events(self) -> list[RecordedEvent]:
        return list(read_events(self.path / directory.METRICS_FILE, subsample=True))

    @property
    def started(self) -> Started | None:
        return next((event for event in self._events if isinstance(event, Started)), None)

    @property
    def valid_perplexity(self) -> float | None:
        if self.epoch is None:
            return directory.saved_perplexity(self._events)
        return _epoch_perplexities(self._events).get(self.epoch)

    @property
    def bits_per_character(self) -> float | None:
        """Bits per character of the validation split; None if the metrics do not tell."""
        if self.started is None or self.valid_perplexity is None:
            return None
        return directory.finite_or_none(self.started.bits_per_character(self.valid_perplexity))


@dataclass(frozen=True)
class LoadedRun(LoadedModel):
    decoder: NumpyDecoder


def load_model_by_name(
    name: str | None,
    runs_dir: Path | None = None,
    precision: InferencePrecision = "auto",
    on_progress: "ProgressCallback | None" = None,
) -> LoadedModel:
    """Load the best model of a run, RUN@EPOCH, or a model by others, or raise an InvalidInputError.

    "auto" multiplies in 8 bits the weights that are stored so, and models by others without transformers.
    """
    if name is None or not is_pretrained_name(name):
        return load_model(*find_model(name, runs_dir), precision, on_progress)
    # Imported here: Hugging Face's tokenizers, which models of words do not need.
    from engine.models.pretrained.base import UnsupportedModelError
    from engine.models.pretrained.chat import find_script_cast
    from engine.models.pretrained.folders import read_base

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
    config, parts = replace(PRETRAINED_CONFIG, model=base.config), dict[str, Any]()
    if cast := find_script_cast(base.chat, name):
        config, base = config.with_values(mode="dialogue"), base.for_scripts()
        parts = {"with_cast": partial(DialogueModel, cast=cast)}
    decoder = base.decoder(int8=precision != "fp32", on_progress=on_progress)
    return LoadedModel(name, source.path, config, decoder, description=base.description, **parts)


def find_model(name: str | None, runs_dir: Path | None = None) -> tuple[Path, int | None]:
    """Return the run directory of a run or of RUN@EPOCH, and the epoch."""
    match = re.fullmatch(r"(.+)@([0-9]{1,9})", name or "", re.DOTALL)
    if match is None or directory.find_run(match[0], runs_dir or default_runs_dir()):  # its name may have an "@"
        return directory.resolve_run(name, runs_dir), None
    return directory.resolve_run(match[1], runs_dir), int(match[2])


def load_model(
    run_dir: Path,
    epoch: int | None = None,
    precision: InferencePrecision = "auto",
    on_progress: "ProgressCallback | None" = None,
) -> LoadedRun:
    """Load the best weights of a run, or those after `epoch`; an adapter is merged into its base, in about a second."""
    config = directory.read_config(run_dir)
    name = directory.bundled_run_name(run_dir) or run_dir.name
    file, description = find_weights(run_dir, config, epoch), ""
    decoder: NumpyDecoder
    if config.model.lora_rank:
        base, adapter = read_run_base(run_dir, config.data.mode), read_adapter(run_dir, config.model, file)
        description, is_int8 = f"{base.family} + adapter", precision != "fp32"
        try:
            decoder = base.decoder(int8=is_int8, on_progress=on_progress, adapter=(config.model, adapter))
        except InvalidInputError as error:
            raise RunError(f"run {run_dir.name!r} with its base {error}, or train a new run") from error
    else:
        decoder = _read_decoder(file, *read_config_and_tokenizer(run_dir), precision)
    loaded = LoadedRun(name if epoch is None else f"{name}@{epoch}", run_dir, config, decoder, epoch, description)
    return replace(loaded, with_cast=read_dialogue_parts(run_dir)) if config.data.mode == "dialogue" else loaded


def read_config_and_tokenizer(run_dir: Path) -> tuple[Config, Tokenizer]:
    """Read the configuration of a run and its tokenizer, or the one of its base."""
    config = directory.read_config(run_dir)
    if directory.needs_base(config):
        return config, read_run_base(run_dir, config.data.mode).tokenizer
    file = run_dir / TOKENIZER_FILES[config.data.tokenizer]
    return config, tokenizer_from_json(directory.read_text(file), str(file), config.data.tokenizer)


def read_dialogue_parts(run_dir: Path) -> Callable[[LanguageModel], DialogueModel]:
    """Return what makes a dialogue model of a network; a missing or damaged file of the run raises a RunError."""
    file = run_dir / CAST_FILE
    cast = cast_from_json(directory.read_text(file), str(file))
    turn_model = directory.read_json(TurnModel, run_dir / directory.DIALOGUE_FILE)
    read_text_model = partial(directory.read_json, SpeakerTextModel, run_dir / directory.WHO_FILE)
    return partial(DialogueModel, cast=cast, turn_model=turn_model, load_text_model=read_text_model)


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
        network = NumpyTransformer if config.model.architecture == "transformer" else NumpyLSTM
        return network(config.model, tokenizer, weights, int8=precision == "int8")
    except RunError as error:
        raise RunError(f"{file}: {error}") from error
    finally:
        tensors.release_pages()  # products have copies of the matrices


def list_epoch_checkpoints(run_dir: Path) -> dict[int, float | None]:
    """Return the validation perplexity of each epoch whose weights a run keeps, in ascending order; None if unknown."""
    files = (run_dir / directory.EPOCHS_DIR).glob("*.safetensors")
    epochs = sorted(int(file.stem) for file in files if re.fullmatch("[1-9][0-9]*", file.stem))
    events = read_events(run_dir / directory.METRICS_FILE, subsample=True) if epochs else []
    perplexities = _epoch_perplexities(events)
    return {epoch: perplexities.get(epoch) for epoch in epochs}


def _epoch_perplexities(events: Iterable[RecordedEvent]) -> dict[float, float | None]:
    evaluations = [event for event in drop_superseded(events) if isinstance(event, Evaluated)]
    return {event.epoch: directory.finite_or_none(event.valid_perplexity) for event in evaluations}


def find_weights(run_dir: Path, config: Config, epoch: int | None = None) -> Path:
    """Return the file of the best weights of a run, or of an epoch that it kept."""
    if epoch is None:
        return run_dir / (directory.ADAPTER_FILE if config.model.lora_rank else directory.MODEL_FILE)
    kept = list_epoch_checkpoints(run_dir)
    if epoch not in kept:
        run_name = directory.bundled_run_name(run_dir) or run_dir.name
        others = f"{', '.join(map(str, kept))}, and the best model" if kept else "only the best model"
        raise RunError(f"run {run_name!r} did not keep epoch {epoch}; it kept {others}")
    return run_dir / directory.EPOCHS_DIR / f"{epoch}.safetensors"


def base_files(base: "Base", config: ModelConfig) -> dict[str, bytes]:
    """Return name and content of the files of a new run that starts from `base`."""
    contents: dict[str, Any] = {BASE_FILE: asdict(BaseReference(base.name, base.sha256))}
    if config.lora_rank:
        alpha, hub_id = float(config.lora_alpha), "HuggingFaceTB/SmolLM2-135M-Instruct"
        contents[directory.ADAPTER_CONFIG_FILE] = {
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": hub_id if base.name == SMOLLM2 else base.name.removeprefix(HF_PREFIX),
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
    return directory.read_json(BaseReference, run_dir / BASE_FILE)


def read_run_base(run_dir: Path, mode: DataMode) -> "Base":
    """Read the pre-trained model that a run starts from, which must not have changed since, for texts of a mode."""
    from engine.models.pretrained.folders import read_base  # loads Hugging Face's tokenizers

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


def read_adapter(run_dir: Path, config: ModelConfig, file: Path) -> Mapping[str, StoredTensor]:
    """Open an adapter of a run; its matrices are read at every access."""
    from engine.models.pretrained.base import LazyTensors

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
        check_weights(adapter, shapes, MAX_ADAPTER_WEIGHT)
    except RunError as error:
        raise RunError(f"{file}: {error}") from error
    return adapter
