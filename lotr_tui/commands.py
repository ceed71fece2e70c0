"""The command palette: every action that a key has, made from the tables of bindings, and the themes."""

import inspect
import pkgutil
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

from textual import command as palette
from textual import work
from textual.actions import parse
from textual.await_complete import AwaitComplete
from textual.binding import Binding
from textual.command import CommandList, CommandPalette, DiscoveryHit, Hit, Hits, Provider
from textual.css.query import NoMatches
from textual.dom import DOMNode
from textual.errors import NoWidget
from textual.events import Click
from textual.screen import Screen
from textual.widgets import Input

from engine.errors import nearest
from lotr_tui.textual_fixes.line_box import MOST_CHARACTERS
from lotr_tui.textual_fixes.rows import FoundCommands
from lotr_tui.textual_fixes.screen import Steady

if TYPE_CHECKING:
    from lotr_tui.app import LotrApp

palette.CommandList = FoundCommands  # type: ignore[misc]  # which the palette makes


@dataclass(frozen=True)
class Command:
    """A line of the palette."""

    name: str
    help: str
    """Its keys, or what there is to know of it."""
    run: Callable[[], Any]
    action: str = ""
    """As the binding names it."""
    group: str = ""
    """Where it belongs."""


class Palette(Steady, CommandPalette):
    """Textual's palette, what is typed in it being as in a `LineBox`."""

    def on_mount(self) -> None:
        """Hold the cursor still, and bound what is typed."""
        for box in self.query(Input):  # none where it was closed at once
            box.cursor_blink = False
            box.max_length = MOST_CHARACTERS

    def _on_click(self, event: Click) -> None:  # type: ignore[override]
        """A click where there is nothing any more, as on a terminal that has become smaller, does nothing."""
        try:
            self.get_widget_at(event.screen_x, event.screen_y)
        except NoWidget:
            event.prevent_default()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Nothing can be done in it while it is being closed."""
        return super().check_action(action, parameters) if self.query(CommandList) else False

    def dismiss(self, result: Any = None) -> AwaitComplete:
        """Close it; it looks for no more commands, nor says that there are none."""
        self._cancel_gather_commands()
        self._stop_no_matches_countdown()
        self._stop_busy_countdown()
        return super().dismiss(result)

    @work(exclusive=True, group=CommandPalette._GATHER_COMMANDS_GROUP)
    async def _gather_commands(self, search_value: str) -> None:
        """As Textual does, which looks for its list even where the palette was closed before this begins, or since."""
        try:
            await CommandPalette._gather_commands.__wrapped__(self, search_value)  # type: ignore[attr-defined]
        except NoMatches:
            if self.query(CommandList):
                raise


class Commands(Provider):
    """What can be done on the screen that the palette was opened from; then the themes."""

    @property
    def commands(self) -> list[Command]:
        """All of them. One provider has both, since Textual asks several in no order."""
        app = cast("LotrApp", self.app)
        return [*(it for it in actions(app, self.screen) if it.action != "command_palette"), *themes(app)]

    async def discover(self) -> Hits:
        """All of them, while nothing is typed."""
        for command in self.commands:
            yield DiscoveryHit(command.name, command.run, help=command.help)

    async def search(self, query: str) -> Hits:
        """Those whose name or key is like `query`."""
        matcher = self.matcher(query)
        for command in self.commands:
            score = max(matcher.match(command.name), matcher.match(command.help))
            if score > 0:
                yield Hit(score, matcher.highlight(command.name), command.run, help=command.help)


def actions(app: "LotrApp", screen: Screen[Any]) -> Iterator[Command]:
    """What bindings offer now: first the screen's own, then what is on it, from where the cursor is, then the app's."""
    focused = [node for node in screen.focused.ancestors_with_self if node is not screen] if screen.focused else []
    nodes: list[DOMNode] = [screen, *focused, *screen.query("*"), app]
    found: dict[tuple[type[DOMNode], str], tuple[DOMNode, Binding, dict[str, None]]] = {}
    for node in dict.fromkeys(nodes):
        for binding in bindings_of(type(node)):
            _, name, parameters = parse(binding.action)
            if node.check_action(name, parameters) is not False:
                # Once, where there are several widgets of a kind, or several bindings.
                _, _, keys = found.setdefault((type(node), binding.action), (node, binding, {}))
                keys.update(dict.fromkeys(app.keys_of(binding).split()))
    for node, binding, keys in found.values():
        label = f"{binding.description}: {binding.tooltip}" if binding.tooltip else binding.description
        group = "On this screen" if node is screen else "Everywhere" if node is app else _name(type(node))
        yield Command(label, " ".join(keys), partial(app.run_action, binding.action, node), binding.action, group)


def themes(app: "LotrApp") -> Iterator[Command]:
    """The themes; the one chosen is kept for the next session."""
    for name in sorted(app.available_themes):
        yield Command(f"theme: {name}", "in use" if name == app.theme else "", partial(setattr, app, "theme", name))


def bindings_of(kind: type[DOMNode]) -> list[Binding]:
    """The bindings with an id that a screen or widget has: its own and those of the classes it is made from."""
    found: dict[str, Binding] = {}
    for base in kind.__mro__:
        for binding in base.__dict__.get("BINDINGS", ()):
            if isinstance(binding, Binding) and binding.id is not None:
                found.setdefault(binding.id, binding)
        if not base.__dict__.get("_inherit_bindings", True):
            break
    return list(found.values())


def check_keymap(keymap: Mapping[str, str]) -> list[str]:
    """What is wrong with keys that were put in place of the default ones, a line each.

    Reads all screens and widgets, which takes a moment. Textual tells of a clash only with bindings without an id.
    """
    tables = list(_tables())
    known = {str(binding.id) for table in tables for binding in table}
    lines = [f"keys for {id!r}, which is no action{nearest(id, known)}" for id in keymap if id not in known]
    for table in tables:
        takers: dict[str, list[Binding]] = {}
        for binding in table:
            for key in _keys(keymap.get(str(binding.id), binding.key)):
                takers.setdefault(key, []).append(binding)
        for key, bindings in takers.items():
            given = [binding for binding in bindings if binding.id in keymap and key not in _keys(binding.key)]
            if given and len(bindings) > 1:
                names = " and ".join(str(binding.id) for binding in bindings)
                lines.append(f"the key {key} for {names}; one of them cannot be reached by it")
    return list(dict.fromkeys(lines))


def _tables() -> Iterator[list[Binding]]:
    """The bindings of each screen and widget, with the app's, beside which they stand."""
    import lotr_tui.screens
    import lotr_tui.widgets
    from lotr_tui.app import LotrApp

    everywhere = bindings_of(LotrApp)
    for package in (lotr_tui.screens, lotr_tui.widgets):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            for _, kind in inspect.getmembers(import_module(module.name), inspect.isclass):
                if issubclass(kind, DOMNode) and kind.__module__ == module.name:
                    yield [*bindings_of(kind), *everywhere]


def _name(kind: type[DOMNode]) -> str:
    """How people speak of a widget: "In the temperature slider"."""
    return f"In the {re.sub('(?<!^)(?=[A-Z])', ' ', kind.__name__).lower()}"


def _keys(keys: str) -> list[str]:
    return [key.strip() for key in keys.split(",")]
