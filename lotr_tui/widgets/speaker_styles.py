"""Component classes of a widget that shows names of speakers in their colours."""

from lotr_tui.session.cast import SPEAKER_STYLES, UNCAST_STYLE


def speaker_classes(prefix: str) -> set[str]:
    """Return the component classes of all styles of speakers, such as `prefix--speaker-0`."""
    return {f"{prefix}--{style}" for style in (UNCAST_STYLE, *SPEAKER_STYLES)}


def speaker_css(prefix: str) -> str:
    """Return the rules of these classes, for the style sheet of the widget: bold names in the colours of the theme."""
    colors = "".join(f".{prefix}--{style} {{ color: ${style}; }}" for style in SPEAKER_STYLES)
    return "".join(f".{name} {{ text-style: bold; }}" for name in sorted(speaker_classes(prefix))) + colors
