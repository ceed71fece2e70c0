"""Base class of the figures that train a network while the student watches."""

import asyncio
from collections.abc import Sequence
from typing import ClassVar, TypeVar

from textual import events, on
from textual.binding import BindingType
from textual.content import Content
from textual.message import Message
from textual.timer import Timer
from textual.widgets import Static

from engine.config import Config
from engine.events import TrainingEvent
from lotr_tui.app_base import LotrAppBase
from lotr_tui.formatting import format_perplexity
from lotr_tui.learn.live_training import TemporaryTraining, remove_temporary_folders
from lotr_tui.learn.material import Material
from lotr_tui.monitor.training_view import TrainingView
from lotr_tui.screens.learn.figure import ChapterFigure
from lotr_tui.theme import MUTED
from lotr_tui.widgets.bindings import binding_table

DataT = TypeVar("DataT")

POLL_INTERVAL = 0.05
"""Seconds between two reads of the events of the training."""
CLOSE_TIMEOUT = 1.0
"""Seconds to wait for the end of the training when the chapter is left; it ends after its current step."""
MAX_SECONDS = 60.0
"""Seconds of training after which a training on a slow computer is ended."""


class TrainLine(Static, can_focus=True):
    """Line that says what enter does, and what the training does. Posts `Pressed` when it is clicked."""

    DEFAULT_CSS = """
    TrainLine { height: 1; padding: 0 1; text-wrap: nowrap; text-overflow: ellipsis; }
    TrainLine:focus { background: $panel; }
    """
    ALLOW_SELECT = False
    HELP_LINE = "Enter or a click starts and stops the training"

    class Pressed(Message):
        """Posted when the line is clicked."""

    def on_click(self) -> None:
        """Post `Pressed`."""
        self.post_message(self.Pressed())

    def show(self, mark: str, action: str, state: Content) -> None:
        """Show the key with a mark and its action, and the state of the training."""
        self.update(Content.assemble((f"{mark} enter", "bold $accent"), f" {action}", (" · ", MUTED), state))


class LiveTrainingFigure(ChapterFigure[DataT]):
    """Figure with a training that enter starts and stops.

    A subclass yields a `TrainLine` in `compose_figure`, and defines `make_training`, `show_training` and
    `describe_result`.
    """

    BINDING_GROUP_TITLE = "Live training"
    BINDINGS: ClassVar[list[BindingType]] = binding_table(
        "learn-live",
        """
        train | enter | toggle_training | train | Start or stop the training
        """,
        show=True,
    )

    def __init__(self, material: Material) -> None:
        super().__init__(material)
        self.training: TemporaryTraining | None = None
        """The current training or the last one; None before the first one."""
        self.is_training = False
        """True while the thread trains."""
        self._end_note = ""
        """Why the training was ended before its last epoch; empty if it was not."""
        self._poll_timer: Timer | None = None

    # Parts that a subclass implements

    @property
    def idle_text(self) -> str:
        """Text of the line before the first training."""
        raise NotImplementedError

    @property
    def next_action(self) -> str:
        """Action of enter after a training."""
        return "trains again"

    def make_training(self) -> TemporaryTraining:
        """Start a training with what the controls say."""
        raise NotImplementedError

    def show_training(self, new_events: Sequence[TrainingEvent]) -> None:
        """Show the training after new events."""
        raise NotImplementedError

    def describe_result(self, view: TrainingView) -> str:
        """Return what a training that has ended has shown."""
        raise NotImplementedError

    # Used by subclasses

    @property
    def session_is_training(self) -> bool:
        """True if a training of the session runs at the same time."""
        return isinstance(self.app, LotrAppBase) and self.app.is_training

    def start_thread(self, config: Config, *, scores_train: bool = False) -> TemporaryTraining:
        """Start a training.

        The number of threads for matrix products belongs to the process, so a training of the session keeps its own.
        """
        if self.session_is_training or self.material.jobs.is_running:
            config = config.with_values(threads=0)
        return TemporaryTraining(config, scores_train=scores_train)

    def end_training(self, note: str) -> None:
        """End the training before its last epoch, because of `note`."""
        if self.is_training and self.training is not None and not self._end_note:
            self._end_note = note
            self.training.stop()

    # Training

    @property
    def work_in_progress(self) -> str:
        """Name of a running training."""
        return "training" if self.is_training else ""

    @property
    def is_idle(self) -> bool:
        """True once the figure shows what its controls say, and nothing is being trained."""
        return super().is_idle and not self.is_training

    @on(TrainLine.Pressed)
    def action_toggle_training(self) -> None:
        """Start the training, or stop it."""
        if self.data is None:
            return
        if self.is_training:
            self.end_training("stopped")
        else:
            self._end_note = ""
            self.training, self.is_training = self.make_training(), True
            other = "The training of the session" if self.session_is_training else ""
            other = other or ("The training of another chapter" if self.material.jobs.is_running else "")
            self.show_note(f"{other} runs too, so both are slower." if other else "")
            if self._poll_timer is None:
                self._poll_timer = self.set_interval(POLL_INTERVAL, self._poll)
            self._poll_timer.resume()
            self.show_training([])
        self.show_train_line()

    def _poll(self) -> None:
        """Show the new events of the training."""
        if self.training is None or not self.is_training:
            return
        new_events, has_ended = self.training.poll()
        if self.training.view.seconds > MAX_SECONDS:
            self.end_training(f"ended after {MAX_SECONDS:.0f} s")
        if has_ended:
            self.is_training = False
            if self._poll_timer is not None:
                self._poll_timer.pause()
        if new_events or has_ended:
            self.show_training(new_events)
            self.show_train_line()

    def show_train_line(self) -> None:
        """Update the line that says what enter does."""
        line = self.query_one(TrainLine)
        if self.training is None:
            line.show("▶", "trains", Content.styled(self.idle_text, MUTED))
            return
        view = self.training.view
        if not self.is_training:
            parts = [self._end_note, self.describe_result(view)]
            line.show("▶", self.next_action, Content(" · ".join(filter(None, parts))))
        elif view.started is None:
            line.show("■", "stops", Content.styled(f"{view.activity} … (PyTorch takes 1 to 3 seconds)", MUTED))
        else:
            line.show("■", "stops", self._progress(view))

    def _progress(self, view: TrainingView) -> Content:
        valid = view.evaluations[-1].valid_perplexity if view.evaluations else None
        text = f"epoch {view.epoch:.2f} of {view.epochs} · held-out {format_perplexity(valid)}"
        return Content.assemble(text, (f" · {view.seconds:.0f} s", MUTED))

    @on(events.Unmount)
    async def _close_training(self) -> None:
        """Stop the training, and wait until its folder is removed."""
        if self.training is not None:
            self.training.stop()
        self.is_training = False
        self._loading.cancel()
        await asyncio.to_thread(remove_temporary_folders, CLOSE_TIMEOUT)
