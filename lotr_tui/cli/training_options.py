"""Options that the commands that train share, and the configuration that they describe."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from engine.config import TEACHER_SEPARATOR, Config
from engine.errors import InvalidInputError
from engine.presets import PRESETS, get_preset
from engine.storage.files import absolute_path
from lotr_tui.cli import options
from lotr_tui.cli.parser import int_option

TRAINING = "Training"
"""Section of the help texts."""

PresetOption = Annotated[
    str | None,
    typer.Option(
        "--preset",
        metavar="NAME",
        help=f"Settings to start from: {', '.join(PRESETS)}.",
        show_default="default; with --init finetune, or dialogue with --mode dialogue, or lora for a model by others",
        rich_help_panel=TRAINING,
    ),
]
InitOption = Annotated[
    str | None,
    typer.Option(
        "--init",
        metavar="RUN",
        help="Fine-tune: start from a run or RUN@EPOCH, from base (the pre-trained LSTM that is included), or with an "
        "adapter from smollm2, gguf:FILE, hf:FOLDER or hf:owner/name.",
        rich_help_panel=TRAINING,
    ),
]
TeacherOption = Annotated[
    list[str] | None,
    typer.Option(
        "--teacher",
        metavar="RUN",
        help="Distil: also learn the averaged predictions of this run; repeat it for an ensemble.",
        rich_help_panel=TRAINING,
    ),
]
CsvOption = Annotated[
    Path | None,
    typer.Option(
        "--csv",
        metavar="FILE",
        help="Corpus: a CSV, one utterance per row. Default: the bundled dialogues.",
        rich_help_panel=options.DATA,
    ),
]
TextOption = Annotated[
    Path | None,
    typer.Option(
        "--text", metavar="FILE", help="Corpus: plain text, one utterance per line.", rich_help_panel=options.DATA
    ),
]
ValidOption = Annotated[
    Path | None,
    typer.Option(
        "--valid",
        metavar="FILE",
        help="Validation text of a corpus that is already split.",
        rich_help_panel=options.DATA,
    ),
]
TestOption = Annotated[
    Path | None,
    typer.Option(
        "--test", metavar="FILE", help="Test text of a corpus that is already split.", rich_help_panel=options.DATA
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change any setting; repeatable. See `lotr-tui train --list-settings`.",
        rich_help_panel=TRAINING,
    ),
]
SeedOption = Annotated[int | None, int_option("--seed", help="Random seed of the training.", rich_help_panel=TRAINING)]
EpochsOption = Annotated[
    int | None, int_option("--epochs", help="Passes over the training split.", rich_help_panel=TRAINING)
]
DeviceOption = Annotated[
    Literal["auto", "cpu", "cuda", "mps"] | None,
    typer.Option("--device", metavar="auto|cpu|cuda|mps", help="Device to train on.", rich_help_panel=TRAINING),
]
ThreadsOption = Annotated[
    int | None, int_option("--threads", help="CPU threads; 0: all cores.", rich_help_panel=TRAINING)
]
PrecisionOption = Annotated[
    Literal["auto", "fp32", "bf16"] | None,
    typer.Option(
        "--precision",
        metavar="auto|fp32|bf16",
        help="Floating-point format of the training.",
        rich_help_panel=TRAINING,
    ),
]


@dataclass(frozen=True)
class TrainingOptions:
    """Options of a command line that describe a training. None leaves a setting as it is in the preset."""

    preset: str | None = None
    init: str | None = None
    csv: Path | None = None
    text: Path | None = None
    valid: Path | None = None
    test: Path | None = None
    mode: str | None = None
    tokenizer: str | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)
    """Values of other settings, by name."""
    assignments: Sequence[str] = ()
    """Values of `--set`, which come last."""

    def configure(self, runs_dir: Path | None = None) -> Config:
        """Return the preset, changed by these options.

        Raises:
            InvalidInputError: If an option is invalid, options contradict each other, or there is no such run.
        """
        from engine.training.initial_run import configure, default_preset

        if self.init is not None and not self.init.strip():  # an unset variable must not train from random weights
            raise InvalidInputError("--init names no run; give one, or omit the option; see `lotr-tui runs`")
        name = default_preset(self.init or "", self.mode, runs_dir) if self.preset is None else self.preset
        return configure(get_preset(name), self.apply, runs_dir)

    def apply(self, config: Config) -> Config:
        """Return `config` with the changes that these options make.

        Raises:
            InvalidInputError: If an option is invalid, or options contradict each other.
        """
        if self.csv and self.text:
            raise InvalidInputError("--csv and --text exclude each other; give one corpus")
        if self.text and (self.overrides.get("text_column") or self.overrides.get("speaker_column")):
            raise InvalidInputError(
                f"--text {self.text} reads lines without columns; for a file with columns, use --csv"
            )
        values = {"init": self.init, "mode": self.mode, "tokenizer": self.tokenizer, **self.overrides}
        config = config.with_values(**{name: value for name, value in values.items() if value is not None})
        path = self.csv or self.text
        if path:
            config = config.with_values(corpus=str(absolute_path(path)), corpus_format="csv" if self.csv else "text")
        if self.valid or self.test:
            if not (self.valid and self.test and path):
                raise InvalidInputError("--valid and --test need each other, and --text or --csv for the training text")
            config = self._apply_held_out_files(config, str(self.valid), str(self.test))
        return config.with_overrides(list(self.assignments))

    def _apply_held_out_files(self, config: Config, valid: str, test: str) -> Config:
        """Return `config` with the files of a corpus that is already split, every line and token of which is kept."""
        from engine.data.tokenizers.base import is_open_vocabulary

        is_open = is_open_vocabulary(config.data.tokenizer)
        if not is_open and self.tokenizer is None and not config.training.init:
            config = config.with_values(tokenizer="whitespace")  # a corpus that is already split is already tokenized
        config = config.with_values(valid_corpus=valid, test_corpus=test, min_characters=-1 if is_open else 0)
        return config.with_values(min_count=1) if config.data.tokenizer == "whitespace" else config


def parse_training(
    *,
    preset: PresetOption = None,
    init: InitOption = None,
    teachers: TeacherOption = None,
    csv: CsvOption = None,
    text: TextOption = None,
    valid: ValidOption = None,
    test: TestOption = None,
    text_column: options.TextColumnOption = None,
    speaker_column: options.SpeakerColumnOption = None,
    tokenizer: options.TokenizerOption = None,
    mode: options.ModeOption = None,
    split: options.SplitOption = None,
    split_seed: options.SplitSeedOption = None,
    seed: SeedOption = None,
    epochs: EpochsOption = None,
    device: DeviceOption = None,
    threads: ThreadsOption = None,
    precision: PrecisionOption = None,
    assignments: SetOption = None,
) -> TrainingOptions:
    """Return the training that the options describe."""
    return TrainingOptions(
        preset=preset,
        init=init,
        csv=csv,
        text=text,
        valid=valid,
        test=test,
        mode=mode,
        tokenizer=tokenizer,
        overrides={
            "teachers": TEACHER_SEPARATOR.join(teachers) if teachers else None,
            "text_column": text_column,
            "speaker_column": speaker_column,
            "split": split,
            "split_seed": split_seed,
            "seed": seed,
            "epochs": epochs,
            "device": device,
            "threads": threads,
            "precision": precision,
        },
        assignments=assignments or (),
    )


with_training = options.merge_options("training", parse_training)
"""Decorator of a command that has a parameter `training`: it gets the options of `parse_training` instead."""
NO_OPTIONS = parse_training()
"""The result of `parse_training` without any option."""
