"""The commands that train: `train` and `finetune` for one model, `ablate` for many to compare."""

import os
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.config import Config, describe_settings
from engine.errors import InvalidInputError, printable, shell_word
from engine.models.pretrained.names import SMOLLM2
from lotr_tui.cli import options, training_options
from lotr_tui.cli.parser import int_option
from lotr_tui.trackers.libraries import check_installed, parse_tracker_names

if TYPE_CHECKING:
    from engine.training.job import TrainingJob

RUN, OUTPUT = "Run", "Output"
"""Sections of the help text of `train`."""


@training_options.with_training
def train(
    training: training_options.TrainingOptions,
    list_settings: Annotated[
        bool,
        typer.Option(
            "--list-settings", help="List all settings for --set, and exit.", rich_help_panel=training_options.TRAINING
        ),
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
    trackers: Annotated[
        list[str] | None,
        typer.Option(
            "--log",
            metavar="tensorboard|wandb|mlflow|trackio",
            help="Send the training to this experiment tracker too; repeatable.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    theme: options.ThemeOption = None,
    no_mouse: options.NoMouseOption = False,
) -> int:
    """Train a model from scratch and watch it in a live dashboard, or print lines where there is no terminal.

    `lotr-tui finetune` makes a model that converses.
    """
    from engine.runtime.process import get_process_info
    from engine.training.job import prepare_job, resume_job

    options.check_theme(theme)
    process = get_process_info()
    if not process.is_main_process:
        from lotr_tui.cli.train_console import train_worker_rank

        return 0 if detach else train_worker_rank()
    if list_settings:
        _print_settings(training.configure(runs_dir))
        return 0
    tracker_names = parse_tracker_names(trackers or ())
    check_installed(tracker_names)
    if resume is not None:
        if training.preset is not None or run is not None:
            raise InvalidInputError(f"--resume {resume} keeps the name and preset of that run; omit --preset and --run")
        job = resume_job(resume, runs_dir, training.apply)
    else:
        job = prepare_job(training.configure(runs_dir), run, runs_dir)
        if not (job.config.training.init or as_json):
            print(printable(f"for a model that converses, use {_finetune_command(training)}"))
    if tracker_names:
        from lotr_tui.trackers.follower import choose_trackers

        choose_trackers(job.run.path, tracker_names)
    if detach:
        from lotr_tui.monitor.background import resume_in_background

        job.run.lock.release()
        print(resume_in_background(job.run.path))
        return 0
    if no_tui or as_json or process.world_size > 1 or not options.has_terminal():
        from lotr_tui.cli.train_console import train_on_console

        return train_on_console(job, as_json=as_json)
    return _train_in_dashboard(job, runs_dir, theme, mouse=not no_mouse)


@wraps(train, assigned=("__annotations__",))  # it has the options of `train`
def finetune(**arguments: Any) -> int | None:
    """Teach SmolLM2 to converse like the speakers of a corpus: short for `train --init smollm2 --mode dialogue`."""
    return train(**{**arguments, "init": arguments["init"] or SMOLLM2, "mode": arguments["mode"] or "dialogue"})


def _finetune_command(training: training_options.TrainingOptions) -> str:
    """Return the command that fine-tunes SmolLM2 on the corpus of a training."""
    corpora = {"--csv": training.csv, "--text": training.text}
    options_of_corpus = [f" {name} {shell_word(str(path))}" for name, path in corpora.items() if path]
    return f"lotr-tui finetune{''.join(options_of_corpus)}"


def ablate(
    preset: training_options.PresetOption = None,
    init: training_options.InitOption = None,
    csv: training_options.CsvOption = None,
    text: training_options.TextOption = None,
    valid: training_options.ValidOption = None,
    test: training_options.TestOption = None,
    tokenizer: options.TokenizerOption = None,
    mode: options.ModeOption = None,
    split: options.SplitOption = None,
    split_seed: options.SplitSeedOption = None,
    assignments: training_options.SetOption = None,
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
    from lotr_tui.cli.reports import print_ablation

    training = training_options.TrainingOptions(
        preset=preset,
        init=init,
        csv=csv,
        text=text,
        valid=valid,
        test=test,
        mode=mode,
        tokenizer=tokenizer,
        overrides={"split": split, "split_seed": split_seed},
        assignments=assignments or (),
    )
    config = training.configure()
    variants = select_variants(config, only or [])
    print_ablation(config, variants, seeds, jobs or os.cpu_count() or 1, as_json=as_json)


def _train_in_dashboard(job: "TrainingJob", runs_dir: Path | None, theme: str | None, *, mouse: bool) -> int:
    from lotr_tui.app import LotrApp
    from lotr_tui.cli.launch import run_app
    from lotr_tui.monitor.background import attach_hint, dies_with_terminal

    if dies_with_terminal():
        print(f"if this terminal closes, the training continues\n{attach_hint(job.run.path)}")
    return run_app(LotrApp(job=job, runs_dir=runs_dir, theme=theme), mouse=mouse)


def _print_settings(config: Config) -> None:
    for name, (section, description) in describe_settings().items():
        value: Any = getattr(getattr(config, section), name)
        print(f"{f'{name}={value}':34} {description}")
