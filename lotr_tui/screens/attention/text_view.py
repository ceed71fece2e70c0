"""View of a text whose tokens are shaded by the attention that a head pays to them."""

from typing import ClassVar

import numpy as np
import numpy.typing as npt

from lotr_tui.screens.attention.strip_columns import SHADES
from lotr_tui.screens.text.layout import Page
from lotr_tui.screens.text.view import TokenTextView

LEVEL_CLASSES = tuple(f"attention-text--level-{level}" for level in range(1, len(SHADES)))
"""Component classes of the shades, the lightest first."""
LATER_CLASS = "attention-text--later"
"""Component class of the tokens that the model had not read."""


class AttentionTextView(TokenTextView):
    """Tokens in shades of one colour; each shade also differs in text style, for terminals without colour."""

    DEFAULT_CSS = """
    AttentionTextView > .attention-text--later { color: $muted; text-style: $muted-style; }
    AttentionTextView > .attention-text--level-1 { background: $accent 12%; text-style: underline; }
    AttentionTextView > .attention-text--level-2 { background: $accent 25%; text-style: underline; }
    AttentionTextView > .attention-text--level-3 { background: $accent 45%; text-style: bold underline; }
    AttentionTextView > .attention-text--level-4 { background: $accent 65%; text-style: bold italic underline; }
    AttentionTextView:ansi {
        & > .attention-text--level-1, & > .attention-text--level-2 { background: $background; }
        & > .attention-text--level-3 { color: $accent; background: $background; }
        & > .attention-text--level-4 { color: $block-cursor-foreground; background: $accent; }
    }
    """
    COMPONENT_CLASSES: ClassVar[set[str]] = {*LEVEL_CLASSES, LATER_CLASS}

    def __init__(self, placeholder: str, *, id: str | None = None) -> None:
        """Show `placeholder` until there is a text."""
        super().__init__(placeholder, id=id)
        self._levels: npt.NDArray[np.intp] = np.empty(0, np.intp)

    def show(self, page: Page, cursor: int = 0) -> None:
        """Show a page without shades, with the cursor on the token nearest to `cursor`."""
        self._levels = np.empty(0, np.intp)
        super().show(page, cursor)

    def shade(self, levels: npt.NDArray[np.intp]) -> None:
        """Shade the first tokens, given their indices in `SHADES`; the tokens without a level are shown as unread."""
        if not np.array_equal(levels, self._levels):
            self._levels = levels
            self.refresh()

    def shade_level(self, index: int) -> int:
        """Return the index in `SHADES` of a token, 0 for an unread one."""
        return int(self._levels[index]) if index < len(self._levels) else 0

    def token_component_classes(self, index: int) -> list[str]:
        """Return the component classes of a token."""
        names = super().token_component_classes(index)
        if level := self.shade_level(index):
            names.insert(1, LEVEL_CLASSES[level - 1])
        elif len(self._levels) <= index != self.cursor and len(self._levels):
            names.insert(1, LATER_CLASS)
        return names
