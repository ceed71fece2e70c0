"""The training beside a session: it is started or watched, and its models are offered to the conversation."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from engine.errors import InvalidInputError, printable
from lotr_tui.app_state import POLL_INTERVAL, TrainingChanged, WatchRun
from lotr_tui.background_task import run_in_thread
from lotr_tui.formatting import format_duration
from lotr_tui.screens.base import ONE_TRAINING, AppScreen

if TYPE_CHECKING:  # these modules import numpy, which the first paint does not need
    from engine.config import Config
    from engine.runs.loading import LoadedModel
    from lotr_tui.monitor.run_follower import RunFollower
    from lotr_tui.monitor.training_view import TrainingView
    from lotr_tui.screens.dialogs.new_training import NewTraining
    from lotr_tui.session.session_model import SessionModel


MAX_RUN_WIDTH = 14  # of a name in the status


class TrainingFollower:
    """The training that a session speaks of: the latest of this process, or one of another process.

    It leaves the conversation its model.
    """

    def __init__(
        self,
        screen: AppScreen[None],
        use: "Callable[[SessionModel, str], None]",
        load: Callable[[str], None],
        note: Callable[[str], None],
        on_change: Callable[[], None],
    ) -> None:
        """Call `use` with a model to talk to and a text about it, `load` with the path of a run whose model is to be
        loaded, `note` with news of a training, and `on_change` when there is news of the one that is followed.
        """
        self._screen, self._use, self._load, self._note, self._on_change = screen, use, load, note, on_change
        self.corpus = ""  # of the model, offered for the next training
        self.offer: tuple[str, Callable[[], None]] | None = None  # line about the latest model, and what talks to it
        self._requested: NewTraining | None = None  # from the dialog
        self._attached: RunFollower | None = None  # of another process; None: the training of this process

    @property
    def view(self) -> "TrainingView | None":
        return self._screen.state.training_view if self._attached is None else self._attached.view

    def open(self) -> None:
        """Show the dashboard of the running training, or ask for one of several, or for a new one."""
        self._screen.run_worker(self._open(), exclusive=True, group="train")

    async def _open(self) -> None:
        from engine.runs.directory import find_run_dirs, lock_owner
        from engine.storage.files import default_runs_dir
        from lotr_tui.screens.dialogs.dialog import Dialog

        screen, state = self._screen, self._screen.state

        def find_others() -> list[tuple[str, Path | str]]:
            paths = [path for path in find_run_dirs(state.runs_dir or default_runs_dir()) if path != state.run_path]
            return [(f"{printable(path.name)} · {owner}", path) for path in paths if (owner := lock_owner(path))]

        def use(loaded: "LoadedModel | None") -> None:
            from lotr_tui.session.session_model import SessionModel

            if loaded is not None:
                self._use(SessionModel.from_loaded(loaded), f"now using {loaded.name}")

        trainings = await run_in_thread(find_others)
        if not screen.is_active:  # `is_current` is also true right below the screen on top
            return
        if state.is_training:
            name = printable(state.run_path.name) if state.run_path else "being prepared"
            trainings.insert(0, (f"{name} · this program", "own"))
        else:
            trainings.append(("a new training", "new"))
        chosen: Path | str | None = trainings[0][1]
        if len(trainings) > 1:
            dialog = Dialog[Path | str]("Which training?", answers=trainings, text=ONE_TRAINING * state.is_training)
            chosen = await screen.app.push_screen_wait(dialog)
        if chosen == "new":
            await self._ask_for_new()
        elif chosen is not None:
            screen.post_message(WatchRun(chosen if isinstance(chosen, Path) else state.run_path, use))

    async def _ask_for_new(self) -> None:
        from engine.config import BUNDLED
        from engine.data.corpus import names_speakers
        from engine.runtime.process import require_package
        from lotr_tui.screens.dialogs.new_training import NewTrainingDialog

        screen, view = self._screen, self._screen.state.training_view
        try:
            require_package("torch")  # before the user fills in the dialog
        except InvalidInputError as error:
            screen.notify(str(error), severity="error", markup=False, timeout=10)
            return
        requested = self._requested if view is not None and view.failure and view.started is None else None
        corpus = self.corpus or BUNDLED
        has_speakers = await run_in_thread(names_speakers, corpus)
        if screen.is_active:
            dialog = NewTrainingDialog(corpus, screen.state.runs_dir, requested, has_speakers=has_speakers)
            if (training := await screen.app.push_screen_wait(dialog)) is not None:
                self._requested = training
                self.start(training.config, training.run_name)

    def attach(self, path: Path | None) -> None:
        """Speak of a training that is watched: of this process, or of another one that is going on."""
        from engine.runs.directory import lock_owner
        from lotr_tui.monitor.run_follower import RunFollower

        if path == self._screen.state.run_path:
            path = None
        if path == (self._attached and self._attached.path) or (path is not None and not lock_owner(path)):
            return
        self.stop()
        self.offer = None
        if path is not None:
            self._attached = RunFollower(path)
            self._timer = self._screen.set_interval(POLL_INTERVAL, self._poll)
        self._on_change()

    def stop(self) -> None:
        """Follow the training of another process no longer."""
        if self._attached is not None:
            self._attached.stop()
            self._timer.stop()
            self._attached = None

    def start(self, config: "Config", run_name: str | None = None) -> None:
        self.corpus = config.data.corpus
        self._screen.state.start_training(config, run_name)
        self.attach(None)
        self._note(f"training {run_name or config.preset}; ctrl+t watches it")

    def _poll(self) -> None:
        """Read what the training of another process has recorded, and offer its best model."""
        if (attached := self._attached) is None:  # since this call was due
            return
        before = len(attached.view.evaluations), attached.view.finished
        if attached.poll():
            view, name = attached.view, printable(attached.path.name)
            if view.best and view.epoch and (len(view.evaluations), view.finished) != before:
                is_trained = view.finished and view.best.step
                what = f"{name} is trained" if is_trained else f"{name}, epoch {view.best.epoch:.0f}"
                self.offer = f"{what}: talk to it · enter", partial(self._load, str(attached.path))
            self._on_change()

    def follow(self, message: TrainingChanged) -> None:
        """Report a failure of the training of this process, and offer its latest model."""
        from engine.events import Evaluated
        from lotr_tui.session.session_model import SessionModel

        view = message.view
        if view.failure:
            self._note(f"training failed: {view.failure}")
        model = SessionModel.from_training(view, message.events, self._screen.state.runs_dir)
        # The view may be further than these events.
        epoch = max((each.epoch for each in message.events if isinstance(each, Evaluated)), default=0.0)
        if model and (epoch or view.finished) and self._attached is None:  # at epoch 0, nothing has been learned
            what = f"{model.name} is trained" if view.finished else f"epoch {epoch:.0f}"
            what = model.warning or what
            talk = partial(self._use, model, f"now talking to {model.name}: {model.description}")
            self.offer = f"{what}: talk to it · enter", talk
        self._on_change()

    def talk(self) -> None:
        """Talk to the latest model of the training."""
        if self.offer is None:
            self._screen.notify("No training of this session has a model yet; ctrl+t starts one.")
        else:
            (_, talk), self.offer = self.offer, None
            talk()

    def status(self, model: str) -> str:
        """Return the state of the running training on one line, with its name unless that is the one of the model."""
        view = self.view
        if view is None or not view.is_active or (self._attached is not None and view.notice):
            return ""
        run = view.started.run if view.started else "" if self._attached is None else self._attached.path.name
        short = printable(run if len(run) <= MAX_RUN_WIDTH else f"{run[:5]}…{run[-4:]}")  # names end with their time
        name = f"{short} training" if run and run != model else "training"
        if not view.started or not view.evaluations:
            return f"{name}: {view.activity or 'first evaluation'}"
        valid = view.unit.format(view.evaluations[-1].valid_perplexity)
        valid += "" if view.unit.is_perplexity else f" {view.unit.title}"
        eta = f" · {format_duration(view.steps.last.eta_seconds)} left" if view.steps.last else ""
        return f"{name} epoch {view.epoch:.1f}/{view.epochs} · {valid}{eta}"
