"""Base class of the app, with all workarounds that concern the app."""

from lotr_tui.textual_fixes.action_on_removed_widget import RemovedWidgetActionFix
from lotr_tui.textual_fixes.error_after_exit import ErrorAfterExitFix
from lotr_tui.textual_fixes.late_input_after_exit import LateInputFix


class TextualFixesApp(LateInputFix, ErrorAfterExitFix, RemovedWidgetActionFix):
    """Textual app that exits promptly and ignores keys of removed widgets."""
