"""Dialog for the two speakers that the lens compares."""

from collections.abc import Sequence
from typing import ClassVar

from textual.binding import Binding, BindingType

from engine.data.speakers import MAX_NAME_CHARACTERS, display_name, find_speaker
from engine.errors import InvalidInputError
from lotr_tui.screens.dialogs.line_dialog import LineDialog
from lotr_tui.screens.lens.who.evidence import SpeakerPair


class SpeakerPairDialog(LineDialog[SpeakerPair]):
    """Dialog that asks for the names of two speakers, separated by a comma."""

    KEYS = (("enter", "compare", "submit"), ("esc", "cancel", "dismiss(None)"))
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "dismiss(None)", "cancel", id="speaker-pair.cancel", tooltip="Keep the two speakers")
    ]

    def __init__(self, cast: Sequence[str], pair: SpeakerPair) -> None:
        """Suggest `pair`, two members of `cast`."""
        names = ", ".join(map(display_name, pair))
        super().__init__(
            "Compare two speakers", names, placeholder="Gandalf, Gollum", max_length=4 * MAX_NAME_CHARACTERS
        )
        self._cast = cast

    def parse(self, line: str) -> SpeakerPair:
        """Return the two speakers.

        Raises:
            InvalidInputError: If there are not two names, or one is not in the cast.
        """
        names = [name.strip() for name in line.split(",") if name.strip()]
        if len(names) != 2:
            raise InvalidInputError(f"{len(names)} names do not make a pair; write two, like Gandalf, Gollum")
        first, second = (find_speaker(name, self._cast) for name in names)
        if first == second:
            raise InvalidInputError(f"both names are {display_name(first)}; write two different ones")
        return SpeakerPair(first, second)
