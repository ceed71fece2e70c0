"""Base class of all screens, with all workarounds that concern screens."""

from lotr_tui.textual_fixes.detached_widget_under_mouse import DetachedWidgetFix
from lotr_tui.textual_fixes.dismiss_before_mount import DismissBeforeMountFix
from lotr_tui.textual_fixes.double_dismiss import DoubleDismissFix
from lotr_tui.textual_fixes.resize_loop import ResizeLoopFix


class TextualFixesScreen(DoubleDismissFix, DismissBeforeMountFix, ResizeLoopFix, DetachedWidgetFix):
    """Mixin for `Screen` and its subclasses; name it before them."""
