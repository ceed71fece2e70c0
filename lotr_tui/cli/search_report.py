"""A search in the foreground: its lines and tables, and the signals that end it."""

import math
import signal
import sys
import time
from dataclasses import asdict, replace
from functools import partial
from typing import Any

from engine.config import BUNDLED, Config, describe_settings
from engine.errors import TrainingError, printable, shell_word
from engine.presets import PRESETS
from engine.runtime.worker import Cancellation
from engine.storage.files import default_runs_dir
from engine.training.initial_run import configure
from engine.training.search import Budget, EndReason, Search, TrialRecord
from engine.training.search_space import describe_distribution
from lotr_tui.cli.console import make_console, make_fitting_table, print_json
from lotr_tui.formatting import format_duration, format_percent
from lotr_tui.monitor.background import detach_from_terminal, install_signal_handlers

MAX_TABLE_ROWS = 10
END_REASONS = {
    "budget": "the time is used",
    "trials": "all trials are done",
    "interrupted": "interrupted",
    "exhausted": "all combinations were tried",
    "failures": "too many trials failed in a row",
}
DEFAULT_PRESET = "default"
DECISIVE_SETTINGS = ("init", "tokenizer", "mode", "architecture")
"""Settings on which the defaults of other settings depend."""
SETTINGS_WITH_OPTIONS = ("init", "corpus", "corpus_format")
"""Settings with a separate option."""


def search_on_console(search: Search, budget: Budget, num_jobs: int, *, as_json: bool) -> int:
    """Search, and print a line or a JSON object for each trial and a summary. Return the exit code.

    SIGINT and SIGTERM save and stop all trials with exit code 130 and 143; a second SIGINT ends the search at once. If
    the terminal closes, the search continues without it. If the reader of stdout is gone, the search saves and stops.
    The exit code is 1 if too many trials failed in a row.
    """
    cancellation = Cancellation()
    exit_code = 0

    def stop(signal_number: signal.Signals) -> None:
        nonlocal exit_code
        if exit_code and signal_number == signal.SIGINT:
            raise KeyboardInterrupt
        exit_code = 128 + signal_number
        cancellation.set()
        print("saving the trials; ctrl+c again quits at once", file=sys.stderr)

    install_signal_handlers(
        {
            signal.SIGINT: partial(stop, signal.SIGINT),
            signal.SIGTERM: partial(stop, signal.SIGTERM),
            signal.SIGHUP: detach_from_terminal,
        }
    )
    start_time = time.monotonic()
    if not as_json:
        _print_start(search, budget, num_jobs)
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
    seconds = time.monotonic() - start_time
    if as_json:
        _print_summary(search, reason, seconds)
    elif search.best() is not None:
        _print_table(search, budget, reason, seconds)
    exit_code = exit_code or int(reason == "failures")
    if search.best() is None:
        no_result = _explain_no_result(search, budget, reason)
        if exit_code <= 1:
            raise TrainingError(no_result)
        print(f"lotr-tui: {no_result}", file=sys.stderr)
    return exit_code


def _print_start(search: Search, budget: Budget, num_jobs: int) -> None:
    plan, records = search.plan, search.records()
    facts = [f"{num_jobs} job{'s' if num_jobs > 1 else ''}", f"seed {plan.config.training.seed}"]
    if math.isfinite(budget.seconds):
        facts.append(f"{format_duration(budget.seconds)} of time")
    if math.isfinite(budget.num_trials):
        facts.append(f"{budget.num_trials:.0f} new trials at most")
    if records:
        facts.append(f"after {len(records)} earlier trials")
    print(printable(f"search {search.path.name} in {search.path}: {', '.join(facts)}"))
    ranges = {name: describe_distribution(each) for name, each in plan.distributions.items()}
    for name, text in ranges.items():
        print(f"  {name:{max(map(len, ranges))}}  {text}")
    print("each trial is a run; watch the latest: lotr-tui attach", flush=True)


def _print_trial(record: TrialRecord, best: TrialRecord | None, seconds_left: float, *, as_json: bool) -> None:
    if as_json:
        number = None if best is None else best.number
        print_json({"event": "trial", **asdict(record), "best": number, "seconds_left": seconds_left})
        return
    is_part = record.state in ("pruned", "stopped")
    settings = " ".join(f"{name}={_format_value(value)}" for name, value in record.settings.items())
    columns = [
        f"{record.number:4}",
        f"{record.state + (f' {format_percent(record.fraction)}' if is_part else ''):14}",
        f"{_format_perplexity(record.valid_perplexity):>7}",
        f"{'' if best is None else f'best {_format_perplexity(best.valid_perplexity)} ({best.number})':18}",
        f"{format_duration(seconds_left):>7} left" if math.isfinite(seconds_left) else "",
        settings + (f": {printable(record.message)}" if record.message else ""),
    ]
    print("  ".join(filter(None, columns)), flush=True)


