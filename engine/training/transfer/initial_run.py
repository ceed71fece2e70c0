"""The run that a training starts from: its settings, its weights and its tokenizer."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from engine.config import Config, describe_settings
from engine.data.arrays import Float32Array
from engine.data.dataset import Dataset, load_dataset
from engine.data.tokenizers.base import Tokenizer, is_open_vocabulary
from engine.errors import ConfigError
from engine.models.transformer_layout import TRANSFORMER_VALUES, largest_num_heads
from engine.runs.directory import BUNDLED_FOLDERS, epoch_model_name, read_config
from engine.runs.loading import find_model, load_model
from engine.storage.files import absolute_path, default_runs_dir
from engine.training.transfer.word_mapping import map_to_vocabulary

DatasetAndWeights = tuple[Dataset, dict[str, Float32Array] | None]
"""A dataset, and the weights that a training starts from; None for random weights."""

INHERITED_SETTINGS = (
    "tokenizer", "vocabulary_size", "architecture", "embedding_size", "hidden_size", "num_layers", "num_heads",
    "feed_forward_size", "context_size", "tie_weights", "punctuation",
    "mogrifier_rounds", "mogrifier_rank",
)  # fmt: skip
"""Settings that must equal the settings of the initial run, because its weights or its tokenizer depend on them."""
DIALOGUE_DEFAULTS = {"tokenizer": "bpe", "split": "scenes", "min_characters": -1}
"""Settings of a script: a vocabulary that spells it, and lines in order and together."""
WITHOUT_WORDS = {"punctuation": False, "subword_embeddings": False}
"""Settings of a model whose tokens are not words."""
TRANSFORMER_DEFAULTS: dict[str, Any] = TRANSFORMER_VALUES | {
    "tie_weights": True, "unigram_bias": False, "embedding_dropout": 0.0, "variational_dropout": False,
}  # fmt: skip
"""Settings of a Transformer where the preset is for an LSTM."""
DEFAULT_PATIENCE = 4
"""Patience of a training from an initial run, unless the preset has one: a small corpus is soon overfitted."""


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
        run_dir, _ = find_model(init, runs_dir)
        defaults |= _inherited_settings(read_config(run_dir))
        defaults["patience"] = preset.training.patience or DEFAULT_PATIENCE
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


def load_dataset_and_weights(config: Config, runs_dir: Path | None = None) -> DatasetAndWeights:
    """Load the dataset of `config`, and the weights that the training starts from; None for random weights.

    An open vocabulary is taken over from the initial run, or else from the first teacher. A closed one is built from
    the dataset. The weights are mapped to the new vocabulary token by token.

    Raises:
        InvalidInputError: If the corpus cannot be read, there is no such run, or the run has other settings.
    """
    if not (init := config.training.init):
        return load_dataset(config.data, _tokenizer_of_teacher(config, runs_dir)), None
    model = load_model(*find_model(init, runs_dir))
    _check_settings(config, model.config, init)
    tokenizer = model.decoder.tokenizer
    dataset = load_dataset(config.data, tokenizer if tokenizer.is_open else None)
    return dataset, map_to_vocabulary(model.decoder.weights, tokenizer, dataset.tokenizer)


def _tokenizer_of_teacher(config: Config, runs_dir: Path | None) -> Tokenizer | None:
    """Return the tokenizer of the first teacher if it has the open vocabulary that is configured."""
    names = config.training.teacher_names
    if not names or not is_open_vocabulary(config.data.tokenizer):
        return None
    tokenizer = load_model(*find_model(names[0], runs_dir)).decoder.tokenizer
    return tokenizer if tokenizer.name == config.data.tokenizer else None


def canonical_name(init: str, runs_dir: Path | None = None) -> str:
    """Return the name that a configuration records for an initial run: neither "latest" nor a relative path."""
    if init in BUNDLED_FOLDERS:
        return init
    run_dir, epoch = find_model(init, runs_dir)
    is_name = run_dir.parent == (runs_dir or default_runs_dir())
    name = run_dir.name if is_name else str(absolute_path(run_dir))
    return name if epoch is None else epoch_model_name(name, epoch)


def _inherited_settings(config: Config) -> dict[str, Any]:
    """Return the values of the inherited settings in the configuration of an initial run."""
    sections = {name: getattr(config, describe_settings()[name][0]) for name in INHERITED_SETTINGS}
    return {name: getattr(section, name) for name, section in sections.items()}


def _check_settings(config: Config, initial: Config, init: str) -> None:
    """Raise a ConfigError that lists the settings in which `config` differs from the initial run."""
    expected, actual = _inherited_settings(initial), _inherited_settings(config)
    different = [name for name in INHERITED_SETTINGS if actual[name] != expected[name]]
    if different:
        now = ", ".join(f"{name}={_format(actual[name])}" for name in different)
        options = " ".join(f"--set {name}={_format(expected[name])}" for name in different)
        raise ConfigError(
            f"a model with {now} cannot start from the weights of run {init!r}; "
            f"use {options.replace('--set tokenizer=', '--tokenizer ')}, or omit these settings"
        )


def _format(value: Any) -> str:
    """Return a value as `--set` takes it."""
    return str(value).lower() if isinstance(value, bool) else str(value)
