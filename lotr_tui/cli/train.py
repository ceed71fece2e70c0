"""`lotr-tui train`, `finetune` and `ablate`: trainings in the dashboard, or with plain lines or JSON events."""

import errno
import math
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from functools import partial, wraps
from typing import Annotated, Any

import typer

from engine import events
from engine.config import SETTINGS
from engine.errors import InvalidInputError, OutputError, TrainingError, printable, shell_word
from engine.events import ControlCommand
from engine.models.pretrained.names import SMOLLM2
from engine.runs.directory import run_word
from engine.runtime.process import get_process_info
from engine.runtime.worker import Cancellation
from engine.training.ablation import Trial, run_ablation, select_variants, summarize_trials
from engine.training.job import TrainingJob, prepare_job, resume_job
from lotr_tui.cli import main as cli
from lotr_tui.cli.console import discard_output, print_json, print_table
from lotr_tui.cli.main import option
from lotr_tui.formatting import PRETRAINED_NOTE, displayable, format_duration
from lotr_tui.monitor import background
from lotr_tui.monitor.training_log import PERPLEXITY, LossUnit
from lotr_tui.trackers.follower import TRACKERS_FOLDER, choose_trackers
from lotr_tui.trackers.libraries import TRACKER_NAMES, check_installed, parse_tracker_names
from lotr_tui.trackers.supervisor import TrackerSupervisor

RUN, OUTPUT = "Run", "Output"
TRACKERS = "|".join(TRACKER_NAMES)
PROGRESS_INTERVAL = 5.0  # fewest seconds between two lines of progress
MAX_TRACKER_WAIT = 60.0  # seconds to wait at the end of a training until its trackers have received everything
TRACKER_REPORT_DELAY = 2.0  # seconds of waiting after which a line says so
commands = typer.Typer(**cli.FORM)


@commands.command("train", cls=cli.Command, epilog="lotr-tui train --text novel.txt --run novel")
@cli.expand
def train(
    *,
    training: cli.TrainingOptions,
    list_settings: Annotated[bool, option("--list-settings", "List the settings of --set.", cli.TRAINING)] = False,
    run: Annotated[str | None, option("--run NAME", "Name of the new run. Default: preset and time.", RUN)] = None,
    runs_dir: cli.RunsDirOption = None,
    resume: Annotated[str | None, option("--resume RUN", "Resume a run that ended early, exactly.", RUN)] = None,
    detach: Annotated[bool, option("--detach", "Train in the background; see `lotr-tui attach`.", OUTPUT)] = False,
    no_tui: Annotated[bool, option("--no-tui", "Print lines instead of drawing the dashboard.", OUTPUT)] = False,
    as_json: Annotated[bool, option("--json", "Print one JSON object per event; implies --no-tui.", OUTPUT)] = False,
    trackers: Annotated[
        list[str] | None, option(f"--log {TRACKERS}", "Send it to a tracker; repeatable.", OUTPUT)
    ] = None,
    theme: cli.ThemeOption = None,
    no_mouse: cli.NoMouseOption = False,
) -> int:
    """Train a model from scratch and watch it in a live dashboard, or print lines where there is no terminal.

    `lotr-tui finetune` makes a model that converses.
    """
    process = get_process_info()
    if process.rank:
        return 0 if detach else _train_worker_rank()
    if list_settings:
        config = training.configure(runs_dir)
        for name, (section, _, meta) in SETTINGS.items():
            print(f"{f'{name}={getattr(getattr(config, section), name)}':34} {meta.description}")
        return 0
    tracker_names = parse_tracker_names(trackers) if trackers else []
    if tracker_names:
        check_installed(tracker_names)
    if resume is not None:
        if training.preset is not None or run is not None:
            raise InvalidInputError(f"--resume {resume} keeps the name and preset of that run; omit --preset and --run")
        job = resume_job(resume, runs_dir, training.apply)
    else:
        job = prepare_job(training.configure(runs_dir), run, runs_dir)
        if not (job.config.training.init or as_json):
            corpora = {"--csv": training.csv, "--text": training.text}
            corpus = "".join(f" {name} {shell_word(str(path))}" for name, path in corpora.items() if path)
            print(printable(f"for a model that converses, use lotr-tui finetune{corpus}"))
    if tracker_names:
        choose_trackers(job.run.path, tracker_names)
    if detach:
        job.run.lock.close()
        print(background.resume_in_background(job.run.path))
        return 0
    if no_tui or as_json or process.world_size > 1 or not cli.has_terminal():
        return train_on_console(job, as_json=as_json)
    from lotr_tui.app import LotrApp  # imports Textual
    from lotr_tui.cli.launch import run_app

    if background.dies_with_terminal():
        print(f"if this terminal closes, the training continues\n{background.attach_hint(job.run.path)}")
    return run_app(LotrApp(job=job, runs_dir=runs_dir, theme=theme), mouse=not no_mouse)


