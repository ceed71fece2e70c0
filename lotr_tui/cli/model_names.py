"""Names of models in reports."""

from collections.abc import Sequence

from engine.models.pretrained.names import is_pretrained_name, parse_pretrained_name


def report_names(names: Sequence[str]) -> list[str]:
    """Return the names of models as tables show them: see `report_name`.

    Names that would be the same are not shortened.
    """
    short = [report_name(name) for name in names]
    return [label if short.count(label) == 1 else name for name, label in zip(names, short, strict=True)]


def report_name(name: str) -> str:
    """Return the name of a model for a report on this model alone: of a folder or file only the last part."""
    if not is_pretrained_name(name):
        return name
    source = parse_pretrained_name(name)
    return name if source.kind in ("hub", "stored") else f"{name.partition(':')[0]}:{source.short_name}"
