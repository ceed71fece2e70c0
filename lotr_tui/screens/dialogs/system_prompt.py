"""Dialog for the system prompt, which tells a model with a chat template who it is."""

from typing import ClassVar

from textual.binding import BindingType
from textual.widgets import Input

from engine.errors import printable
from lotr_tui.screens.dialogs.line_dialog import LineDialog
from lotr_tui.session.settings import EXAMPLE_SYSTEM_PROMPT, MAX_SYSTEM_PROMPT_CHARACTERS, check_system_prompt
from lotr_tui.widgets.bindings import binding_table


class SystemPromptDialog(LineDialog[str]):
    """Dialog that asks for the system prompt; an empty line is the one of the model's chat template."""

    KEYS = (
        ("enter", "use", "submit"),
        ("tab", "example", "insert_example"),
        ("esc", "cancel", "dismiss(None)"),
    )
    BINDINGS: ClassVar[list[BindingType]] = binding_table(
        "system-prompt",
        """
        cancel  | escape | dismiss(None)  | cancel  | Keep the system prompt
        example | tab    | insert_example | example | Insert an example
        """,
    )

    def __init__(self, current: str, default: str) -> None:
        """Ask for another system prompt than `current`; empty is the `default` of the chat template."""
        placeholder = printable(default) or f"such as: {EXAMPLE_SYSTEM_PROMPT}"
        title = "System prompt: who the model is"
        super().__init__(title, current, placeholder=placeholder, max_length=MAX_SYSTEM_PROMPT_CHARACTERS)

    def parse(self, line: str) -> str:
        """Return the line without surrounding spaces; raise an InvalidInputError if it cannot be a system prompt."""
        check_system_prompt(text := line.strip())
        return text

    def action_insert_example(self) -> None:
        """Replace the line by an example."""
        line = self.query_one(Input)
        line.value = EXAMPLE_SYSTEM_PROMPT
        line.cursor_position = len(line.value)
