"""Line at the end of a dialog that names its keys; a click on a key runs its action."""

from textual.content import Content
from textual.style import Style
from textual.widgets import Static


class KeysLine(Static):
    """Keys of a dialog with descriptions, separated by spaces. A key with an action can be clicked."""

    DEFAULT_CSS = """
    KeysLine {
        height: auto;
        color: $muted;
        text-style: $muted-style;
        link-style: $muted-style;
        link-color: $muted;
        link-background: $panel;
    }
    """

    def __init__(self, *keys: tuple[str, str, str]) -> None:
        """Show keys, each with its description and its action on the screen, or "" for none."""
        parts = []
        for key, description, action in keys:
            style = Style.from_meta({"@click": f"screen.{action}"}) if action else Style()
            parts.append(Content.styled(f"{key} {description}", style))
        super().__init__(Content("   ").join(parts), classes="dialog-keys")
