"""The tables of bindings of all screens and widgets."""

import inspect
import pkgutil
from importlib import import_module

from textual.dom import DOMNode

from lotr_tui.app import LotrApp
from lotr_tui.commands import collect_bindings


def iter_binding_tables():
    """Yield each screen and widget class with its bindings and the bindings of the app, which apply on every screen."""
    for package in map(import_module, ("lotr_tui.screens", "lotr_tui.widgets")):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            for _, node_type in inspect.getmembers(import_module(module.name), inspect.isclass):
                if issubclass(node_type, DOMNode) and node_type.__module__ == module.name:
                    yield node_type, [*collect_bindings(node_type), *collect_bindings(LotrApp)]
