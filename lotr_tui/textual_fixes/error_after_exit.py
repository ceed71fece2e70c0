"""An exit during the start of a screen ends in a traceback.

Seen in Textual 8.2.8. `App.exit` removes the widgets of a screen that is still being mounted; the handlers that then
fail to find their widgets turn a clean exit into a traceback and exit code 1. Upstream, `App.exit` would have to wait
until the screen is mounted, or cancel its pending handlers.
"""

from textual.app import App


class ErrorAfterExitFix(App[None]):
    """App that ignores exceptions of screens once it is exiting."""

    def _handle_exception(self, error: Exception) -> None:
        if not self._exit:
            super()._handle_exception(error)
