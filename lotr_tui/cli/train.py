"""`lotr-tui train`, `finetune`, `ablate` and `search`: trainings in the dashboard, or with plain lines or JSON."""

import errno
import math
import os
import signal
import sys
import time
from collections import Counter
from contextlib import suppress
from dataclasses import asdict, replace
from functools import wraps
from typing import TYPE_CHECKING, Annotated, Any

from engine import control, events, presets
from engine.config import BUNDLED, SETTINGS, Config
from engine.errors import InvalidInputError, OutputError, TrainingError, printable, shell_word
from engine.models.pretrained.names import SMOLLM2
from engine.runs.directory import run_word, summarize_run
from engine.runtime.process import Cancellation, get_process_info, require_package
from engine.storage.files import default_runs_dir
from engine.training import ablation
from engine.training.job import TrainingJob, configure, prepare_job, resume_job
from lotr_tui.cli import console, main
from lotr_tui.cli.main import option
from lotr_tui.formatting import PRETRAINED_NOTE, displayable, format_duration, format_percent, plural
from lotr_tui.monitor import background, training_view
from lotr_tui.trackers import follower, libraries

if TYPE_CHECKING:  # these modules import optuna
    from engine.training.search import Budget, EndReason, Search, TrialRecord

RUN, OUTPUT, SEARCH = "Run", "Output", "Search"
PLAY = "open a session with it: lotr-tui --run"
LOG = f"--log {'|'.join(libraries.TRACKER_NAMES)}"
PROGRESS_INTERVAL = 5.0  # fewest seconds between two lines of progress
MAX_TRACKER_WAIT = 60.0  # seconds to wait at the end of a training until its trackers have received everything
TRACKER_REPORT_DELAY = 2.0  # seconds of waiting after which a line says so
MAX_MINUTES, MAX_TABLE_ROWS = 1e6, 10
JOBS_HELP = "Parallel trainings, with one thread each. Default: the number of cores; 1 on a GPU."
RESTART_HELP = "With --resume: train it again from the beginning, which replaces its model."
NAME_HELP = "Name of the search; its runs are NAME-000, NAME-001 and so on. Default: the time."
END_REASONS = {"budget": "the time is used", "trials": "all trials are done", "interrupted": "interrupted"}
END_REASONS |= {"exhausted": "all combinations were tried", "failures": "too many trials failed in a row"}
DECISIVE_SETTINGS = ("init", "tokenizer", "mode", "architecture")  # on which the defaults of others depend
commands = main.Commands()


