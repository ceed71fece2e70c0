"""The command that repeats the training of a configuration."""

from typing import Any

from engine.config import BUNDLED, Config, describe_settings
from engine.errors import shell_word
from engine.presets import PRESETS
from engine.training.search.space import format_value
from engine.training.transfer.initial_run import configure

DEFAULT_PRESET = "default"
DECISIVE_SETTINGS = ("init", "tokenizer", "mode", "architecture")
"""Settings on which the defaults of other settings depend."""
SETTINGS_WITH_OPTIONS = ("init", "corpus", "corpus_format")
"""Settings with a separate option."""


def format_train_command(config: Config) -> str:
    """Return the `lotr-tui train` command that trains with `config`, which has the name of its preset."""
    preset = PRESETS[config.preset]
    values, before = _flatten(config), _flatten(preset)
    decisive = {name: values[name] for name in DECISIVE_SETTINGS if values[name] != before[name]}
    defaults = _flatten(configure(preset, lambda defaults: defaults.with_values(**decisive)))
    different = decisive | {name: value for name, value in values.items() if value != defaults[name]}
    words = ["lotr-tui", "train"]
    if config.preset != DEFAULT_PRESET or "init" in different:
        words += ["--preset", config.preset]
    if "init" in different:
        words += ["--init", config.training.init]
    if config.data.corpus != BUNDLED:
        words += ["--csv" if config.data.corpus_format == "csv" else "--text", config.data.corpus]
    for name, value in different.items():
        if name not in SETTINGS_WITH_OPTIONS:
            words += ["--set", f"{name}={format_value(value)}"]
    return " ".join(map(shell_word, words))


def _flatten(config: Config) -> dict[str, Any]:
    """Return all settings by name."""
    return {name: getattr(getattr(config, section), name) for name, (section, _) in describe_settings().items()}
