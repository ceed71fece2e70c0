"""State that all screens share: settings, the training in a thread of this process, and the fetching of SmolLM2."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from textual import app, message

from engine.control import ControlCommand
from engine.errors import InvalidInputError, describe_error
from lotr_tui.background_task import run_in_thread
from lotr_tui.session.settings import SettingsStore

if TYPE_CHECKING:  # these modules import numpy, which the first paint does not need
    from engine.config import Config
    from engine.events import TrainingEvent
    from engine.runs.loading import LoadedModel
    from engine.training.job import TrainingJob
    from lotr_tui.monitor.local_training import LocalTraining
    from lotr_tui.monitor.training_view import TrainingView
    from lotr_tui.session import model_loading, session_model

SAVE_DELAY = 0.5  # seconds between the first change of a setting and the writing of all changes until then
POLL_INTERVAL = 0.5  # seconds between two looks at the training, or at the fetching of SmolLM2
SAVE_TIMEOUT = 20.0  # seconds to wait for the training to save once the screen is closed
TRACKER_WAIT = 5.0  # seconds to wait, once the screen is closed, until trackers have received the end of the training


@dataclass
class TrainingChanged(message.Message, bubble=False):
    """Posted to every screen when the training has reported events, which come oldest first."""

    view: "TrainingView"
    events: "Sequence[TrainingEvent]"


@dataclass
class ModelFetchChanged(message.Message, bubble=False):
    """Posted to every screen while SmolLM2 is being fetched, and once when that has ended."""

    fetch: "model_loading.ModelFetch"
    has_ended: bool


@dataclass
class OpenSession(message.Message):
    """Request of a screen to show a session above it with a model, or with None the default one."""

    session_model: "session_model.SessionModel | None"


@dataclass
class WatchRun(message.Message):
    """Request of a screen to show the dashboard of a run; `on_close` gets the run that was chosen there, or None."""

    path: Path | None  # None for the training of this process before it has a run
    on_close: "Callable[[LoadedModel | None], None]"


class AppState:
    """State of the app that its screens read and change."""

    def __init__(self, app: app.App[None], runs_dir: Path | None, job: "TrainingJob | None") -> None:
        """Read the settings; `job` is a training that the app was started with."""
        self.settings, self.runs_dir, self.job = SettingsStore(), runs_dir, job
        self.training: LocalTraining | None = None  # the latest of this process, which may have ended
        self.is_training = False
        self.model_fetch: model_loading.ModelFetch | None = None  # the latest attempt
        self.exit_message = ""  # line for standard error after the screen is closed
        self.quits_when_training_ends = False
        self.detached_run: Path | None = None  # of a training that another process resumes once the app has ended
        self._app, self._will_save = app, False

    # Settings

    def update_settings(self, **changes: Any) -> None:
        """Change settings at once, and write them soon; a value out of range raises an InvalidInputError."""
        self.settings.change(**changes)
        if self._app.is_running and self.settings.unsaved and not self._will_save:
            self._will_save = True
            self._app.run_worker(self._save_settings())

    async def _save_settings(self) -> None:
        await asyncio.sleep(SAVE_DELAY)
        self._will_save = False
        if notice := await asyncio.to_thread(self.settings.save):  # a slow disk must not stop the screen
            self._app.notify(notice, severity="warning", markup=False)

    # Training

    @property
    def training_view(self) -> "TrainingView | None":
        return None if self.training is None else self.training.view

    @property
    def run_path(self) -> Path | None:
        if self.training is not None:
            return self.training.path
        return None if self.job is None else self.job.run.path

    def start_training(self, config: "Config", run_name: str | None = None) -> None:
        """Train in a thread and post `TrainingChanged`. Without a name, preset and time name the run."""

        def prepare() -> "TrainingJob":
            from engine.training.job import prepare_job  # imports PyTorch, which takes seconds

            return prepare_job(config, run_name=run_name, runs_dir=self.runs_dir)

        self.launch(prepare)

    def launch(self, prepare: "Callable[[], TrainingJob]", resumed_run: Path | None = None) -> None:
        from lotr_tui.monitor.local_training import LocalTraining

        self.training, self.is_training = LocalTraining(prepare, resumed_run), True
        self._app.run_worker(self._follow(self.training))

    def send_command(self, command: ControlCommand) -> None:
        if self.training is None or not self.is_training:
            raise InvalidInputError("no training is running; press ctrl+t in the session to start one")
        self.training.send_command(command)

    async def _follow(self, training: "LocalTraining") -> None:
        """Report the events of a training until it ends; a detached one then continues in another process."""
        while self.is_training:
            events, has_ended = training.poll()
            self.is_training = not has_ended
            for screen in self._app.screen_stack if events else ():
                screen.post_message(TrainingChanged(training.view, events))
            if not has_ended:
                await asyncio.sleep(POLL_INTERVAL)
        detached_run = training.path if training.view.is_detached else None
        if self.quits_when_training_ends or (detached_run and self.job):
            self.detached_run = detached_run  # resumed once the screen is closed
            self._app.exit()
        elif detached_run:
            from lotr_tui.monitor.background import resume_in_background

            try:
                self._app.notify(await run_in_thread(resume_in_background, detached_run), timeout=15, markup=False)
            except Exception as error:
                self._app.notify(describe_error(error), severity="error", markup=False)

    def finish_training(self, *, waits: bool) -> list[str]:
        """After the app, wait until the training has saved or, if it `waits`, ended; return lines of its trackers."""
        if (training := self.training) is None:
            return []
        if waits:
            training.wait_until_finished()
        elif training.has_unsaved_progress and not training.join(SAVE_TIMEOUT):
            self.exit_message = "the training did not stop in time; resume it from its last checkpoint"
        training.poll()
        if waits and training.view.is_detached:
            self.detached_run = training.path  # requested by `lotr-tui attach`
        if training.trackers is None:
            return []
        training.trackers.wait(TRACKER_WAIT)
        return training.trackers.closing_lines()

    # Fetching of SmolLM2

    def fetch_model(self) -> None:
        """Fetch SmolLM2 in a thread, unless that is going on, and post `ModelFetchChanged`."""
        from engine.models.pretrained.fetch import fetch_smollm2
        from lotr_tui.session.model_loading import ModelFetch

        if self.model_fetch is None or not self.model_fetch.is_running:
            self.model_fetch = ModelFetch(fetch_smollm2)
            self._app.run_worker(self._report_fetch(self.model_fetch))

    async def _report_fetch(self, fetch: "model_loading.ModelFetch") -> None:
        is_running = True
        while is_running:
            is_running = fetch.is_running
            for screen in self._app.screen_stack:
                screen.post_message(ModelFetchChanged(fetch, has_ended=not is_running))
            await asyncio.sleep(POLL_INTERVAL)
