"""A key of a removed widget, or of a screen that is not mounted yet, crashes the app.

Seen in Textual 8.2.8. A key binding is resolved when the key arrives, but its action may run when the widget has
already been removed, or before its screen has mounted its widgets; the action then fails to find its screen or its
widgets. Upstream, `App.run_action` would have to check that its target is mounted and still attached.
"""

from collections.abc import Mapping

from textual.actions import ActionParseResult
from textual.app import App
from textual.dom import DOMNode
from textual.widget import Widget


class RemovedWidgetActionFix(App[None]):
    """App that ignores actions of widgets that are removed or not mounted yet."""

    async def run_action(
        self,
        action: "str | ActionParseResult",
        default_namespace: DOMNode | None = None,
        namespaces: Mapping[str, DOMNode] | None = None,
    ) -> bool:
        """Run an action, and return True if it was handled; the action of an absent widget is not."""
        if isinstance(default_namespace, Widget):
            is_present = default_namespace.is_attached and default_namespace.is_mounted
            if not is_present or default_namespace._pruning:
                return False
        return await super().run_action(action, default_namespace, namespaces)
