"""Where a prompt is typed."""

from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.geometry import Size
from textual.reactive import Reactive
from textual.widgets import Input


class Prompt(Input):
    """One line; enter sends it."""

    DEFAULT_CSS = """
    Prompt { padding: 0; background: $background; width: 1fr; }
    Prompt:focus { background-tint: $foreground 0%; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "submit", "send", id="prompt.send", tooltip="Send the prompt")
    ]

    # Without the `layout` that the base class has: it is as wide as the screen, and a key must not arrange that anew.
    virtual_size: Reactive[Size] = Reactive(Size(0, 0))

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(placeholder="type a prompt", id=id, compact=True)
