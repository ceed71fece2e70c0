"""`lotr-tui search`: a search of hyperparameters in the foreground, with its lines, tables and signals."""

import math
import signal
import sys
import time
from collections import Counter
from dataclasses import asdict, replace
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.config import BUNDLED, Config
from engine.errors import InvalidInputError, TrainingError, printable, shell_word
from engine.presets import PRESETS
from engine.runtime.process import require_package
from engine.runtime.worker import Cancellation
from engine.storage.files import default_runs_dir
from engine.training.job import configure
from lotr_tui.cli import main as cli
from lotr_tui.cli.console import print_json, print_table
from lotr_tui.cli.main import option
from lotr_tui.formatting import format_duration, format_percent, plural
from lotr_tui.monitor.background import detach_from_terminal, install_signal_handlers

if TYPE_CHECKING:  # these modules import optuna
    from engine.training.search import Budget, EndReason, Search, TrialRecord

SEARCH = "Search"
MAX_MINUTES = 1e6
MAX_TABLE_ROWS = 10
JOBS_HELP = "Parallel trainings, with one thread each. Default: the number of cores; 1 on a GPU."
NAME_HELP = "Name of the search; its runs are NAME-000, NAME-001 and so on. Default: the time."
END_REASONS = {"budget": "the time is used", "trials": "all trials are done", "interrupted": "interrupted"}
END_REASONS |= {"exhausted": "all combinations were tried", "failures": "too many trials failed in a row"}
DECISIVE_SETTINGS = ("init", "tokenizer", "mode", "architecture")  # on which the defaults of others depend
commands = typer.Typer(**cli.FORM)