@commands.command("train", cls=main.Command, epilog="lotr-tui train --text novel.txt --run novel")
@main.expand
def train(
    *,
    training: main.TrainingOptions,
    list_settings: Annotated[bool, option("--list-settings", "List the settings of --set.", main.TRAINING)] = False,
    run: Annotated[str | None, option("--run NAME", "Name of the new run. Default: preset and time.", RUN)] = None,
    runs_dir: main.RunsDirOption = None,
    resume: Annotated[str | None, option("--resume RUN", "Resume a run that ended early, exactly.", RUN)] = None,
    restart: Annotated[bool, option("--restart", RESTART_HELP, RUN)] = False,
    detach: Annotated[bool, option("--detach", "Train in the background; see `lotr-tui attach`.", OUTPUT)] = False,
    no_tui: Annotated[bool, option("--no-tui", "Print lines instead of drawing the dashboard.", OUTPUT)] = False,
    as_json: Annotated[bool, option("--json", "Print one JSON object per event; implies --no-tui.", OUTPUT)] = False,
    log: Annotated[list[str] | None, option(LOG, "Send it to a tracker; repeatable.", OUTPUT)] = None,
    theme: main.ThemeOption = None,
    no_mouse: main.NoMouseOption = False,
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
    if log:
        libraries.check_installed(log)  # refuses other names too
    if restart and resume is None:
        raise InvalidInputError("--restart belongs to --resume RUN")
    if resume is not None:
        if training.preset is not None or run is not None:
            raise InvalidInputError(f"--resume {resume} keeps the name and preset of that run; omit --preset and --run")
        job = resume_job(resume, runs_dir, training.apply, restart=restart)
    else:
        job = prepare_job(training.configure(runs_dir), run, runs_dir)
        if not (job.config.training.init or as_json):
            corpora = {"--csv": training.csv, "--text": training.text}
            corpus = "".join(f" {name} {shell_word(str(path))}" for name, path in corpora.items() if path)
            print(printable(f"for a model that converses, use lotr-tui finetune{corpus}"))
    if log:
        follower.choose_trackers(job.run.path, [name for name in libraries.TRACKER_NAMES if name in log])
    if detach:
        job.run.lock.close()
        print(background.resume_in_background(job.run.path))
        return 0
    if no_tui or as_json or process.world_size > 1 or not main.has_terminal():
        return train_on_console(job, as_json=as_json)
    from lotr_tui.app import LotrApp  # imports Textual
    from lotr_tui.cli.launch import run_app

    if not (os.environ.get("TMUX") or os.environ.get("STY")):  # there, a lost connection ends no process
        print(f"if this terminal closes, the training continues\n{background.attach_hint(job.run.path)}")
    return run_app(LotrApp(job=job, runs_dir=runs_dir, theme=theme), mouse=not no_mouse)


@commands.command("finetune", cls=main.Command, epilog="lotr-tui finetune --csv dialogues.csv")
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

    def stop(signal_number: int, _: object) -> None:
        nonlocal exit_code
        exit_code = exit_code or 128 + signal_number
        cancellation.set()
        if has_ended:
            raise KeyboardInterrupt

    def continue_without_terminal(*_: object) -> None:
        background.detach_from_terminal()
        if get_process_info().world_size > 1:  # torchrun received the signal too, and ends its processes soon
            job.command_queue.send(control.ControlCommand("detach"))

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT):
        signal.signal(number, stop)
    signal.signal(signal.SIGHUP, continue_without_terminal)
    signal.signal(signal.SIGUSR1, lambda *_: job.command_queue.send(control.ControlCommand("checkpoint")))
    lines, has_trackers = ProgressFormatter(job), (job.run.path / follower.TRACKERS_FOLDER).is_dir()
    trackers = follower.TrackerSupervisor(job.run.path) if has_trackers else None
    for event in job.events(cancellation, trackers.take_problems) if trackers else job.events(cancellation):
        is_detached = isinstance(event, events.Finished) and event.reason == "detached"
        line = "" if as_json else lines.format(event)
        if broken_pipe or not (as_json or line):
            continue
        try:
            if as_json:
                is_end = isinstance(event, (events.Started, events.Finished))
                console.print_json(events.event_to_dict(event) | ({"run": str(job.run.path)} if is_end else {}))
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
                console.discard_output()
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
                print(f"waiting for {', '.join(trackers.running())} to receive the end", file=sys.stderr)
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
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1):
                signal.signal(number, lambda *_: None)  # the main process handles signals
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
        self._unit = training_view.PERPLEXITY

    def format(self, event: events.TrainingEvent) -> str:
        """Return the line to print for `event`, or ""; the event of a failed training raises a TrainingError."""
        settings, unit = self._job.config.training, self._unit
        figure = getattr(event, "notebook_perplexity", math.nan)  # of the same model by the notebook's formula
        notebook = "" if math.isnan(figure) else f" (the notebook prints {figure:.3f})"
        match event:
            case events.Preparing():
                return f"{event.message} ..."
            case events.Started():
                self._started, self._unit = event, (unit := training_view.LossUnit.of(event))
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
                    line += f"  valid {unit.format(event.valid_perplexity):>7}{notebook}{mark:6}"
                self._last_line_time = time.perf_counter()
                if step := self._last_step:
                    line += f"  train {unit.format(step.train_perplexity):>7}  lr {step.lr:.5f}  "
                    line += f"{step.tokens_per_second:7,.0f} tokens/s  {format_duration(step.eta_seconds)} left"
                return line
            case events.Sampled():
                return f'    "{printable(event.prompt)}" {displayable(event.text)}'
            case events.Finished():
                valid = f"valid {unit.name} {unit.format(event.valid_perplexity)}{notebook}"
                bits = math.nan if self._started is None else self._started.bits_per_character(event.valid_perplexity)
                valid += f" ({bits:.3f} bits/character)" if unit.is_perplexity and not math.isnan(bits) else ""
                test = "" if math.isnan(event.test_perplexity) else f", test {unit.format(event.test_perplexity)}"
                note, run = "" if unit.is_perplexity else f", {PRETRAINED_NOTE}", run_word(self._job.run.path)
                is_stopped = event.reason == "stopped"
                hint = f"\nresume it: lotr-tui train --resume {run}" if is_stopped else f"\n{PLAY} {run}"
                learned = summarize_run(self._job.run.path).nothing_learned
                hint = f"\n{learned}{hint}" if learned else hint
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


