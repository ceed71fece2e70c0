"""The temperature, 0 to 2, on a line."""

from typing import ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.reactive import reactive
from textual.widget import Widget

from lotr_tui.messages import TemperatureChanged
from lotr_tui.theme import MUTED

HIGHEST = 2.0
STEP = 0.05


class TemperatureSlider(Widget, can_focus=True):
    """Moved by arrow keys, digits ("7" is 0.7, "1.2" is 1.2), a click, a drag or the wheel."""

    DEFAULT_CSS = """
    TemperatureSlider { height: 1; width: 1fr; min-width: 20; max-width: 60; }
    TemperatureSlider:focus { background: $panel; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left,down", "move(-1)", "cooler", id="temperature.down", show=False, tooltip="0.05 less"),
        Binding("right,up", "move(1)", "hotter", id="temperature.up", show=False, tooltip="0.05 more"),
        Binding("home", "set(0)", "greedy", id="temperature.greedy", show=False, tooltip="Always the likeliest word"),
        Binding("end", "set(2)", "wildest", id="temperature.highest", show=False, tooltip="The highest temperature"),
    ]

    value: reactive[float] = reactive(0.8)

    def __init__(self, value: float, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.set_reactive(TemperatureSlider.value, value)
        self._digits = ""
        self._dragging = False

    def validate_value(self, value: float) -> float:
        """Two decimals, in range."""
        return round(min(HIGHEST, max(0.0, value)), 2)

    def watch_value(self, value: float) -> None:
        """Tell the screen."""
        self.post_message(TemperatureChanged(value))

    def render(self) -> Content:
        """`temperature ├────●────┤ 0.80`, shortened where there is little room."""
        label, track = self._parts()
        place = round(self.value / HIGHEST * (track - 1))
        line = "─" * place, "●", "─" * (track - 1 - place)
        return Content.assemble(
            (label, MUTED),
            ("├", MUTED),
            (line[0], "$accent"),
            (line[1], "bold $accent"),
            (line[2], MUTED),
            ("┤ ", MUTED),
            (f"{self.value:.2f}", "bold" if self.has_focus else ""),
        )

    def action_move(self, steps: int) -> None:
        """Move by steps of 0.05, onto the grid of steps."""
        self._digits = ""
        self.value = (round(self.value / STEP) + steps) * STEP

    def action_set(self, value: float) -> None:
        """Set to `value`."""
        self._digits = ""
        self.value = value

    def on_key(self, event: events.Key) -> None:
        """Digits type a temperature."""
        if event.character is None or event.character not in "0123456789.":
            return
        event.stop()
        digits = self._digits + event.character
        if digits.count(".") > 1 or len(digits) > 4:
            digits = event.character
        self._digits = digits
        self.value = typed_temperature(digits)

    def on_blur(self) -> None:
        """What was typed is complete."""
        self._digits = ""

    def on_mouse_down(self, event: events.MouseDown) -> None:
        """Take hold of the knob."""
        self._dragging = True
        self.capture_mouse()
        self._follow(event)

    def on_mouse_move(self, event: events.MouseMove) -> None:
        """Drag the knob."""
        if self._dragging:
            self._follow(event)

    def on_mouse_up(self) -> None:
        """Let go."""
        self._dragging = False
        self.release_mouse()

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        """The wheel moves it."""
        event.stop()
        self.action_move(1)

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        """The wheel moves it."""
        event.stop()
        self.action_move(-1)

    def _parts(self) -> tuple[str, int]:
        label = "temperature " if self.size.width >= 40 else "temp "
        return label, max(5, self.size.width - len(label) - len("├┤ 0.00"))

    def _follow(self, event: events.MouseEvent) -> None:
        label, track = self._parts()
        self._digits = ""
        self.value = (event.x - len(label) - 1) / (track - 1) * HIGHEST


def typed_temperature(digits: str) -> float:
    """What typed digits mean: "1" is 1.0, "7" is 0.7, "85" is 0.85, "1.25" is itself."""
    if digits.strip(".") == "":
        return 0.0
    value = float(digits)
    return value if "." in digits or value <= HIGHEST else float(f"0.{digits}")
