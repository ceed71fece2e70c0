"""Labelled input for a number."""

import re

from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.widgets import Label

from lotr_tui.widgets.line_input import LineInput


class NumberField(Horizontal):
    """Label and one-line input for digits; if the input is empty, the placeholder says which value applies.

    Posts `Input.Changed` and, on enter, `Input.Submitted`.
    """

    DEFAULT_CSS = """
    NumberField { width: auto; height: 1; margin-left: 2; }
    NumberField Label { color: $text-muted; margin-right: 1; }
    NumberField Input { padding: 0; background: $background; }
    NumberField Input:focus { background: $panel; }
    NumberField .input--placeholder { color: $foreground 60%; }
    NumberField.-invalid Label { color: $text-error; text-style: bold reverse; }
    """

    def __init__(
        self,
        label: str,
        value: str,
        *,
        id: str,
        width: int,
        placeholder: str = "",
        decimal: bool = False,
        max_digits: int | None = None,
    ) -> None:
        """Create a field with an input of `width` columns for at most `max_digits` (None: `width`) characters."""
        super().__init__(id=id)
        self._label = label
        self._input = LineInput(
            value,
            placeholder=placeholder,
            restrict=r"[0-9]*\.?[0-9]*" if decimal else r"[0-9]*",
            compact=True,
            max_length=max_digits or width,
            select_on_focus=True,
        )
        self._input.styles.width = width + 1

    def compose(self) -> ComposeResult:
        """Create the label and the input."""
        yield Label(self._label)
        yield self._input

    @property
    def text(self) -> str:
        """Text in the input."""
        return self._input.value

    @text.setter
    def text(self, text: str) -> None:
        self._input.value = text

    @property
    def placeholder(self) -> str:
        """Text that the empty input shows."""
        return self._input.placeholder

    @placeholder.setter
    def placeholder(self, text: str) -> None:
        self._input.placeholder = text

    def set_error(self, message: str) -> None:
        """Mark the field as invalid and explain the error in a tooltip; "" marks the field as valid."""
        self.set_class(bool(message), "-invalid")
        self.tooltip = message or None

    def parse_int(self) -> int | None:
        """Return the number, or None if the input is empty."""
        return int(self.text) if self.text else None

    def parse_float(self) -> float | None:
        """Return the number with decimals, or None if the input has no digit."""
        return float(self.text) if re.search(r"\d", self.text) else None
