"""Loading of models by name: of runs with adapters in PEFT's format, and of models by others. Never of pickles."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy.typing as npt

from engine.config import Config, DataConfig, DataMode, ModelConfig
from engine.data import speakers, tokenizers
from engine.data.arrays import Float32Array
from engine.errors import InvalidInputError, RunError
from engine.events import RecordedEvent, Started
from engine.models import dialogue, numpy_lstm, numpy_transformer, weights
from engine.models.adapters import MAX_ADAPTER_WEIGHT, Adapter, adapter_shapes, lora_targets
from engine.models.base import LanguageModel
from engine.models.pretrained import names
from engine.runs import directory
from engine.storage import files, tensor_file

if TYPE_CHECKING:  # runs without a base need none of the modules that read one
    from engine.models.pretrained.base import Base, ProgressCallback

# "auto" multiplies in 8 bits the weights that are stored so, and models by others without transformers.
InferencePrecision = Literal["auto", "fp32", "int8"]
NumpyDecoder = numpy_lstm.NumpyLSTM | numpy_transformer.NumpyTransformer
# Of a model by others, whose line ends are characters.
PRETRAINED_CONFIG = Config("pretrained", data=DataConfig(corpus="", tokenizer="pretrained", mode="stream"))
MAX_ADAPTERS = 3  # of a model
PEFT_PREFIX, BASE_HASH = "base_model.model.", "base_sha256"  # of the names of tensors, and in the metadata


@dataclass(frozen=True)
class BaseReference:
    name: str  # that `read_base` takes, with an absolute path
    sha256: str


@dataclass(frozen=True)
class LoadedModel:
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
        return list(directory.read_events(self.path / directory.METRICS_FILE, subsample=True))

    @property
    def started(self) -> Started | None:
        return next((event for event in self._events if isinstance(event, Started)), None)

    @property
    def valid_perplexity(self) -> float | None:
        return directory.saved_perplexity(self._events, self.epoch)

    @property
    def nothing_learned(self) -> str:
        """Line about a best model of step 0; "" about others."""
        return "" if self.epoch else directory.describe_step_0(self.config, self._events)

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
    adapters: Sequence[str] = (),
) -> LoadedModel:
    """Load the best model of a run, RUN@EPOCH, or a model by others, or raise an InvalidInputError.

    `adapters` are runs, or epochs of runs, whose adapters of the same base are put beside it.
    """
    others = [find_model(each, runs_dir) for each in adapters]
    if name is None or not names.is_pretrained_name(name):
        return load_model(*find_model(name, runs_dir), precision, on_progress, others)
    # Imported here: Hugging Face's tokenizers, which models of words do not need.
    from engine.models.pretrained.base import UnsupportedModelError
    from engine.models.pretrained.chat import find_script_cast
    from engine.models.pretrained.folders import read_base

    source = names.parse_pretrained_name(name)
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
    config = replace(PRETRAINED_CONFIG, model=base.config)
    if cast := find_script_cast(base.chat, name):
        config, base = config.with_values(mode="dialogue"), base.for_scripts()
    beside = read_adapters(others, base)
    decoder = base.decoder(int8=precision != "fp32", on_progress=on_progress, adapters=beside)
    loaded = LoadedModel(name, source.path, config, decoder, description=base.description)
    return replace(loaded, with_cast=partial(dialogue.DialogueModel, cast=cast)) if cast else loaded


def find_model(name: str | None, runs_dir: Path | None = None) -> tuple[Path, int | None]:
    """Return the run directory of a run or of RUN@EPOCH, and the epoch."""
    match = re.fullmatch(r"(.+)@([0-9]{1,9})", name or "", re.DOTALL)
    if match is None or directory.find_run(match[0], runs_dir or files.default_runs_dir()):  # a name with an "@"
        return directory.resolve_run(name, runs_dir), None
    return directory.resolve_run(match[1], runs_dir), int(match[2])


def load_model(
    run_dir: Path,
    epoch: int | None = None,
    precision: InferencePrecision = "auto",
    on_progress: "ProgressCallback | None" = None,
    other_adapters: Sequence[tuple[Path, int | None]] = (),
) -> LoadedRun:
    """Load the best weights of a run, or those after `epoch`, and the adapters of other runs beside its own."""
    config, description = directory.read_config(run_dir), ""
    decoder: NumpyDecoder
    if config.model.lora_rank:
        adapters, is_int8 = read_adapters([(run_dir, epoch), *other_adapters]), precision != "fp32"
        base = read_run_base(run_dir, config.data.mode)
        description = " + ".join([base.family, "adapter", *(adapter.name for adapter in adapters[1:])])
        try:
            decoder = base.decoder(int8=is_int8, on_progress=on_progress, adapters=adapters)
        except InvalidInputError as error:
            raise RunError(f"run {run_dir.name!r} with its base {error}, or train a new run") from error
    elif other_adapters:
        problem = f"run {run_dir.name!r} is no adapter, and has no base for adapters of other runs"
        raise InvalidInputError(f"{problem}; choose a run of `lotr-tui finetune`, or smollm2")
    else:
        file = _find_weights(run_dir, directory.MODEL_FILE, epoch)
        decoder = _read_decoder(file, *read_config_and_tokenizer(run_dir), precision)
    loaded = LoadedRun(model_name(run_dir, epoch), run_dir, config, decoder, epoch, description)
    return replace(loaded, with_cast=read_dialogue_parts(run_dir)) if config.data.mode == "dialogue" else loaded


def read_config_and_tokenizer(run_dir: Path) -> tuple[Config, tokenizers.Tokenizer]:
    """Read the configuration of a run and its tokenizer, or the one of its base."""
    config = directory.read_config(run_dir)
    if directory.needs_base(config):
        return config, read_run_base(run_dir, config.data.mode).tokenizer
    file = run_dir / tokenizers.TOKENIZER_FILES[name := config.data.tokenizer]
    text = directory.read_text(file)
    if name == "words" or name == "whitespace":
        return config, tokenizers.WordTokenizer.from_json(text, str(file), name)
    kind = tokenizers.BPETokenizer if name == "bpe" else tokenizers.CharacterTokenizer
    return config, kind.from_json(text, str(file))


def read_dialogue_parts(run_dir: Path) -> Callable[[LanguageModel], dialogue.DialogueModel]:
    """Return what makes a dialogue model of a network; a missing or damaged file of the run raises a RunError."""
    file = run_dir / speakers.CAST_FILE
    cast = speakers.cast_from_json(directory.read_text(file), str(file))
    turn_model = directory.read_json(dialogue.TurnModel, run_dir / directory.DIALOGUE_FILE)
    read_text_model = partial(directory.read_json, dialogue.SpeakerTextModel, run_dir / directory.WHO_FILE)
    return partial(dialogue.DialogueModel, cast=cast, turn_model=turn_model, load_text_model=read_text_model)


def read_initial_weights(
    run_dir: Path, config: Config, tokenizer: tokenizers.Tokenizer
) -> dict[str, Float32Array] | None:
    """Return the weights that the training of a run starts from; None for random ones, or the weights of a base."""
    if not config.training.init or names.is_pretrained_name(config.training.init):
        return None
    file = run_dir / directory.INITIAL_FILE
    if not config.model.lora_rank:
        return _read_decoder(file, config, tokenizer).weights
    tensors = tensor_file.open_weights(file, shapes := adapter_shapes(config.model))
    return {name: tensor_file.to_float32(tensors.read_weight(name)) for name in shapes}


def _read_decoder(
    file: Path, config: Config, tokenizer: tokenizers.Tokenizer, precision: InferencePrecision = "auto"
) -> NumpyDecoder:
    tensors = tensor_file.open_weights(file, shapes := weights.weight_shapes(config.model, len(tokenizer)))
    stored = {name: tensors.read_weight(name) for name in shapes}
    if precision == "fp32":
        stored = {name: tensor_file.to_float32(weight) for name, weight in stored.items()}
    try:
        is_transformer = config.model.architecture == "transformer"
        network = numpy_transformer.NumpyTransformer if is_transformer else numpy_lstm.NumpyLSTM
        return network(config.model, tokenizer, stored, int8=precision == "int8")
    except RunError as error:
        raise RunError(f"{file}: {error}") from error
    finally:
        tensors.release_pages()  # products have copies of the matrices


def list_epoch_checkpoints(run_dir: Path) -> dict[int, float | None]:
    """Return the validation perplexity of each epoch whose weights a run keeps, in ascending order; None if unknown."""
    weight_files = (run_dir / directory.EPOCHS_DIR).glob("[1-9]*.safetensors")
    epochs = sorted(int(file.stem) for file in weight_files if file.stem.isdecimal())
    recorded = list(directory.read_events(run_dir / directory.METRICS_FILE, subsample=True)) if epochs else []
    return {epoch: directory.saved_perplexity(recorded, epoch) for epoch in epochs}


def _find_weights(run_dir: Path, best_file: str, epoch: int | None) -> Path:
    if epoch is not None and epoch not in (kept := list_epoch_checkpoints(run_dir)):
        name = directory.bundled_runs().get(run_dir, run_dir.name)
        others = f"{', '.join(map(str, kept))}, and the best model" if kept else "only the best model"
        raise RunError(f"run {name!r} did not keep epoch {epoch}; it kept {others}")
    return run_dir / (best_file if epoch is None else f"{directory.EPOCHS_DIR}/{epoch}.safetensors")


def base_files(base: "Base | BaseReference", config: ModelConfig) -> dict[str, bytes]:
    """Return name and content of the files of a new run that starts from `base`."""
    contents: dict[str, Any] = {names.BASE_FILE: asdict(BaseReference(base.name, base.sha256))}
    if config.lora_rank:
        hub_id = "HuggingFaceTB/SmolLM2-135M-Instruct"
        contents[directory.ADAPTER_CONFIG_FILE] = {
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": hub_id if base.name == names.SMOLLM2 else base.name.removeprefix("hf:"),
            "r": config.lora_rank,
            "lora_alpha": config.lora_alpha,
            "lora_dropout": config.lora_dropout,
            "target_modules": lora_targets(config),
            "bias": "none",
            "inference_mode": True,
        }
    return {name: json.dumps(content, indent=2).encode() for name, content in contents.items()}


def read_run_base(run_dir: Path, mode: DataMode) -> "Base":
    """Read the pre-trained model that a run starts from, which must not have changed since, for texts of a mode."""
    from engine.models.pretrained.folders import read_base  # loads Hugging Face's tokenizers

    reference = directory.read_json(BaseReference, run_dir / names.BASE_FILE)
    try:
        base = read_base(reference.name)
    except InvalidInputError as error:
        raise RunError(f"run {run_dir.name!r} needs its base: {error}") from error
    if base.sha256 != reference.sha256:
        change = f"its SHA-256 was {reference.sha256[:12]}… and is now {base.sha256[:12]}…"
        where = f"{reference.name} has changed since run {run_dir.name!r} was trained"
        raise RunError(f"{where}: {change}; restore it or fetch it again, or train a new run")
    return base.for_scripts() if mode == "dialogue" else base


def serialize_best(run_dir: Path, config: ModelConfig, best: Mapping[str, Float32Array]) -> bytes:
    """Return the content of the file of the best weights of a run."""
    if config.lora_rank:
        return serialize_adapter({name: weight.astype("float16") for name, weight in best.items()}, run_dir)
    return tensor_file.serialize_weights(best)


def serialize_adapter(tensors: Mapping[str, npt.NDArray[Any]], run_dir: Path) -> bytes:
    named = {f"{PEFT_PREFIX}{name}": tensor for name, tensor in tensors.items()}
    reference = directory.read_json(BaseReference, run_dir / names.BASE_FILE)
    return tensor_file.serialize_weights(named, {**tensor_file.UNSEALED, "format": "pt", BASE_HASH: reference.sha256})


def model_name(run_dir: Path, epoch: int | None) -> str:
    return directory.bundled_runs().get(run_dir, run_dir.name) + ("" if epoch is None else f"@{epoch}")


def read_adapters(
    models: Sequence[tuple[Path, int | None]], base: "Base | BaseReference | None" = None
) -> list[Adapter]:
    """Open the adapters of runs, or of their epochs; who is no adapter of `base` raises an InvalidInputError.

    Without `base`, it is the one of the first adapter.
    """
    opened = dict[str, Adapter]()
    for run_dir, epoch in models:
        config, name = directory.read_config(run_dir).model, model_name(run_dir, epoch)
        if not config.lora_rank:
            raise InvalidInputError(f"run {name!r} is no adapter; choose a run of `lotr-tui finetune`")
        reference = directory.read_json(BaseReference, run_dir / names.BASE_FILE)
        base = base or reference
        if reference.sha256 != base.sha256:
            raise InvalidInputError(f"run {name!r} is an adapter of {reference.name}, and not of {base.name}")
        if name in opened:
            raise InvalidInputError(f"adapter {name!r} is named twice; name each adapter once")
        opened[name] = Adapter(name, config, read_adapter(run_dir, config, epoch))
    if len(opened) > MAX_ADAPTERS:
        raise InvalidInputError(f"{len(opened)} adapters are too many for one model; use at most {MAX_ADAPTERS}")
    return list(opened.values())


def read_adapter(run_dir: Path, config: ModelConfig, epoch: int | None) -> Mapping[str, tensor_file.StoredTensor]:
    """Open an adapter of a run; its matrices are read at every access."""
    from engine.models.pretrained.base import LazyTensors

    file, shapes = _find_weights(run_dir, directory.ADAPTER_FILE, epoch), adapter_shapes(config)
    mapped = tensor_file.open_weights(file, {f"{PEFT_PREFIX}{name}": shape for name, shape in shapes.items()})
    expected = directory.read_json(BaseReference, run_dir / names.BASE_FILE).sha256
    if (sha256 := mapped.metadata.get(BASE_HASH, expected)) != expected:
        hashes = f"with the SHA-256 {sha256[:12]}… and not {expected[:12]}…"
        raise RunError(f"{file} is an adapter of another base, {hashes}; use the files of one run")
    adapter = LazyTensors({name: partial(mapped.read_weight, f"{PEFT_PREFIX}{name}") for name in shapes})
    try:
        weights.check_weights(adapter, shapes, MAX_ADAPTER_WEIGHT)
    except RunError as error:
        raise RunError(f"{file}: {error}") from error
    return adapter
