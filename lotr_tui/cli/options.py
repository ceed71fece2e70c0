"""Options that several commands share, each declared once, and detection of a terminal to draw on."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from engine.config import TEACHER_SEPARATOR, Config
from engine.errors import InvalidInputError
from engine.presets import PRESETS, get_preset
from engine.storage.files import absolute_path
from lotr_tui.cli.parser import flag, number, option, setting
from lotr_tui.textual_fixes import is_served

if TYPE_CHECKING:  # imports numpy
    from engine.runs.combine import CombinationOptions

DATA, MODEL, SCREEN, TRAINING = "Data", "Model", "Screen", "Training"
MODEL_NAMES = "Name or path of a run, latest, RUN@EPOCH, hf:FOLDER, hf:owner/name or gguf:FILE"
DEFAULT_MODEL = "Default: bundled where SmolLM2 was fetched, else lstm."

JsonOption = Annotated[bool, flag("--json", "Print JSON.")]
JsonLinesOption = Annotated[bool, flag("--jsonl", "Print one JSON object per token.")]
RunsDirOption = Annotated[Path | None, option("--runs-dir", "DIR", "Folder of the runs.", file_okay=False)]
ThemeOption = Annotated[str | None, option("--theme", "NAME", "shire, shire-light or any Textual theme.", SCREEN)]
NoMouseOption = Annotated[bool, flag("--no-mouse", "Leave the mouse to the terminal, to select text with it.", SCREEN)]
RUNS = f"{MODEL_NAMES}; repeat it for an ensemble of runs. {DEFAULT_MODEL}"
RunsOption = Annotated[list[str] | None, option("--run", "RUN", RUNS, MODEL)]
RunOption = Annotated[str | None, option("--run", "RUN", f"{MODEL_NAMES}. {DEFAULT_MODEL}", MODEL)]
PRECISION = "int8 is faster for large models, and less exact; auto computes as the model is stored."
PrecisionOption = Annotated[Literal["auto", "fp32", "int8"], option("--precision", "auto|fp32|int8", PRECISION, MODEL)]
TokenizerOption = Annotated[str | None, setting("tokenizer", DATA)]
VocabularySizeOption = Annotated[int | None, setting("vocabulary_size", DATA)]
ModeOption = Annotated[str | None, setting("mode", DATA)]
SplitOption = Annotated[str | None, setting("split", DATA)]
SplitSeedOption = Annotated[int | None, setting("split_seed", DATA)]
TextColumnOption = Annotated[str | None, setting("text_column", DATA)]
SpeakerColumnOption = Annotated[str | None, setting("speaker_column", DATA)]
SETTING = "Change any setting; repeatable. See `lotr-tui train --list-settings`."
SetOption = Annotated[list[str] | None, option("--set", "KEY=VALUE", SETTING, TRAINING)]
CSV = "Corpus: a CSV, one utterance per row. Default: the bundled dialogues."
CsvOption = Annotated[Path | None, option("--csv", "FILE", CSV, DATA)]
TextOption = Annotated[Path | None, option("--text", "FILE", "Corpus: plain text, one utterance per line.", DATA)]


@dataclass(frozen=True)
class Combination:
    """Options that combine models."""

    mixture: Annotated[bool, flag("--mixture", "Mix with a Kneser-Ney model, tuned on validation.", MODEL)] = False
    cache: Annotated[bool, flag("--cache", "Make recently used words more likely (continuous cache).", MODEL)] = False
    dynamic: Annotated[bool, flag("--dynamic", "For eval: keep training while reading.", MODEL)] = False
    weights: Annotated[str | None, option("--weights", "W,W,...", "Of the models; Kneser-Ney is last.", MODEL)] = None
    cache_window: Annotated[int | None, number("--cache-window", int, "Words. Default: 500.", MODEL, 1, 1e7)] = None

    def parse(self) -> "CombinationOptions | None":
        """Return the combination, or None if no option is given."""
        if self == Combination():
            return None
        from engine.runs.combine import CombinationOptions

        if self.cache_window is not None and not self.cache:
            raise InvalidInputError(f"--cache-window {self.cache_window} has no effect without --cache; give both")
        try:
            weights = tuple(map(float, self.weights.split(","))) if self.weights is not None else ()
        except ValueError:
            form = "must be numbers separated by commas, such as 0.8,0.2"
            raise InvalidInputError(f"--weights {self.weights} {form}") from None
        window = {} if self.cache_window is None else {"cache_window": self.cache_window}
        return CombinationOptions(self.mixture, self.cache, self.dynamic, weights, **window)


SETTINGS = (
    *("init", "tokenizer", "mode", "split", "split_seed", "text_column", "speaker_column"),
    *("seed", "epochs", "device", "threads", "precision"),
)
"""Options of a training that are settings of `Config` under the same name."""
INIT_HELP = (
    "Fine-tune: start from a run or RUN@EPOCH, from base (the pre-trained LSTM that is included), or with an adapter "
    "from smollm2, gguf:FILE, hf:FOLDER or hf:owner/name."
)
TEACHER_HELP = "Distil: also learn the averaged predictions of this run; repeat it for an ensemble."
PRESET_HELP = (
    f"Settings to start from: {', '.join(PRESETS)}. Default: default; with --init finetune, or dialogue with --mode "
    "dialogue, or lora for a model by others."
)


@dataclass(frozen=True)
class TrainingOptions:
    """Options that describe a training. None leaves a setting as it is in the preset."""

    preset: Annotated[str | None, option("--preset", "NAME", PRESET_HELP, TRAINING)] = None
    init: Annotated[str | None, option("--init", "RUN", INIT_HELP, TRAINING)] = None
    teachers: Annotated[list[str] | None, option("--teacher", "RUN", TEACHER_HELP, TRAINING)] = None
    csv: CsvOption = None
    text: TextOption = None
    valid: Annotated[Path | None, option("--valid", "FILE", "Validation text, if the corpus is split.", DATA)] = None
    test: Annotated[Path | None, option("--test", "FILE", "Test text, if the corpus is split.", DATA)] = None
    text_column: TextColumnOption = None
    speaker_column: SpeakerColumnOption = None
    tokenizer: TokenizerOption = None
    mode: ModeOption = None
    split: SplitOption = None
    split_seed: SplitSeedOption = None
    seed: Annotated[int | None, setting("seed", TRAINING)] = None
    epochs: Annotated[int | None, setting("epochs", TRAINING)] = None
    device: Annotated[str | None, setting("device", TRAINING)] = None
    threads: Annotated[int | None, setting("threads", TRAINING)] = None
    precision: Annotated[str | None, setting("precision", TRAINING)] = None
    assignments: SetOption = None

    def configure(self, runs_dir: Path | None = None) -> Config:
        """Return the preset, changed by these options, or raise an InvalidInputError."""
        from engine.training.initial_run import configure, default_preset  # imports numpy

        if self.init is not None and not self.init.strip():  # an unset variable must not train from random weights
            raise InvalidInputError("--init names no run; give one, or omit the option; see `lotr-tui runs`")
        name = default_preset(self.init or "", self.mode, runs_dir) if self.preset is None else self.preset
        return configure(get_preset(name), self.apply, runs_dir)

    def apply(self, config: Config) -> Config:
        """Return `config` with the changes that these options make, or raise an InvalidInputError."""
        if self.csv and self.text:
            raise InvalidInputError("--csv and --text exclude each other; give one corpus")
        if self.text and (self.text_column or self.speaker_column):
            raise InvalidInputError(
                f"--text {self.text} reads lines without columns; for a file with columns, use --csv"
            )
        values = {name: value for name in SETTINGS if (value := getattr(self, name)) is not None}
        if self.teachers:
            values["teachers"] = TEACHER_SEPARATOR.join(self.teachers)
        if path := self.csv or self.text:
            values |= {"corpus": str(absolute_path(path)), "corpus_format": "csv" if self.csv else "text"}
        config = config.with_values(**values)
        if self.valid or self.test:
            if not (self.valid and self.test and path):
                raise InvalidInputError("--valid and --test need each other, and --text or --csv for the training text")
            # The files are lines and tokens already, and all of them count.
            is_closed = config.data.tokenizer in ("words", "whitespace")
            if is_closed and self.tokenizer is None and not config.training.init:
                config = config.with_values(tokenizer="whitespace")
            if config.data.tokenizer == "whitespace":
                config = config.with_values(min_count=1)
            config = config.with_values(min_characters=0 if is_closed else -1)
            config = config.with_values(valid_corpus=str(self.valid), test_corpus=str(self.test))
        return config.with_overrides(list(self.assignments or ()))


def check_output_format(as_json: bool, jsonl: bool) -> None:
    if as_json and jsonl:
        raise InvalidInputError("--json and --jsonl exclude each other; give one of them")


def check_vocabulary_size(vocabulary_size: int | None, tokenizer: str | None) -> None:
    if vocabulary_size is not None and tokenizer != "bpe":
        raise InvalidInputError("--vocabulary-size belongs to --tokenizer bpe; add that option")


def check_theme(name: str | None) -> None:
    """Raise a ConfigError if no theme has this name; None is the saved theme."""
    if name is not None:
        from lotr_tui.theme import check_theme_name  # imports Textual

        check_theme_name(name)


def has_terminal() -> bool:
    """Return True if a screen can be drawn: in a browser, or on a terminal that is not dumb while CI is not set."""
    is_plain = os.environ.get("TERM", "dumb") == "dumb" or os.environ.get("CI", "") not in ("", "0", "false")
    # The screen is drawn on standard error.
    return is_served() or (not is_plain and all(each.isatty() for each in (sys.stdin, sys.stdout, sys.stderr)))
