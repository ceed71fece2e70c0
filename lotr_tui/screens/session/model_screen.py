"""Session screen that can change its model: to a chosen run, or to the models of a training."""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from textual.timer import Timer

from engine.errors import InvalidInputError, describe_error
from engine.models.pretrained.names import SMOLLM2, is_base_stored
from lotr_tui.background_task import is_closed, run_in_thread
from lotr_tui.messages import ModelFetchChanged, TrainingChanged
from lotr_tui.screens.runs.open_run import choose_run
from lotr_tui.screens.session.frame import BaseSessionScreen
from lotr_tui.screens.session.status import SessionStatus
from lotr_tui.session.model_loading import UPDATE_INTERVAL, ModelLoader, add_recent_model
from lotr_tui.session.settings import ModelSettings

if TYPE_CHECKING:  # these modules import numpy, which the first paint does not need
    from engine.config import Config
    from engine.runs.loading import LoadedModel
    from lotr_tui.screens.dialogs.new_training import NewTraining
    from lotr_tui.session.session_model import SessionModel


class ModelSessionScreen(BaseSessionScreen):
    """Session screen with the status of its model, the chart of the model's run, and the training in the background."""

    def __init__(
        self,
        session_model: "SessionModel | None",
        load_session_model: "Callable[[], SessionModel] | None",
        runs_dir: Path | None,
        *,
        follow_training: bool,
    ) -> None:
        """Show a model, and with `follow_training` each later model of the running training."""
        super().__init__(session_model, load_session_model)
        self._runs_dir = runs_dir
        self._follow_training = follow_training
        self._run_path: Path | None = None
        self._corpus = ""
        """Corpus of the model, offered for the next training; empty before a model is there."""
        self._loader: ModelLoader | None = None
        """Loader of a model, while the session still uses another model."""
        self._loading_timer: Timer | None = None
        self._requested_training: NewTraining | None = None
        """Training that was started from the dialog last."""

    @abstractmethod
    def _show_preview(self) -> None:
        """Update the next-token bars."""

    def _after_open(self) -> None:
        """Show the status, and the chart after the next paint because it takes longer."""
        self._run_path = None if self._follow_training else self.session_model.run
        self._remember_model(self.session_model)
        self._corpus = self._corpus or self.session_model.corpus
        self._show_status()
        self.set_timer(0.05, self._show_model_chart)

    # Settings of the model

    @property
    def model_settings(self) -> ModelSettings:
        """Settings by which the model answers: the user's, or else its defaults."""
        models = self.app.settings_store.current.models
        return models.get(self.session_model.settings_name) or self.session_model.default_settings

    def change_model_settings(self, **changes: Any) -> None:
        """Change some settings of the model, for this session and for later ones.

        Raises:
            InvalidInputError: If a value is out of range.
        """
        changed = replace(self.model_settings, **changes)
        if changed != self.model_settings:
            self.app.update_settings(models={self.session_model.settings_name: changed})

    # Runs

    def action_choose_model(self) -> None:
        """List the runs, and use the chosen one."""
        choose_run(self, self.load_named_model)

    def use_model(self, session_model: "SessionModel") -> None:
        """Use a model that no training replaces."""
        self._follow_training = False
        self._run_path = session_model.run
        self._corpus = session_model.corpus or self._corpus
        self.set_session_model(session_model, f"now using {session_model.name}")
        if self.is_ready and session_model.run is not None and not self.app.is_training:
            self._panes.run_chart.load_run(session_model.run)

    def load_named_model(self, name: str) -> None:
        """Load the model of a run, or a model by others, in a thread, and use it; show an error as a notification.

        The session uses its current model until then. A later call replaces an earlier one. For a model that has to be
        fetched first, ask whether to do so.
        """
        from engine.config import BUNDLED

        if name in (BUNDLED, SMOLLM2) and not is_base_stored(SMOLLM2):
            self._ask_for_model()
        else:
            self.run_worker(self._load_model(name), exclusive=True, group="load")

    async def _load_model(self, name: str) -> None:
        loader = None
        try:
            loader = ModelLoader([name], self._runs_dir)
            self._show_loader(loader)
            session_model = await run_in_thread(loader)
        except Exception as error:  # libraries for models raise errors of many types
            self.notify(describe_error(error), severity="error", markup=False, timeout=10)
            return
        finally:  # also if the user has chosen another model, which cancels this worker
            if self._loader is loader and not is_closed(self):
                self._show_loader(None)
        self.use_model(session_model)

    def _show_loader(self, loader: ModelLoader | None) -> None:
        """Show the progress of a model that is not loaded at once in the status line, until None is shown."""
        self._loader = loader
        if self._loading_timer is None and loader is not None:
            self._loading_timer = self.set_interval(UPDATE_INTERVAL, self._show_status)
        elif self._loading_timer is not None and loader is None:
            self._loading_timer.stop()
            self._loading_timer = None
            self._show_status()

    # The small LSTM, and SmolLM2, which has to be fetched

    def _ask_at_first_start(self) -> None:
        """Ask once which model to use, unless SmolLM2 is there or the user has named a model."""
        loader = self._load_session_model
        if not isinstance(loader, ModelLoader) or loader.names or is_base_stored(SMOLLM2):
            return
        choice = self.app.settings_store.current.first_model
        if not choice:
            self._ask_for_model()
        elif choice == "smollm2":
            self.notify("SmolLM2 is not complete yet; /fetch goes on with it", timeout=10)

    def _ask_for_model(self) -> None:
        from lotr_tui.screens.dialogs.questions import FirstModelDialog  # not needed for the first paint

        if self.app.model_fetch is not None and self.app.model_fetch.is_running:
            self.notify(self.app.model_fetch.describe(), markup=False)
        else:
            self.app.push_screen(FirstModelDialog(), self._choose_first_model)

    def _choose_first_model(self, wants_smollm2: bool | None) -> None:
        self.app.update_settings(first_model="smollm2" if wants_smollm2 else "lstm")
        if wants_smollm2:
            self.app.fetch_model()

    def action_fetch_model(self) -> None:
        """Fetch SmolLM2, or use it if it is there."""
        if is_base_stored(SMOLLM2):
            self._use_bundled_model()
        else:
            self._choose_first_model(True)

    def _use_bundled_model(self) -> None:
        from engine.config import BUNDLED

        self.load_named_model(BUNDLED)

    def action_switch_model(self) -> None:
        """Use the small LSTM, or SmolLM2 in the place of any other model."""
        from engine.config import BUNDLED, LSTM
        from engine.runs.directory import bundled_run_name

        run = self.session_model.run if self.is_ready else None
        names = (None if run is None else bundled_run_name(run),) if self._loader is None else self._loader.names
        self.load_named_model(LSTM if names == (BUNDLED,) else BUNDLED)

    def on_model_fetch_changed(self, message: ModelFetchChanged) -> None:
        """Show how much of SmolLM2 is there, and use it once it is complete, unless a conversation has begun."""
        self._show_status()
        if not message.has_ended:
            return
        conversation = self._panes.conversation.conversation if self.is_ready else None
        if message.fetch.failure:
            self._show_message(f"SmolLM2 was not fetched: {message.fetch.failure}; /fetch tries again")
        elif conversation is None or (conversation.current_reply is None and conversation.active_reply is None):
            self._use_bundled_model()
        else:
            self._show_message("SmolLM2 is there: ctrl+\\ talks to it, and back to this model")

    def _remember_model(self, session_model: "SessionModel") -> None:
        """Offer a model by others again later, and hide the chart while it is used."""
        if session_model.source:
            recent = self.app.settings_store.current.recent_models
            self.app.update_settings(recent_models=add_recent_model(session_model.source, recent))
        self._show_or_hide_chart()

    def set_session_model(self, session_model: "SessionModel", message: str = "") -> None:
        """Replace the model, and show a message about it."""
        if message:
            self._show_message(message)
        if not self.is_ready:
            self.run_worker(self._show_session_model(session_model), group="open")
            return
        is_other = session_model.settings_name != self.session_model.settings_name
        self.session_model = session_model
        self._remember_model(session_model)
        self._adapt_prompt()
        if is_other:
            self._panes.sampler.apply(self.model_settings.sampler)
        self._show_status()
        self._show_preview()
        self._update_keys()

    # Training

    def action_train(self) -> None:
        """Show the dashboard of the running training, or ask for a new one."""
        self._first_steps.finish("train")
        view = self.app.training_view
        if self.app.is_training and view is not None:
            self.app.open_dashboard(view, self._use_run)
            return
        from engine.config import BUNDLED, DataConfig
        from engine.data.corpus import names_speakers
        from engine.runtime.process import require_package
        from lotr_tui.screens.dialogs.new_training import NewTrainingDialog

        try:
            require_package("torch")  # before the user fills in the dialog
        except InvalidInputError as error:
            self.notify(str(error), severity="error", markup=False, timeout=10)
            return

        def start(training: "NewTraining | None") -> None:
            if training is not None:
                self._requested_training = training
                self.start_training(training.config, training.run_name)

        could_not_start = view is not None and bool(view.failure) and view.started is None
        previous = self._requested_training if could_not_start else None

        async def ask() -> None:
            corpus = self._corpus or BUNDLED
            format: Literal["csv", "text"] = "text" if corpus.endswith(".txt") else "csv"
            has_speakers = await run_in_thread(names_speakers, DataConfig(corpus=corpus, corpus_format=format))
            dialog = NewTrainingDialog(corpus, self._runs_dir, previous, has_speakers=has_speakers)
            if self.is_current:
                self.app.push_screen(dialog, start)

        self.run_worker(ask(), exclusive=True, group="train")

    def _use_run(self, loaded: "LoadedModel | None") -> None:
        """Use the model that was chosen on the dashboard."""
        from lotr_tui.session.session_model import SessionModel

        if loaded is not None:
            self.use_model(SessionModel.from_loaded(loaded))

    def start_training(self, config: "Config", run_name: str | None = None) -> None:
        """Start a training, and use each of its models."""
        self._follow_training = True
        self._corpus = config.data.corpus
        self.app.start_training(config, run_name)
        name = run_name or config.preset
        self._show_message(f"training {name}; after each evaluation the session uses the new model")

    def on_training_changed(self, message: TrainingChanged) -> None:
        """Show the state of the training, and use its latest model."""
        from engine.events import Finished
        from lotr_tui.session.session_model import SessionModel

        if message.view.evaluations and self.is_ready:
            self._panes.run_chart.show(message.view)
        self._show_status()
        self._show_or_hide_chart()
        if message.view.failure:
            self._show_message(f"training failed: {message.view.failure}")
        if not self._follow_training:
            return
        session_model = SessionModel.from_training(message.view, message.events, self._runs_dir)
        if session_model is not None:
            has_finished = any(isinstance(event, Finished) for event in message.events)
            text = f"training finished; now using its best model: {session_model.description}" if has_finished else ""
            self.set_session_model(session_model, text)

    # Status and chart

    def _show_message(self, text: str) -> None:
        if self.is_ready:
            self._panes.conversation.add_note(text)
        else:
            self.notify(text, markup=False)

    def _show_status(self) -> None:
        session_model, fetch = self.session_model if self.is_ready else None, self.app.model_fetch
        activity = fetch.describe() if fetch is not None and fetch.is_running else ""
        if self._loader is not None:
            activity = self._loader.describe_briefly()
        self.query_one("#status", SessionStatus).update_status(session_model, self.app.training_view, activity)

    def _show_or_hide_chart(self) -> None:
        if self.is_ready:
            self._panes.side.set_class(not self._has_training, "-by-others")

    def _show_model_chart(self) -> None:
        """Draw the latest training of this process, or else read the run of the model."""
        if self.app.training_view is not None:
            self._panes.run_chart.show(self.app.training_view)
        elif self._run_path is not None:
            self._panes.run_chart.load_run(self._run_path)
