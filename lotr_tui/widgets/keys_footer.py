"""The last line of a screen: what can be done here and now."""

from rich.cells import cell_len
from textual.app import ComposeResult
from textual.widgets import Footer
from textual.widgets._footer import FooterKey

ALWAYS = "toggle_help"
"""The action whose key is never left out: it leads to the others."""
BETWEEN = 2
"""Columns from one key to the next."""


class KeysFooter(Footer):
    """As many keys as there is room for, in the order of the bindings; none is cut off."""

    def __init__(self) -> None:
        super().__init__(show_command_palette=False, compact=True)

    def compose(self) -> ComposeResult:
        """The keys that fit, then the one for all of them."""
        self._let_former_keys_go()
        keys = [key for key in super().compose() if isinstance(key, FooterKey)]
        always = [key for key in keys if key.action == ALWAYS]
        room = self.content_size.width + BETWEEN - sum(map(_width, always))
        for key in keys:
            if key not in always:
                room -= _width(key)
                if room < 0:
                    break
                yield key
        yield from always

    def _let_former_keys_go(self) -> None:
        """Each key waits to hear that `compact` has changed, which it never does; Textual would keep all there were."""
        for waiting in getattr(self, "__watchers", {}).values():
            waiting[:] = [(node, call) for node, call in waiting if not isinstance(node, FooterKey)]

    def on_resize(self) -> None:
        """There is more room now, or less."""
        self.call_after_refresh(self.recompose)


def _width(key: FooterKey) -> int:
    return cell_len(f"{key.key_display} {key.description}") + BETWEEN
