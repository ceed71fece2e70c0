"""Cells of the comparison table: the configuration of each model, its training within a time, and its measures."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from engine.analysis.bits_per_character import TEXT_FORMS, EncodedText, TextForm, convert_text, native_form
from engine.analysis.perplexity import evaluate
from engine.config import Config
from engine.data.dataset import Dataset, load_dataset
from engine.models.base import LanguageModel, score_sequence
from engine.models.ngram import KneserNey
from engine.presets import get_preset
from engine.storage.files import write_atomically
from engine.training.transfer.initial_run import configure
from lotr_tui.bench.playing.playing_speed import (
    PlayingSpeed,
    load_playable,
    measure_playing_in_process,
    write_ngram,
)
from lotr_tui.bench.training.budget import train_within
from lotr_tui.bench.training.corpora import with_splits, with_text

Architecture = Literal["n-gram", "LSTM", "Transformer"]
CellTokenizer = Literal["words", "characters", "bpe"]
ARCHITECTURES: tuple[Architecture, ...] = ("n-gram", "LSTM", "Transformer")
TOKENIZERS: tuple[CellTokenizer, ...] = ("words", "characters", "bpe")
NGRAM_ORDERS = (2, 3, 4, 5, 6, 8)
"""Lengths of n-grams, of which the best on the validation split is chosen."""
FINE_TUNING_FRACTION = 0.2
"""Fraction of the time of a pre-trained model for its fine-tuning; it may end earlier."""
SETTINGS: dict[str, Any] = {
    "precision": "fp32", "device": "cpu", "checkpoint_seconds": 30.0, "keep_epoch_checkpoints": False,
}  # fmt: skip
"""Settings of every training."""
FROM_SCRATCH: dict[tuple[Architecture, CellTokenizer], dict[str, Any]] = {
    ("LSTM", "words"): {"epochs": 40, "shuffle_lines": False},
    ("LSTM", "characters"): {
        "epochs": 30, "embedding_size": 400, "hidden_size": 400, "bptt": 100, "shuffle_lines": False,
        "weight_drop": 0.3, "embedding_dropout": 0.0, "input_dropout": 0.2, "output_dropout": 0.3,
    },
    ("LSTM", "bpe"): {
        "epochs": 40, "vocabulary_size": 500, "embedding_size": 400, "hidden_size": 400, "shuffle_lines": False,
        "weight_drop": 0.3, "embedding_dropout": 0.1,
    },
    ("Transformer", "words"): {"shuffle_lines": False},
    ("Transformer", "characters"): {"shuffle_lines": False, "context_size": 192, "bptt": 192},
    ("Transformer", "bpe"): {"shuffle_lines": False, "vocabulary_size": 500, "context_size": 96, "bptt": 96},
}  # fmt: skip
"""Changes of the presets `default` and `gpt-tiny` for a training on the dialogues alone. `epochs` is the maximum: more
would only overfit."""
PRE_TRAINING: dict[tuple[Architecture, CellTokenizer], dict[str, Any]] = {
    ("LSTM", "words"): {"tokenizer": "words", "min_count": 12, "softmax_samples": 2000, "punctuation": True},
    ("LSTM", "characters"): {"tokenizer": "characters", "bptt": 128},
    ("LSTM", "bpe"): {},
    ("Transformer", "words"): {"tokenizer": "words", "min_count": 12, "softmax_samples": 2000},
    ("Transformer", "characters"): {
        "tokenizer": "characters", "context_size": 256, "bptt": 256, "batch_size": 16,
    },
    ("Transformer", "bpe"): {},
}  # fmt: skip
"""Changes of the presets `base` and `gpt` for the pre-training on the tales."""
FINE_TUNING: dict[Architecture, dict[str, Any]] = {"LSTM": {}, "Transformer": {"lr": 0.0005}}
"""Changes of the preset `finetune`."""


@dataclass(frozen=True)
class Cell:
    """One model of the table."""

    architecture: Architecture
    tokenizer: CellTokenizer
    is_pretrained: bool = False

    def name(self, seconds: float) -> str:
        """Return the name of the cell's run and files for a training time."""
        if self.architecture == "n-gram":
            return f"ngram-{self.tokenizer}"
        start = "pretrained" if self.is_pretrained else "scratch"
        return f"{self.architecture.lower()}-{self.tokenizer}-{start}-{seconds:g}s"


@dataclass(frozen=True)
class CellResult:
    """Measures of a cell."""

    architecture: Architecture
    tokenizer: CellTokenizer
    is_pretrained: bool
    description: str
    """Order of an n-gram model, or number of parameters."""
    training_seconds: float | None
    """Training time, validations included; None for an n-gram model."""
    words_per_second: float
    peak_megabytes: float | None
    valid: dict[str, float] = field(default_factory=dict)
    """Bits per character of the validation split by form of the text; a closed vocabulary has only "words"."""
    test: dict[str, float] = field(default_factory=dict)
    """Bits per character of the test split by form of the text."""


@dataclass(frozen=True)
class TableOptions:
    """Options of the table."""

    runs_dir: Path
    """Folder of the runs and results."""
    seconds: float
    """Training time of each model; a pre-trained one shares it between both trainings."""
    dialogues: dict[str, Path]
    """Text files of the splits "train", "valid" and "test"."""
    tales: Path
    """Text file for pre-training."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Further settings of every training, such as `threads`."""


