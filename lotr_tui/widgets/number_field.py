"""Labelled input for a number."""

import re
from typing import Any

from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.widgets import Label

from lotr_tui.widgets.line_input import LineInput


class NumberInput(LineInput):
    """Input that takes only digits, and a point if it is for decimals; other typed keys and enter go to the prompt."""

    def __init__(self, *args: Any, decimal: bool, **kwargs: Any) -> None:
        """Create the input with the arguments of `Input`."""
        super().__init__(*args, restrict=r"[0-9]*\.?[0-9]*" if decimal else r"[0-9]*", **kwargs)
        self._characters = "0123456789." if decimal else "0123456789"

    def check_consume_key(self, key: str, character: str | None) -> bool:
        """Return True for the characters of a number."""
        return character is not None and character in self._characters

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Return False for the action of the enter key."""
        return action != "submit"


class NumberField(Horizontal):
    """Label and one-line input for digits; if the input is empty, the placeholder says which value applies.

    Posts `Input.Changed`.
    """

    DEFAULT_CSS = """
    NumberField { width: auto; height: 1; margin-left: 2; }
    NumberField Label { color: $muted; text-style: $muted-style; margin-right: 1; }
    NumberField Input { padding: 0; background: $background; }
    NumberField Input:focus { background: $panel; }
    NumberField .input--placeholder { color: $muted; text-style: $muted-style; }
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
        help_line: str = "",
    ) -> None:
        """Create a field with an input of `width` columns for at most `max_digits` (None: `width`) characters."""
        super().__init__(id=id)
        self._label = Label(label)
        self._help_line = help_line
        self._input = NumberInput(
            value,
            decimal=decimal,
            placeholder=placeholder,
            compact=True,
            max_length=max_digits or width,
            select_on_focus=True,
        )
        self._input.styles.width = width + 1

    def compose(self) -> ComposeResult:
        """Create the label and the input."""
        yield self._label
        yield self._input

    def get_help_line(self) -> str:
        """Return what the number means."""
        return self._help_line

    @property
    def text(self) -> str:
        """Text in the input."""
        return self._input.value

    @text.setter
    def text(self, text: str) -> None:
        self._input.value = text

    def set_label(self, label: str) -> None:
        """Show another label before the input."""
        self._label.update(label)

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
