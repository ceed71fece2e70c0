"""App with a prompt, and helpers that type into it and read its lines."""

from contextlib import asynccontextmanager

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

    def notify(self, message, **options):
        self.notices.append(message)


@asynccontextmanager
async def run_prompt(history=None):
    app = PromptApp(history)
    async with app.run_test(size=(60, 20)) as pilot:
        await pilot.pause()
        yield pilot, app, app.query_one("#prompt", PromptInput)


async def type_text(pilot, text):
    """Press the keys of a text, with ctrl+j for a newline."""
    await pilot.press(*({" ": "space", "\n": "ctrl+j"}.get(character, character) for character in text))


async def type_ahead(pilot, *lines):
    """Press the keys of lines, each ended by enter, before the app handles the first one."""
    for line in lines:
        for character in line:
            pilot.app.post_message(events.Key("space" if character == " " else character, character))
        pilot.app.post_message(events.Key("enter", "\r"))
    await pilot.pause()


async def paste(pilot, text):
    pilot.app.post_message(events.Paste(text))
    await pilot.pause()


def visible_lines(prompt):
    return ["".join(s.text for s in prompt.render_line(y)).rstrip() for y in range(prompt.size.height)]
