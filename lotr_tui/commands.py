"""The command palette and its commands, made from the tables of bindings, and a check of the user's keymap."""

import inspect
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any, cast

from textual.actions import parse
from textual.binding import Binding
from textual.command import DiscoveryHit, Hit, Hits, Provider
from textual.dom import DOMNode
from textual.screen import Screen
from textual.widgets import Input

from engine.errors import suggest_nearest
from lotr_tui.app_base import LotrAppBase
from lotr_tui.textual_fixes.command_palette import RobustCommandPalette
from lotr_tui.widgets.line_input import MAX_LINE_CHARACTERS

BINDING_PACKAGES = ("lotr_tui.screens", "lotr_tui.widgets")
"""Packages whose screens and widgets define bindings."""


@dataclass(frozen=True)
class PaletteCommand:
    """Command of the palette and line of the help."""

    name: str
    help: str
    """Keys of the command, or a remark."""
    run: Callable[[], Any]
    action: str = ""
    """Action string of the binding; empty for a theme."""
    group: str = ""
    """Heading in the help."""


class AppCommandPalette(RobustCommandPalette):
    """Command palette whose input has the maximum length and the steady cursor of a `LineInput`."""

    def on_mount(self) -> None:
        """Configure the input; there is none if the palette was closed at once."""
        for search_input in self.query(Input):
            search_input.cursor_blink = False
            search_input.max_length = MAX_LINE_CHARACTERS


class PaletteCommandProvider(Provider):
    """Provider of all commands: the actions of the screen below the palette, then the themes.

    A single provider, because Textual does not keep the order of several.
    """

    @property
    def commands(self) -> list[PaletteCommand]:
        """All commands."""
        app = cast(LotrAppBase, self.app)
        actions = [
            command for command in iter_binding_commands(app, self.screen) if command.action != "command_palette"
        ]
        return [*actions, *iter_theme_commands(app)]

    async def discover(self) -> Hits:
        """Yield all commands while nothing is typed."""
        for command in self.commands:
            yield DiscoveryHit(command.name, command.run, help=command.help)

    async def search(self, query: str) -> Hits:
        """Yield the commands whose name or key matches the query."""
        matcher = self.matcher(query)
        for command in self.commands:
            score = max(matcher.match(command.name), matcher.match(command.help))
            if score > 0:
                yield Hit(score, matcher.highlight(command.name), command.run, help=command.help)


def iter_binding_commands(app: LotrAppBase, screen: Screen[Any]) -> Iterator[PaletteCommand]:
    """Yield the actions of a screen, of its widgets from the focused one on, and of the app."""
    focused = [node for node in screen.focused.ancestors_with_self if node is not screen] if screen.focused else []
    nodes: list[DOMNode] = [screen, *focused, *screen.query("*"), app]
    available: dict[tuple[type[DOMNode], str], tuple[DOMNode, Binding, dict[str, None]]] = {}
    for node in dict.fromkeys(nodes):
        for binding in collect_bindings(type(node)):
            _, name, parameters = parse(binding.action)
            if node.check_action(name, parameters) is not False:
                # Several widgets of a class, and several bindings of an action, make one command.
                _, _, keys = available.setdefault((type(node), binding.action), (node, binding, {}))
                keys.update(dict.fromkeys(app.format_binding_keys(binding).split()))
    for node, binding, keys in available.values():
        name = f"{binding.description}: {binding.tooltip}" if binding.tooltip else binding.description
        group = "This screen" if node is screen else "Everywhere" if node is app else str(node.BINDING_GROUP_TITLE)
        run = partial(app.run_action, binding.action, node)
        yield PaletteCommand(name, " ".join(keys), run, binding.action, group)


def iter_theme_commands(app: LotrAppBase) -> Iterator[PaletteCommand]:
    """Yield a command for each theme; the app saves the chosen one."""
    for name in sorted(app.available_themes):
        remark = "in use" if name == app.theme else ""
        yield PaletteCommand(f"theme: {name}", remark, partial(setattr, app, "theme", name))


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


def check_keymap(keymap: Mapping[str, str]) -> list[str]:
    """Return the problems of a keymap, one line each: unknown actions and keys bound twice.

    Textual reports a clash only with bindings without an id. Imports all screens and widgets.
    """
    tables = [bindings for _, bindings in iter_binding_tables()]
    known_ids = {str(binding.id) for table in tables for binding in table}
    problems = [f"unknown action {id!r}{suggest_nearest(id, known_ids)}" for id in keymap if id not in known_ids]
    for table in tables:
        bindings_by_key: dict[str, list[Binding]] = {}
        for binding in table:
            for key in _split_keys(keymap.get(str(binding.id), binding.key)):
                bindings_by_key.setdefault(key, []).append(binding)
        for key, bindings in bindings_by_key.items():
            is_changed = any(binding.id in keymap and key not in _split_keys(binding.key) for binding in bindings)
            if is_changed and len(bindings) > 1:
                ids = " and ".join(str(binding.id) for binding in bindings)
                problems.append(f"key {key} is bound to {ids}; choose another key for one of them")
    return list(dict.fromkeys(problems))


def iter_binding_tables() -> Iterator[tuple[type[DOMNode], list[Binding]]]:
    """Yield each screen and widget class with its bindings and the bindings of the app, which apply on every screen."""
    app_bindings = collect_bindings(LotrAppBase)
    for package in map(import_module, BINDING_PACKAGES):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            for _, node_type in inspect.getmembers(import_module(module.name), inspect.isclass):
                if issubclass(node_type, DOMNode) and node_type.__module__ == module.name:
                    yield node_type, [*collect_bindings(node_type), *app_bindings]


def _split_keys(keys: str) -> list[str]:
    return [key.strip() for key in keys.split(",")]
