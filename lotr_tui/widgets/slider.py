"""Sliders: a track with a knob, moved by keys, a click, a drag or the wheel."""

from collections.abc import Sequence
from typing import ClassVar

from textual import events
from textual.binding import BindingType
from textual.content import Content
from textual.message import Message
from textual.reactive import reactive
from textual.widget import Widget

from lotr_tui.theme import MUTED
from lotr_tui.widgets.bindings import binding_table

MIN_TRACK_WIDTH = 5


class Track(Widget, can_focus=True):
    """Track with a knob at a fraction of its width. A subclass defines what the fraction means."""

    DEFAULT_CSS = """
    Track { height: 1; width: 1fr; min-width: 20; max-width: 60; }
    Track:focus { background: $panel; }
    """

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._is_dragging = False

    # Parts that a subclass implements

    @property
    def label(self) -> str:
        """Text before the track, for the current width."""
        raise NotImplementedError

    @property
    def shown_value(self) -> str:
        """Text after the track; it is as wide for every value."""
        raise NotImplementedError

    @property
    def fraction(self) -> float:
        """Place of the knob, from 0 to 1."""
        raise NotImplementedError

    def move_to(self, fraction: float) -> None:
        """Move the knob to a place near `fraction`, which may be out of range."""
        raise NotImplementedError

    def action_step(self, steps: int) -> None:
        """Move the knob by a number of steps."""
        raise NotImplementedError

    @property
    def _track_width(self) -> int:
        """Width of the track in columns."""
        return max(MIN_TRACK_WIDTH, self.size.width - len(f"{self.label} ├┤ {self.shown_value}"))

    def render(self) -> Content:
        """Return `label ├────●────┤ value`."""
        width = self._track_width
        knob = round(self.fraction * (width - 1))
        return Content.assemble(
            (f"{self.label} ├", MUTED),
            ("─" * knob, "$accent"),
            ("●", "bold $accent"),
            ("─" * (width - 1 - knob), MUTED),
            ("┤ ", MUTED),
            (self.shown_value, "bold" if self.has_focus else ""),
        )

    def on_mouse_down(self, event: events.MouseDown) -> None:
        """Start to drag the knob."""
        self._is_dragging = True
        self.capture_mouse()
        self._set_from_mouse(event)

    def on_mouse_move(self, event: events.MouseMove) -> None:
        """Drag the knob."""
        if self._is_dragging:
            self._set_from_mouse(event)

    def on_mouse_up(self) -> None:
        """Stop dragging the knob."""
        self._is_dragging = False
        self.release_mouse()

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        """Move the knob to the right."""
        event.stop()
        self.action_step(1)

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        """Move the knob to the left."""
        event.stop()
        self.action_step(-1)

    def _set_from_mouse(self, event: events.MouseEvent) -> None:
        self.move_to((event.x - len(self.label) - 2) / (self._track_width - 1))


class Slider(Track):
    """Slider over a list of values, such as numbers with their texts. Posts `Changed` when another one is chosen."""

    BINDING_GROUP_TITLE = "Slider"
    BINDINGS: ClassVar[list[BindingType]] = binding_table(
        "slider",
        """
        lower   | left,down | step(-1)  | lower   | The value to the left
        higher  | right,up  | step(1)   | higher  | The value to the right
        lowest  | home      | move_to(0) | lowest | The value at the left end
        highest | end       | move_to(1) | highest | The value at the right end
        """,
    )

    index: reactive[int] = reactive(0)

    class Changed(Message):
        """Posted when another value was chosen."""

        def __init__(self, slider: "Slider") -> None:
            super().__init__()
            self.slider = slider

        @property
        def control(self) -> "Slider":
            """The slider, for `on` with a selector."""
            return self.slider

    def __init__(self, label: str, texts: Sequence[str], index: int = 0, *, help_line: str = "", id: str) -> None:
        """Create a slider over the values that `texts` describe, at the value `index`."""
        super().__init__(id=id)
        self._label, self._texts, self._help_line = label, tuple(texts), help_line
        self.set_reactive(Slider.index, index)

    def get_help_line(self) -> str:
        """Return the line that explains the value."""
        return self._help_line

    def set_values(self, texts: Sequence[str], index: int = 0) -> None:
        """Replace the values by others, without `Changed`."""
        self._texts = tuple(texts)
        self.set_reactive(Slider.index, index)
        self.refresh()

    @property
    def label(self) -> str:
        """Text before the track."""
        return self._label

    @property
    def shown_value(self) -> str:
        """Text of the value, as wide as the longest one."""
        return self._texts[self.index].rjust(max(map(len, self._texts)))

    @property
    def fraction(self) -> float:
        """Place of the knob, from 0 to 1."""
        return self.index / max(1, len(self._texts) - 1)

    def validate_index(self, index: int) -> int:
        """Return the nearest index in range."""
        return max(0, min(index, len(self._texts) - 1))

    def watch_index(self) -> None:
        """Post `Changed`."""
        self.post_message(self.Changed(self))

    def move_to(self, fraction: float) -> None:
        """Choose the value nearest to a place from 0 to 1."""
        self.index = round(fraction * (len(self._texts) - 1))

    def action_step(self, steps: int) -> None:
        """Choose the value some steps to the right."""
        self.index += steps

    def action_move_to(self, fraction: float) -> None:
        """Choose the value at a place from 0 to 1."""
        self.move_to(fraction)
