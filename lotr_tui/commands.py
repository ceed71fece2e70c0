"""The command palette and its commands, made from the tables of bindings, and a check of the user's keymap."""

import inspect
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any, cast

from textual import on
from textual.actions import parse
from textual.await_complete import AwaitComplete
from textual.binding import Binding
from textual.command import Command, CommandList, DiscoveryHit, Hit, Hits, Provider
from textual.content import Content
from textual.dom import DOMNode
from textual.screen import Screen
from textual.widgets import Input, OptionList

from engine.errors import suggest_nearest
from lotr_tui.app_base import LotrAppBase
from lotr_tui.textual_fixes.app import RobustCommandPalette
from lotr_tui.theme import SHIRE, SHIRE_LIGHT
from lotr_tui.widgets.inputs import MAX_LINE_CHARACTERS

MAX_WIDTH = 100
"""Maximum width of the palette, so that the eye finds the key of a command."""
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

    @property
    def explanation(self) -> str:
        """Name without the label of the key in the footer, which comes before the first colon."""
        return self.name.partition(": ")[2] or self.name


@dataclass(frozen=True)
class ChooseTheme:
    """Function that uses a theme from now on."""

    app: LotrAppBase
    theme: str

    def __call__(self) -> None:
        """Use the theme."""
        self.app.choose_theme(self.theme)


class AppCommandPalette(RobustCommandPalette):
    """Command palette with one line per command, which shows a theme while the cursor is on it."""

    DEFAULT_CSS = f"""
    AppCommandPalette {{
        #--container {{ max-width: {MAX_WIDTH}; }}
        #--input {{ border: none; padding: 0 1; background: $panel; }}
        SearchIcon {{ display: none; }}
        CommandList {{
            border: none; padding: 0; max-height: 70vh; text-wrap: nowrap; text-overflow: ellipsis;
            background: $panel; scrollbar-size-vertical: 1;
        }}
        CommandList > .option-list--option {{ text-style: none; }}
    }}
    """

    def __init__(self) -> None:
        super().__init__(placeholder="Search for a command, a key or a theme")
        self._theme = self.app.theme
        self._is_cursor_moved = False
        self._row_width = 0

    def on_mount(self) -> None:
        """Configure the input; there is none if the palette was closed at once."""
        for search_input in self.query(Input):
            search_input.cursor_blink = False
            search_input.max_length = MAX_LINE_CHARACTERS

    def on_resize(self) -> None:
        """Format the rows for the new width."""
        for search_input in self.query(Input):
            if self._row_width not in (0, self._available_width):
                self._gather_commands(search_input.value.strip())

    @property
    def _available_width(self) -> int:
        """Width of a row without its padding and the scroll bar of the list."""
        return max(1, min(MAX_WIDTH, self.app.size.width) - 5)

    def _refresh_command_list(self, command_list: CommandList, commands: list[Command], clear_current: bool) -> None:
        self._row_width = self._available_width
        rows = [Command(_format_row(each.hit, self._row_width), each.hit, each.id) for each in commands]
        super()._refresh_command_list(command_list, rows, clear_current)

    # Preview of themes

    @on(Input.Changed)
    def _on_typed(self) -> None:
        self._is_cursor_moved = False  # the best match of a typed word may be a theme
        self.app.theme = self._theme

    def _action_command_list(self, action: str) -> None:
        self._is_cursor_moved = True
        super()._action_command_list(action)

    @on(OptionList.OptionHighlighted)
    def _preview_theme(self, event: OptionList.OptionHighlighted) -> None:
        command = event.option.hit.command if isinstance(event.option, Command) else None
        self.app.theme = command.theme if isinstance(command, ChooseTheme) and self._is_cursor_moved else self._theme

    def dismiss(self, result: Any = None) -> AwaitComplete:
        """Close the palette, and restore the theme unless another one was chosen."""
        chosen = self._selected_command.command if self._selected_command is not None else None
        if not isinstance(chosen, ChooseTheme):
            self.app.theme = self._theme
        return super().dismiss(result)


def _format_row(hit: DiscoveryHit | Hit, width: int) -> Content:
    """Return a line with the name of a command at the left and its key at the right edge."""
    name = hit.prompt if isinstance(hit.prompt, Content) else Content(str(hit.prompt))
    key = Content.styled(hit.help or "", "dim")
    left_width = max(1, width - key.cell_length - 2)
    return Content.assemble(name.truncate(left_width, ellipsis=True, pad=True), "  ", key)


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
    """Yield a command for each theme, the app's own first; the app saves the chosen one."""
    own = [theme.name for theme in (SHIRE, SHIRE_LIGHT)]
    for name in [*own, *sorted(set(app.available_themes) - set(own))]:
        remark = "in use" if name == app.theme else ""
        yield PaletteCommand(f"theme: {name}", remark, ChooseTheme(app, name))


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
