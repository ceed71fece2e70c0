"""Tables of key bindings."""

from textual.binding import Binding, BindingType


def binding_table(id_prefix: str, table: str, *, show: bool = False) -> list[BindingType]:
    """Return the bindings of a table with one line per binding and fields separated by `|`.

    The fields are the last part of the binding id, which starts with `id_prefix` and a dot, the keys, the action, the
    description, the tooltip and, optionally, the keys as the footer shows them. With `show=False`, only the palette and
    the help show the bindings.
    """
    bindings: list[BindingType] = []
    for line in table.strip().splitlines():
        name, keys, action, description, tooltip, *footer_keys = (field.strip() for field in line.split("|"))
        key_display = "".join(footer_keys) or None
        bindings.append(
            Binding(keys, action, description, show, key_display, id=f"{id_prefix}.{name}", tooltip=tooltip)
        )
    return bindings
