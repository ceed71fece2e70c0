"""The command palette and its commands, made from the tables of bindings."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from textual.actions import parse
from textual.app import App
from textual.binding import Binding
from textual.command import Command, CommandList, DiscoveryHit, Hit, Hits, Provider
from textual.content import Content
from textual.dom import DOMNode
from textual.screen import Screen
from textual.widgets import Input

from lotr_tui.textual_fixes.app import RobustCommandPalette
from lotr_tui.theme import SHIRE, SHIRE_LIGHT
from lotr_tui.widgets.inputs import MAX_LINE_CHARACTERS

MAX_WIDTH = 100  # of the palette, so that the eye finds the key of a command


@dataclass(frozen=True)
class PaletteCommand:
    """Command of the palette and line of the help."""

    name: str
    help: str  # keys of the command, or a remark
    run: Callable[[], Any]
    action: str = ""  # of the binding; empty for a theme
    group: str = ""  # heading in the help

    @property
    def explanation(self) -> str:
        """Name without the label of the key in the footer, which comes before the first colon."""
        return self.name.partition(": ")[2] or self.name


class AppCommandPalette(RobustCommandPalette):
    """Command palette with one line per command, its key at the right edge."""

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
        super().__init__([PaletteCommandProvider], placeholder="Search for a command, a key or a theme")
        self._row_width = 0

    def on_mount(self) -> None:
        for search_input in self.query(Input):  # none if the palette was closed at once
            search_input.cursor_blink = False
            search_input.max_length = MAX_LINE_CHARACTERS

    def on_resize(self) -> None:
        for search_input in self.query(Input):
            if self._row_width not in (0, self._available_width):
                self._gather_commands(search_input.value.strip())

    @property
    def _available_width(self) -> int:
        return max(1, min(MAX_WIDTH, self.app.size.width) - 5)

    def _refresh_command_list(self, command_list: CommandList, commands: list[Command], clear_current: bool) -> None:
        self._row_width = self._available_width
        rows = []
        for command in commands:
            prompt, key = command.hit.prompt, Content.styled(command.hit.help or "", "dim")
            name = prompt if isinstance(prompt, Content) else Content(str(prompt))
            name = name.truncate(max(1, self._row_width - key.cell_length - 2), ellipsis=True, pad=True)
            rows.append(Command(Content.assemble(name, "  ", key), command.hit, command.id))
        super()._refresh_command_list(command_list, rows, clear_current)


class PaletteCommandProvider(Provider):
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

    async def discover(self) -> Hits:
        for command in self.commands:
            yield DiscoveryHit(command.name, command.run, help=command.help)

    async def search(self, query: str) -> Hits:
        matcher = self.matcher(query)
        for command in self.commands:
            score = max(matcher.match(command.name), matcher.match(command.help))
            if score > 0:
                yield Hit(score, matcher.highlight(command.name), command.run, help=command.help)


def iter_binding_commands(app: App[Any], screen: Screen[Any]) -> Iterator[PaletteCommand]:
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
