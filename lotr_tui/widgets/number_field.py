"""A name and a small number to type."""

import re

from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.widgets import Input, Label


class NumberField(Horizontal):
    """A labelled one-line input for digits; empty means what the placeholder says."""

    DEFAULT_CSS = """
    NumberField { width: auto; height: 1; margin-left: 2; }
    NumberField Label { color: $text-muted; margin-right: 1; }
    NumberField Input { padding: 0; background: $background; }
    NumberField Input:focus { background: $panel; }
    """

    def __init__(
        self, label: str, value: str, *, id: str, width: int, placeholder: str = "", decimal: bool = False
    ) -> None:
        super().__init__(id=id)
        self._label = label
        self._input = Input(
            value,
            placeholder=placeholder,
            restrict=r"[0-9]*\.?[0-9]*" if decimal else r"[0-9]*",
            compact=True,
            max_length=width,
            select_on_focus=True,
        )
        self._input.styles.width = width + 1

    def compose(self) -> ComposeResult:
        """The label, then the input."""
        yield Label(self._label)
        yield self._input

    @property
    def text(self) -> str:
        """What stands in it."""
        return self._input.value

    def whole(self) -> int | None:
        """The number, or None where nothing was typed."""
        return int(self.text) if self.text else None

    def number(self) -> float | None:
        """The number with decimals, or None where none was typed."""
        return float(self.text) if re.search(r"\d", self.text) else None
