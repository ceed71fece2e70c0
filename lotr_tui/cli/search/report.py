"""Report on a search: a line or a JSON object for each trial, then the best trials and how to continue."""

import math
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, get_args

from engine.config import Config
from engine.errors import printable, shell_word
from engine.runs.directory import run_word
from engine.storage.files import default_runs_dir
from engine.training.search.records import UNFINISHED, SearchFolder, TrialRecord, TrialState
from engine.training.search.runner import Budget, SearchEnded, TrialEnded, find_best
from engine.training.search.space import format_value
from lotr_tui.cli.console import make_console, make_fitting_table, print_json
from lotr_tui.cli.search.train_command import format_train_command
from lotr_tui.formatting import format_duration, format_percent

MAX_TABLE_ROWS = 10
END_REASONS = {
    "budget": "the time is used",
    "trials": "all trials are done",
    "interrupted": "interrupted",
    "exhausted": "all combinations were tried",
    "failures": "too many trials failed in a row",
}


class SearchReport:
    """Printer of a search, as text or as JSON."""

    def __init__(self, folder: SearchFolder, budget: Budget, *, as_json: bool) -> None:
        """Report on the search in `folder`."""
        self._folder = folder
        self._plan = folder.plan
        self._budget = budget
        self._as_json = as_json

    def print_start(self, num_jobs: int, remarks: Sequence[str]) -> None:
        """Print the plan and the budget, and the remarks on stderr."""
        for remark in remarks:
            print(f"note: {printable(remark)}", file=sys.stderr)
        if self._as_json:
            return
        plan, path, budget = self._plan, self._folder.path, self._budget
        facts = [f"{num_jobs} job{'s' if num_jobs > 1 else ''}", f"seed {plan.seed}"]
        if math.isfinite(budget.seconds):
            facts.append(f"{format_duration(budget.seconds)} of time")
        if math.isfinite(budget.num_trials):
            facts.append(f"{budget.num_trials:.0f} new trials at most")
        if len(plan.split_seeds) > 1:
            facts.append(f"splits {', '.join(map(str, plan.split_seeds))}")
        if self._folder.records:
            facts.append(f"after {len(self._folder.records)} earlier trials")
        print(printable(f"search {path.name} in {path}: {', '.join(facts)}"))
        width = max(len(dimension.name) for dimension in plan.space.dimensions)
        for dimension in plan.space.dimensions:
            print(f"  {dimension.name:{width}}  {dimension.describe()}")
        records = self._folder.records
        unfinished = (number for number, record in records.items() if record.state in UNFINISHED)
        run = self._folder.run_names(next(unfinished, max(records, default=-1) + 1))[0]
        print(f"each trial is a run; watch one: lotr-tui attach {run_word(path.parent / run)}", flush=True)

    def print_trial(self, event: TrialEnded) -> None:
        """Print the end of a trial."""
        record, best, left = event.record, event.best, event.seconds_left
        if self._as_json:
            print_json(
                {
                    "event": "trial",
                    **self._to_dict(record),
                    "best": None if best is None else best.number,
                    "seconds_left": left,
                }
            )
            return
        columns = [
            f"{record.number:4}",
            f"{self._describe_state(record):14}",
            f"{_format_perplexity(record.value):>7}",
            f"{'' if best is None else f'best {_format_perplexity(best.value)} ({best.number})':18}",
            f"{format_duration(left):>7} left" if math.isfinite(left) else "",
            _format_settings(record),
        ]
        message = f": {printable(record.message)}" if record.message else ""
        print("  ".join(filter(None, columns)) + message, flush=True)

    def print_end(self, ended: SearchEnded) -> str:
        """Print the best trials, the importances of the settings, and commands to continue with.

        Returns:
            "", or a line that explains why no trial is complete.
        """
        best = find_best(ended.records)
        command = None if best is None else format_train_command(self._best_config(best))
        if self._as_json:
            self._print_summary(ended, best, command)
        elif best is not None:
            self._print_table(ended)
            if ended.importances:
                shares = (f"{name} {format_percent(share)}" for name, share in ended.importances.items())
                print(f"importance for validation: {', '.join(shares)}")
            print(f"train with the best settings:\n  {command}")
            if ended.reason != "exhausted":
                print(f"continue the search:\n  {self._resume_command()}", flush=True)
        return "" if best is not None else self._explain_no_result(ended)

    def _resume_command(self, minutes: float | None = None) -> str:
        """Return the command that continues the search, by default with the same time."""
        if minutes is None:
            minutes = self._budget.seconds / 60 if math.isfinite(self._budget.seconds) else 10
        path = self._folder.path
        runs_dir = "" if path.parent == default_runs_dir() else f" --runs-dir {shell_word(str(path.parent))}"
        return f"lotr-tui search --resume {shell_word(path.name)} --minutes {minutes:g}{runs_dir}"

    def _print_summary(self, ended: SearchEnded, best: TrialRecord | None, command: str | None) -> None:
        states = [record.state for record in ended.records]
        print_json(
            {
                "event": "summary",
                "search": str(self._folder.path),
                "reason": ended.reason,
                "trials": {state: states.count(state) for state in get_args(TrialState) if state in states},
                "best": None if best is None else self._to_dict(best),
                "importances": ended.importances,
                "command": command,
                "seconds": ended.seconds,
            }
        )

    def _print_table(self, ended: SearchEnded) -> None:
        """Print the best complete trials, best first."""
        complete = sorted(
            (record for record in ended.records if record.state == "complete"), key=lambda record: record.value or 0
        )
        names = [dimension.name for dimension in self._plan.space.dimensions]
        several = len(self._plan.split_seeds) > 1
        headings = ["valid", *(["of splits"] if several else []), "time", *names]
        rows = [
            [
                str(record.number),
                _format_perplexity(record.value),
                *([" ".join(map(_format_perplexity, record.perplexities))] if several else []),
                format_duration(record.seconds),
                *(format_value(record.settings[name]) for name in names),
            ]
            for record in complete[:MAX_TABLE_ROWS]
        ]
        states = [record.state for record in ended.records]
        counts = [f"{states.count(state)} {state}" for state in get_args(TrialState) if state in states]
        print(f"\n{END_REASONS[ended.reason]} after {format_duration(ended.seconds)}: {', '.join(counts)}\n")
        console = make_console()
        console.print(make_fitting_table(console.width, ["trial"], headings, rows))
        print()

    def _explain_no_result(self, ended: SearchEnded) -> str:
        """Return why no trial is complete, and what to do."""
        failed = next((record for record in reversed(ended.records) if record.message), None)
        if failed is not None and (ended.reason == "failures" or not any(record.value for record in ended.records)):
            return (
                f"search {self._folder.path.name} has no result; trial {failed.number} {failed.state}: {failed.message}"
            )
        furthest = max(ended.records, key=self._fraction, default=None)
        if furthest is None or not (fraction := self._fraction(furthest)):
            return f"no trial reached its first validation; give it more time: {self._resume_command()}"
        minutes = furthest.seconds / fraction / 60
        return (
            f"no trial is complete, which takes about {max(minutes, 0.1):.1f} minutes; trial {furthest.number} is at "
            f"{format_percent(fraction)} with validation {_format_perplexity(furthest.value)}; continue it: "
            f"{self._resume_command(math.ceil(4 * minutes))}"
        )

    def _best_config(self, best: TrialRecord) -> Config:
        return self._plan.config.with_values(**best.settings)

    def _fraction(self, record: TrialRecord) -> float:
        """Return the part of a trial that was trained."""
        num_runs = record.reports[-1][0] if record.reports else 0.0
        return num_runs / len(self._plan.split_seeds)

    def _describe_state(self, record: TrialRecord) -> str:
        if record.state in ("pruned", *UNFINISHED):
            return f"{record.state} {format_percent(self._fraction(record))}"
        return record.state

    def _to_dict(self, record: TrialRecord) -> dict[str, Any]:
        """Return a record as a JSON object, with its perplexity and without the perplexities on the way."""
        values = asdict(record)
        del values["reports"]
        return {**values, "valid_perplexity": record.value, "fraction": self._fraction(record)}


def _format_perplexity(perplexity: float | None) -> str:
    """Return a perplexity with two decimals; differences between good settings are small."""
    return "-" if perplexity is None or not math.isfinite(perplexity) else f"{perplexity:.2f}"


def _format_settings(record: TrialRecord) -> str:
    return " ".join(f"{name}={format_value(value)}" for name, value in record.settings.items())
