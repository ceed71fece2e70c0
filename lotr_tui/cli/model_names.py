"""Names of models in reports."""

from collections.abc import Sequence

from engine.models.pretrained.names import is_pretrained_name, parse_pretrained_name


def report_names(names: Sequence[str]) -> list[str]:
    """Return the names of models as tables show them: of a folder or file only the last part.

    Names that would be the same are not shortened.
    """
    short = [_short_name(name) for name in names]
    return [label if short.count(label) == 1 else name for name, label in zip(names, short, strict=True)]


def _short_name(name: str) -> str:
    if not is_pretrained_name(name):
        return name
    source = parse_pretrained_name(name)
    return name if source.kind == "hub" else f"{name.partition(':')[0]}:{source.short_name}"
