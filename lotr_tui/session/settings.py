"""Settings that a session keeps for the next one, and their file."""

import json
import os
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

from engine.data.speakers import MAX_NAME_CHARACTERS
from engine.errors import InvalidInputError, RunError
from engine.generation.settings import SamplerSettings
from engine.storage.files import app_home, read_limited, write_atomically
from lotr_tui.session.json_store import FailureReporter, decode_versioned, os_error_reason, quarantine_file

VERSION = 4  # of the format; earlier ones had the settings of the models in common
MAX_PACE = 1000.0
MAX_ANSWERS = 64  # drawn for a turn; the engine has the same limit, in a module that imports numpy
DEFAULT_SAMPLER = SamplerSettings(temperature=0.7, min_p=0.05, max_tokens=40)
"""Sampling controls of a new model, with which small models speak more fluently than with a temperature alone."""
PRETRAINED_SAMPLER = replace(DEFAULT_SAMPLER, temperature=0.6, repetition_penalty=1.1, max_tokens=100)
"""Sampling controls of a large model by others, also with an adapter: it ends its lines, but repeats its own words."""
CHAT_SAMPLER = replace(PRETRAINED_SAMPLER, max_tokens=200)  # an answer by a chat template is seldom one line
MAX_SYSTEM_PROMPT_CHARACTERS = 2000
EXAMPLE_SYSTEM_PROMPT = "You are Gandalf, the wizard. Answer in one or two sentences."
MAX_RECENT_MODELS = 8  # by others, that are offered again
MAX_MODELS = 100  # whose settings are kept: the last ones that were changed
MAX_MODEL_NAME_CHARACTERS = 4096  # of a model by others, whose name may be a path
MAX_SETTINGS_BYTES = 1_000_000
ReplyMode = Literal["conversation", "continue", "reply"]
"""The model answers as a speaker or by its chat template, continues the text, or says the next line without names."""
PreviewUnit = Literal["word", "token"]
"""Unit of the likeliest continuations that are shown: whole words, or the tokens that the model predicts."""
REPLY_MODE_NOTE = (
    "this model learned each line on its own, in random order, so a reply hardly depends on what you say to it"
)


@dataclass(frozen=True)
class ModelSettings:
    """Settings by which one model answers, and its roles."""

    sampler: SamplerSettings = field(default_factory=lambda: DEFAULT_SAMPLER)
    best_of: int = 0  # answers that are drawn for a turn; 0 is the number of the model, and 1 turns the choice off
    speaking_as: str = ""  # who says the user's lines in a conversation; empty for a stranger
    answering: str = ""  # who answers; empty lets the model choose

    def __post_init__(self) -> None:
        check_best_of(self.best_of)
        for name, value in (("speaking_as", self.speaking_as), ("answering", self.answering)):
            if not value.isprintable() or len(value) > MAX_NAME_CHARACTERS:
                raise InvalidInputError(f"{name} {value[:MAX_NAME_CHARACTERS]!r} is not a name; leave it empty")