@commands.command("ablate", cls=main.Command, epilog="lotr-tui ablate --only weight_drop --epochs 20 --seeds 2")
@main.expand
def ablate(
    *,
    training: main.TrainingOptions,
    seeds: Annotated[int, option("--seeds N", "Trainings per variant, with seeds from 0.", min=1, max=1000)] = 3,
    jobs: Annotated[int | None, option("--jobs N", "Trainings at once. Default: all cores.", min=1, max=1000)] = None,
    only: Annotated[list[str] | None, option("--only VARIANT", "Train only this variant; repeatable.")] = None,
    as_json: Annotated[bool, option("--json", "Print one JSON object per training.")] = False,
) -> None:
    """Measure the effect of each technique: train with one removed or added at a time, with several seeds."""
    config = training.configure()
    variants = ablation.select_variants(config, only or [])
    trials: list[ablation.Trial] = []
    for trial in ablation.run_ablation(config, variants, range(seeds), jobs or os.cpu_count() or 1):
        trials.append(trial)
        if as_json:
            console.print_json(asdict(trial))
        else:
            progress = f"{len(trials)}/{len(variants) * seeds}  {trial.variant}, seed {trial.seed}"
            result = f"valid {trial.valid_perplexity:.2f}  test {trial.test_perplexity:.2f}  {trial.seconds:.0f} s"
            print(f"{progress}: {result}", file=sys.stderr)
    if not as_json:
        rows = [
            [printable(variant), *(f"{figure:.2f}" for figure in figures)]
            for variant, figures in ablation.summarize_trials(trials).items()
        ]
        console.print_table(["variant"], ["valid", "spread", "test", "spread"], rows)


