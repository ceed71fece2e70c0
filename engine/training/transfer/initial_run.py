"""The run or pre-trained model that a training starts from: its settings, its weights and its tokenizer."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from engine.config import Config, DataConfig, describe_settings
from engine.data.arrays import Float32Array
from engine.data.dataset import Dataset, load_dataset
from engine.data.tokenizers.base import Tokenizer, is_open_vocabulary
from engine.errors import ConfigError
from engine.models.adapter import lora_targets
from engine.models.pretrained.base import Base
from engine.models.pretrained.names import GGUF_PREFIX, HF_PREFIX, is_pretrained_name, parse_pretrained_name
from engine.models.pretrained.reading import read_base
from engine.models.transformer_layout import TRANSFORMER_VALUES, largest_num_heads
from engine.runs.adapter_files import needs_base, read_adapter, read_run_base
from engine.runs.directory import BUNDLED_FOLDERS, epoch_model_name, read_config
from engine.runs.loading import find_model, find_weights, load_model
from engine.storage.files import absolute_path, default_runs_dir
from engine.storage.tensor_file import to_float32
from engine.training.transfer.word_mapping import map_to_vocabulary


class TrainingInput(NamedTuple):
    """Data that a training reads before its first step."""

    dataset: Dataset
    initial_weights: dict[str, Float32Array] | None
    """Weights that the training starts from; None for random weights, or the weights of `base`."""
    base: Base | None
    """Pre-trained model by others that the training starts from; None if there is none."""


INHERITED_SETTINGS = (
    "tokenizer", "vocabulary_size", "architecture", "embedding_size", "hidden_size", "num_layers", "num_heads",
    "num_kv_heads", "head_size", "feed_forward_size", "context_size", "norm_eps", "rope_base", "rope_scaling",
    "rope_factor", "rope_original_context", "qkv_bias", "tie_weights", "punctuation",
    "mogrifier_rounds", "mogrifier_rank",
)  # fmt: skip
"""Settings that must equal the settings of the initial run, because its weights or its tokenizer depend on them."""
LORA_SETTINGS = ("lora_rank", "lora_alpha", "lora_targets")
"""The same, where the initial run is an adapter."""
DIALOGUE_DEFAULTS = {
    "tokenizer": "bpe", "split": "scenes", "min_characters": -1, "shuffle_lines": True,
    "sample_prompt": "Where are you going?",
}  # fmt: skip
"""Settings of a script: a vocabulary that spells it, lines in order and together, and a line to answer."""
WITHOUT_WORDS = {"punctuation": False, "subword_embeddings": False}
"""Settings of a model whose tokens are not words."""
TRANSFORMER_DEFAULTS: dict[str, Any] = TRANSFORMER_VALUES | {
    "tie_weights": True, "unigram_bias": False, "embedding_dropout": 0.0, "variational_dropout": False,
}  # fmt: skip
"""Settings of a Transformer where the preset is for an LSTM."""
DEFAULT_PATIENCE = 4
"""Patience of a training from an initial run, unless the preset has one: a small corpus is soon overfitted."""
MAX_ADAPTED_CONTEXT = 1024
"""Context of a pre-trained model with a longer one: scenes are shorter, and twice as much predicts no better."""
WHOLE_MODEL_LR = 5e-5
"""Learning rate where a preset for adapters trains all weights of a pre-trained model instead."""


def configure(preset: Config, apply_options: Callable[[Config], Config], runs_dir: Path | None = None) -> Config:
    """Return `preset` changed by `apply_options`, with defaults that depend on the tokenizer and the initial run.

    Models of an open vocabulary use no settings that are about words, Transformers none that only LSTMs have, and
    dialogues are split by scenes. The settings that an initial run determines come from there, and a patience of 0
    becomes `DEFAULT_PATIENCE`. `apply_options` can change all of these defaults.

    Raises:
        InvalidInputError: If an option is invalid, or there is no such run.
    """
    config = apply_options(preset)
    defaults: dict[str, Any] = {}
    if init := config.training.init:
        initial = _read_initial_config(init, runs_dir)
        defaults |= _settings(initial, _inherited_names(initial))
        defaults["patience"] = preset.training.patience or DEFAULT_PATIENCE
        if is_pretrained_name(init):
            defaults["context_size"] = min(initial.model.context_size, MAX_ADAPTED_CONTEXT)
            defaults["bptt"] = min(preset.training.bptt, defaults["context_size"])
            if preset.model.lora_rank and not config.model.lora_rank:
                defaults["lr"] = WHOLE_MODEL_LR
    if config.data.mode == "dialogue":
        defaults = DIALOGUE_DEFAULTS | defaults
    if is_open_vocabulary(defaults.get("tokenizer", config.data.tokenizer)):
        defaults = WITHOUT_WORDS | defaults
    is_transformer = defaults.get("architecture", config.model.architecture) == "transformer"
    if is_transformer and preset.model.architecture != "transformer":
        sizes = {
            # Windows that are shorter than the context would leave its later positions untrained.
            "bptt": defaults.get("context_size", config.model.context_size),
            "num_heads": largest_num_heads(config.model.embedding_size, config.model.num_heads),
        }
        defaults = TRANSFORMER_DEFAULTS | sizes | defaults
    return apply_options(preset.with_values(**defaults))


def default_preset(init: str, mode: str | None, runs_dir: Path | None = None) -> str:
    """Return the name of the preset for a training from the run or pre-trained model `init`; "" for random weights.

    Raises:
        InvalidInputError: If there is no such model.
    """
    if not init:
        return "default"
    if is_pretrained_name(init) or needs_base(_read_initial_config(init, runs_dir)):
        return "lora"
    return "dialogue" if mode == "dialogue" else "finetune"


def load_training_input(config: Config, runs_dir: Path | None = None) -> TrainingInput:
    """Load the dataset of `config`, and what the training starts from.

    An open vocabulary is taken over from the initial model, or else from the first teacher. A closed one is built from
    the dataset. The weights are mapped to the new vocabulary token by token.

    Raises:
        InvalidInputError: If the corpus cannot be read, there is no such run or model, or it has other settings.
    """
    init = config.training.init
    if init and is_pretrained_name(init):
        base = read_base(init)
        _check_settings(config, _base_config(base), init)
        if config.model.lora_rank:
            lora_targets(config.model)
        base.check_weights()
        base = base.for_scripts() if config.data.mode == "dialogue" else base
        return TrainingInput(load_dataset(config.data, base.tokenizer), None, base)
    initial = _read_initial_config(init, runs_dir) if init else None
    if config.model.lora_rank and not (initial and initial.model.lora_rank):
        raise ConfigError(
            f"lora_rank={config.model.lora_rank} changes a pre-trained model, and {init or 'no --init'} is none; "
            "add --init smollm2, or use --set lora_rank=0"
        )
    if initial is None:
        tokenizer = _tokenizer_of_teacher(config, runs_dir)
        if config.data.tokenizer == "pretrained" and tokenizer is None:
            raise ConfigError("tokenizer=pretrained is that of a pre-trained model; add --init smollm2, or use another")
        return TrainingInput(load_dataset(config.data, tokenizer), None, None)
    _check_settings(config, initial, init)
    run_dir, epoch = find_model(init, runs_dir)
    if needs_base(initial):
        base = read_run_base(run_dir, config.data.mode)
        dataset = load_dataset(config.data, base.tokenizer)
        if initial.model.lora_rank:
            adapter = read_adapter(run_dir, initial.model, find_weights(run_dir, initial, epoch))
            return TrainingInput(dataset, {name: to_float32(tensor) for name, tensor in adapter.items()}, base)
        return TrainingInput(dataset, load_model(run_dir, epoch).decoder.weights, base)
    model = load_model(run_dir, epoch)
    tokenizer = model.decoder.tokenizer
    dataset = load_dataset(config.data, tokenizer if tokenizer.is_open else None)
    return TrainingInput(dataset, map_to_vocabulary(model.decoder.weights, tokenizer, dataset.tokenizer), None)


def _read_initial_config(init: str, runs_dir: Path | None) -> Config:
    """Return the configuration of an initial run, or of a pre-trained model as if it were one."""
    return _base_config(read_base(init)) if is_pretrained_name(init) else read_config(find_model(init, runs_dir)[0])


def _base_config(base: Base) -> Config:
    return Config(data=DataConfig(tokenizer="pretrained", mode="stream"), model=base.config)


def _tokenizer_of_teacher(config: Config, runs_dir: Path | None) -> Tokenizer | None:
    """Return the tokenizer of the first teacher if it has the open vocabulary that is configured."""
    names = config.training.teacher_names
    if not names or not is_open_vocabulary(config.data.tokenizer):
        return None
    tokenizer = load_model(*find_model(names[0], runs_dir)).decoder.tokenizer
    return tokenizer if tokenizer.name == config.data.tokenizer else None


def canonical_name(init: str, runs_dir: Path | None = None) -> str:
    """Return the name that a configuration records for an initial model: neither "latest" nor a relative path."""
    if init in BUNDLED_FOLDERS:
        return init
    if is_pretrained_name(init):
        source = parse_pretrained_name(init)
        prefix = {"gguf": GGUF_PREFIX, "folder": HF_PREFIX}.get(source.kind)
        return f"{prefix}{absolute_path(source.path)}" if prefix else init
    run_dir, epoch = find_model(init, runs_dir)
    is_name = run_dir.parent == (runs_dir or default_runs_dir())
    name = run_dir.name if is_name else str(absolute_path(run_dir))
    return name if epoch is None else epoch_model_name(name, epoch)


def _inherited_names(initial: Config) -> tuple[str, ...]:
    return (*INHERITED_SETTINGS, *LORA_SETTINGS) if initial.model.lora_rank else INHERITED_SETTINGS


def _settings(config: Config, names: tuple[str, ...]) -> dict[str, Any]:
    """Return the values of settings by name."""
    return {name: getattr(getattr(config, describe_settings()[name][0]), name) for name in names}


def _check_settings(config: Config, initial: Config, init: str) -> None:
    """Raise a ConfigError that lists the settings in which `config` differs from the initial run."""
    names = _inherited_names(initial)
    expected, actual = _settings(initial, names), _settings(config, names)
    different = [name for name in names if actual[name] != expected[name]]
    if needs_base(initial) and actual["context_size"] <= expected["context_size"]:  # it was trained on a longer one
        different = [name for name in different if name != "context_size"]
    if different:
        now = ", ".join(f"{name}={_format(actual[name])}" for name in different)
        options = " ".join(f"--set {name}={_format(expected[name])}" for name in different)
        source = init if is_pretrained_name(init) else f"run {init!r}"
        raise ConfigError(
            f"a model with {now} cannot start from the weights of {source}; "
            f"use {options.replace('--set tokenizer=', '--tokenizer ')}, or omit these settings"
        )


def _format(value: Any) -> str:
    """Return a value as `--set` takes it."""
    return str(value).lower() if isinstance(value, bool) else str(value)
