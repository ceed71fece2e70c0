"""Labels of the speakers of a conversation: the name before each line, and the style that tells speakers apart."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len

from engine.data.speakers import display_name

SPEAKER_STYLES = tuple(f"speaker-{number}" for number in range(12))
"""Styles of the members of the cast; a larger cast uses them again."""
UNCAST_STYLE = "speaker"
"""Style of a speaker who is not in the cast of the model."""
USER_MARK = "❯"
"""Mark before a line that the user said."""
MODEL_CHOOSES = "the model chooses"
"""Text in place of a speaker, if the user has chosen none to answer."""
A_STRANGER = "a stranger"
"""Role of a user who is no member of the cast."""
STRANGER_LABEL = "You"
"""Label of a user who is no member of the cast."""
MIN_NAME_WIDTH, MAX_NAME_WIDTH = 7, 12
"""Least and greatest width in cells of the column of names."""


@dataclass(frozen=True)
class SpeakerLabel:
    """Name before a line of a conversation."""

    text: str
    style: str = UNCAST_STYLE
    """Name of the style of the speaker."""
    mark: str = ""
    """Sign before the name; empty for a line of the model."""


@dataclass(frozen=True)
class ExchangeSpeakers:
    """Speakers of an exchange: the user's line and the answer."""

    user: SpeakerLabel
    answerer: SpeakerLabel


def speaker_style(name: str, cast: Sequence[str]) -> str:
    """Return the name of a speaker's style, which depends on the place in the cast, so that it stays the same."""
    return SPEAKER_STYLES[cast.index(name) % len(SPEAKER_STYLES)] if name in cast else UNCAST_STYLE


def exchange_speakers(cast: Sequence[str], speaking_as: str, speaker: str) -> ExchangeSpeakers:
    """Return the labels of an exchange in which the user speaks as a member of `cast`, or "" as a stranger."""
    user = SpeakerLabel(STRANGER_LABEL, UNCAST_STYLE, USER_MARK)
    if speaking_as:
        user = SpeakerLabel(display_name(speaking_as), speaker_style(speaking_as, cast), USER_MARK)
    return ExchangeSpeakers(user, SpeakerLabel(display_name(speaker), speaker_style(speaker, cast)))


def chat_speakers(model_label: str) -> ExchangeSpeakers:
    """Return the labels of an exchange with a model that has no cast."""
    return ExchangeSpeakers(SpeakerLabel(STRANGER_LABEL, UNCAST_STYLE, USER_MARK), SpeakerLabel(model_label))


def name_column_width(cast: Sequence[str], model_label: str = "") -> int:
    """Return the width in cells of the column with the names of a cast, or of a model without one."""
    longest = max((cell_len(display_name(name)) for name in cast), default=cell_len(model_label))
    return max(MIN_NAME_WIDTH, min(MAX_NAME_WIDTH, longest))
