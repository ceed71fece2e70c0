"""Parts of a dialogue model besides its network, in two files of a run: statistics of the speakers, and a cache."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, TypeVar

from engine.errors import InvalidInputError, RunError
from engine.models.base import LanguageModel
from engine.models.cache import CacheSettings, NeuralCache
from engine.models.dialogue import DialogueModel
from engine.models.speaker_text import SpeakerTextModel
from engine.models.speaker_words import SpeakerWords
from engine.models.turn_taking import TurnModel
from engine.storage.files import read_limited
from engine.storage.schema import decode_json

Part = TypeVar("Part")

DIALOGUE_FILE, WHO_FILE = "dialogue.json", "who.json"
"""Files of the parts for predictions, and of the model of who says a text, which is larger and seldom needed."""
MAX_FILE_BYTES = 64_000_000
CACHE_SETTINGS = CacheSettings(window=512, theta=0.4, weight=0.03)
"""Cache of the scene. Twice the weight predicts a little better, but then answers repeat earlier lines."""


@dataclass(frozen=True)
class DialogueParts:
    """Everything that a played dialogue model has besides its network."""

    version: Literal[1]
    cache: CacheSettings
    """Cache of the tokens of the scene."""
    turn_model: TurnModel
    """Model of who speaks next."""
    speaker_words: SpeakerWords
    """Token frequencies of each speaker."""

    def wrap(self, model: LanguageModel, run_dir: Path) -> DialogueModel:
        """Return `model` with all parts of the run; a model of another cast raises an InvalidInputError."""
        cached = NeuralCache(model, self.cache) if self.cache.weight else model
        load_text_model = partial(_read_file, run_dir / WHO_FILE, SpeakerTextModel)
        return DialogueModel(cached, self.turn_model, speaker_words=self.speaker_words, load_text_model=load_text_model)


def read_dialogue_parts(run_dir: Path) -> DialogueParts:
    """Read the file of a run; a missing or damaged file raises a RunError."""
    return _read_file(run_dir / DIALOGUE_FILE, DialogueParts)


def _read_file(file: Path, type_: type[Part]) -> Part:
    try:
        return decode_json(type_, read_limited(file, MAX_FILE_BYTES))
    except FileNotFoundError as error:
        raise RunError(f"{file} is missing; the run is not complete") from error
    except OSError as error:
        raise RunError(f"{file} cannot be read: {error.strerror}; the run is damaged") from error
    except InvalidInputError as error:
        raise RunError(f"{file} is damaged: {str(error).removesuffix('.')}; train a new run") from error
