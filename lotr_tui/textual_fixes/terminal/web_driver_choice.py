"""Choice of `ClosableWebDriver` in place of Textual's web driver."""

from textual.app import App
from textual.driver import Driver

from lotr_tui.textual_fixes.terminal.served import is_served


class WebDriverFix(App[None]):
    """App that runs in a browser without the defects of `textual_fixes.terminal.web_driver`."""

    def get_driver_class(self) -> type[Driver]:
        """Return `ClosableWebDriver` for an app in a browser, and otherwise Textual's choice."""
        if not is_served():
            return super().get_driver_class()
        from lotr_tui.textual_fixes.terminal.web_driver import ClosableWebDriver  # not needed in a terminal

        return ClosableWebDriver
