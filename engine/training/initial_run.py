"""The run or pre-trained model that a training starts from: its settings, its weights and its tokenizer."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from engine.config import BUNDLED, TEACHER_SEPARATOR, Config, DataConfig
from engine.data.arrays import Float32Array
from engine.data.dataset import Dataset, load_dataset
from engine.data.tokenizers import OPEN_VOCABULARIES, Tokenizer
from engine.errors import ConfigError
from engine.models.adapter import lora_targets
from engine.models.pretrained.names import GGUF_PREFIX, HF_PREFIX, is_pretrained_name, parse_pretrained_name
from engine.models.transformer_layout import TRANSFORMER_VALUES, largest_num_heads
from engine.runs.directory import BUNDLED_FOLDERS, needs_base, read_config
from engine.runs.loading import find_model, find_weights, load_model, read_adapter, read_run_base
from engine.storage.files import absolute_path, default_runs_dir
from engine.storage.tensor_file import to_float32

if TYPE_CHECKING:  # `train --help` needs no tokenizers by others
    from engine.models.pretrained.base import Base


class TrainingInput(NamedTuple):
    """Data that a training reads before its first step."""

    dataset: Dataset
    initial_weights: Mapping[str, Float32Array] | None = None  # None for random weights, or the weights of `base`
    base: "Base | None" = None  # pre-trained model by others that the training starts from


INHERITED_SETTINGS = (
    "tokenizer", "vocabulary_size", "architecture", "embedding_size", "hidden_size", "num_layers", "num_heads",
    "num_kv_heads", "head_size", "feed_forward_size", "context_size", "norm_eps", "rope_base", "rope_scaling",
    "rope_factor", "rope_original_context", "qkv_bias", "tie_weights", "punctuation",
    "mogrifier_rounds", "mogrifier_rank",
)  # fmt: skip
"""Settings that must equal the settings of the initial run, because its weights or its tokenizer depend on them."""
LORA_SETTINGS = ("lora_rank", "lora_alpha", "lora_targets")  # the same, where the initial run is an adapter
# Of a script: a vocabulary that spells it, lines in order and together, and a line to answer.
DIALOGUE_DEFAULTS = {
    "tokenizer": "bpe", "split": "scenes", "min_characters": -1, "shuffle_lines": True,
    "sample_prompt": "Where are you going?",
}  # fmt: skip
WITHOUT_WORDS = {"punctuation": False, "subword_embeddings": False}  # of a model whose tokens are not words
# Of a Transformer where the preset is for an LSTM.
TRANSFORMER_DEFAULTS: dict[str, Any] = TRANSFORMER_VALUES | {
    "tie_weights": True, "unigram_bias": False, "embedding_dropout": 0.0, "variational_dropout": False,
}  # fmt: skip
DEFAULT_PATIENCE = 4  # from an initial run, unless the preset has one: a small corpus is soon overfitted
MAX_ADAPTED_CONTEXT = 1024  # of a pre-trained model: scenes are shorter, and twice as much predicts no better
WHOLE_MODEL_LR = 5e-5  # where a preset for adapters trains all weights of a pre-trained model instead
# Axis of the vocabulary in each tensor that has one.
VOCABULARY_AXES = {
    "embedding.weight": 0, "output.weight": 0, "output.bias": 0, "punctuation_softmax.bias": 1,
    "model.embed_tokens.weight": 0,
}  # fmt: skip


def configure(preset: Config, apply_options: Callable[[Config], Config], runs_dir: Path | None = None) -> Config:
    """Return `preset` changed by `apply_options`, with defaults that depend on the tokenizer and the initial run."""
    config = apply_options(preset)
    defaults: dict[str, Any] = {}
    if init := config.training.init:
        initial = _read_initial_config(init, runs_dir)
        defaults |= _inherited_settings(initial)
        defaults["patience"] = preset.training.patience or DEFAULT_PATIENCE
        if is_pretrained_name(init):
            defaults["context_size"] = min(initial.model.context_size, MAX_ADAPTED_CONTEXT)
            defaults["bptt"] = min(preset.training.bptt, defaults["context_size"])
            if preset.model.lora_rank and not config.model.lora_rank:
                defaults["lr"] = WHOLE_MODEL_LR
    if config.data.mode == "dialogue":
        defaults = DIALOGUE_DEFAULTS | defaults
    if defaults.get("tokenizer", config.data.tokenizer) in OPEN_VOCABULARIES:
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
    """Return the name of the preset for a training from the run or pre-trained model `init`; "" for random weights."""
    if not init:
        return "default"
    if is_pretrained_name(init) or needs_base(_read_initial_config(init, runs_dir)):
        return "lora"
    return "dialogue" if mode == "dialogue" else "finetune"


def load_training_input(config: Config, runs_dir: Path | None = None) -> TrainingInput:
    """Load the dataset of `config`, and what the training starts from; an unusable model raises an InvalidInputError.

    An open vocabulary is that of the initial model, or of the first teacher. The weights are mapped to a closed one.
    """
    init, mode, tokenizer = config.training.init, config.data.mode, None
    if is_pretrained_name(init):
        base = _read_base(init)
        _check_settings(config, _base_config(base), init)
        if config.model.lora_rank:
            lora_targets(config.model)
        base.check_weights()
        base = base.for_scripts() if mode == "dialogue" else base
        return TrainingInput(load_dataset(config.data, base.tokenizer), None, base)
    initial = _read_initial_config(init, runs_dir) if init else None
    if config.model.lora_rank and not (initial and initial.model.lora_rank):
        raise ConfigError(
            f"lora_rank={config.model.lora_rank} changes a pre-trained model, and {init or 'no --init'} is none; "
            "add --init smollm2, or use --set lora_rank=0"
        )
    if initial is None:
        if (teachers := config.training.teachers) and config.data.tokenizer in OPEN_VOCABULARIES:
            teacher = load_model(*find_model(teachers.split(TEACHER_SEPARATOR)[0], runs_dir)).decoder.tokenizer
            tokenizer = teacher if teacher.name == config.data.tokenizer else None
        if config.data.tokenizer == "pretrained" and tokenizer is None:
            raise ConfigError("tokenizer=pretrained is that of a pre-trained model; add --init smollm2, or use another")
        return TrainingInput(load_dataset(config.data, tokenizer))
    _check_settings(config, initial, init)
    run_dir, epoch = find_model(init, runs_dir)
    if needs_base(initial):
        base = read_run_base(run_dir, mode)
        dataset = load_dataset(config.data, base.tokenizer)
        if initial.model.lora_rank:
            adapter = read_adapter(run_dir, initial.model, find_weights(run_dir, initial, epoch))
            return TrainingInput(dataset, {name: to_float32(tensor) for name, tensor in adapter.items()}, base)
        return TrainingInput(dataset, load_model(run_dir, epoch).decoder.weights, base)
    decoder = load_model(run_dir, epoch).decoder
    dataset = load_dataset(config.data, decoder.tokenizer if decoder.tokenizer.is_open else None)
    return TrainingInput(dataset, map_to_vocabulary(decoder.weights, decoder.tokenizer, dataset.tokenizer))


def map_to_vocabulary(weights: Mapping[str, Float32Array], old: Tokenizer, new: Tokenizer) -> dict[str, Float32Array]:
    """Return `weights` for another vocabulary: a new token gets the mean over all (Howard and Ruder 2018, 3.2)."""
    if old.tokens == new.tokens:
        return dict(weights)
    old_ids = np.array([old.token_to_id.get(token, -1) for token in new.tokens])
    mapped = dict(weights)
    for name, axis in VOCABULARY_AXES.items():
        if name in weights:
            mean = weights[name].mean(axis, keepdims=True)
            is_known = np.expand_dims(old_ids >= 0, [i for i in range(mean.ndim) if i != axis])
            mapped[name] = np.where(is_known, weights[name].take(old_ids, axis), mean)
    return mapped


def canonical_config(config: Config, runs_dir: Path | None = None) -> Config:
    """Return `config` with names that mean the same later and from any directory: absolute paths and no "latest"."""
    data, training = config.data, config.training
    paths = {"corpus": data.corpus, "valid_corpus": data.valid_corpus, "test_corpus": data.test_corpus}
    teachers: list[str] = []
    for name in filter(None, map(str.strip, training.teachers.split(TEACHER_SEPARATOR))):
        teacher = canonical_name(name, runs_dir, keep_name=False)
        if TEACHER_SEPARATOR in teacher:
            raise ConfigError(f"--teacher {name} has a comma in its path; rename the run or its folder")
        if teacher in teachers:
            raise ConfigError(f"--teacher {name} is given twice; give each teacher once")
        teachers.append(teacher)
    return config.with_values(
        **{name: str(absolute_path(Path(path))) for name, path in paths.items() if path not in ("", BUNDLED)},
        init=canonical_name(training.init, runs_dir) if training.init else "",
        teachers=TEACHER_SEPARATOR.join(teachers),
    )


def canonical_name(model: str, runs_dir: Path | None = None, *, keep_name: bool = True) -> str:
    """Return the name of a model in a configuration: an absolute path, or a run's name if `keep_name` allows it."""
    if model in BUNDLED_FOLDERS:
        return model
    if is_pretrained_name(model):
        source = parse_pretrained_name(model)
        prefix = {"gguf": GGUF_PREFIX, "folder": HF_PREFIX}.get(source.kind)
        return f"{prefix}{absolute_path(source.path)}" if prefix else model
    run_dir, epoch = find_model(model, runs_dir)
    is_name = keep_name and run_dir.parent == (runs_dir or default_runs_dir())
    name = run_dir.name if is_name else str(absolute_path(run_dir))
    return name if epoch is None else f"{name}@{epoch}"


