"""What the app tells its screens, and widgets their screen."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from textual.message import Message

if TYPE_CHECKING:  # with numpy, which the first paint does without
    from engine.events import TrainingEvent
    from lotr_tui.monitor.training_view import TrainingView


class TrainingChanged(Message, bubble=False):
    """A training went on: what is known of it now, and the events since the last message."""

    def __init__(self, view: "TrainingView", events: "Sequence[TrainingEvent]") -> None:
        super().__init__()
        self.view = view
        self.events = events


class TemperatureChanged(Message):
    """The temperature slider was moved."""

    def __init__(self, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature


class PaneChosen(Message):
    """On a narrow terminal: this pane is to be seen."""

    def __init__(self, pane: str) -> None:
        super().__init__()
        self.pane = pane
