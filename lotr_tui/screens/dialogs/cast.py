"""Dialog for the cast of a conversation: who answers, and who the user is."""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal, NamedTuple

from rich.cells import set_cell_size
from rich.segment import Segment
from textual import events, on
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal, Vertical
from textual.message import Message
from textual.screen import ModalScreen
from textual.widgets import Input, Label

from engine.data.speakers import MAX_NAME_CHARACTERS, display_name, normalize_speaker
from lotr_tui.formatting import format_percent, truncate
from lotr_tui.screens.dialogs.keys_line import KeysLine
from lotr_tui.session.cast import A_STRANGER, MODEL_CHOOSES, UNCAST_STYLE, Roles, speaker_style
from lotr_tui.textual_fixes.app import TextualFixesScreen
from lotr_tui.widgets.bindings import binding_table
from lotr_tui.widgets.line_input import LineInput
from lotr_tui.widgets.line_list import LineList
from lotr_tui.widgets.speaker_styles import speaker_classes, speaker_css

CastColumn = Literal["answering", "speaking-as"]
PROB_WIDTH = 7
"""Width in cells of a probability."""


class AnswerAgain(NamedTuple):
    """Request for another answer to the last line."""

    speaker: str
    """Speaker who answers; empty if the model chooses."""


class CastList(LineList, can_focus=False):
    """List of roles, one of which is chosen and has a mark; the first line is the role without a name."""

    DEFAULT_CSS = f"""
    CastList {{
        height: 1fr;
        padding: 0 1 0 0;
        background: $panel;
        scrollbar-background: $panel;
        .cast--muted {{ color: $muted; text-style: $muted-style; }}
        .cast--mark {{ color: $accent; text-style: bold; }}
        .cast--cursor {{ text-style: reverse; }}
        {speaker_css("cast")}
    }}
    """
    COMPONENT_CLASSES: ClassVar[set[str]] = {f"cast--{name}" for name in ("muted", "mark", "cursor")} | speaker_classes(
        "cast"
    )

    class Clicked(Message):
        """Posted when a line is clicked."""

        def __init__(self, cast_list: "CastList") -> None:
            super().__init__()
            self.cast_list = cast_list

    def __init__(
        self,
        names: Sequence[str],
        cast: Sequence[str],
        unnamed: str,
        probs: Mapping[str, float],
        chosen: str,
        *,
        id: str,
    ) -> None:
        """List `names` of a cast after the `unnamed` role, with the probabilities of some of them."""
        super().__init__(id=id)
        self._names = list(dict.fromkeys(["", *names, chosen]))
        self._cast = cast
        self._unnamed = unnamed
        self._probs = probs
        self._matches = list(self._names)
        self._chosen = chosen
        self.is_active = False
        """True if the keys move the cursor of this list."""

    @property
    def chosen(self) -> str:
        """Name of the chosen role; empty for the role without a name."""
        return self._chosen

    def show_matches(self, typed: str) -> None:
        """List the roles whose name contains a typed text, and choose the first one that begins with it.

        A name that is not listed can be chosen too.
        """
        key = typed.strip().casefold()
        self._matches = [name for name in self._names if key in self._title(name).casefold()]
        if not self._matches and (name := normalize_speaker(typed)):
            self._matches = [name]
        if key and self._matches:
            beginnings = [name for name in self._matches if self._title(name).casefold().startswith(key)]
            self._chosen = (beginnings or self._matches)[0]
        self.update_virtual_size()
        if (line := self.cursor_line) is not None and self.size:  # without a size, the first resize scrolls
            self.scroll_to_line(line)
        self.refresh()

    def set_active(self, is_active: bool) -> None:
        """Show the cursor or only the mark of the chosen role."""
        self.is_active = is_active
        self.refresh()

    def line_count(self) -> int:
        """Return the number of roles that match the typed text."""
        return len(self._matches)

    @property
    def cursor_line(self) -> int | None:
        """Line of the chosen role; None if it does not match the typed text."""
        return self._matches.index(self._chosen) if self._chosen in self._matches else None

    def select_line(self, line: int) -> None:
        """Choose the role at a line."""
        self._chosen = self._matches[line]
        self.scroll_to_line(line)
        self.refresh()

    def click_line(self, line: int) -> None:
        """Choose the clicked role."""
        self.select_line(line)
        self.post_message(self.Clicked(self))

    def line_segments(self, line: int) -> list[Segment]:
        """Return the mark, the name in the colour of the speaker, and the probability."""
        name = self._matches[line]
        is_chosen = name == self._chosen
        prob = f"{format_percent(self._probs[name]):>{PROB_WIDTH}}" if name in self._probs else ""
        room = max(1, self.size.width - 3 - len(prob))
        style = self.get_component_rich_style(f"cast--{speaker_style(name, self._cast) if name else UNCAST_STYLE}")
        if is_chosen and self.is_active:
            style += self.get_component_rich_style("cast--cursor", partial=True)
        title = truncate(self._title(name), room)
        return [
            Segment("● " if is_chosen else "  ", self.get_component_rich_style("cast--mark")),
            Segment(title, style),
            Segment(set_cell_size("", room - len(title)), self.rich_style),
            Segment(prob, self.get_component_rich_style("cast--muted")),
        ]

    def _title(self, name: str) -> str:
        return display_name(name) if name else self._unnamed


