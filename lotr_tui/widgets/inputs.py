"""Single-line inputs for text and for numbers."""

import re
from typing import Any

from textual.containers import Horizontal
from textual.widgets import Input, Label

MAX_LINE_CHARACTERS = 1000  # Textual measures the whole line at each key


class LineInput(Input):
    """Input with a maximum length and a steady cursor: a blinking one would send bytes over SSH all the time."""

    def __init__(self, *args: Any, max_length: int = MAX_LINE_CHARACTERS, **kwargs: Any) -> None:
        super().__init__(*args, max_length=max_length, **kwargs)
        self.cursor_blink = False

    def replace(self, text: str, start: int, end: int) -> None:
        length = len(self.value) - abs(end - start) + len(text)
        if len(text) > 1 and self.max_length and length > self.max_length:
            reason = f"Not pasted: the line has room for {self.max_length:,} characters, not {length:,}."
            self.notify(reason, severity="warning", markup=False)
        super().replace(text, start, end)


class NumberInput(LineInput):
    """Input that takes only the characters of a number; other typed keys and enter go to the screen."""

    def check_consume_key(self, key: str, character: str | None) -> bool:
        return character is not None and re.fullmatch(self.restrict or "", character) is not None

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        return action != "submit"


class NumberField(Horizontal):
    """Label and input for a number of at most `width` characters; the placeholder says which number an empty one is."""

    DEFAULT_CSS = """
    NumberField { width: auto; height: 1; margin-left: 2; }
    NumberField Label { color: $muted; text-style: $muted-style; margin-right: 1; }
    NumberField Input { padding: 0; background: $background; }
    NumberField Input:focus { background: $panel; }
    NumberField .input--placeholder { color: $muted; text-style: $muted-style; }
    """

    def __init__(
        self, label: str, value: str, *, id: str, width: int, placeholder: str, number_type: type[int | float] = int
    ) -> None:
        self._number_type = number_type
        restrict = r"[0-9]*" if number_type is int else r"[0-9]*\.?[0-9]*"
        self.input = NumberInput(
            value, placeholder, restrict=restrict, compact=True, max_length=width, select_on_focus=True
        )
        self.input.styles.width = width + 1
        super().__init__(Label(label), self.input, id=id)

    def number(self) -> Any:
        return self._number_type(self.input.value) if re.search(r"\d", self.input.value) else None
