"""Start of the app in a terminal or a browser, and its orderly end. Commands import this module, and Textual, last."""

import os
import signal
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from engine.errors import InvalidInputError, printable
from engine.models.pretrained.names import BASE_FILE, SMOLLM2, is_pretrained_name
from lotr_tui.app import LotrApp
from lotr_tui.session.model_loading import GivenAdapter, ModelLoader, check_fetched
from lotr_tui.textual_fixes import is_served

if TYPE_CHECKING:  # these modules import numpy, which the first paint does not need
    from engine.runs.combine import CombinationOptions
    from lotr_tui.learn.material import Material

THREAD_SWITCH_INTERVAL = 0.001  # a fifth of Python's default: seconds after which a busy thread lets a key through


def open_session(
    runs: Sequence[str] = (),
    runs_dir: Path | None = None,
    combination: "CombinationOptions | None" = None,
    pace: float | None = None,
    theme: str | None = None,
    *,
    mouse: bool = True,
    adapters: Sequence[GivenAdapter] = (),
) -> int:
    """Open the session with the models of `runs`, or with the default model, until the user quits; return exit code."""
    if not _has_screen():
        raise InvalidInputError("the interactive session needs a terminal; use `lotr-tui generate PROMPT` instead")
    load = ModelLoader(runs, runs_dir, combination, adapters)
    # A named run must exist before the screen is drawn. Loading a large model takes seconds and follows that.
    is_slow = len(runs) == 1 and combination is None and _is_slow(runs[0], runs_dir)
    if adapters and len(runs) <= 1:
        from engine.models.pretrained.folders import read_base
        from engine.runs.loading import find_model, read_adapters

        base = read_base(SMOLLM2) if list(runs) == [SMOLLM2] else None  # the hash of others takes seconds
        named = [*(runs or (None,)), *(name for name, _ in adapters)]
        read_adapters([find_model(name, runs_dir) for name in named if not is_pretrained_name(name)], base)
    session_model = load() if (runs or combination) and not is_slow else None
    app = LotrApp(session_model=session_model or load, runs_dir=runs_dir, pace=pace, theme=theme)
    return run_app(app, mouse=mouse)


def open_class(chapter: int | None, material: "Material | None", theme: str | None = None, *, mouse: bool) -> int:
    """Open the class, at a chapter or the first whose task is not done, until the user quits; return the exit code."""
    if not _has_screen():
        raise InvalidInputError("the class needs a terminal; `lotr-tui learn --list` prints its chapters")
    from lotr_tui.screens.learn.screen import ChapterScreen

    def make_material() -> "Material":
        from lotr_tui.learn.material import Material  # after the first paint

        return material or Material()

    screen = partial(ChapterScreen, make_material, chapter, exit_on_close=True)
    return run_app(LotrApp(make_screen=screen, theme=theme), mouse=mouse)


def open_dashboard(path: Path, theme: str | None, *, mouse: bool) -> int:
    """Open the dashboard of a run directory, whose training continues when it is closed; return the exit code."""
    from lotr_tui.screens.dashboard.screen import DashboardScreen  # not for the session, whose start it would delay

    screen = partial(DashboardScreen.following, path, exit_on_close=True)
    return run_app(LotrApp(make_screen=screen, runs_dir=path.parent, theme=theme), mouse=mouse)


def run_app(app: LotrApp, *, mouse: bool) -> int:
    """Run `app` until the user quits, the terminal closes or a signal arrives, then finish or hand over its training.

    Return 0, or 128 plus the number of the signal that ended the app, or 1 if something is not saved, or if the
    training that the app was started with has failed. An exception that ended the app is raised once all is saved.
    """
    for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGQUIT, signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, app.handle_signal)
    sys.setswitchinterval(THREAD_SWITCH_INTERVAL)
    app.run(mouse=mouse)
    from lotr_tui.monitor import background  # not needed for the first paint

    state = app.state
    if app.terminal_closed:
        if is_served() and state.is_training and state.run_path is not None:
            line = background.describe_background_run(state.run_path, os.getpid())
            print(line, file=sys.stderr)  # the server shows it
        background.detach_from_terminal()
    tracker_lines = state.finish_training(waits=app.terminal_closed)
    if state.detached_run is not None:
        print(background.resume_in_background(state.detached_run))
    elif state.job is not None or state.is_training:  # a training that ended in the session was shown there
        _print_run(app)
    for line in tracker_lines:
        print(line)
    failure = state.training_view.failure if state.job is not None and state.training_view is not None else ""
    problems = list(filter(None, (state.exit_message, failure)))
    for problem in problems:
        print(f"lotr-tui: {printable(problem)}", file=sys.stderr)
    if app.failure is not None:
        raise app.failure
    return app.exit_code or int(bool(problems))


def _has_screen() -> bool:
    """Return True in a browser, or if all standard streams are a terminal; the screen is drawn on standard error."""
    return is_served() or all(stream.isatty() for stream in (sys.stdin, sys.stdout, sys.stderr))


def _is_slow(name: str, runs_dir: Path | None) -> bool:
    """Return True for a model that takes seconds to load: one by others, or an adapter of one, whose base is there."""
    if is_pretrained_name(name):
        return True
    from engine.runs.directory import read_json
    from engine.runs.loading import BaseReference, find_model

    run_dir, _ = find_model(name, runs_dir)
    if not (run_dir / BASE_FILE).is_file():
        return False
    check_fetched(read_json(BaseReference, run_dir / BASE_FILE).name, name)
    return True


def _print_run(app: LotrApp) -> None:
    """Print where the run of the app's training is, and how to play with it and to resume it."""
    from engine.runs.directory import WEIGHT_FILES, run_word

    path, view = app.state.run_path, app.state.training_view
    if path is None:
        print("the training was stopped before it had started; there is nothing to resume")
        return
    word = run_word(path)
    print(printable(f"run {path.name} is in {path}"))
    if any((path / name).is_file() for name in WEIGHT_FILES):
        print(printable(f"open a session with it: lotr-tui --run {word}"))
    if view is None or view.is_active or view.is_resumable:
        print(printable(f"resume it: lotr-tui train --resume {word}"))
