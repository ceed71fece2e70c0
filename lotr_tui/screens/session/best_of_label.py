"""Label with the number of answers that are drawn for a turn."""

from textual.message import Message
from textual.widgets import Label

CHOICES = (0, 1, 8, 16)
"""Numbers that a click steps through; 0 is automatic."""


class BestOfLabel(Label):
    """Number of answers of which the most relevant is shown; a click asks for the next number."""

    HELP_LINE = "Answers that are drawn; the most relevant is shown; /best N"
    DEFAULT_CSS = "BestOfLabel { width: auto; margin-left: 3; color: $muted; text-style: $muted-style; }"

    class Clicked(Message):
        """Posted when the label is clicked."""

        def __init__(self, next_number: int) -> None:
            super().__init__()
            self.next_number = next_number
            """Number to use from now on."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__("", id=id, markup=False)
        self._number = 0

    def show(self, number: int) -> None:
        """Show a number of answers; 0 is the number of the model."""
        self._number = number
        self.update("first answer" if number == 1 else f"best of {number or 'auto'}")

    def on_click(self) -> None:
        """Post `Clicked` with the next larger number, or after the largest one with the first."""
        self.post_message(self.Clicked(next((choice for choice in CHOICES if choice > self._number), CHOICES[0])))
