"""The commands of the palette and the help, made from the tables of bindings, and a check of the user's keymap."""

import inspect
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any

from textual import actions, command
from textual.app import App
from textual.binding import Binding
from textual.content import Content
from textual.dom import DOMNode
from textual.screen import Screen
from textual.widgets import Input

from engine.errors import suggest_nearest
from lotr_tui.formatting import fit_cells
from lotr_tui.textual_fixes.app import RobustCommandPalette
from lotr_tui.theme import SHIRE, SHIRE_LIGHT
from lotr_tui.widgets.inputs import MAX_LINE_CHARACTERS

KEYS_WIDTH = 10  # cells of the keys before a command


@dataclass(frozen=True)
class PaletteCommand:
    """Command of the palette and line of the help."""

    name: str
    help: str  # keys of the command, or a remark
    run: Callable[[], Any]
    action: str = ""  # of the binding; empty for a theme
    group: str = ""  # heading in the help


class AppCommandPalette(RobustCommandPalette):
    """Command palette with one line per command, after its keys."""

    DEFAULT_CSS = """
    AppCommandPalette {
        #--container { max-width: 100; }
        #--input { border: none; padding: 0 1; background: $panel; }
        SearchIcon { display: none; }
        CommandList {
            border: none; padding: 0; max-height: 70vh; text-wrap: nowrap; text-overflow: ellipsis;
            background: $panel; scrollbar-size-vertical: 1;
        }
        CommandList > .option-list--option { text-style: none; }
    }
    """

    def __init__(self) -> None:
        super().__init__([PaletteCommandProvider], placeholder="Search for a command, a key or a theme")

    def on_mount(self) -> None:
        for search_input in self.query(Input):  # none if the palette was closed at once
            search_input.cursor_blink = False
            search_input.max_length = MAX_LINE_CHARACTERS


class PaletteCommandProvider(command.Provider):
    """Provider of all commands: the actions of the screen below the palette, then the themes.

    A single provider, because Textual does not keep the order of several.
    """

    @property
    def commands(self) -> list[PaletteCommand]:
        app, own = self.app, [theme.name for theme in (SHIRE, SHIRE_LIGHT)]
        commands = [each for each in iter_binding_commands(app, self.screen) if each.action != "command_palette"]
        for name in [*own, *sorted(set(app.available_themes) - set(own))]:
            choose = partial(app.run_action, f"choose_theme({name!r})", app)
            commands.append(PaletteCommand(f"theme: {name}", "in use" if name == app.theme else "", choose))
        return commands

    async def discover(self) -> command.Hits:
        for each in self.commands:
            row = Content.assemble((fit_cells(each.help, KEYS_WIDTH), "dim"), "  ", each.name)
            yield command.DiscoveryHit(row, each.run, each.name)

    async def search(self, query: str) -> command.Hits:
        matcher = self.matcher(query)
        for each in self.commands:
            if score := max(matcher.match(each.name), matcher.match(each.help)):
                name = matcher.highlight(each.name)
                row = Content.assemble((fit_cells(each.help, KEYS_WIDTH), "dim"), "  ", name)
                yield command.Hit(score, row, each.run, each.name)


def iter_binding_commands(app: App[Any], screen: Screen[Any]) -> Iterator[PaletteCommand]:
    """Yield the actions of a screen, of its widgets from the focused one on, and of the app."""
    focused = [node for node in screen.focused.ancestors_with_self if node is not screen] if screen.focused else []
    nodes: list[DOMNode] = [screen, *focused, *screen.query("*"), app]
    available: dict[tuple[type[DOMNode], str], tuple[DOMNode, Binding, dict[str, None]]] = {}
    for node in dict.fromkeys(nodes):
        for binding in collect_bindings(type(node)):
            _, name, parameters = actions.parse(binding.action)
            if node.check_action(name, parameters) is not False:
                # Several widgets of a class, and several bindings of an action, make one command.
                _, _, keys = available.setdefault((type(node), binding.action), (node, binding, {}))
                keys.update(dict.fromkeys(app.get_key_display(binding).split()))
    for node, binding, keys in available.values():
        name = f"{binding.description}: {binding.tooltip}" if binding.tooltip else binding.description
        group = "This screen" if node is screen else "Everywhere" if node is app else str(node.BINDING_GROUP_TITLE)
        run = partial(app.run_action, binding.action, node)
        yield PaletteCommand(name, " ".join(keys), run, binding.action, group)


def collect_bindings(node_type: type[DOMNode]) -> list[Binding]:
    """Return the bindings with an id of a screen or widget class, inherited ones included."""
    bindings: dict[str, Binding] = {}
    for base in node_type.__mro__:
        for binding in base.__dict__.get("BINDINGS", ()):
            if isinstance(binding, Binding) and binding.id is not None:
                bindings.setdefault(binding.id, binding)
        if not base.__dict__.get("_inherit_bindings", True):
            break
    return list(bindings.values())


def iter_binding_tables(app_type: type[App[Any]]) -> Iterator[tuple[type[DOMNode], list[Binding]]]:
    """Import all screens and widgets; yield the bindings of each class with the ones of the app, which always apply."""
    for package in map(import_module, ("lotr_tui.screens", "lotr_tui.widgets")):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            for _, node_type in inspect.getmembers(import_module(module.name), inspect.isclass):
                if issubclass(node_type, DOMNode) and node_type.__module__ == module.name:
                    yield node_type, [*collect_bindings(node_type), *collect_bindings(app_type)]


def check_keymap(keymap: Mapping[str, str], app_type: type[App[Any]]) -> str:
    """Return the first problem of the user's keymap, or "": an unknown id, or a key of two bindings."""
    ids: set[str] = set()
    for _, bindings in iter_binding_tables(app_type):
        id_by_key: dict[str, str] = {}
        for binding_id, keys in ((str(binding.id), binding.key) for binding in bindings):
            ids.add(binding_id)
            for key in keymap.get(binding_id, keys).replace(" ", "").split(","):
                other = id_by_key.setdefault(key, binding_id)
                if other != binding_id and {other, binding_id} & set(keymap):
                    return f"key {key} is bound to {other} and {binding_id}; choose another key for one of them"
    unknown = next((each for each in keymap if each not in ids), "")
    return f"unknown action {unknown!r}{suggest_nearest(unknown, ids)}" if unknown else ""