@commands.command("finetune", cls=cli.Command, epilog="lotr-tui finetune --csv dialogues.csv")
@wraps(train, assigned=("__annotations__",))  # it has the options of `train`
def finetune(**options: Any) -> int:
    """Teach SmolLM2 to converse like the speakers of a corpus: short for `train --init smollm2 --mode dialogue`."""
    options |= {"init": options["init"] or SMOLLM2, "mode": options["mode"] or "dialogue"}
    code: int = train(**options)
    return code


def train_on_console(job: TrainingJob, *, as_json: bool) -> int:
    """Train and print one line per event on stdout. Return the exit code.

    SIGINT and SIGTERM save and stop at the next step with exit code 130 and 143; SIGUSR1 saves. If the terminal closes,
    the training continues without it. If the reader of stdout is gone, the training saves and stops. If stdout cannot
    be written for another reason, such as a full disk, the training continues without it, and the exit code is 1.
    """
    cancellation = Cancellation()
    has_ended = has_failed_output = is_detached = False
    exit_code = 0
    broken_pipe: BrokenPipeError | None = None

    def stop(signal_number: signal.Signals) -> None:
        nonlocal exit_code
        exit_code = exit_code or 128 + signal_number
        cancellation.set()
        if has_ended:
            raise KeyboardInterrupt

    def continue_without_terminal() -> None:
        background.detach_from_terminal()
        if get_process_info().world_size > 1:  # torchrun received the signal too, and ends its processes soon
            job.command_queue.send(ControlCommand("detach"))

    def save() -> None:
        job.command_queue.send(ControlCommand("checkpoint"))

    stops = {number: partial(stop, number) for number in (signal.SIGINT, signal.SIGTERM)}
    handlers: dict[signal.Signals, Callable[[], None]] = {**stops, signal.SIGHUP: continue_without_terminal}
    handlers[signal.SIGUSR1] = save
    background.install_signal_handlers(handlers)
    lines = ProgressFormatter(job)
    trackers = TrackerSupervisor(job.run.path) if (job.run.path / TRACKERS_FOLDER).is_dir() else None
    for event in job.events(cancellation, trackers.take_problems) if trackers else job.events(cancellation):
        is_detached = isinstance(event, events.Finished) and event.reason == "detached"
        line = "" if as_json else lines.format(event)
        if broken_pipe or not (as_json or line):
            continue
        try:
            if as_json:
                is_end = isinstance(event, (events.Started, events.Finished))
                print_json(events.event_to_dict(event) | ({"run": str(job.run.path)} if is_end else {}))
            else:
                print(line, flush=True)
            background.rotate_console_log(job.run.path)
        except BrokenPipeError as error:
            broken_pipe = error
            cancellation.set()
        except OutputError as error:
            if isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.EIO:
                background.detach_from_terminal()  # the terminal is gone, and its signal has not arrived yet
            else:
                has_failed_output = True
                discard_output()
                hint = f"lotr-tui attach {run_word(job.run.path)}"
                print(f"lotr-tui: {error}; the training continues, see `{hint}`", file=sys.stderr)
    has_ended = True
    if broken_pipe:
        raise broken_pipe
    if is_detached:
        print(background.resume_in_background(job.run.path), file=sys.stderr)
        return 0
    if trackers:
        with suppress(KeyboardInterrupt):  # a signal ends the waiting; the process of a tracker continues alone
            if not trackers.wait(TRACKER_REPORT_DELAY):
                print(f"waiting for {', '.join(trackers.running)} to receive the end of the training", file=sys.stderr)
                trackers.wait(MAX_TRACKER_WAIT)
        for line in trackers.closing_lines():
            print(line, file=sys.stderr)
    return exit_code or int(has_failed_output)


def _train_worker_rank() -> int:
    """Train as a process other than the main one, which prints, saves and decides when to stop."""
    from engine.runtime.distributed import distributed_context  # imports PyTorch
    from engine.training.trainer import train_as_worker_rank

    try:
        with distributed_context() as context:
            signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
            background.install_signal_handlers(dict.fromkeys(signals, lambda: None))  # the main process handles signals
            train_as_worker_rank(context)
    except TrainingError:  # the main process, or the one that ended first, prints the reason
        return 1
    return 0


