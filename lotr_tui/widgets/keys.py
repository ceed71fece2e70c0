"""Key bindings: tables of them, and the footer of a screen, which shows the keys that can be used now."""

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import ClassVar, NamedTuple

from rich.cells import cell_len
from textual import style, widget
from textual.binding import ActiveBinding, Binding, BindingType
from textual.content import Content

ALWAYS_SHOWN_ACTIONS = ("command_palette", "quit", "toggle_help")  # at the right edge; the first ones may not fit
KEY_GAP = 2  # columns at least between two keys


def binding_table(id_prefix: str, table: str, *, show: bool = False) -> list[BindingType]:
    """Return the bindings of a table: `id after the prefix | keys | action | description | tooltip`, a line for each.

    A sixth field has the keys as the footer shows them. Without `show`, only palette and help show the bindings.
    """
    bindings: list[BindingType] = []
    for line in table.strip().splitlines():
        name, keys, action, description, tooltip, *footer_keys = (field.strip() for field in line.split("|"))
        display = "".join(footer_keys) or None
        bindings.append(Binding(keys, action, description, show, display, id=f"{id_prefix}.{name}", tooltip=tooltip))
    return bindings


class FooterKey(NamedTuple):
    """Key that a screen wants in its footer, by the id of its binding."""

    binding_id: str
    description: str = ""  # for the state of the screen; "" takes the one of the binding
    key_display: str = ""  # keys as readers see them, such as `1-8` for a group; "" takes the key of the binding


class KeyHint(NamedTuple):
    """Key binding as the footer shows it."""

    binding: Binding
    enabled: bool
    key_display: str
    description: str

    @property
    def width(self) -> int:
        return cell_len(f"{self.key_display} {self.description}") + KEY_GAP


class KeyFooter(widget.Widget, can_focus=False):
    """One line with the keys that fit: Textual's footer creates one widget per key at each change of focus."""

    ALLOW_SELECT = False
    COMPONENT_CLASSES: ClassVar[set[str]] = {f"key-footer--{name}" for name in ("key", "description", "disabled")}
    DEFAULT_CSS = """
    KeyFooter {
        dock: bottom; height: 1; padding: 0 1; background: $background; text-wrap: nowrap;
        & > .key-footer--key { color: $footer-key-foreground; text-style: bold; }
        & > .key-footer--description { color: $footer-description-foreground; text-style: $muted-style; }
        & > .key-footer--disabled { text-style: dim; }
    }
    """
    auto_links = False

    def __init__(self, get_keys: Callable[[], Sequence[FooterKey]] | None = None) -> None:
        """Show the keys that `get_keys` returns, the most important first, or else all in the order of the bindings."""
        super().__init__()
        self._get_keys = get_keys

    def on_mount(self) -> None:
        self.screen.bindings_updated_signal.subscribe(self, lambda _: self.refresh())

    def render(self) -> Content:
        left, right = self.visible_keys()
        parts: list[str | Content] = []
        for hint in [*left, *right]:
            if right and hint is right[0]:
                used = sum(each.width for each in [*left, *right]) - KEY_GAP
                parts.append(" " * max(0, self.content_size.width - used))
            states = [] if hint.enabled else ["key-footer--disabled"]
            press = f"app.simulate_key({hint.binding.key.split(',')[0]!r})" if hint.enabled else "app.bell"
            key, description = (
                self.get_visual_style(f"key-footer--{name}", *states) + style.Style.from_meta({"@click": press})
                for name in ("key", "description")
            )
            text = Content.assemble((hint.key_display, key), (f" {hint.description}", description))
            parts += [text, " " * KEY_GAP]
        return Content.assemble(*parts[:-1])

    def visible_keys(self) -> tuple[list[KeyHint], list[KeyHint]]:
        """Return the keys that fit at the left and at the right."""
        by_id: dict[str, ActiveBinding] = {}
        by_action: dict[str, ActiveBinding] = {}
        for active in self.screen.active_bindings.values():
            by_id.setdefault(active.binding.id or "", active)
            if active.binding.show:
                by_action.setdefault(active.binding.action, active)
        right = [self._hint(by_action.pop(action)) for action in ALWAYS_SHOWN_ACTIONS if action in by_action]
        if self._get_keys is None:
            left = [self._hint(active) for active in by_action.values()]
        else:
            keys = [key for key in self._get_keys() if key.binding_id in by_id]
            left = [self._hint(by_id[key.binding_id], key.description, key.key_display) for key in keys]
        room = self.content_size.width + KEY_GAP
        while len(right) > 1 and sum(hint.width for hint in right) > room:
            del right[0]
        room -= sum(hint.width for hint in right)
        ends = accumulate(hint.width for hint in left)
        return [hint for hint, end in zip(left, ends, strict=True) if end <= room], right

    def _hint(self, active: ActiveBinding, description: str = "", key_display: str = "") -> KeyHint:
        key_display = key_display or self.app.get_key_display(active.binding)
        return KeyHint(active.binding, active.enabled, key_display, description or active.binding.description)
