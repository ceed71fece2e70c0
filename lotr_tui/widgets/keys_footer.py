"""The last line of a screen: what can be done here and now."""

from typing import TYPE_CHECKING, ClassVar, NamedTuple

from rich.cells import cell_len
from textual import events
from textual.binding import Binding
from textual.content import Content
from textual.style import Style
from textual.widget import Widget

if TYPE_CHECKING:
    from textual.screen import Screen

ALWAYS = "toggle_help"
"""The action whose key is never left out: it leads to the others."""
BETWEEN = 2
"""Columns from one key to the next."""


class ShownKey(NamedTuple):
    """A key, and where it stands."""

    binding: Binding
    enabled: bool
    tooltip: str
    display: str
    """The key as people read it."""

    @property
    def width(self) -> int:
        """With what separates it from the next."""
        return cell_len(f"{self.display} {self.binding.description}") + BETWEEN


class KeysFooter(Widget, can_focus=False):
    """As many keys as there is room for, in the order of the bindings; none is cut off.

    One widget that writes a line: Textual's own has one for each key, made anew whenever the focus moves.
    """

    ALLOW_SELECT = False
    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "keys-footer--key",
        "keys-footer--description",
        "keys-footer--off",
        "keys-footer--hover",
    }
    DEFAULT_CSS = """
    KeysFooter {
        dock: bottom;
        height: 1;
        padding: 0 1;
        background: $background;
        text-wrap: nowrap;
        & > .keys-footer--key { color: $footer-key-foreground; text-style: bold; }
        & > .keys-footer--description { color: $footer-description-foreground; }
        & > .keys-footer--off { text-style: dim; }
        & > .keys-footer--hover { color: $footer-key-foreground; background: $block-hover-background; }
    }
    """

    def __init__(self) -> None:
        super().__init__()
        self._hovered: ShownKey | None = None

    def on_mount(self) -> None:
        """Follow what the screen offers."""
        self.screen.bindings_updated_signal.subscribe(self, self._offer)

    def render(self) -> Content:
        """The keys that fit."""
        parts: list[str | tuple[str, Style]] = []
        for shown in self.shown_keys():
            key, description = self._styles(shown)
            parts += [(shown.display, key), (f" {shown.binding.description} ", description), " " * (BETWEEN - 1)]
        return Content.assemble(*parts)

    def shown_keys(self) -> list[ShownKey]:
        """The keys that fit, then the one for all of them."""
        first: dict[str, ShownKey] = {}
        for _, binding, enabled, tooltip in self.screen.active_bindings.values():
            if binding.show and binding.action not in first:
                display = self.app.get_key_display(binding)
                first[binding.action] = ShownKey(binding, enabled, tooltip or binding.tooltip, display)
        always = [first.pop(ALWAYS)] if ALWAYS in first else []
        room = self.content_size.width + BETWEEN - sum(key.width for key in always)
        fitting = []
        for shown in first.values():
            room -= shown.width
            if room < 0:
                break
            fitting.append(shown)
        return fitting + always

    def key_at(self, x: int) -> ShownKey | None:
        """The key that is written at a column of the line."""
        start = 0
        for shown in self.shown_keys():
            if start <= x < start + shown.width - BETWEEN + 1:
                return shown
            start += shown.width
        return None

    def on_mouse_move(self, event: events.MouseMove) -> None:
        """The key under the pointer is marked, and told."""
        self._hover(self._under(event))

    def on_leave(self) -> None:
        """None is."""
        self._hover(None)

    def on_mouse_down(self, event: events.MouseDown) -> None:
        """As if the key was pressed."""
        if (shown := self._under(event)) is None:
            return
        if shown.enabled:
            self.app.simulate_key(shown.binding.key.split(",")[0])
        else:
            self.app.bell()

    def _under(self, event: events.MouseEvent) -> ShownKey | None:
        offset = event.get_content_offset(self)
        return None if offset is None else self.key_at(offset.x)

    def _hover(self, shown: ShownKey | None) -> None:
        if shown != self._hovered:
            self._hovered = shown
            self.tooltip = None if shown is None else shown.tooltip or None
            self.styles.pointer = "default" if shown is None else "pointer"
            self.refresh()

    def _offer(self, screen: "Screen[object]") -> None:
        if screen is self.screen and self.app.app_focus:
            self.refresh()

    def _styles(self, shown: ShownKey) -> tuple[Style, Style]:
        """Of the key, and of what it does."""
        more = []
        if not shown.enabled:
            more.append("keys-footer--off")
        if shown == self._hovered:
            more.append("keys-footer--hover")
        key = self.get_visual_style("keys-footer--key", *more)
        return key, self.get_visual_style("keys-footer--description", *more)
