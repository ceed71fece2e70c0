"""The training beside a session: it is started or watched, and its models are offered to the conversation."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from engine.errors import InvalidInputError
from lotr_tui.app_state import TrainingChanged
from lotr_tui.background_task import run_in_thread
from lotr_tui.formatting import format_duration
from lotr_tui.screens.base import AppScreen

if TYPE_CHECKING:  # these modules import numpy, which the first paint does not need
    from engine.config import Config
    from engine.runs.loading import LoadedModel
    from lotr_tui.screens.dialogs.new_training import NewTraining
    from lotr_tui.session.session_model import SessionModel


class TrainingFollower:
    """The latest training of this process, which leaves the conversation its model."""

    def __init__(
        self, screen: AppScreen[None], use: "Callable[[SessionModel, str], None]", note: Callable[[str], None]
    ) -> None:
        """Call `use` with a model to talk to and a text about it, `note` with news of a training."""
        self._screen, self._use, self._note = screen, use, note
        self.corpus = ""  # of the model, offered for the next training
        self.offer: tuple[str, SessionModel] | None = None  # line about the latest model, and that model
        self._requested: NewTraining | None = None  # from the dialog

    def open(self) -> None:
        """Show the dashboard of the running training, or ask for a new one."""
        screen, state, view = self._screen, self._screen.state, self._screen.state.training_view
        if state.is_training and view is not None:
            from lotr_tui.screens.dashboard.screen import DashboardScreen

            def use(loaded: "LoadedModel | None") -> None:
                from lotr_tui.session.session_model import SessionModel

                if loaded is not None:
                    self._use(SessionModel.from_loaded(loaded), f"now using {loaded.name}")

            screen.app.push_screen(DashboardScreen(view, state.send_command), use)
            return
        from engine.config import BUNDLED, DataConfig
        from engine.data.corpus import names_speakers
        from engine.runtime.process import require_package
        from lotr_tui.screens.dialogs.new_training import NewTrainingDialog

        try:
            require_package("torch")  # before the user fills in the dialog
        except InvalidInputError as error:
            screen.notify(str(error), severity="error", markup=False, timeout=10)
            return
        could_not_start = view is not None and bool(view.failure) and view.started is None

        def start(training: "NewTraining | None") -> None:
            if training is not None:
                self._requested = training
                self.start(training.config, training.run_name)

        async def ask() -> None:
            corpus = self.corpus or BUNDLED
            data = DataConfig(corpus=corpus, corpus_format="text" if corpus.endswith(".txt") else "csv")
            has_speakers = await run_in_thread(names_speakers, data)
            requested = self._requested if could_not_start else None
            if screen.is_active:  # `is_current` is also true right below the screen on top
                dialog = NewTrainingDialog(corpus, state.runs_dir, requested, has_speakers=has_speakers)
                screen.app.push_screen(dialog, start)

        screen.run_worker(ask(), exclusive=True, group="train")

    def start(self, config: "Config", run_name: str | None = None) -> None:
        self.corpus = config.data.corpus
        self._screen.state.start_training(config, run_name)
        self._note(f"training {run_name or config.preset}; ctrl+t watches it")

    def follow(self, message: TrainingChanged) -> None:
        """Report a failure, and offer the latest model."""
        from lotr_tui.session.session_model import SessionModel

        view = message.view
        if view.failure:
            self._note(f"training failed: {view.failure}")
        session_model = SessionModel.from_training(view, message.events, self._screen.state.runs_dir)
        if session_model is not None:
            what = f"{session_model.name} is trained" if view.finished else f"epoch {view.epoch:.0f}"
            self.offer = f"{what}: talk to it · enter", session_model

    def talk(self) -> None:
        """Talk to the latest model of the training."""
        if self.offer is None:
            self._screen.notify("No training of this session has a model yet; ctrl+t starts one.")
        else:
            (_, model), self.offer = self.offer, None
            self._use(model, f"now talking to {model.name}: {model.description}")

    def status(self) -> str:
        """Return the state of the running training on one line; empty if there is none."""
        view = self._screen.state.training_view
        if view is None or not view.is_active:
            return ""
        if not view.started or not view.evaluations:
            return f"training: {view.activity}"
        valid = view.unit.format(view.evaluations[-1].valid_perplexity)
        valid += "" if view.unit.is_perplexity else f" {view.unit.title}"
        eta = f" · {format_duration(view.steps.last.eta_seconds)} left" if view.steps.last else ""
        return f"training epoch {view.epoch:.1f}/{view.epochs} · {valid}{eta}"
