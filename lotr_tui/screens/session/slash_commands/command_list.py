"""List of the slash commands that a typed text may become, above the prompt."""

from textual import events
from textual.content import Content
from textual.message import Message
from textual.widgets import Static

from lotr_tui.screens.session.slash_commands.parsing import is_command, matching_commands
from lotr_tui.screens.session.slash_commands.table import SlashCommand
from lotr_tui.theme import MUTED


class SlashCommandList(Static):
    """Commands with their descriptions. The list covers the lines above the prompt, so that nothing moves."""

    DEFAULT_CSS = """
    SlashCommandList {
        display: none;
        overlay: screen;
        width: 100%;
        height: auto;
        padding: 0 3;
        background: $panel;
        text-wrap: nowrap;
        text-overflow: ellipsis;
    }
    """

    class Selected(Message):
        """Posted when a command is clicked."""

        def __init__(self, command: SlashCommand) -> None:
            super().__init__()
            self.command = command

    def __init__(self) -> None:
        super().__init__(markup=False)
        self._shown: list[SlashCommand] = []

    def on_click(self, event: events.Click) -> None:
        """Post `Selected`, unless the line has only names."""
        if event.y < len(self._shown):
            self.post_message(self.Selected(self._shown[event.y]))

    def show_matches(self, text: str) -> None:
        """List the commands that a typed text may become; hide the list if the text is no command."""
        commands = matching_commands(text) if is_command(text) else []
        self.display = bool(commands)
        if not commands:
            return
        max_lines = max(2, self.screen.size.height // 2)
        shown = commands if len(commands) <= max_lines else commands[: max_lines - 1]
        usage_width = max(len(command.usage) for command in shown)
        lines = [
            Content.assemble((command.usage.ljust(usage_width), "bold"), "  ", (command.help, MUTED))
            for command in shown
        ]
        if len(commands) > len(shown):
            names = " ".join(f"/{command.name}" for command in commands[len(shown) :])
            lines.append(Content.styled(names, MUTED))
        self._shown = shown
        self.update(Content("\n").join(lines))
        self.styles.offset = (0, -len(lines))
