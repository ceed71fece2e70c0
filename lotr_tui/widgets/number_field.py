"""A name and a small number to type."""

import re

from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.widgets import Label

from lotr_tui.textual_fixes.line_box import LineBox


class NumberField(Horizontal):
    """A labelled one-line input for digits; empty means what the placeholder says.

    Posts `Input.Changed` and, on enter, `Input.Submitted`.
    """

    DEFAULT_CSS = """
    NumberField { width: auto; height: 1; margin-left: 2; }
    NumberField Label { color: $text-muted; margin-right: 1; }
    NumberField Input { padding: 0; background: $background; }
    NumberField Input:focus { background: $panel; }
    NumberField .input--placeholder { color: $foreground 60%; }
    NumberField.-wrong Label { color: $text-error; text-style: bold reverse; }
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
        digits: int | None = None,
    ) -> None:
        """`width` columns are seen of at most `digits` (None: `width`) that may be typed."""
        super().__init__(id=id)
        self._label = label
        self._input = LineBox(
            value,
            placeholder=placeholder,
            restrict=r"[0-9]*\.?[0-9]*" if decimal else r"[0-9]*",
            compact=True,
            max_length=digits or width,
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

    @text.setter
    def text(self, text: str) -> None:
        self._input.value = text

    @property
    def placeholder(self) -> str:
        """What is meant while nothing is typed."""
        return self._input.placeholder

    @placeholder.setter
    def placeholder(self, text: str) -> None:
        self._input.placeholder = text

    def mark(self, wrong: str) -> None:
        """Mark what stands in it as `wrong`, which a tooltip says; "" if it is right."""
        self.set_class(bool(wrong), "-wrong")
        self.tooltip = wrong or None

    def whole(self) -> int | None:
        """The number, or None where nothing was typed."""
        return int(self.text) if self.text else None

    def number(self) -> float | None:
        """The number with decimals, or None where none was typed."""
        return float(self.text) if re.search(r"\d", self.text) else None