def _print_summary(search: Search, reason: EndReason, seconds: float) -> None:
    best = search.best()
    print_json(
        {
            "event": "summary",
            "search": str(search.path),
            "reason": reason,
            "trials": _count_states(search),
            "best": None if best is None else asdict(best),
            "importances": search.importances(),
            "command": None if best is None else _best_command(search, best),
            "seconds": seconds,
        }
    )


def _print_table(search: Search, budget: Budget, reason: EndReason, seconds: float) -> None:
    """Print the best complete trials, best first, the importances of the settings, and commands to continue with."""
    complete = sorted(
        (record for record in search.records() if record.state == "complete"), key=lambda it: it.valid_perplexity or 0
    )
    names = list(search.plan.distributions)
    rows = [
        [
            str(record.number),
            _format_perplexity(record.valid_perplexity),
            format_duration(record.seconds),
            *(_format_value(record.settings[name]) for name in names),
        ]
        for record in complete[:MAX_TABLE_ROWS]
    ]
    counts = ", ".join(f"{count} {state}" for state, count in _count_states(search).items())
    print(f"\n{END_REASONS[reason]} after {format_duration(seconds)}: {counts}\n")
    console = make_console()
    console.print(make_fitting_table(console.width, ["trial"], ["valid", "time", *names], rows))
    print()
    if importances := search.importances():
        shares = ", ".join(f"{name} {format_percent(share)}" for name, share in importances.items())
        print(f"importance for validation: {shares}")
    print(f"train with the best settings:\n  {_best_command(search, complete[0])}")
    if reason != "exhausted":
        print(f"continue the search:\n  {_resume_command(search, budget)}", flush=True)


def _resume_command(search: Search, budget: Budget) -> str:
    minutes = budget.seconds / 60 if math.isfinite(budget.seconds) else 10
    runs_dir = search.path.parent
    option = "" if runs_dir == default_runs_dir() else f" --runs-dir {shell_word(str(runs_dir))}"
    return f"lotr-tui search --resume {shell_word(search.path.name)} --minutes {minutes:g}{option}"


def _explain_no_result(search: Search, budget: Budget, reason: EndReason) -> str:
    """Return why no trial is complete, and what to do."""
    records = search.records()
    failed = next((record for record in reversed(records) if record.message), None)
    furthest = max(records, key=lambda record: record.fraction, default=None)
    if failed is not None and (reason == "failures" or furthest is None or not furthest.fraction):
        return f"search {search.path.name} has no result; trial {failed.number} {failed.state}: {failed.message}"
    if furthest is None or not furthest.fraction:
        return f"no trial reached its first validation; give it more time: {_resume_command(search, budget)}"
    minutes = max(furthest.seconds / furthest.fraction / 60, 0.1)
    return (
        f"no trial is complete, which takes about {minutes:.1f} minutes; trial {furthest.number} is at "
        f"{format_percent(furthest.fraction)} with validation {_format_perplexity(furthest.valid_perplexity)}; "
        f"continue it: {_resume_command(search, replace(budget, seconds=60 * math.ceil(4 * minutes)))}"
    )


def _count_states(search: Search) -> dict[str, int]:
    states = [record.state for record in search.records()]
    return {state: states.count(state) for state in dict.fromkeys(states)}


def _best_command(search: Search, best: TrialRecord) -> str:
    return format_train_command(search.plan.config.with_values(**best.settings))


def format_train_command(config: Config) -> str:
    """Return the `lotr-tui train` command that trains with `config`, which has the name of its preset."""
    preset = PRESETS[config.preset]
    values, before = _flatten(config), _flatten(preset)
    decisive = {name: values[name] for name in DECISIVE_SETTINGS if values[name] != before[name]}
    defaults = _flatten(configure(preset, lambda defaults: defaults.with_values(**decisive)))
    different = decisive | {name: value for name, value in values.items() if value != defaults[name]}
    words = ["lotr-tui", "train"]
    if config.preset != DEFAULT_PRESET or "init" in different:
        words += ["--preset", config.preset]
    if "init" in different:
        words += ["--init", config.training.init]
    if config.data.corpus != BUNDLED:
        words += ["--csv" if config.data.corpus_format == "csv" else "--text", config.data.corpus]
    for name, value in different.items():
        if name not in SETTINGS_WITH_OPTIONS:
            words += ["--set", f"{name}={_format_value(value)}"]
    return " ".join(map(shell_word, words))


def _flatten(config: Config) -> dict[str, Any]:
    """Return all settings by name."""
    return {name: getattr(getattr(config, section), name) for name, (section, _) in describe_settings().items()}


def _format_perplexity(perplexity: float | None) -> str:
    """Return a perplexity with two decimals; differences between good settings are small."""
    return "-" if perplexity is None or not math.isfinite(perplexity) else f"{perplexity:.2f}"


def _format_value(value: Any) -> str:
    """Return a value as `--set` takes it."""
    return str(value).lower() if isinstance(value, bool) else str(value)
