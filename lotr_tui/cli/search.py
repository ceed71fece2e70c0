"""The command that searches hyperparameters within a budget."""

import math
from dataclasses import replace
from datetime import datetime
from typing import Annotated

import typer

from engine.errors import InvalidInputError
from engine.runtime.process import require_package
from lotr_tui.cli import options, training_options
from lotr_tui.cli.parser import float_option, int_option

SEARCH = "Search"
"""Section of the help text."""
MAX_MINUTES = 1e6


@training_options.with_training
def search(
    *,
    minutes: Annotated[
        float | None,
        float_option(
            "--minutes",
            help="Time for the search; trials that are still trained then are saved.",
            rich_help_panel=SEARCH,
        ),
    ] = None,
    trials: Annotated[
        int | None,
        int_option("--trials", minimum=1, maximum=1_000_000, help="Trials to start, at most.", rich_help_panel=SEARCH),
    ] = None,
    jobs: Annotated[
        int | None,
        int_option(
            "--jobs",
            minimum=1,
            maximum=1_000,
            help="Parallel trainings, with one thread each. Default: the number of cores; 1 on a GPU.",
            rich_help_panel=SEARCH,
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(
            "--name",
            metavar="NAME",
            help="Name of the search; its runs are NAME-000, NAME-001 and so on. Default: the time.",
            rich_help_panel=SEARCH,
        ),
    ] = None,
    resume: Annotated[
        str | None,
        typer.Option("--resume", metavar="NAME", help="Continue a search with another budget.", rich_help_panel=SEARCH),
    ] = None,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="Print one JSON object per trial, and a summary.", rich_help_panel=SEARCH),
    ] = False,
    training: training_options.TrainingOptions,
    runs_dir: options.RunsDirOption = None,
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
    from engine.training.search import Budget, Search, default_num_jobs, make_plan
    from engine.training.search_space import split_space
    from lotr_tui.cli.search_report import search_on_console

    if resume is not None:
        if training != training_options.NO_OPTIONS or name is not None:
            raise InvalidInputError(f"--resume {resume} keeps the settings of that search; omit all others")
        found = Search.open(resume, runs_dir)
    else:
        assignments, space = split_space(training.assignments)
        config = replace(training, assignments=assignments).configure(runs_dir)
        plan = make_plan(config, space, runs_dir)
        found = Search.create(name or f"search-{datetime.now():%Y%m%d-%H%M%S}", runs_dir, plan)
    budget = Budget(60 * minutes if minutes else math.inf, trials or math.inf)
    return search_on_console(found, budget, jobs or default_num_jobs(found.plan.config), as_json=as_json)
