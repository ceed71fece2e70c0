"""The commands that train a model: one, or many to compare."""

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from engine.config import PRESETS, Config, preset, settings
from engine.errors import UnusableInput, printable
from engine.storage.files import located
from lotr_tui.cli.options import (
    ModeOption,
    NoMouseOption,
    RunsDirOption,
    SpeakerColumnOption,
    SplitSeedOption,
    TextColumnOption,
    ThemeOption,
    has_terminal,
)

PresetOption = Annotated[str, typer.Option("--preset", metavar="NAME", help=f"One of {', '.join(PRESETS)}.")]
CsvOption = Annotated[Path | None, typer.Option("--csv", help="Corpus: a CSV, one utterance a row.")]
TextOption = Annotated[Path | None, typer.Option("--text", help="Corpus: plain text, one utterance a line.")]
ValidOption = Annotated[Path | None, typer.Option("--valid", help="Validation text of a corpus that is split already.")]
TestOption = Annotated[Path | None, typer.Option("--test", help="Its test text.")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change one setting; repeatable.")
]


def train(
    preset_name: Annotated[
        str | None,
        typer.Option("--preset", metavar="NAME", help=f"One of {', '.join(PRESETS)}.", show_default="default"),
    ] = None,
    csv: CsvOption = None,
    text: TextOption = None,
    valid: ValidOption = None,
    test: TestOption = None,
    text_column: TextColumnOption = None,
    speaker_column: SpeakerColumnOption = None,
    mode: ModeOption = None,
    split_seed: SplitSeedOption = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the training.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training split.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or mps.")] = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads; 0: all cores.")] = None,
    precision: Annotated[str | None, typer.Option(help="auto, fp32 or bf16.")] = None,
    assignments: SetOption = None,
    run: Annotated[str | None, typer.Option("--run", metavar="NAME", help="Name of the new run.")] = None,
    runs_dir: RunsDirOption = None,
    resume: Annotated[
        str | None,
        typer.Option(metavar="RUN", help="Go on with a run that was stopped or killed, exactly where it was."),
    ] = None,
    detach: Annotated[bool, typer.Option("--detach", help="Train in the background; see `attach`.")] = False,
    no_tui: Annotated[bool, typer.Option("--no-tui", help="Plain lines instead of the dashboard.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON event a line; implies --no-tui.")] = False,
    theme: ThemeOption = None,
    no_mouse: NoMouseOption = False,
    list_settings: Annotated[bool, typer.Option("--list-settings", help="List what --set takes, and exit.")] = False,
) -> int:
    """Train a model, in a live dashboard."""
    from engine.runtime.process import place
    from engine.training.job import prepare_job, resume_job

    def changed(config: Config) -> Config:
        """The configuration with what the options change."""
        config = _configuration(
            config,
            csv,
            text,
            valid,
            test,
            text_column=text_column,
            speaker_column=speaker_column,
            mode=mode,
            split_seed=split_seed,
            seed=seed,
            epochs=epochs,
            device=device,
            threads=threads,
            precision=precision,
        )
        return config.with_settings(assignments or [])

    here = place()
    if not here.first:
        from lotr_tui.cli.console import train_along

        return 0 if detach else train_along()
    if list_settings:
        _print_settings(changed(preset("default" if preset_name is None else preset_name)))
        return 0
    if resume is not None:
        if preset_name is not None or run is not None:
            raise UnusableInput(f"--resume {resume} goes on with that run as it is; leave --preset and --run out")
        job = resume_job(resume, runs_dir, changed)
    else:
        job = prepare_job(changed(preset("default" if preset_name is None else preset_name)), run, runs_dir)
    if detach:
        from lotr_tui.monitor.background import hand_over

        job.run.lock.close()
        print(hand_over(job.run.path))
        return 0
    if no_tui or as_json or here.size > 1 or not has_terminal():
        from lotr_tui.cli.console import train_on_console

        return train_on_console(job, as_json=as_json)
    from lotr_tui.app import LotrApp
    from lotr_tui.cli.launch import run_app
    from lotr_tui.monitor.background import dies_with_its_terminal, how_to_come_back

    if dies_with_its_terminal():
        print(f"should this terminal close, the training goes on\n{how_to_come_back(job.run.name)}")
    app = LotrApp(job=job, runs_dir=runs_dir, theme=theme)
    run_app(app, mouse=not no_mouse)
    if app.detached is None:
        print(printable(f"run {job.run.name} is in {job.run.path}"))
        print(printable(f"play with it: lotr-tui --run {job.run.name}"))
        if app.training is None or app.training.active or app.training.left:
            print(printable(f"go on with it: lotr-tui train --resume {job.run.name}"))
    return 0


def ablate(
    preset_name: PresetOption = "default",
    csv: CsvOption = None,
    text: TextOption = None,
    valid: ValidOption = None,
    test: TestOption = None,
    mode: ModeOption = None,
    split_seed: SplitSeedOption = None,
    assignments: SetOption = None,
    seeds: Annotated[int, typer.Option(min=1, help="Trainings of each variant, with seeds from 0 on.")] = 3,
    jobs: Annotated[int | None, typer.Option(min=1, help="Trainings at once; as many as there are cores.")] = None,
    only: Annotated[list[str] | None, typer.Option(metavar="VARIANT", help="Only this one; repeatable.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a training.")] = False,
) -> None:
    """What each technique is worth: the preset with one taken away or put in, several seeds each."""
    from engine.training.ablation import choose_variants
    from lotr_tui.cli.reports import print_ablation

    config = _configuration(preset(preset_name), csv, text, valid, test, mode=mode, split_seed=split_seed)
    config = config.with_settings(assignments or [])
    variants = choose_variants(config, only or [])
    print_ablation(config, variants, seeds, jobs or os.cpu_count() or 1, as_json=as_json)


def _configuration(
    config: Config, csv: Path | None, text: Path | None, valid: Path | None, test: Path | None, **given: Any
) -> Config:
    """A configuration with what the options of a command change; None changes nothing."""
    if csv and text:
        raise UnusableInput("--csv and --text exclude each other; give one corpus")
    config = config.with_values(**{name: value for name, value in given.items() if value is not None})
    path = csv or text
    if path:
        config = config.with_values(corpus=str(located(path)), corpus_format="csv" if csv else "text")
    if valid or test:
        if not (valid and test and path):
            raise UnusableInput("--valid and --test belong together, beside the --text or --csv to train on")
        # What was split before was prepared before: it is taken as it is, every line and every word of it.
        config = config.with_values(
            valid_corpus=str(valid), test_corpus=str(test), tokenizer="spaces", min_characters=0, min_count=1
        )
    return config


def _print_settings(config: Config) -> None:
    for name, (part, meaning) in settings().items():
        value: Any = getattr(getattr(config, part), name)
        print(f"{f'{name}={value}':34} {meaning}")
