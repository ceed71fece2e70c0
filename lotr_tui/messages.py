"""Messages from the app to its screens, and from widgets to their screen."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from textual.message import Message
from textual.widget import Widget

if TYPE_CHECKING:  # these modules import numpy, which the first paint does not need
    from engine.events import TrainingEvent
    from lotr_tui.monitor.training_view import TrainingView
    from lotr_tui.session.model_loading import ModelFetch


class TrainingChanged(Message, bubble=False):
    """Posted to every screen when a training has reported events."""

    def __init__(self, view: "TrainingView", events: "Sequence[TrainingEvent]") -> None:
        super().__init__()
        self.view = view
        """State of the training."""
        self.events = events
        """Events since the last message, oldest first."""


class ModelFetchChanged(Message, bubble=False):
    """Posted to every screen while SmolLM2 is being fetched, and once when that has ended."""

    def __init__(self, fetch: "ModelFetch", *, has_ended: bool) -> None:
        super().__init__()
        self.fetch = fetch
        """State of the fetching."""
        self.has_ended = has_ended
        """True if this is the last message."""


class TemperatureChanged(Message):
    """Posted when the temperature slider is moved."""

    def __init__(self, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature


class PaneSelected(Message):
    """Posted when the tab of a pane is clicked, which a narrow terminal shows instead of all panes."""

    def __init__(self, pane: str) -> None:
        super().__init__()
        self.pane = pane
        """ID of the pane."""


class TaskPartDone(Message):
    """Posted by the figure of a chapter when a part of its task is done."""

    def __init__(self, figure: Widget, part: int) -> None:
        super().__init__()
        self.figure = figure
        """The figure."""
        self.part = part
        """Index of the part."""


class ChapterFigureReady(Message):
    """Posted by the figure of a chapter when it shows its data for the first time."""
