"""What the app does otherwise than Textual's where keys, sizes and screens come and go faster than it can draw."""

from collections.abc import Mapping

from textual.actions import ActionParseResult
from textual.app import App
from textual.dom import DOMNode
from textual.events import Event, InputEvent, Resize
from textual.widget import Widget


class SteadyApp(App[None]):
    """An app that ends when it is told to, and in which what is gone does nothing."""

    def _handle_exception(self, error: Exception) -> None:
        """What fails after `exit` is a screen that was still being made, and has lost its parts: no fault."""
        if not self._exit:
            super()._handle_exception(error)

    async def on_event(self, event: Event) -> None:
        """Whoever has left waits for no key, and no new size, that came before: there may be seconds of them."""
        if self._exit:
            is_late = isinstance(event, (InputEvent, Resize))
        else:
            is_late = isinstance(event, InputEvent) and not self.screen_stack  # they are closed
        if not is_late:
            await super().on_event(event)

    async def run_action(
        self,
        action: "str | ActionParseResult",
        default_namespace: DOMNode | None = None,
        namespaces: Mapping[str, DOMNode] | None = None,
    ) -> bool:
        """As Textual does, but for a part of a screen that is gone by the time its key comes."""
        if isinstance(default_namespace, Widget) and not default_namespace.is_attached:
            return False
        return await super().run_action(action, default_namespace, namespaces)
