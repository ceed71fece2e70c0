"""A key of a removed widget crashes the app.

Seen in Textual 8.2.8. A key binding is resolved when the key arrives, but its action may run when the widget has
already been removed; the action then fails, as `Widget.screen` raises `NoScreen`. Upstream, `App.run_action` would have
to check that its target is still attached.
"""

from collections.abc import Mapping

from textual.actions import ActionParseResult
from textual.app import App
from textual.dom import DOMNode
from textual.widget import Widget


class RemovedWidgetActionFix(App[None]):
    """App that ignores actions of removed widgets."""

    async def run_action(
        self,
        action: "str | ActionParseResult",
        default_namespace: DOMNode | None = None,
        namespaces: Mapping[str, DOMNode] | None = None,
    ) -> bool:
        """Run an action, and return True if it was handled; the action of a removed widget is not."""
        if isinstance(default_namespace, Widget) and not default_namespace.is_attached:
            return False
        return await super().run_action(action, default_namespace, namespaces)