def _read_initial_config(init: str, runs_dir: Path | None) -> Config:
    return _base_config(_read_base(init)) if is_pretrained_name(init) else read_config(find_model(init, runs_dir)[0])


def _read_base(name: str) -> "Base":
    from engine.models.pretrained.base import read_base

    return read_base(name)


def _base_config(base: "Base") -> Config:
    return Config(data=DataConfig(tokenizer="pretrained", mode="stream"), model=base.config)


def _inherited_settings(initial: Config) -> dict[str, Any]:
    names, settings = (*INHERITED_SETTINGS, *(LORA_SETTINGS if initial.model.lora_rank else ())), initial.settings()
    return {name: settings[name] for name in names}


def _check_settings(config: Config, initial: Config, init: str) -> None:
    """Raise a ConfigError that lists the settings in which `config` differs from the initial run."""
    actual = config.settings()
    expected = {name: value for name, value in _inherited_settings(initial).items() if value != actual[name]}
    if needs_base(initial) and config.model.context_size <= initial.model.context_size:  # it has read longer texts
        expected.pop("context_size", None)
    if expected:
        have = ", ".join(f"{name}={str(actual[name]).lower()}" for name in expected)
        needed = "".join(f" --set {name}={str(value).lower()}" for name, value in expected.items())
        source = init if is_pretrained_name(init) else f"run {init!r}"
        raise ConfigError(
            f"a model with {have} cannot start from the weights of {source}; "
            f"use{needed.replace('--set tokenizer=', '--tokenizer ')}, or omit these settings"
        )
