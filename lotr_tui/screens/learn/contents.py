"""Dialog with all chapters of the class."""

from collections.abc import Collection
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Label, OptionList
from textual.widgets.option_list import Option

from lotr_tui.learn.chapters import CHAPTERS
from lotr_tui.screens.dialogs.dialog import KeysLine
from lotr_tui.screens.dialogs.questions import confirm
from lotr_tui.textual_fixes.app import TextualFixesScreen
from lotr_tui.textual_fixes.widgets import RobustOptionList
from lotr_tui.theme import MUTED
from lotr_tui.widgets.bindings import binding_table

BEGIN_AGAIN = -1
"""Result of the dialog if the progress is to be forgotten."""


class ContentsDialog(TextualFixesScreen, ModalScreen[int | None]):
    """List of the chapters, dismissed with the index of the chosen one, `BEGIN_AGAIN`, or None."""

    BINDINGS: ClassVar[list[BindingType]] = binding_table(
        "learn-contents",
        """
        close | escape,q | dismiss(None) | close | Close without opening another chapter
        reset | r        | reset         | begin again | Forget which tasks are done
        """,
    )

    def __init__(self, current: int, done: Collection[str]) -> None:
        """List all chapters with the cursor on the chapter `current`; those in `done` have a mark."""
        super().__init__()
        self._current, self._done = current, done

    def compose(self) -> ComposeResult:
        """Yield the list and the keys."""
        with Vertical(classes="dialog"):
            yield Label("The class", classes="dialog-title")
            yield RobustOptionList(*map(self._option, range(len(CHAPTERS))), id="chapters")
            keys = [("enter", "open", ""), ("r", "begin again", "reset"), ("esc", "close", "dismiss(None)")]
            yield KeysLine(*(keys if self._done else [keys[0], keys[2]]))

    def on_mount(self) -> None:
        """Move the cursor to the open chapter."""
        self.query_one(OptionList).highlighted = self._current

    def _option(self, index: int) -> Option:
        chapter = CHAPTERS[index]
        mark = ("✓ ", "$success") if chapter.name in self._done else ("  ", "")
        return Option(Content.assemble(mark, (f"{index + 1}  ", MUTED), chapter.title))

    @on(OptionList.OptionSelected)
    def _open(self, event: OptionList.OptionSelected) -> None:
        self.dismiss(event.option_index)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Hide the key that forgets the progress while there is none."""
        return action != "reset" or bool(self._done)

    def action_reset(self) -> None:
        """Forget which tasks are done, once the user has confirmed."""
        question = "Forget which tasks of the class are done?"
        confirm(self.app, question, lambda: self.dismiss(BEGIN_AGAIN), enter_confirms=False)
