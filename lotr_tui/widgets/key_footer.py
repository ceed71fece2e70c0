"""Footer of a screen: the keys that can be used now."""

from typing import ClassVar, NamedTuple

from rich.cells import cell_len
from textual import events
from textual.binding import Binding
from textual.content import Content
from textual.screen import Screen
from textual.style import Style
from textual.widget import Widget

ALWAYS_SHOWN_ACTION = "toggle_help"
"""Action whose key is shown even on a narrow terminal: the help lists all other keys."""
KEY_GAP = 2
"""Columns between two keys."""


class KeyHint(NamedTuple):
    """Key binding as the footer shows it."""

    binding: Binding
    enabled: bool
    tooltip: str
    key_display: str
    """Key as readers see it, such as `^a` or `esc`."""

    @property
    def width(self) -> int:
        """Width in columns, with the gap to the next key."""
        return cell_len(f"{self.key_display} {self.binding.description}") + KEY_GAP


class KeyFooter(Widget, can_focus=False):
    """One line with as many keys as fit, in the order of the bindings; no key is cut off.

    Textual's own footer creates one widget per key at each change of focus. This footer is one widget that draws a
    line.
    """

    ALLOW_SELECT = False
    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "key-footer--key",
        "key-footer--description",
        "key-footer--disabled",
        "key-footer--hover",
    }
    DEFAULT_CSS = """
    KeyFooter {
        dock: bottom;
        height: 1;
        padding: 0 1;
        background: $background;
        text-wrap: nowrap;
        & > .key-footer--key { color: $footer-key-foreground; text-style: bold; }
        & > .key-footer--description { color: $footer-description-foreground; }
        & > .key-footer--disabled { text-style: dim; }
        & > .key-footer--hover { color: $footer-key-foreground; background: $block-hover-background; }
    }
    """

    def __init__(self) -> None:
        super().__init__()
        self._hovered: KeyHint | None = None

    def on_mount(self) -> None:
        """Subscribe to the changes of the screen's bindings."""
        self.screen.bindings_updated_signal.subscribe(self, self._bindings_updated)

    def render(self) -> Content:
        """Return the keys that fit."""
        parts: list[str | tuple[str, Style]] = []
        for hint in self.visible_keys():
            key_style, description_style = self._key_styles(hint)
            parts += [
                (hint.key_display, key_style),
                (f" {hint.binding.description} ", description_style),
                " " * (KEY_GAP - 1),
            ]
        return Content.assemble(*parts)

    def visible_keys(self) -> list[KeyHint]:
        """Return the keys that fit, with the help key last."""
        hints: dict[str, KeyHint] = {}
        for _, binding, enabled, tooltip in self.screen.active_bindings.values():
            if binding.show and binding.action not in hints:
                display = self.app.get_key_display(binding)
                hints[binding.action] = KeyHint(binding, enabled, tooltip or binding.tooltip, display)
        always_shown = [hints.pop(ALWAYS_SHOWN_ACTION)] if ALWAYS_SHOWN_ACTION in hints else []
        room = self.content_size.width + KEY_GAP - sum(hint.width for hint in always_shown)
        fitting = []
        for hint in hints.values():
            room -= hint.width
            if room < 0:
                break
            fitting.append(hint)
        return fitting + always_shown

    def key_at(self, x: int) -> KeyHint | None:
        """Return the key at column `x` of the line."""
        start = 0
        for hint in self.visible_keys():
            if start <= x < start + hint.width - KEY_GAP + 1:
                return hint
            start += hint.width
        return None

    def on_mouse_move(self, event: events.MouseMove) -> None:
        """Highlight the key under the pointer and show its tooltip."""
        self._set_hovered(self._key_under(event))

    def on_leave(self) -> None:
        """Remove the highlight."""
        self._set_hovered(None)

    def on_mouse_down(self, event: events.MouseDown) -> None:
        """Press the key under the pointer, or ring the bell if the key is disabled."""
        if (hint := self._key_under(event)) is None:
            return
        if hint.enabled:
            self.app.simulate_key(hint.binding.key.split(",")[0])
        else:
            self.app.bell()

    def _key_under(self, event: events.MouseEvent) -> KeyHint | None:
        offset = event.get_content_offset(self)
        return None if offset is None else self.key_at(offset.x)

    def _set_hovered(self, hint: KeyHint | None) -> None:
        if hint != self._hovered:
            self._hovered = hint
            self.tooltip = None if hint is None else hint.tooltip or None
            self.styles.pointer = "default" if hint is None else "pointer"
            self.refresh()

    def _bindings_updated(self, screen: Screen[object]) -> None:
        if screen is self.screen and self.app.app_focus:
            self.refresh()

    def _key_styles(self, hint: KeyHint) -> tuple[Style, Style]:
        """Return the styles of a key and of its description."""
        states = [] if hint.enabled else ["key-footer--disabled"]
        if hint == self._hovered:
            states.append("key-footer--hover")
        key_style = self.get_visual_style("key-footer--key", *states)
        return key_style, self.get_visual_style("key-footer--description", *states)
