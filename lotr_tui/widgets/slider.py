"""Sliders: a track with a knob, moved by keys, a click or a drag."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from textual import events, message, widget
from textual.binding import BindingType
from textual.content import Content
from textual.reactive import reactive

from lotr_tui.theme import MUTED
from lotr_tui.widgets.keys import binding_table

MIN_TRACK_WIDTH = 5
MAX_TEMPERATURE = 2.0


class Slider(widget.Widget, can_focus=True):
    """`label ├────●────┤ value` over a list of values, given by their texts. Posts `Changed` for another value."""

    DEFAULT_CSS = """
    Slider { height: 1; width: 1fr; min-width: 20; max-width: 60; }
    Slider:focus { background: $panel; }
    """
    BINDING_GROUP_TITLE = "Slider"
    BINDINGS: ClassVar[list[BindingType]] = binding_table(
        "slider",
        """
        lower   | left,down | step(-1)   | lower   | The value to the left
        higher  | right,up  | step(1)    | higher  | The value to the right
        lowest  | home      | move_to(0) | lowest  | The value at the left end
        highest | end       | move_to(1) | highest | The value at the right end
        """,
    )
    STEP: ClassVar[int] = 1  # by which a key moves the index

    index: reactive[int] = reactive(0)

    @dataclass
    class Changed(message.Message):
        """Posted when another value was chosen."""

        slider: "Slider"

        @property
        def control(self) -> "Slider":
            return self.slider

    def __init__(self, label: str, texts: Sequence[str], index: int = 0, *, help_line: str = "", id: str) -> None:
        super().__init__(id=id)
        self.label, self._texts, self.HELP_LINE = label, tuple(texts), help_line
        self._is_dragging = False
        self.set_reactive(Slider.index, index)

    def set_values(self, texts: Sequence[str], index: int = 0) -> None:
        self._texts = tuple(texts)
        self.set_reactive(Slider.index, index)
        self.refresh()

    def _track(self) -> tuple[int, int]:
        start = len(self.label) + 2
        return start, max(MIN_TRACK_WIDTH, self.size.width - start - max(map(len, self._texts)) - 2)

    def render(self) -> Content:
        _, width = self._track()
        knob = round(self.index / max(1, len(self._texts) - 1) * (width - 1))
        return Content.assemble(
            (f"{self.label} ├", MUTED),
            ("─" * knob, "$accent"),
            ("●", "bold $accent"),
            ("─" * (width - 1 - knob), MUTED),
            ("┤ ", MUTED),
            (self._texts[self.index].rjust(max(map(len, self._texts))), "bold" if self.has_focus else ""),
        )

    def validate_index(self, index: int) -> int:
        return max(0, min(index, len(self._texts) - 1))

    def watch_index(self) -> None:
        self.post_message(self.Changed(self))

    def action_step(self, steps: int) -> None:
        self.index = (round(self.index / self.STEP) + steps) * self.STEP

    def action_move_to(self, fraction: float) -> None:
        self.index = round(fraction * (len(self._texts) - 1))

    def on_mouse_down(self, event: events.MouseDown) -> None:
        self._is_dragging = True
        self.capture_mouse()
        self.on_mouse_move(event)

    def on_mouse_move(self, event: events.MouseEvent) -> None:
        if self._is_dragging:
            start, width = self._track()
            self.action_move_to((event.x - start) / (width - 1))

    def on_mouse_up(self) -> None:
        self._is_dragging = False
        self.release_mouse()


class TemperatureSlider(Slider):
    """Temperature from 0 to 2, which keys move in steps of 0.05, and the mouse in steps of 0.01."""

    BINDING_GROUP_TITLE = "Temperature"
    STEP = 5

    def __init__(self, value: float) -> None:
        texts = [f"{hundredths / 100:.2f}" for hundredths in range(round(MAX_TEMPERATURE * 100) + 1)]
        help_line = "Low: safe words, high: surprising ones; ← → set it"
        super().__init__("temperature", texts, round(value * 100), help_line=help_line, id="temperature")

    @property
    def value(self) -> float:
        return self.index / 100

    @value.setter
    def value(self, value: float) -> None:
        self.index = round(value * 100)

    def on_resize(self, event: events.Resize) -> None:
        self.label = "temperature" if event.size.width >= 40 else "temp"
