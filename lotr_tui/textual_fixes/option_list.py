"""Option lists with all workarounds that concern them."""

from textual.command import CommandList
from textual.widgets import OptionList

from lotr_tui.textual_fixes.option_list_click import OptionListClickFix
from lotr_tui.textual_fixes.option_list_page import OptionListPageFix


class RobustOptionList(OptionListClickFix, OptionListPageFix, OptionList):
    """Option list that ignores clicks on removed rows and page keys without rows."""


class RobustCommandList(OptionListClickFix, OptionListPageFix, CommandList):
    """List of the command palette with the same workarounds."""
