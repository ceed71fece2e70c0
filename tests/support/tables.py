"""The bindings of all screens and widgets."""

import pkgutil

from textual.dom import DOMNode

from lotr_tui.app import LotrApp, collect_bindings


def iter_binding_tables():
    """Import all screens and widgets; yield the bindings of each class with the ones of the app, which always apply."""
    for package in map(pkgutil.resolve_name, ("lotr_tui.screens", "lotr_tui.widgets")):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            for node_type in vars(pkgutil.resolve_name(module.name)).values():
                is_node = isinstance(node_type, type) and issubclass(node_type, DOMNode)
                if is_node and node_type.__module__ == module.name:
                    yield node_type, [*collect_bindings(node_type), *collect_bindings(LotrApp)]
