"""Loading of models by name: of runs, and of models by others. Pickles are never read."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

from engine.config import Config, DataConfig
from engine.data.arrays import Float32Array
from engine.data.speakers import CAST_FILE, cast_from_json
from engine.data.tokenizers.base import Tokenizer
from engine.errors import InvalidInputError, RunError
from engine.events import Evaluated, RecordedEvent, Started
from engine.models.adapter import adapter_shapes
from engine.models.base import LanguageModel
from engine.models.decoders import NumpyDecoder, build_decoder, weight_shapes
from engine.models.dialogue import DialogueModel
from engine.models.pretrained.names import is_pretrained_name, parse_pretrained_name
from engine.models.speakers import SpeakerTextModel, TurnModel
from engine.runs import directory
from engine.runs.adapter_files import ADAPTER_FILE, load_adapted
from engine.runs.directory import METRICS_FILE, find_run, resolve_run
from engine.runs.metrics import drop_superseded, read_current_events, read_events
from engine.runs.summary import finite_or_none, saved_perplexity
from engine.storage.files import default_runs_dir
from engine.storage.schema import read_run_file, read_run_json
from engine.storage.tensor_file import open_weights, to_float32

if TYPE_CHECKING:  # this module imports PyTorch
    from engine.models.pretrained.base import LoadingProgress

INFERENCE_PRECISIONS = ("auto", "fp32", "int8")
PRETRAINED_CONFIG = Config("pretrained", data=DataConfig(corpus="", tokenizer="pretrained", mode="stream"))
"""Configuration of a model by others, of which only the data matter: line ends are characters."""
MAX_PART_BYTES = 64_000_000


@dataclass(frozen=True)
class EpochCheckpoint:
    """Weights that a run keeps after a whole epoch, whether they are the best or not."""

    epoch: int
    valid_perplexity: float | None


@dataclass(frozen=True)
class DialogueParts:
    """Everything that a played dialogue model has besides its network."""

    run_dir: Path
    cast: tuple[str, ...]
    """Canonical names of the speakers that can be chosen to speak; the last is SOMEONE."""
    turn_model: TurnModel | None = None
    """Model of who speaks next; None for a model that was exported without its parts."""

    def wrap(self, model: LanguageModel) -> DialogueModel:
        """Return `model` with all parts of the run; parts of another cast raise an InvalidInputError."""
        if self.turn_model is None:
            return DialogueModel(model, self.cast)
        read_text_model = partial(read_run_json, SpeakerTextModel, self.run_dir / directory.WHO_FILE, MAX_PART_BYTES)
        return DialogueModel(model, self.cast, self.turn_model, read_text_model)


@dataclass(frozen=True)
class LoadedModel:
    """Model ready for inference, and facts about its training."""

    name: str
    """Name of the run; RUN@EPOCH for the weights of an epoch."""
    path: Path
    """Run directory; of a model by others its folder or file."""
    config: Config
    decoder: LanguageModel
    """Network of the run, or the model by others."""
    valid_perplexity: float | None = None
    started: Started | None = None
    """Description of the training; None if the metrics have none."""
    epoch: int | None = None
    description: str = ""
    """Family, layers and size of a model by others, or the family that an adapter changes; "" for other runs."""
    dialogue_parts: DialogueParts | None = None
    """Parts of a dialogue model besides its network; None in other modes."""

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
    precision: str = "auto",
    on_progress: "Callable[[LoadingProgress], None] | None" = None,
) -> LoadedModel:
    """Load the best model of a run, the model RUN@EPOCH of an epoch, or a model by others, or raise InvalidInputError.

    A run is named as `resolve_run` accepts it, a model by others as `is_pretrained_name` does. `on_progress` is called
    while a model by others, or an adapter of one, is being loaded. The precision "auto" multiplies in 8 bits the
    weights that are stored in 8 bits, and those of models by others that need no transformers; "int8" all large ones.
    """
    if precision not in INFERENCE_PRECISIONS:
        choices = ", ".join(INFERENCE_PRECISIONS)
        raise InvalidInputError(f"--precision {precision} is unknown for inference; choose one of {choices}")
    if name is not None and is_pretrained_name(name):
        return _load_pretrained(name, precision, on_progress)
    loaded = load_model(*find_model(name, runs_dir), int8_adapted=precision != "fp32", on_progress=on_progress)
    stored = loaded.decoder
    if loaded.config.model.lora_rank:
        return loaded
    if precision == "int8":
        return replace(loaded, decoder=build_decoder(stored.config, stored.tokenizer, stored.tensors, int8=True))
    if precision == "fp32" and stored.has_int8_weights:
        return replace(loaded, decoder=build_decoder(stored.config, stored.tokenizer, stored.weights))
    return loaded


def find_model(name: str | None, runs_dir: Path | None = None) -> tuple[Path, int | None]:
    """Return the run directory of a run or of RUN@EPOCH, and the epoch."""
    is_run = name is not None and find_run(name, runs_dir or default_runs_dir()) is not None  # its name may have an "@"
    match = None if is_run else re.fullmatch(r"(.+)@([0-9]{1,9})", name or "", re.DOTALL)
    return resolve_run(match[1] if match else name, runs_dir), int(match[2]) if match else None


def _load_pretrained(name: str, precision: str, on_progress: "Callable[[LoadingProgress], None] | None") -> LoadedModel:
    # Imported here: Hugging Face's tokenizers, which models of words do not need.
    from engine.models.pretrained.base import UnsupportedModelError
    from engine.models.pretrained.chat import find_script_cast
    from engine.models.pretrained.store import read_base

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
    *,
    int8_adapted: bool = True,
    on_progress: "Callable[[LoadingProgress], None] | None" = None,
) -> LoadedRun:
    """Load the best weights of a run, or the weights that it kept after `epoch`, or raise an InvalidInputError.

    An adapter is merged into its base, and the result has 8 bits, or with `int8_adapted=False` single precision. That
    takes a second, and calls `on_progress`.
    """
    config = directory.read_config(run_dir)
    all_events = list(read_events(run_dir / METRICS_FILE, subsample=True))
    events = drop_superseded(all_events)
    name = directory.bundled_run_name(run_dir) or run_dir.name
    file, perplexity = find_weights(run_dir, config, epoch), saved_perplexity(all_events)
    if epoch is not None:
        perplexity, name = _perplexity_at_epoch(events, epoch), directory.epoch_model_name(name, epoch)
    decoder: NumpyDecoder
    description = ""
    if config.model.lora_rank:
        decoder, family = load_adapted(run_dir, config, file, int8=int8_adapted, on_progress=on_progress)
        description = f"{family} + adapter"
    else:
        decoder = _read_decoder(file, *directory.read_config_and_tokenizer(run_dir))
    return LoadedRun(
        name=name,
        path=run_dir,
        config=config,
        decoder=decoder,
        valid_perplexity=perplexity,
        started=next((event for event in events if isinstance(event, Started)), None),
        epoch=epoch,
        description=description,
        dialogue_parts=read_dialogue_parts(run_dir) if config.data.mode == "dialogue" else None,
    )


def read_dialogue_parts(run_dir: Path) -> DialogueParts:
    """Read the files of a run in dialogue mode; a missing or damaged file raises a RunError."""
    file = run_dir / CAST_FILE
    cast = cast_from_json(read_run_file(file, MAX_PART_BYTES).decode(errors="replace"), str(file))
    return DialogueParts(run_dir, cast, read_run_json(TurnModel, run_dir / directory.DIALOGUE_FILE, MAX_PART_BYTES))


def read_initial_weights(run_dir: Path, config: Config, tokenizer: Tokenizer) -> dict[str, Float32Array] | None:
    """Return the weights that the training of a run starts from; None for random ones, or the weights of a base."""
    if not config.training.init or is_pretrained_name(config.training.init):
        return None
    if config.model.lora_rank:
        file = open_weights(run_dir / directory.INITIAL_FILE, shapes := adapter_shapes(config.model))
        return {name: to_float32(file.read_weight(name)) for name in shapes}
    return _read_decoder(run_dir / directory.INITIAL_FILE, config, tokenizer).weights


def _read_decoder(file: Path, config: Config, tokenizer: Tokenizer) -> NumpyDecoder:
    tensors = open_weights(file, shapes := weight_shapes(config.model, len(tokenizer)))
    try:
        return build_decoder(config.model, tokenizer, {name: tensors.read_weight(name) for name in shapes})
    except RunError as error:
        raise RunError(f"{file}: {error}") from error
    finally:
        tensors.release_pages()  # products have copies of the matrices


def list_epoch_checkpoints(run_dir: Path) -> list[EpochCheckpoint]:
    """Return the epochs whose weights a run keeps, in ascending order; an empty list if there are none."""
    files = (run_dir / directory.EPOCHS_DIR).glob("*.safetensors")
    epochs = [int(file.stem) for file in files if re.fullmatch("[1-9][0-9]*", file.stem)]
    events = read_current_events(run_dir / METRICS_FILE, subsample=True) if epochs else []
    return [EpochCheckpoint(epoch, _perplexity_at_epoch(events, epoch)) for epoch in sorted(epochs)]


def _perplexity_at_epoch(events: Sequence[RecordedEvent], epoch: int) -> float | None:
    """Return the validation perplexity of the latest evaluation after `epoch` whole epochs."""
    evaluations = [event for event in events if isinstance(event, Evaluated) and event.epoch == epoch]
    return finite_or_none(evaluations[-1].valid_perplexity) if evaluations else None


def find_weights(run_dir: Path, config: Config, epoch: int | None = None) -> Path:
    """Return the file of the best weights of a run, or of those of an epoch, if the run kept it."""
    if epoch is None:
        return run_dir / (ADAPTER_FILE if config.model.lora_rank else directory.MODEL_FILE)
    kept = [str(item.epoch) for item in list_epoch_checkpoints(run_dir)]
    if str(epoch) not in kept:
        run_name = directory.bundled_run_name(run_dir) or run_dir.name
        others = f"{', '.join(kept)}, and the best model" if kept else "only the best model"
        raise RunError(f"run {run_name!r} did not keep epoch {epoch}; it kept {others}")
    return directory.epoch_weights_path(run_dir, epoch)
