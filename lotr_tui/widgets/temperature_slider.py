"""Slider for the sampling temperature."""

from typing import ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.reactive import reactive

from lotr_tui.messages import TemperatureChanged
from lotr_tui.widgets.slider import Track

MAX_TEMPERATURE = 2.0
TEMPERATURE_STEP = 0.05


class TemperatureSlider(Track):
    """Temperature from 0 to 2, set by arrow keys, digits ("7" is 0.7, "1.2" is 1.2), click, drag or mouse wheel."""

    HELP_LINE = "Low: safe words, high: surprising ones; ← → set it"
    BINDING_GROUP_TITLE = "Temperature"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left,down", "step(-1)", "lower", id="temperature.down", show=False, tooltip="Lower by 0.05"),
        Binding("right,up", "step(1)", "raise", id="temperature.up", show=False, tooltip="Raise by 0.05"),
        Binding("home", "set(0)", "greedy", id="temperature.greedy", show=False, tooltip="Always the most likely word"),
        Binding("end", "set(2)", "highest", id="temperature.highest", show=False, tooltip="The highest temperature"),
    ]

    value: reactive[float] = reactive(0.8)

    def __init__(self, value: float, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.set_reactive(TemperatureSlider.value, value)
        self._typed_digits = ""

    def validate_value(self, value: float) -> float:
        """Return the value in range, with two decimals."""
        return round(min(MAX_TEMPERATURE, max(0.0, value)), 2)

    def watch_value(self, value: float) -> None:
        """Post `TemperatureChanged`."""
        self.post_message(TemperatureChanged(value))

    @property
    def label(self) -> str:
        """Text before the track, shorter in a narrow widget."""
        return "temperature" if self.size.width >= 40 else "temp"

    @property
    def shown_value(self) -> str:
        """Temperature with two decimals."""
        return f"{self.value:.2f}"

    @property
    def fraction(self) -> float:
        """Place of the knob, from 0 to 1."""
        return self.value / MAX_TEMPERATURE

    def move_to(self, fraction: float) -> None:
        """Set the temperature at a place from 0 to 1."""
        self.action_set(fraction * MAX_TEMPERATURE)

    def action_step(self, steps: int) -> None:
        """Change the temperature by `steps` of 0.05, rounded to a multiple of 0.05."""
        self._typed_digits = ""
        self.value = (round(self.value / TEMPERATURE_STEP) + steps) * TEMPERATURE_STEP

    def action_set(self, value: float) -> None:
        """Set the temperature."""
        self._typed_digits = ""
        self.value = value

    def check_consume_key(self, key: str, character: str | None) -> bool:
        """Return True for a digit or a point."""
        return character is not None and character in "0123456789."

    def on_key(self, event: events.Key) -> None:
        """Append a typed digit or point to the temperature."""
        if event.character is None or not self.check_consume_key(event.key, event.character):
            return
        event.stop()
        digits = self._typed_digits + event.character
        if digits.count(".") > 1 or len(digits) > 4:
            digits = event.character
        self._typed_digits = digits
        self.value = parse_temperature(digits)

    def on_blur(self) -> None:
        """Start a new number with the next digit."""
        self._typed_digits = ""


def parse_temperature(digits: str) -> float:
    """Return the temperature for typed digits: 1.0 for "1", 0.7 for "7", 0.85 for "85", 1.25 for "1.25"."""
    if digits.strip(".") == "":
        return 0.0
    value = float(digits)
    return value if "." in digits or value <= MAX_TEMPERATURE else float(f"0.{digits}")
