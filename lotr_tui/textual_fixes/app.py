"""Base class of the app, with all workarounds that concern the app."""

from lotr_tui.textual_fixes.action_on_removed_widget import RemovedWidgetActionFix
from lotr_tui.textual_fixes.error_after_exit import ErrorAfterExitFix
from lotr_tui.textual_fixes.error_while_removed import ErrorWhileRemovedFix
from lotr_tui.textual_fixes.late_input_after_exit import LateInputFix
from lotr_tui.textual_fixes.terminal.stop_and_continue import StopAndContinueFix
from lotr_tui.textual_fixes.terminal.web_driver_choice import WebDriverFix


class TextualFixesApp(
    LateInputFix, ErrorAfterExitFix, ErrorWhileRemovedFix, RemovedWidgetActionFix, StopAndContinueFix, WebDriverFix
):
    """Textual app that exits promptly, ignores keys of removed widgets, and can be stopped and continued."""
