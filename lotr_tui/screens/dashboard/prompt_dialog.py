"""Dialog that changes the prompt of the samples."""

from typing import ClassVar

from textual.binding import Binding, BindingType

from engine.control import MAX_SAMPLE_PROMPT_LENGTH, ControlCommand
from lotr_tui.screens.dialogs.line_dialog import LineDialog


class SamplePromptDialog(LineDialog[ControlCommand]):
    """Dialog that asks for a prompt, dismissed with the control command that sets it."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "dismiss(None)", "cancel", id="sample-prompt.cancel", tooltip="Keep the prompt")
    ]

    def __init__(self, prompt: str) -> None:
        super().__init__(
            "Prompt of the samples, from the next evaluation on",
            prompt,
            placeholder="the first words",
            max_length=MAX_SAMPLE_PROMPT_LENGTH,
        )

    def parse(self, line: str) -> ControlCommand:
        """Return the command that sets the prompt, with single spaces between words."""
        return ControlCommand("prompt", " ".join(line.split()))
