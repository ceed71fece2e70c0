"""Queued input delays the exit.

Seen in Textual 8.2.8. Keys, mouse events and sizes that are queued behind `App.exit` are still handled, one layout per
size, before the app ends; after a burst of input over a slow connection this takes seconds. Input that arrives when
the screens are already closed raises `ScreenStackError`. Upstream, `App.on_event` would have to drop input events once
`App._exit` is set or the screen stack is empty.
"""

from textual.app import App
from textual.events import Event, InputEvent, Resize


class LateInputFix(App[None]):
    """App that drops queued input once it is exiting."""

    async def on_event(self, event: Event) -> None:
        """Handle an event, unless it is input for an app that is exiting or has closed its screens."""
        if self._exit:
            is_late = isinstance(event, (InputEvent, Resize))
        else:
            is_late = isinstance(event, InputEvent) and not self.screen_stack
        if not is_late:
            await super().on_event(event)