class CastDialog(TextualFixesScreen, ModalScreen[Roles | AnswerAgain | None]):
    """Dialog with a list of who answers and a list of who the user is, dismissed with both, or with None.

    A key dismisses it with the request to answer the last line again as the chosen speaker, and keeps the roles.
    """

    DEFAULT_CSS = """
    CastDialog {
        #columns { height: 1fr; margin-top: 1; }
        #columns Vertical { width: 1fr; }
        #columns Vertical:first-child { padding-right: 2; }
        .heading { color: $muted; text-style: $muted-style; }
        .heading.-active { color: $accent; text-style: bold; }
    }
    """
    BINDINGS: ClassVar[list[BindingType]] = binding_table(
        "cast",
        """
        up        | up           | step(-1)      | up     | The speaker above
        down      | down         | step(1)       | down   | The speaker below
        page-up   | pageup       | page(-1)      | page up | A page up
        page-down | pagedown     | page(1)       | page down | A page down
        column    | tab,shift+tab | next_column  | other list | The other list: who answers, or who you are
        again     | ctrl+r       | answer_again  | again  | Answer the last line again as the chosen speaker
        cancel    | escape       | dismiss(None) | cancel | Keep the cast
        """,
    )

    def __init__(
        self,
        cast: Sequence[str],
        answerers: Sequence[str],
        roles: Sequence[str],
        current: Roles,
        probs: Mapping[str, float],
        column: CastColumn = "answering",
    ) -> None:
        """Show the current choice.

        Args:
            cast: Cast of the model.
            answerers: Members of the cast who are offered to answer.
            roles: Members of the cast who are offered to the user.
            current: Roles that are chosen now.
            probs: Probabilities of the next speaker, by name.
            column: List that the keys move in first.
        """
        super().__init__()
        self._lists = {
            "answering": CastList(answerers, cast, MODEL_CHOOSES, probs, current.speaker, id="answering"),
            "speaking-as": CastList(roles, cast, A_STRANGER, {}, current.speaking_as, id="speaking-as"),
        }
        self._column: str = column

    def compose(self) -> ComposeResult:
        """Create the input for a part of a name, both lists and the line of keys."""
        with Vertical(classes="dialog"):
            yield Label("Cast", classes="dialog-title")
            yield LineInput(
                placeholder="type a part of a name, or any name", compact=True, max_length=MAX_NAME_CHARACTERS
            )
            with Horizontal(id="columns"):
                for column, heading in (("answering", "who answers"), ("speaking-as", "who you are")):
                    with Vertical():
                        yield Label(heading, id=f"{column}-heading", classes="heading", markup=False)
                        yield self._lists[column]
            yield KeysLine(
                ("enter", "use", "use"),
                ("^r", "again", "answer_again"),
                ("tab", "other list", "next_column"),
                ("esc", "cancel", "dismiss(None)"),
            )

    def on_mount(self) -> None:
        """Show which list the keys move in."""
        self._activate(self._column)

    @property
    def active_list(self) -> CastList:
        """List that the keys move in."""
        return self._lists[self._column]

    def _activate(self, column: str) -> None:
        """Let the keys move in a list, and show the other one completely."""
        self._column = column
        for name, cast_list in self._lists.items():
            cast_list.set_active(name == column)
            self.query_one(f"#{name}-heading", Label).set_class(name == column, "-active")
            if name != column:
                cast_list.show_matches("")

    def action_step(self, offset: int) -> None:
        """Choose another speaker in the active list."""
        self.active_list.action_step(offset)

    def action_page(self, pages: int) -> None:
        """Choose the speaker a page further in the active list."""
        self.active_list.action_page(pages)

    def action_next_column(self) -> None:
        """Move to the other list, with an empty input."""
        self._activate("speaking-as" if self._column == "answering" else "answering")
        self.query_one(Input).clear()

    def action_use(self) -> None:
        """Close the dialog with the chosen roles."""
        self.dismiss(Roles(self._lists["speaking-as"].chosen, self._lists["answering"].chosen))

    def action_answer_again(self) -> None:
        """Close the dialog with the request to answer again as the chosen speaker."""
        self.dismiss(AnswerAgain(self._lists["answering"].chosen))

    @on(Input.Changed)
    def _filter(self, event: Input.Changed) -> None:
        event.stop()
        self.active_list.show_matches(event.value)

    @on(Input.Submitted)
    def _submit(self, event: Input.Submitted) -> None:
        event.stop()
        self.action_use()

    @on(CastList.Clicked)
    def _list_clicked(self, event: CastList.Clicked) -> None:
        event.stop()
        if event.cast_list is not self.active_list:
            self.action_next_column()

    def on_click(self, event: events.Click) -> None:
        """Use the choice after a double click on a speaker."""
        if event.chain == 2 and isinstance(event.widget, CastList):
            self.action_use()
