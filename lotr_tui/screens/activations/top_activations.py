"""List of the training tokens on which one unit is highest and lowest, in context."""

from collections.abc import Callable, Iterable, Sequence
from typing import ClassVar

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from textual.binding import Binding, BindingType

from engine.analysis.activations import ActivationExample, TopActivations
from engine.data.tokenizers.base import UNK
from lotr_tui.formatting import LINE_END_MARK
from lotr_tui.screens.text.layout import sanitize_text
from lotr_tui.screens.text.token_names import visible_part
from lotr_tui.widgets.line_list import LineList, line_bindings

VALUE_WIDTH = 9


class UnitTopActivations(LineList):
    """Concordance of the highest and then the lowest activations: one line each, the tokens aligned."""

    DEFAULT_CSS = """
    UnitTopActivations > .unit-top-activations--muted { color: $muted; text-style: $muted-style; }
    UnitTopActivations > .unit-top-activations--token { color: $foreground; text-style: bold; }
    UnitTopActivations > .unit-top-activations--plain { color: $foreground; }
    UnitTopActivations:focus > .unit-top-activations--cursor { text-style: bold reverse; }
    """
    COMPONENT_CLASSES: ClassVar[set[str]] = {
        f"unit-top-activations--{name}" for name in ("muted", "token", "plain", "cursor")
    }
    BINDING_GROUP_TITLE = "Top activations of a unit"
    BINDINGS: ClassVar[list[BindingType]] = [
        *line_bindings("unit-top-activations"),
        Binding("enter", "select", "use", id="unit-top-activations.select", tooltip="Analyse this training line"),
    ]

    def __init__(
        self, on_select: Callable[[ActivationExample], None], noun: str = "word", *, id: str | None = None
    ) -> None:
        """Show no examples; `on_select` gets the example whose training line is to be analysed.

        `noun` is the noun for a token of the model.
        """
        super().__init__(id=id)
        self._on_select = on_select
        self._noun = noun
        self._message = ""
        self._items: tuple[tuple[str, ActivationExample], ...] = ()
        self.cursor = 0
        """Line of the cursor."""

    def get_help_line(self) -> str:
        """Return the help, with the noun for a token."""
        return f"Training {self._noun}s with the highest ▲ and lowest ▼ value; enter shows their line"

    @property
    def examples(self) -> tuple[ActivationExample, ...]:
        """Examples in the order of the lines."""
        return tuple(example for _, example in self._items)

    def show(self, top_activations: TopActivations) -> None:
        """Show the result of a search."""
        self._set_items(
            (mark if i == 0 else " ", example)
            for mark, examples in (("▲", top_activations.highest), ("▼", top_activations.lowest))
            for i, example in enumerate(examples)
        )

    def show_message(self, text: str) -> None:
        """Show a line in place of the examples."""
        self._message = text
        self._set_items(())

    def line_count(self) -> int:
        """Return the number of examples, or 1 for the message if there are none."""
        return len(self._items) or 1

    def line_segments(self, line: int) -> list[Segment]:
        """Return the example on a line, or the message if there are no examples."""
        cursor, plain, token, muted = (
            self.get_component_rich_style(f"unit-top-activations--{name}")
            for name in ("cursor", "plain", "token", "muted")
        )
        if not self._items:
            return [Segment(self._message, muted)]
        mark, example = self._items[line]
        context_width = max(0, (self.size.width - VALUE_WIDTH - 4) * 2 // 5)
        # The space before a word stays outside the brackets.
        starts_word = example.token.startswith(" ") and not example.token.isspace()
        before = _join_pieces(example.context_before) + " " * starts_word
        return [
            Segment(f"{mark}{example.value:+8.3f}", cursor if line == self.cursor else plain),
            Segment(f"  {_right_align(before, context_width + 1)}", muted),
            Segment(f"[{visible_part(_join_pieces([example.token]))}]", token),
            Segment(_join_pieces(example.context_after), muted),
        ]

    @property
    def cursor_line(self) -> int | None:
        """Line of the cursor, or None if there are no examples."""
        return self.cursor if self._items else None

    def select_line(self, line: int) -> None:
        """Move the cursor to a line."""
        self.cursor = line
        self.scroll_to_line(line)
        self.refresh()

    def action_select(self) -> None:
        """Select the example under the cursor."""
        if self._items:
            self._on_select(self._items[self.cursor][1])

    def click_line(self, line: int) -> None:
        """Move the cursor to a line, or select the example if it is under the cursor already."""
        if line == self.cursor_line:
            self.action_select()
        elif self._items:
            self.select_line(line)

    def _set_items(self, items: Iterable[tuple[str, ActivationExample]]) -> None:
        self._items, self.cursor = tuple(items), 0
        self.update_virtual_size()
        self.scroll_to(y=0, animate=False, immediate=True, force=True)
        self.refresh()


def _join_pieces(pieces: Sequence[str]) -> str:
    text = "".join(piece.replace(UNK, "‹rare word›") if piece.strip(" ") == UNK else piece for piece in pieces)
    return sanitize_text(text).replace("\n", LINE_END_MARK)


def _right_align(text: str, width: int) -> str:
    """Return the end of `text`, right-aligned in `width` cells."""
    while cell_len(text) > width:
        text = text[1:]
    return set_cell_size("", width - cell_len(text)) + text
