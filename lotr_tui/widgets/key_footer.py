"""Footer of a screen: the keys that can be used now."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import ClassVar, NamedTuple

from rich.cells import cell_len
from textual import events
from textual.binding import ActiveBinding, Binding
from textual.content import Content
from textual.screen import Screen
from textual.style import Style
from textual.widget import Widget

ALWAYS_SHOWN_ACTIONS = ("command_palette", "quit", "toggle_help")
"""Actions whose keys are at the right edge of every footer; where they do not all fit, the first ones are left out."""
KEY_GAP = 2
"""Minimum number of columns between two keys."""


class FooterKey(NamedTuple):
    """Key that a screen wants in its footer, by the id of its binding."""

    binding_id: str
    description: str = ""
    """Text for the state of the screen; "" takes the description of the binding."""
    key_display: str = ""
    """Keys as readers see them, such as `1-8` for a group; "" takes the key of the binding."""


FooterKeysProvider = Callable[[], Sequence[FooterKey]]
"""Function that returns the keys for the state of a screen, the most important first."""


class KeyHint(NamedTuple):
    """Key binding as the footer shows it."""

    binding: Binding
    enabled: bool
    tooltip: str
    key_display: str
    """Key as readers see it, such as `^a` or `esc`."""
    description: str

    @property
    def width(self) -> int:
        """Width in columns, with the gap to the next key."""
        return cell_len(f"{self.key_display} {self.description}") + KEY_GAP


class KeyFooter(Widget, can_focus=False):
    """One line with as many keys as fit; no key is cut off, and help, quit and palette are at the right edge.

    Without a function for the keys of its state, a screen has all keys in the order of its bindings.

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
        & > .key-footer--description { color: $footer-description-foreground; text-style: $muted-style; }
        & > .key-footer--disabled { text-style: dim; }
        & > .key-footer--hover { color: $footer-key-foreground; background: $block-hover-background; }
    }
    """

    def __init__(
        self, get_keys: FooterKeysProvider | None = None, *, descriptions: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        """Show the keys that `get_keys` returns; `descriptions` maps ids of bindings to other descriptions."""
        super().__init__()
        self._get_keys = get_keys
        self._descriptions = descriptions
        self._hovered: KeyHint | None = None

    def on_mount(self) -> None:
        """Subscribe to the changes of the screen's bindings."""
        self.screen.bindings_updated_signal.subscribe(self, self._bindings_updated)

    def render(self) -> Content:
        """Return the keys that fit."""
        parts: list[str | tuple[str, Style]] = []
        end = 0
        for start, hint in self._positions():
            key_style, description_style = self._key_styles(hint)
            parts += [
                " " * (start - end),
                (hint.key_display, key_style),
                (f" {hint.description} ", description_style),
            ]
            end = start + hint.width - KEY_GAP + 1
        return Content.assemble(*parts)

    def visible_keys(self) -> list[KeyHint]:
        """Return the keys that fit, the ones at the right edge last."""
        return [hint for _, hint in self._positions()]

    def key_at(self, x: int) -> KeyHint | None:
        """Return the key at column `x` of the line."""
        for start, hint in self._positions():
            if start <= x < start + hint.width - KEY_GAP + 1:
                return hint
        return None

    def _positions(self) -> list[tuple[int, KeyHint]]:
        """Return the keys that fit with their first columns."""
        width = self.content_size.width
        hints, at_right = self._hints()
        while len(at_right) > 1 and sum(hint.width for hint in at_right) - KEY_GAP > width:
            del at_right[0]
        right_start = max(0, width + KEY_GAP - sum(hint.width for hint in at_right))
        positions, start = [], 0
        for hint in hints:
            if start + hint.width > right_start:
                break
            positions.append((start, hint))
            start += hint.width
        for hint in at_right:
            positions.append((right_start, hint))
            right_start += hint.width
        return positions

    def _hints(self) -> tuple[list[KeyHint], list[KeyHint]]:
        """Return the keys for the state of the screen, or else all shown ones, and the keys at the right edge."""
        by_id: dict[str, ActiveBinding] = {}
        by_action: dict[str, ActiveBinding] = {}
        for active in self.screen.active_bindings.values():
            by_id.setdefault(active.binding.id or "", active)
            if active.binding.show:
                by_action.setdefault(active.binding.action, active)
        at_right = [self._hint(by_action.pop(action)) for action in ALWAYS_SHOWN_ACTIONS if action in by_action]
        if self._get_keys is None:
            return [self._hint(active) for active in by_action.values()], at_right
        keys = [key for key in self._get_keys() if key.binding_id in by_id]
        return [self._hint(by_id[key.binding_id], key.description, key.key_display) for key in keys], at_right

    def _hint(self, active: ActiveBinding, description: str = "", key_display: str = "") -> KeyHint:
        _, binding, enabled, tooltip = active
        key_display = key_display or self.app.get_key_display(binding)
        description = description or self._descriptions.get(binding.id or "", binding.description)
        return KeyHint(binding, enabled, tooltip or binding.tooltip, key_display, description)

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
