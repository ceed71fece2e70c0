"""The commands that train: `train` for one model, `ablate` for many to compare."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from engine.config import Config, describe_settings
from engine.errors import InvalidInputError
from engine.presets import PRESETS, get_preset
from engine.storage.files import absolute_path
from lotr_tui.cli import options
from lotr_tui.cli.parser import int_option

if TYPE_CHECKING:
    from engine.training.job import TrainingJob

DEFAULT_PRESET, FINE_TUNING_PRESET, DIALOGUE_PRESET = "default", "finetune", "dialogue"
TRAINING, RUN, OUTPUT = "Training", "Run", "Output"
"""Sections of the help text of `train`."""

PresetOption = Annotated[
    str | None,
    typer.Option(
        "--preset",
        metavar="NAME",
        help=f"Settings to start from: {', '.join(PRESETS)}.",
        show_default=f"{DEFAULT_PRESET}; {FINE_TUNING_PRESET} with --init; {DIALOGUE_PRESET} with --mode dialogue too",
        rich_help_panel=TRAINING,
    ),
]
InitOption = Annotated[
    str | None,
    typer.Option(
        "--init",
        metavar="RUN",
        help="Fine-tune: start from the weights and the tokenizer of a run or RUN@EPOCH; base is the bundled "
        "pre-trained model.",
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


def train(
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
    seed: Annotated[
        int | None, int_option("--seed", help="Random seed of the training.", rich_help_panel=TRAINING)
    ] = None,
    epochs: Annotated[
        int | None, int_option("--epochs", help="Passes over the training split.", rich_help_panel=TRAINING)
    ] = None,
    device: Annotated[
        Literal["auto", "cpu", "cuda", "mps"] | None,
        typer.Option("--device", metavar="auto|cpu|cuda|mps", help="Device to train on.", rich_help_panel=TRAINING),
    ] = None,
    threads: Annotated[
        int | None, int_option("--threads", help="CPU threads; 0: all cores.", rich_help_panel=TRAINING)
    ] = None,
    precision: Annotated[
        Literal["auto", "fp32", "bf16"] | None,
        typer.Option(
            "--precision",
            metavar="auto|fp32|bf16",
            help="Floating-point format of the training.",
            rich_help_panel=TRAINING,
        ),
    ] = None,
    assignments: SetOption = None,
    list_settings: Annotated[
        bool,
        typer.Option("--list-settings", help="List all settings for --set, and exit.", rich_help_panel=TRAINING),
    ] = False,
    run: Annotated[
        str | None,
        typer.Option(
            "--run", metavar="NAME", help="Name of the new run. Default: preset and time.", rich_help_panel=RUN
        ),
    ] = None,
    runs_dir: options.RunsDirOption = None,
    resume: Annotated[
        str | None,
        typer.Option(
            "--resume", metavar="RUN", help="Resume a run that was stopped or killed, bit-exactly.", rich_help_panel=RUN
        ),
    ] = None,
    detach: Annotated[
        bool,
        typer.Option("--detach", help="Train in the background; see `lotr-tui attach`.", rich_help_panel=OUTPUT),
    ] = False,
    no_tui: Annotated[
        bool, typer.Option("--no-tui", help="Print lines instead of drawing the dashboard.", rich_help_panel=OUTPUT)
    ] = False,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="Print one JSON object per event; implies --no-tui.", rich_help_panel=OUTPUT),
    ] = False,
    theme: options.ThemeOption = None,
    no_mouse: options.NoMouseOption = False,
) -> int:
    """Train a model and watch it in a live dashboard, or print lines where there is no terminal."""
    from engine.runtime.process import get_process_info
    from engine.training.job import prepare_job, resume_job
    from engine.training.transfer.initial_run import configure

    def apply_options(config: Config) -> Config:
        """Return `config` with the changes that the options of this command make."""
        config = _apply_options(
            config,
            csv=csv,
            text=text,
            valid=valid,
            test=test,
            text_column=text_column,
            speaker_column=speaker_column,
            init=init,
            teachers=",".join(teachers) if teachers else None,
            tokenizer=tokenizer,
            mode=mode,
            split=split,
            split_seed=split_seed,
            seed=seed,
            epochs=epochs,
            device=device,
            threads=threads,
            precision=precision,
        )
        return config.with_overrides(assignments or [])

    options.check_theme(theme)
    process = get_process_info()
    if not process.is_main_process:
        from lotr_tui.cli.train_console import train_worker_rank

        return 0 if detach else train_worker_rank()
    if list_settings:
        _print_settings(configure(_get_preset(preset, init, mode), apply_options, runs_dir))
        return 0
    if resume is not None:
        if preset is not None or run is not None:
            raise InvalidInputError(f"--resume {resume} keeps the name and preset of that run; omit --preset and --run")
        job = resume_job(resume, runs_dir, apply_options)
    else:
        job = prepare_job(configure(_get_preset(preset, init, mode), apply_options, runs_dir), run, runs_dir)
    if detach:
        from lotr_tui.monitor.background import resume_in_background

        job.run.lock.release()
        print(resume_in_background(job.run.path))
        return 0
    if no_tui or as_json or process.world_size > 1 or not options.has_terminal():
        from lotr_tui.cli.train_console import train_on_console

        return train_on_console(job, as_json=as_json)
    return _train_in_dashboard(job, runs_dir, theme, mouse=not no_mouse)


def ablate(
    preset: PresetOption = None,
    init: InitOption = None,
    csv: CsvOption = None,
    text: TextOption = None,
    valid: ValidOption = None,
    test: TestOption = None,
    tokenizer: options.TokenizerOption = None,
    mode: options.ModeOption = None,
    split: options.SplitOption = None,
    split_seed: options.SplitSeedOption = None,
    assignments: SetOption = None,
    seeds: Annotated[
        int, int_option("--seeds", minimum=1, maximum=1_000, help="Trainings per variant, with seeds from 0.")
    ] = 3,
    jobs: Annotated[
        int | None,
        int_option("--jobs", minimum=1, maximum=1_000, help="Parallel trainings. Default: the number of cores."),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option("--only", metavar="VARIANT", help="Train only this variant; repeatable."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per training.")] = False,
) -> None:
    """Measure the effect of each technique: train with one removed or added at a time, with several seeds."""
    from engine.training.ablation import select_variants
    from engine.training.transfer.initial_run import configure
    from lotr_tui.cli.reports import print_ablation

    def apply_options(config: Config) -> Config:
        """Return `config` with the changes that the options of this command make."""
        data = {"tokenizer": tokenizer, "mode": mode, "split": split, "split_seed": split_seed}
        config = _apply_options(config, csv=csv, text=text, valid=valid, test=test, init=init, **data)
        return config.with_overrides(assignments or [])

    config = configure(_get_preset(preset, init, mode), apply_options)
    variants = select_variants(config, only or [])
    print_ablation(config, variants, seeds, jobs or os.cpu_count() or 1, as_json=as_json)


def _train_in_dashboard(job: "TrainingJob", runs_dir: Path | None, theme: str | None, *, mouse: bool) -> int:
    from lotr_tui.app import LotrApp
    from lotr_tui.cli.launch import run_app
    from lotr_tui.monitor.background import attach_hint, dies_with_terminal

    if dies_with_terminal():
        print(f"if this terminal closes, the training continues\n{attach_hint(job.run.path)}")
    return run_app(LotrApp(job=job, runs_dir=runs_dir, theme=theme), mouse=mouse)


def _get_preset(name: str | None, init: str | None, mode: str | None) -> Config:
    """Return the preset called `name`, or the default one, which depends on the initial run and the mode.

    Raises:
        InvalidInputError: If there is no such preset, or the name of the initial run is empty.
    """
    if init is not None and not init.strip():  # an unset variable of a shell must not train from random weights
        raise InvalidInputError("--init names no run; give one, or omit the option; see `lotr-tui runs`")
    default = DEFAULT_PRESET
    if init is not None:
        default = DIALOGUE_PRESET if mode == "dialogue" else FINE_TUNING_PRESET
    return get_preset(default if name is None else name)


def _apply_options(
    config: Config, *, csv: Path | None, text: Path | None, valid: Path | None, test: Path | None, **overrides: Any
) -> Config:
    """Return `config` with the given corpus files and overrides; None leaves a setting unchanged.

    Raises:
        InvalidInputError: If the corpus options contradict each other.
        ConfigError: If an override is out of range.
    """
    if csv and text:
        raise InvalidInputError("--csv and --text exclude each other; give one corpus")
    if text and (overrides.get("text_column") or overrides.get("speaker_column")):
        raise InvalidInputError(f"--text {text} reads lines without columns; for a file with columns, use --csv")
    config = config.with_values(**{name: value for name, value in overrides.items() if value is not None})
    path = csv or text
    if path:
        config = config.with_values(corpus=str(absolute_path(path)), corpus_format="csv" if csv else "text")
    if valid or test:
        if not (valid and test and path):
            raise InvalidInputError("--valid and --test need each other, and --text or --csv for the training text")
        from engine.data.tokenizers.base import is_open_vocabulary

        is_open = is_open_vocabulary(config.data.tokenizer)
        if not is_open and overrides["tokenizer"] is None and not config.training.init:
            config = config.with_values(tokenizer="whitespace")  # a corpus that is already split is already tokenized
        # Keep every line, in an open vocabulary empty ones too, and every token.
        config = config.with_values(valid_corpus=str(valid), test_corpus=str(test), min_characters=-1 if is_open else 0)
        if config.data.tokenizer == "whitespace":
            config = config.with_values(min_count=1)
    return config


def _print_settings(config: Config) -> None:
    for name, (section, description) in describe_settings().items():
        value: Any = getattr(getattr(config, section), name)
        print(f"{f'{name}={value}':34} {description}")