@commands.command("search", cls=main.Command, epilog="lotr-tui search --minutes 20 --set lr=0.002..0.02")
@main.expand
def search(
    *,
    minutes: Annotated[float | None, option("--minutes X", "Time; unfinished trials are saved.", SEARCH)] = None,
    trials: Annotated[int | None, option("--trials N", "Trials to start, at most.", SEARCH, min=1, max=1000000)] = None,
    jobs: Annotated[int | None, option("--jobs N", JOBS_HELP, SEARCH, min=1, max=1000)] = None,
    name: Annotated[str | None, option("--name NAME", NAME_HELP, SEARCH)] = None,
    resume: Annotated[str | None, option("--resume NAME", "Continue a search with another budget.", SEARCH)] = None,
    as_json: Annotated[bool, option("--json", "Print one JSON object per trial, and a summary.", SEARCH)] = False,
    training: main.TrainingOptions,
    runs_dir: main.RunsDirOption = None,
) -> int:
    """Search hyperparameters: train with different settings and keep the best ones by validation perplexity.

    A setting is searched where --set gives two limits or a list: --set lr=0.002..0.02 or --set optimizer=adamw,sgd.
    Each trial is a run. The worse half of the trials ends after two thirds of the training. The test split is never
    read.
    """
    if minutes is None and trials is None:
        raise InvalidInputError("a search needs a budget; give --minutes N, --trials N or both")
    if minutes is not None and not 0 < minutes <= MAX_MINUTES:
        raise InvalidInputError(f"--minutes {minutes:g} is out of range; use a number above 0, such as 20")
    require_package("torch", "search")
    require_package("optuna", "search")
    from engine.training.search import Budget, Search, default_num_jobs, make_plan, split_space  # imports optuna

    if resume is not None:
        if training != main.TrainingOptions() or name is not None:
            raise InvalidInputError(f"--resume {resume} keeps the settings of that search; omit all others")
        found = Search.open(resume, runs_dir)
    else:
        assignments, space = split_space(training.assignments or ())
        config = replace(training, assignments=assignments).configure(runs_dir)
        plan = make_plan(config, space, runs_dir)
        found = Search.create(name or f"search-{time.strftime('%Y%m%d-%H%M%S')}", runs_dir, plan)
    budget = Budget(60 * minutes if minutes else math.inf, trials or math.inf)
    return _search_on_console(found, budget, jobs or default_num_jobs(found.plan.config), as_json=as_json)


def _search_on_console(search: "Search", budget: "Budget", num_jobs: int, *, as_json: bool) -> int:
    """Search, and print a line or a JSON object for each trial and a summary. Return the exit code.

    SIGINT, SIGTERM and SIGQUIT save and stop all trials, with exit code 130, 143 and 131; a second SIGINT ends the
    search at once. If the terminal closes, the search continues without it. If the reader of stdout is gone, the search
    saves and stops. The exit code is 1 if too many trials failed in a row.
    """
    cancellation, start_time = Cancellation(), time.monotonic()
    exit_code = 0

    def stop(signal_number: int, _: object) -> None:
        nonlocal exit_code
        if exit_code and signal_number == signal.SIGINT:
            raise KeyboardInterrupt
        exit_code = 128 + signal_number
        cancellation.set()
        print("saving the trials; ctrl+c again quits at once", file=sys.stderr)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT):
        signal.signal(number, stop)
    signal.signal(signal.SIGHUP, lambda *_: background.detach_from_terminal())
    if not as_json:
        from engine.training.search import describe_distribution  # imports optuna

        earlier = f", after {len(search.records())} earlier trials" if search.records() else ""
        print(printable(f"search {search.path.name} in {search.path}: {plural(num_jobs, 'job')}{earlier}"))
        for name, distribution in search.plan.distributions.items():
            print(f"  {name}: {describe_distribution(distribution)}")
        print("each trial is a run; watch the latest: lotr-tui attach", flush=True)
    running = search.run(budget, num_jobs, cancellation)
    broken_pipe: BrokenPipeError | None = None
    while True:
        try:
            record, seconds_left = next(running)
        except StopIteration as ended:
            reason: EndReason = ended.value
            break
        try:
            if broken_pipe is None:
                _print_trial(record, search.best(), seconds_left, as_json=as_json)
        except BrokenPipeError as error:
            broken_pipe = error
            cancellation.set()
    search.close()
    if broken_pipe:
        raise broken_pipe
    best, states = search.best(), Counter(record.state for record in search.records())
    seconds = time.monotonic() - start_time
    command = None if best is None else format_train_command(search.plan.config.with_values(**best.settings))
    if as_json:
        facts: dict[str, Any] = {"event": "summary", "search": str(search.path), "reason": reason, "trials": states}
        facts |= {"best": None if best is None else asdict(best), "command": command}
        console.print_json({**facts, "seconds": seconds})
    elif best is not None:
        counts = ", ".join(f"{count} {state}" for state, count in states.items())
        print(f"\n{END_REASONS[reason]} after {format_duration(seconds)}: {counts}\n")
        complete = [record for record in search.records() if record.state == "complete"]
        names, rows = list(search.plan.distributions), []
        for record in sorted(complete, key=lambda record: record.valid_perplexity or 0)[:MAX_TABLE_ROWS]:
            figures = str(record.number), _format_perplexity(record.valid_perplexity), format_duration(record.seconds)
            rows.append([*figures, *(_format_value(record.settings[name]) for name in names)])
        console.print_table(["trial"], ["valid", "time", *names], rows)
        print(f"\ntrain with the best settings:\n  {command}")
        if reason != "exhausted":
            print(f"continue the search:\n  {_resume_command(search, budget.seconds)}", flush=True)
    exit_code = exit_code or int(reason == "failures")
    if best is None:
        failed = next((record for record in reversed(search.records()) if record.message), None)
        problem = f"no trial is complete; give it more time: {_resume_command(search, 4 * budget.seconds)}"
        if failed is not None and (reason == "failures" or not any(record.fraction for record in search.records())):
            trial = f"trial {failed.number} {failed.state}: {failed.message}"
            problem = f"search {search.path.name} has no result; {trial}"
        if exit_code <= 1:
            raise TrainingError(problem)
        print(f"lotr-tui: {problem}", file=sys.stderr)
    return exit_code


