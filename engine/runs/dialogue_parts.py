"""Parts of a dialogue model besides its network, each in a file of the run: the cast and the models of its speakers."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from engine.data.speakers import CAST_FILE, cast_from_json
from engine.models.base import LanguageModel
from engine.models.dialogue import DialogueModel
from engine.models.speakers import SpeakerTextModel, TurnModel
from engine.storage.schema import read_run_file, read_run_json

DIALOGUE_FILE, WHO_FILE = "dialogue.json", "who.json"
"""Files of the models of who speaks next and of who says a text, which is larger and seldom needed."""
DIALOGUE_FILES = (CAST_FILE, DIALOGUE_FILE, WHO_FILE)
MAX_FILE_BYTES = 64_000_000


@dataclass(frozen=True)
class DialogueParts:
    """Everything that a played dialogue model has besides its network."""

    run_dir: Path
    cast: tuple[str, ...]
    """Canonical names of the speakers that can be chosen to speak; the last is SOMEONE."""
    turn_model: TurnModel | None = None
    """Model of who speaks next; None for a model that was exported without its parts."""

    def wrap(self, model: LanguageModel) -> DialogueModel:
        """Return `model` with all parts of the run; parts of another cast raise an InvalidInputError."""
        if self.turn_model is None:
            return DialogueModel(model, self.cast)
        read_text_model = partial(read_run_json, SpeakerTextModel, self.run_dir / WHO_FILE, MAX_FILE_BYTES)
        return DialogueModel(model, self.cast, self.turn_model, read_text_model)


def read_dialogue_parts(run_dir: Path) -> DialogueParts:
    """Read the files of a run in dialogue mode; a missing or damaged file raises a RunError."""
    file = run_dir / CAST_FILE
    cast = cast_from_json(read_run_file(file, MAX_FILE_BYTES).decode(errors="replace"), str(file))
    return DialogueParts(run_dir, cast, read_run_json(TurnModel, run_dir / DIALOGUE_FILE, MAX_FILE_BYTES))