def list_cells() -> list[Cell]:
    """Return the cells of the table in its order."""
    return [
        Cell(architecture, tokenizer, is_pretrained)
        for is_pretrained in (False, True)
        for architecture in ARCHITECTURES
        for tokenizer in TOKENIZERS
        if not (is_pretrained and architecture == "n-gram")
    ]


def compute_cell(cell: Cell, options: TableOptions, report: Callable[[str], None]) -> CellResult:
    """Return the result of a cell: from its file if there is one, and otherwise by training and measuring it."""
    file = options.runs_dir / f"{cell.name(options.seconds)}.json"
    if not file.exists():
        result = _count_ngrams(cell, options) if cell.architecture == "n-gram" else _train_cell(cell, options, report)
        write_atomically(file, json.dumps(asdict(result)).encode())
    return CellResult(**json.loads(file.read_text(encoding="utf-8")))


def scratch_config(cell: Cell, options: TableOptions) -> Config:
    """Return the configuration of a training on the dialogues alone."""
    preset = get_preset("gpt-tiny" if cell.architecture == "Transformer" else "default")
    values = {"tokenizer": cell.tokenizer} | FROM_SCRATCH[cell.architecture, cell.tokenizer]
    return _configure(preset, values, options, is_on_tales=False)


def pretraining_config(cell: Cell, options: TableOptions) -> Config:
    """Return the configuration of the pre-training on the tales."""
    preset = get_preset("gpt" if cell.architecture == "Transformer" else "base")
    return _configure(preset, PRE_TRAINING[cell.architecture, cell.tokenizer], options, is_on_tales=True)


def fine_tuning_config(cell: Cell, options: TableOptions, initial_run: str) -> Config:
    """Return the configuration of the fine-tuning on the dialogues."""
    values = {"init": initial_run} | FINE_TUNING[cell.architecture]
    return _configure(get_preset("finetune"), values, options, is_on_tales=False)


def _configure(preset: Config, values: dict[str, Any], options: TableOptions, *, is_on_tales: bool) -> Config:
    def apply(config: Config) -> Config:
        config = config.with_values(**(values | SETTINGS | options.settings))
        return with_text(config, options.tales) if is_on_tales else with_splits(config, options.dialogues)

    return configure(preset, apply, options.runs_dir)


def _train_cell(cell: Cell, options: TableOptions, report: Callable[[str], None]) -> CellResult:
    name, seconds, spent = cell.name(options.seconds), options.seconds, 0.0
    if cell.is_pretrained:
        initial_run, seconds = f"{name}-base", seconds * FINE_TUNING_FRACTION
        pretraining_seconds = options.seconds - seconds
        pretraining = train_within(
            pretraining_config(cell, options), initial_run, options.runs_dir, pretraining_seconds, report
        )
        config, spent = fine_tuning_config(cell, options, initial_run), pretraining.seconds
    else:
        config = scratch_config(cell, options)
    training = train_within(config, name, options.runs_dir, seconds, report)
    description = f"{training.parameters / 1e6:.1f} M"
    return _measure(cell, options, training.path, description, spent + training.seconds)


def _count_ngrams(cell: Cell, options: TableOptions) -> CellResult:
    """Count n-grams of the dialogues, with the order that is best on the validation split."""
    config = scratch_config(Cell("LSTM", cell.tokenizer), options)
    dataset = load_dataset(config.data)
    order = choose_order(dataset)
    folder = options.runs_dir / cell.name(options.seconds)
    write_ngram(folder, dataset.train, dataset.tokenizer, order)
    return _measure(cell, options, folder, f"order {order}", None)


def choose_order(dataset: Dataset) -> int:
    """Return the order of the Kneser-Ney model that predicts the validation split best."""
    perplexities = {
        order: evaluate(KneserNey(dataset.train, dataset.tokenizer, order), dataset.valid).perplexity
        for order in NGRAM_ORDERS
    }
    return min(perplexities, key=lambda order: perplexities[order])


def _measure(cell: Cell, options: TableOptions, folder: Path, description: str, seconds: float | None) -> CellResult:
    speed: PlayingSpeed = measure_playing_in_process(folder)
    model = load_playable(folder)
    bits = {
        split: bits_by_form(model, options.dialogues[split].read_text(encoding="utf-8")) for split in ("valid", "test")
    }
    return CellResult(
        architecture=cell.architecture,
        tokenizer=cell.tokenizer,
        is_pretrained=cell.is_pretrained,
        description=description,
        training_seconds=seconds,
        words_per_second=speed.words_per_second,
        peak_megabytes=speed.peak_megabytes,
        valid=bits["valid"],
        test=bits["test"],
    )


def bits_by_form(model: LanguageModel, text: str) -> dict[str, float]:
    """Return the bits per character of lines, as written and as lower-case words, where the model can read them."""
    forms: tuple[TextForm, ...] = ("original", "words")
    bits: dict[str, float] = {}
    for form in forms:
        if TEXT_FORMS.index(native_form(model.tokenizer)) <= TEXT_FORMS.index(form):
            encoded = EncodedText(convert_text(text, form), model.tokenizer, "line")
            bits[form] = encoded.bits_per_character(score_sequence(model, encoded.ids))
    return bits