def _print_trial(record: "TrialRecord", best: "TrialRecord | None", seconds_left: float, *, as_json: bool) -> None:
    if as_json:
        number = None if best is None else best.number
        console.print_json({"event": "trial", **asdict(record), "best": number, "seconds_left": seconds_left})
        return
    share = f" {format_percent(record.fraction)}" if record.state in ("pruned", "stopped") else ""
    settings = " ".join(f"{name}={_format_value(value)}" for name, value in record.settings.items())
    best_so_far = "" if best is None else f"best {_format_perplexity(best.valid_perplexity)} ({best.number})"
    time_left = f"{format_duration(seconds_left):>7} left  " if math.isfinite(seconds_left) else ""
    message = f": {printable(record.message)}" if record.message else ""
    figures = f"{record.number:4}  {record.state + share:14}  {_format_perplexity(record.valid_perplexity):>7}"
    print(f"{figures}  {best_so_far:18}  {time_left}{settings}{message}", flush=True)


def _resume_command(search: "Search", seconds: float) -> str:
    minutes = seconds / 60 if math.isfinite(seconds) else 10
    runs_dir = search.path.parent
    option = "" if runs_dir == default_runs_dir() else f" --runs-dir {shell_word(str(runs_dir))}"
    return f"lotr-tui search --resume {shell_word(search.path.name)} --minutes {minutes:g}{option}"


def format_train_command(config: Config) -> str:
    """Return the `lotr-tui train` command that trains with `config`, which has the name of its preset."""
    preset = presets.PRESETS[config.preset]
    values, before = config.settings(), preset.settings()
    decisive = {name: values[name] for name in DECISIVE_SETTINGS if values[name] != before[name]}
    defaults = configure(preset, lambda defaults: defaults.with_values(**decisive)).settings()
    different = decisive | {name: value for name, value in values.items() if value != defaults[name]}
    words = ["lotr-tui", "train"]
    if config.preset != "default" or "init" in different:
        words += ["--preset", config.preset]
    if "init" in different:
        words += ["--init", config.training.init]
    if config.data.corpus != BUNDLED:
        words += ["--csv" if config.data.corpus_format == "csv" else "--text", config.data.corpus]
    for name, value in different.items():
        if name not in ("init", "corpus", "corpus_format"):
            words += ["--set", f"{name}={_format_value(value)}"]
    return " ".join(map(shell_word, words))


def _format_perplexity(perplexity: float | None) -> str:
    return "-" if perplexity is None or not math.isfinite(perplexity) else f"{perplexity:.2f}"


def _format_value(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