class ProgressFormatter:
    """Converter from training events to lines: every evaluation and sample, and a step every few seconds."""

    def __init__(self, job: TrainingJob) -> None:
        self._job = job
        self._last_line_time = time.perf_counter()
        self._last_step: events.Step | None = None
        self._started: events.Started | None = None
        self._unit = PERPLEXITY

    def format(self, event: events.TrainingEvent) -> str:
        """Return the line to print for `event`, or ""; the event of a failed training raises a TrainingError."""
        settings, unit = self._job.config.training, self._unit
        match event:
            case events.Preparing():
                return f"{event.message} ..."
            case events.Started():
                self._started, self._unit = event, (unit := LossUnit.of(event))
                origin = f", from run {settings.init}" if settings.init else ""
                tokens = "tokens" if self._job.dataset.tokenizer.is_open else "words"
                return (
                    f"{printable(f'run {event.run} in {self._job.run.path}{origin}')}\n"
                    f"{event.parameters:,} parameters, {event.vocabulary_size:,} {tokens}, "
                    f"{event.train_tokens:,} training tokens, on {event.device}\n"
                    f"baselines (validation {unit.title}): unigram {unit.format(event.unigram_perplexity)}, "
                    f"Kneser-Ney {unit.format(event.kneser_ney_perplexity)}"
                )
            case events.Step() | events.Evaluated():
                line = f"epoch {event.epoch:5.1f}/{settings.epochs + settings.fine_tune_epochs}"
                if isinstance(event, events.Step):
                    self._last_step = event
                    if time.perf_counter() - self._last_line_time < PROGRESS_INTERVAL:
                        return ""
                else:
                    mark = "  best" if event.is_best else ""
                    line += f"  valid {unit.format(event.valid_perplexity):>7}{_notebook_figure(event)}{mark:6}"
                self._last_line_time = time.perf_counter()
                if step := self._last_step:
                    line += f"  train {unit.format(step.train_perplexity):>7}  lr {step.lr:.5f}  "
                    line += f"{step.tokens_per_second:7,.0f} tokens/s  {format_duration(step.eta_seconds)} left"
                return line
            case events.Sampled():
                return f'    "{printable(event.prompt)}" {displayable(event.text)}'
            case events.Finished():
                valid = f"valid {unit.name} {unit.format(event.valid_perplexity)}{_notebook_figure(event)}"
                bits = math.nan if self._started is None else self._started.bits_per_character(event.valid_perplexity)
                valid += f" ({bits:.3f} bits/character)" if unit.is_perplexity and not math.isnan(bits) else ""
                test = "" if math.isnan(event.test_perplexity) else f", test {unit.format(event.test_perplexity)}"
                note, run = "" if unit.is_perplexity else f", {PRETRAINED_NOTE}", run_word(self._job.run.path)
                hint = f"\nopen a session with it: lotr-tui --run {run}"
                if event.reason == "stopped":
                    hint = f"\nresume it: lotr-tui train --resume {run}"
                hint = "" if event.reason == "detached" else hint  # its own hint follows
                return f"{event.reason} after {format_duration(event.seconds)}: {valid}{test}{note}{hint}"
            case events.CommandApplied():
                return f"{event.kind.replace('_', ' ')} {event.value}".rstrip() + f" at step {event.step:,}"
            case events.Resume():
                return f"resuming at step {event.step:,}" if event.step else "restarting from the beginning"
            case events.Warned():
                return f"warning: {printable(event.message)}"
            case events.Diagnosed():
                return f"diagnosis: {printable(event.message)}\n    remedy: {printable(event.remedy)}"
            case events.Failed():
                raise TrainingError(event.message)
        return ""


def _notebook_figure(event: events.Evaluated | events.Finished) -> str:
    """Return what the notebook's formula prints for the same model, if the training follows that formula."""
    perplexity = event.notebook_perplexity
    return "" if math.isnan(perplexity) else f" (the notebook prints {perplexity:.3f})"


@commands.command("ablate", cls=cli.Command, epilog="lotr-tui ablate --only weight_drop --epochs 20 --seeds 2")
@cli.expand
def ablate(
    *,
    training: cli.TrainingOptions,
    seeds: Annotated[int, option("--seeds N", "Trainings per variant, with seeds from 0.", min=1, max=1000)] = 3,
    jobs: Annotated[int | None, option("--jobs N", "Trainings at once. Default: all cores.", min=1, max=1000)] = None,
    only: Annotated[list[str] | None, option("--only VARIANT", "Train only this variant; repeatable.")] = None,
    as_json: Annotated[bool, option("--json", "Print one JSON object per training.")] = False,
) -> None:
    """Measure the effect of each technique: train with one removed or added at a time, with several seeds."""
    config = training.configure()
    variants = select_variants(config, only or [])
    trials: list[Trial] = []
    for trial in run_ablation(config, variants, range(seeds), jobs or os.cpu_count() or 1):
        trials.append(trial)
        if as_json:
            print_json(asdict(trial))
        else:
            progress = f"{len(trials)}/{len(variants) * seeds}  {trial.variant}, seed {trial.seed}"
            result = f"valid {trial.valid_perplexity:.2f}  test {trial.test_perplexity:.2f}  {trial.seconds:.0f} s"
            print(f"{progress}: {result}", file=sys.stderr)
    if not as_json:
        rows = [
            [printable(variant), *(f"{figure:.2f}" for figure in figures)]
            for variant, figures in summarize_trials(trials).items()
        ]
        print_table(["variant"], ["valid", "spread", "test", "spread"], rows)
