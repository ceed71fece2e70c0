"""App with a prompt, and helpers that type into it and read its lines."""

from textual import events
from textual.app import App
from textual.containers import Vertical
from textual.widgets import Static

from lotr_tui.widgets.prompt import PromptInput


class PromptApp(App[None]):
    CSS = "#rest { height: 1fr; } PromptInput { height: auto; }"

    def __init__(self, history=None):
        super().__init__()
        self.history = history
        self.sent: list[str] = []
        self.notices: list[str] = []

    def compose(self):
        with Vertical():
            yield Static(id="rest")
            yield PromptInput(self.history, id="prompt")

    def on_prompt_input_submitted(self, message):
        self.sent.append(message.value)
        message.prompt_input.clear()

    def notify(self, message, **options):
        self.notices.append(message)


class PromptPilot:
    """Context manager that runs a `PromptApp` and returns the pilot, the app and the prompt."""

    def __init__(self, history=None):
        self._app = PromptApp(history)

    async def __aenter__(self):
        self._context = self._app.run_test(size=(60, 20))
        pilot = await self._context.__aenter__()
        await pilot.pause()
        return pilot, self._app, self._app.query_one("#prompt", PromptInput)

    async def __aexit__(self, kind, error, traceback):
        await self._context.__aexit__(kind, error, traceback)


async def type_text(pilot, text):
    """Press the keys of a text, with ctrl+j for a newline."""
    await pilot.press(*({" ": "space", "\n": "ctrl+j"}.get(character, character) for character in text))


async def paste(pilot, text):
    pilot.app.post_message(events.Paste(text))
    await pilot.pause()


def visible_lines(prompt):
    return ["".join(s.text for s in prompt.render_line(y)).rstrip() for y in range(prompt.size.height)]