@dataclass(frozen=True)
class Settings:
    """Values that are kept across sessions."""

    theme: str = "shire"  # only the app can check that the theme exists
    models: Mapping[str, ModelSettings] = field(default_factory=dict)  # by name, the latest change last
    pace: float = 25.0  # tokens per second on the screen; 0 shows tokens as fast as they are generated
    reply_mode: ReplyMode = "conversation"  # that the user chose last; a model that lacks it has its own default
    system_prompt: str = ""  # of a model with a chat template; empty for the one of the template
    recent_models: tuple[str, ...] = ()  # by others, the latest first
    first_model: Literal["", "smollm2", "lstm"] = ""  # answer to the question of the first start; empty before it
    preview_unit: PreviewUnit = "word"
    keymap: Mapping[str, str] = field(default_factory=dict)  # keys by binding id, as for `App.set_keymap`: "ctrl+l,f5"
    export_folder: str = ""  # absolute path of the last export; empty before the first one
    baseline_run: str = ""  # absolute path of the run that others are compared with; empty for none

    def __post_init__(self) -> None:
        if not self.theme or not self.theme.isprintable():
            raise InvalidInputError(f"theme {self.theme!r} is not a name; choose a theme from the command palette")
        check_pace(self.pace)
        check_system_prompt(self.system_prompt)
        for name, path in (("export_folder", self.export_folder), ("baseline_run", self.baseline_run)):
            if path and not (path.isprintable() and Path(path).is_absolute()):
                raise InvalidInputError(f"{name} {path!r} is not an absolute path; leave it empty")
        for name, value, choices in (
            ("reply_mode", self.reply_mode, get_args(ReplyMode)),
            ("preview_unit", self.preview_unit, get_args(PreviewUnit)),
        ):
            if value not in choices:
                raise InvalidInputError(f"{name} {value!r} is unknown; use {' or '.join(choices)}")
        names = [*self.models, *self.recent_models]
        is_valid = all(name.isprintable() and len(name) <= MAX_MODEL_NAME_CHARACTERS for name in names)
        if not is_valid or len(self.models) > MAX_MODELS or len(self.recent_models) > MAX_RECENT_MODELS:
            raise InvalidInputError("models and recent_models are not the names of models; leave them empty")
        for binding, keys in self.keymap.items():
            names = [key.strip() for key in keys.split(",")]
            if not binding or not all(name and name.isprintable() and " " not in name for name in names):
                raise InvalidInputError(
                    f"keymap: keys {keys!r} of {binding!r} are not valid; use names like ctrl+l, separated by commas"
                )

    def to_json(self) -> str:
        """Return the content of a settings file."""
        record = asdict(replace(self, keymap=dict(self.keymap), models=dict(self.models)))
        return json.dumps({"version": VERSION, **record}, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Settings":
        """Read a settings file, or raise an InvalidInputError; missing fields take their defaults."""
        return decode_versioned(cls, text, VERSION)

    def changed(self, changes: Mapping[str, Any]) -> "Settings":
        """Return the settings after changes; of `models`, the changed ones become the latest."""
        changed = changes.get("models", {})
        others = {name: value for name, value in self.models.items() if name not in changed}
        models = dict(list({**others, **changed}.items())[-MAX_MODELS:])
        return replace(self, **{**changes, "models": models})


def settings_file() -> Path:
    """Return the path of the settings file."""
    return app_home() / "settings.json"


class SettingsStore:
    """Current settings and the file that keeps them.

    A session writes only the settings, and of `models` only the models, that it has changed. Threads may call `save`.
    """

    def __init__(self, path: Path | None = None) -> None:
        """Read the settings at `path`, or use the defaults; `notice` then says why, and is "" otherwise."""
        self.path = path or settings_file()
        self._failures = FailureReporter()
        self._unsaved: dict[str, Any] = {}
        self._save_lock = threading.Lock()
        stored, self.notice = self._read()
        self.current = stored or Settings()

    @property
    def has_unsaved_changes(self) -> bool:
        return bool(self._unsaved)

    def change(self, **changes: Any) -> None:
        """Change some settings, and only the given ones of `models`, unless a value is invalid; `save` writes them."""
        before = self.current
        models = {name: each for name, each in changes.pop("models", {}).items() if each != before.models.get(name)}
        self.current = before.changed({**changes, "models": models})
        different = {name: value for name, value in changes.items() if value != getattr(before, name)}
        if models:
            different["models"] = {**self._unsaved.get("models", {}), **models}
        self._unsaved = {**self._unsaved, **different}

    def save(self) -> str:
        """Write the changed settings. Return the first of several failures, or ""."""
        with self._save_lock:
            unsaved, current = self._unsaved, self.current
            stored, notice = self._read()  # another session may have changed the file, or written a newer format
            if notice and os.path.lexists(self.path):
                return self._failures.report(notice)  # a file that could not be set aside must not be overwritten
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                write_atomically(self.path, (stored or current).changed(unsaved).to_json().encode())
            except (OSError, RunError) as error:
                failure = f"settings are not saved: {self.path}: {os_error_reason(error)}; they apply until you quit"
                return self._failures.report(failure)
            self._unsaved = {name: value for name, value in self._unsaved.items() if unsaved.get(name) is not value}
            self._failures.report("")
            return notice

    def update(self, **changes: Any) -> str:
        """Change some settings as `change` does, and `save` them."""
        self.change(**changes)
        return self.save()

    def _read(self) -> tuple[Settings | None, str]:
        """Return the settings in the file, None if there are none, and a line for the user."""
        try:
            return Settings.from_json(read_limited(self.path, MAX_SETTINGS_BYTES).decode()), ""
        except FileNotFoundError:
            return None, ""
        except OSError as error:
            return None, f"{self.path} cannot be read: {os_error_reason(error)}; the defaults are used"
        except (ValueError, InvalidInputError) as error:
            return None, f"{quarantine_file(self.path, error)}; the defaults are used"


def check_best_of(best_of: int) -> None:
    """Raise an InvalidInputError if a number of answers to draw for a turn is out of range."""
    if not 0 <= best_of <= MAX_ANSWERS:
        raise InvalidInputError(
            f"best_of {best_of} is out of range; use 1 for one answer, up to {MAX_ANSWERS}, or 0 for automatic"
        )


def check_system_prompt(text: str) -> None:
    """Raise an InvalidInputError if a system prompt is too long or not one printable line."""
    if not text.isprintable():
        raise InvalidInputError("a system prompt is one line; leave out line breaks and control characters")
    if len(text) > MAX_SYSTEM_PROMPT_CHARACTERS:
        raise InvalidInputError(
            f"the system prompt has {len(text):,} characters; use at most {MAX_SYSTEM_PROMPT_CHARACTERS:,}"
        )


def check_pace(pace: float) -> None:
    """Raise an InvalidInputError if a pace, in words per second, is out of range."""
    if not 0 <= pace <= MAX_PACE:  # NaN fails the comparison
        raise InvalidInputError(f"pace {pace} is out of range; use 0 (full speed) to {MAX_PACE:g} words per second")