@commands.command("search", cls=cli.Command, epilog="lotr-tui search --minutes 20 --set lr=0.002..0.02")
@cli.expand
def search(
    *,
    minutes: Annotated[float | None, option("--minutes X", "Time; unfinished trials are saved.", SEARCH)] = None,
    trials: Annotated[int | None, option("--trials N", "Trials to start, at most.", SEARCH, min=1, max=1000000)] = None,
    jobs: Annotated[int | None, option("--jobs N", JOBS_HELP, SEARCH, min=1, max=1000)] = None,
    name: Annotated[str | None, option("--name NAME", NAME_HELP, SEARCH)] = None,
    resume: Annotated[str | None, option("--resume NAME", "Continue a search with another budget.", SEARCH)] = None,
    as_json: Annotated[bool, option("--json", "Print one JSON object per trial, and a summary.", SEARCH)] = False,
    training: cli.TrainingOptions,
    runs_dir: cli.RunsDirOption = None,
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
        if training != cli.TrainingOptions() or name is not None:
            raise InvalidInputError(f"--resume {resume} keeps the settings of that search; omit all others")
        found = Search.open(resume, runs_dir)
    else:
        assignments, space = split_space(training.assignments or ())
        config = replace(training, assignments=assignments).configure(runs_dir)
        plan = make_plan(config, space, runs_dir)
        found = Search.create(name or f"search-{datetime.now():%Y%m%d-%H%M%S}", runs_dir, plan)
    budget = Budget(60 * minutes if minutes else math.inf, trials or math.inf)
    return _search_on_console(found, budget, jobs or default_num_jobs(found.plan.config), as_json=as_json)


def _search_on_console(search: "Search", budget: "Budget", num_jobs: int, *, as_json: bool) -> int:
    """Search, and print a line or a JSON object for each trial and a summary. Return the exit code.

    SIGINT and SIGTERM save and stop all trials with exit code 130 and 143; a second SIGINT ends the search at once. If
    the terminal closes, the search continues without it. If the reader of stdout is gone, the search saves and stops.
    The exit code is 1 if too many trials failed in a row.
    """
    cancellation, start_time = Cancellation(), time.monotonic()
    exit_code = 0

    def stop(signal_number: signal.Signals) -> None:
        nonlocal exit_code
        if exit_code and signal_number == signal.SIGINT:
            raise KeyboardInterrupt
        exit_code = 128 + signal_number
        cancellation.set()
        print("saving the trials; ctrl+c again quits at once", file=sys.stderr)

    stops = {number: partial(stop, number) for number in (signal.SIGINT, signal.SIGTERM)}
    install_signal_handlers({**stops, signal.SIGHUP: detach_from_terminal})
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
    seconds, importances = time.monotonic() - start_time, search.importances()
    command = None if best is None else format_train_command(search.plan.config.with_values(**best.settings))
    if as_json:
        facts: dict[str, Any] = {"event": "summary", "search": str(search.path), "reason": reason, "trials": states}
        facts |= {"best": None if best is None else asdict(best), "importances": importances, "command": command}
        print_json({**facts, "seconds": seconds})
    elif best is not None:
        counts = ", ".join(f"{count} {state}" for state, count in states.items())
        print(f"\n{END_REASONS[reason]} after {format_duration(seconds)}: {counts}\n")
        _print_best_trials(search)
        if importances:
            shares = ", ".join(f"{name} {format_percent(share)}" for name, share in importances.items())
            print(f"\nimportance for validation: {shares}")
        print(f"train with the best settings:\n  {command}")
        if reason != "exhausted":
            print(f"continue the search:\n  {_resume_command(search, budget.seconds)}", flush=True)
    exit_code = exit_code or int(reason == "failures")
    if best is None:
        problem = _explain_no_result(search, budget, reason)
        if exit_code <= 1:
            raise TrainingError(problem)
        print(f"lotr-tui: {problem}", file=sys.stderr)
    return exit_code


def _print_trial(record: "TrialRecord", best: "TrialRecord | None", seconds_left: float, *, as_json: bool) -> None:
    if as_json:
        number = None if best is None else best.number
        print_json({"event": "trial", **asdict(record), "best": number, "seconds_left": seconds_left})
        return
    share = f" {format_percent(record.fraction)}" if record.state in ("pruned", "stopped") else ""
    settings = " ".join(f"{name}={_format_value(value)}" for name, value in record.settings.items())
    best_so_far = "" if best is None else f"best {_format_perplexity(best.valid_perplexity)} ({best.number})"
    time_left = f"{format_duration(seconds_left):>7} left  " if math.isfinite(seconds_left) else ""
    message = f": {printable(record.message)}" if record.message else ""
    figures = f"{record.number:4}  {record.state + share:14}  {_format_perplexity(record.valid_perplexity):>7}"
    print(f"{figures}  {best_so_far:18}  {time_left}{settings}{message}", flush=True)


def _print_best_trials(search: "Search") -> None:
    names = list(search.plan.distributions)
    complete = [record for record in search.records() if record.state == "complete"]
    rows = []
    for record in sorted(complete, key=lambda record: record.valid_perplexity or 0)[:MAX_TABLE_ROWS]:
        figures = str(record.number), _format_perplexity(record.valid_perplexity), format_duration(record.seconds)
        rows.append([*figures, *(_format_value(record.settings[name]) for name in names)])
    print_table(["trial"], ["valid", "time", *names], rows)


def _resume_command(search: "Search", seconds: float) -> str:
    minutes = seconds / 60 if math.isfinite(seconds) else 10
    runs_dir = search.path.parent
    option = "" if runs_dir == default_runs_dir() else f" --runs-dir {shell_word(str(runs_dir))}"
    return f"lotr-tui search --resume {shell_word(search.path.name)} --minutes {minutes:g}{option}"


def _explain_no_result(search: "Search", budget: "Budget", reason: "EndReason") -> str:
    """Return why no trial is complete, and what to do."""
    failed = next((record for record in reversed(search.records()) if record.message), None)
    if failed is not None and (reason == "failures" or not any(record.fraction for record in search.records())):
        return f"search {search.path.name} has no result; trial {failed.number} {failed.state}: {failed.message}"
    return f"no trial is complete; give it more time: {_resume_command(search, 4 * budget.seconds)}"


def format_train_command(config: Config) -> str:
    """Return the `lotr-tui train` command that trains with `config`, which has the name of its preset."""
    preset = PRESETS[config.preset]
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
    """Return a perplexity with two decimals; differences between good settings are small."""
    return "-" if perplexity is None or not math.isfinite(perplexity) else f"{perplexity:.2f}"


def _format_value(value: Any) -> str:
    """Return a value as `--set` takes it."""
    return str(value).lower() if isinstance(value, bool) else str(value)
