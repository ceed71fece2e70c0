"""View of a text in which each word is shaded by its surprisal."""

from typing import ClassVar, Literal

import numpy as np
from rich.style import Style
from textual.binding import Binding, BindingType
from textual.content import Content

from engine.analysis.token_scores import TokenScores
from lotr_tui.screens.lens.shaded_text_view import (
    DIFFERENCE_COMPONENT_CLASSES,
    DIFFERENCE_THRESHOLDS,
    ShadedTextView,
    difference_class,
)
from lotr_tui.screens.text.layout import UNKNOWN_MARKS, Page
from lotr_tui.screens.text.view import cursor_bindings
from lotr_tui.widgets.bindings import binding_table

LensView = Literal["network", "Kneser-Ney", "difference"]
"""Meaning of the shades: the surprisal of one model, or the difference between both."""
LENS_VIEWS: tuple[LensView, ...] = ("network", "Kneser-Ney", "difference")

SURPRISE_THRESHOLDS = (3.0, 6.0, 10.0)
"""Bits that separate the four shades of surprisal: probabilities of 1/8, 1/64 and 1/1024."""
_SURPRISE_COMPONENT_CLASSES = ("lens--expected", "lens--usual", "lens--surprising", "lens--astonishing")


class LensTextView(ShadedTextView, inherit_bindings=False):
    """Words shaded in steps of bits; each step also differs in text style, for terminals without colour."""

    DEFAULT_CSS = """
    LensTextView { overflow-y: scroll; }
    LensTextView > .lens--unscored { color: $muted; text-style: $muted-style; }
    LensTextView > .lens--expected { color: $foreground; text-style: dim; }
    LensTextView > .lens--usual { color: $foreground; }
    LensTextView > .lens--surprising { color: $foreground; background: $accent 20%; text-style: underline; }
    LensTextView > .lens--astonishing { color: $foreground; background: $accent 50%; text-style: bold underline; }
    /* A percentage of a colour of the terminal is that colour, on which other text is hard to read. */
    LensTextView:ansi {
        & > .lens--surprising { color: $accent; background: $background; }
        & > .lens--astonishing { color: $block-cursor-foreground; background: $accent; }
    }
    """
    COMPONENT_CLASSES: ClassVar[set[str]] = {"lens--unscored", *_SURPRISE_COMPONENT_CLASSES}
    BINDING_GROUP_TITLE = "Text"
    HELP_LINE = "← → word; n, p: surprising ones; F2: Kneser-Ney, difference"
    BINDINGS: ClassVar[list[BindingType]] = [
        *cursor_bindings("lens-text-view"),
        Binding("n", "step_surprise(1)", "surprise", id="lens-text-view.next", tooltip="The next surprising word"),
        *binding_table(
            "lens-text-view",
            """
            previous | p | step_surprise(-1) | previous surprise | The previous surprising word
            """,
        ),
    ]

    def __init__(self, placeholder: str, *, id: str | None = None) -> None:
        """Show `placeholder` until there is a text."""
        super().__init__(placeholder, id=id)
        self._network_scores: TokenScores | None = None
        self._baseline_scores: TokenScores | None = None
        self._view: LensView = "network"
        self._num_painted = 0  # words that had scores when last painted

    # Content

    def show_scores(self, page: Page, network_scores: TokenScores, *, cursor: int | None = None) -> None:
        """Show another text with its scores; without `cursor`, the cursor keeps its index if possible."""
        self._network_scores = network_scores
        self.show(page, self.cursor if cursor is None else cursor)
        self.refresh_scores(None)

    def refresh_scores(self, baseline_scores: TokenScores | None) -> None:
        """Repaint if more of the visible words have scores now, of the network or of Kneser-Ney."""
        self._baseline_scores = baseline_scores
        first, last = self.visible_token_range()
        num_scored = min((scores.num_scored_words for scores in self._shown_scores()), default=0)
        if (self._num_painted < last and num_scored > first) or num_scored < self._num_painted:
            self.refresh()
        self._num_painted = num_scored

    @property
    def view(self) -> LensView:
        """Meaning of the shades."""
        return self._view

    @view.setter
    def view(self, view: LensView) -> None:
        self._view = view
        self._num_painted = 0
        self.refresh()

    def legend(self, *, has_unknown: bool) -> Content:
        """Return the meaning of the shades, each in its own style; `has_unknown` adds the style of unknown words."""
        names: tuple[str, ...] = _SURPRISE_COMPONENT_CLASSES
        low, middle, high = SURPRISE_THRESHOLDS
        texts = [f"under {low:g} bits", f"{low:g} to {middle:g}", f"{middle:g} to {high:g}", f"over {high:g}"]
        if self._view == "difference":
            names, (weak, strong) = DIFFERENCE_COMPONENT_CLASSES, DIFFERENCE_THRESHOLDS[-2:]
            texts = [f"Kneser-Ney by {strong:g}", f"by {weak:g}", "even", f"by {weak:g}", f"network by {strong:g} bits"]
        parts = list(zip(texts, names, strict=True))
        if has_unknown:
            parts.append(("unknown".join(UNKNOWN_MARKS), "token-text-view--unknown"))
        return Content("  ").join(Content.styled(text, self.get_visual_style(name)) for text, name in parts)

    # Painting

    def token_component_classes(self, index: int) -> list[str]:
        """Return the component class of a word's shade."""
        scores = self._shown_scores()
        if self.page.unknown_mask[index]:
            return ["token-text-view--unknown"]
        if not scores or any(index >= model_scores.num_scored_words for model_scores in scores):
            return ["lens--unscored"]
        bits = [model_scores.bits_of_word(index) for model_scores in scores]
        if len(bits) == 2:
            return [difference_class(bits[1] - bits[0])]
        return [_SURPRISE_COMPONENT_CLASSES[int(np.digitize(bits[0], SURPRISE_THRESHOLDS))]]

    def token_style(self, index: int) -> Style:
        """Return the style of a word; under the cursor its shade is reversed."""
        style = super().token_style(index)
        return style + Style(reverse=True) if self.is_under_cursor(index) else style

    def _shown_scores(self) -> list[TokenScores]:
        """Return the scores that determine the shades, or none if one of them is missing."""
        network, baseline = self._network_scores, self._baseline_scores
        needed = {"network": [network], "Kneser-Ney": [baseline], "difference": [network, baseline]}[self._view]
        present = [scores for scores in needed if scores is not None]
        return present if len(present) == len(needed) else []

    # Cursor

    def action_step_surprise(self, direction: int) -> None:
        """Move the cursor to the next or previous word with the strongest shade."""
        scores = self._shown_scores()
        if not scores:
            return
        num_scored = min(model_scores.num_scored_words for model_scores in scores)
        bits = [model_scores.word_bits[:num_scored] for model_scores in scores]
        if len(bits) == 2:
            is_strong = np.abs(bits[1] - bits[0]) >= DIFFERENCE_THRESHOLDS[-1]
        else:
            is_strong = bits[0] >= SURPRISE_THRESHOLDS[-1]
        indices = np.flatnonzero(is_strong & ~self.page.unknown_mask[:num_scored])
        indices = indices[indices > self.cursor] if direction > 0 else indices[indices < self.cursor][::-1]
        if len(indices):
            self.move_cursor(int(indices[0]))
