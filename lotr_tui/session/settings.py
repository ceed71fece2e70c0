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
from engine.storage.schema import decode, parse_json
from lotr_tui.session.json_store import FailureReporter, check_version, os_error_reason, quarantine_file

VERSION = 4
"""Format of the settings file; earlier ones had the settings of the models in common."""
MAX_PACE = 1000.0
MAX_ANSWERS = 64
"""Maximum number of answers that are drawn for a turn; the engine has the same one, in a module that imports numpy."""
DEFAULT_SAMPLER = SamplerSettings(temperature=0.7, min_p=0.05, max_tokens=40)
"""Sampling controls of a new model, with which small models speak more fluently than with a temperature alone."""
PRETRAINED_SAMPLER = replace(DEFAULT_SAMPLER, temperature=0.6, repetition_penalty=1.1, max_tokens=100)
"""Sampling controls of a large model by others, also with an adapter: it ends its lines, but repeats its own words."""
CHAT_SAMPLER = replace(PRETRAINED_SAMPLER, max_tokens=200)
"""Sampling controls of a model that answers by its chat template, which is seldom one line."""
MAX_SYSTEM_PROMPT_CHARACTERS = 2000
"""Maximum length of a system prompt."""
EXAMPLE_SYSTEM_PROMPT = "You are Gandalf, the wizard. Answer in one or two sentences."
"""System prompt that the interface offers as an example."""
MAX_RECENT_MODELS = 8
"""Maximum number of models by others that are offered again."""
MAX_MODELS = 100
"""Number of models whose settings are kept: the last ones that were changed."""
MAX_MODEL_NAME_CHARACTERS = 4096
"""Maximum length of the name of a model by others, which may be a path."""
MAX_SETTINGS_BYTES = 1_000_000
"""Size limit of the settings file."""
ReplyMode = Literal["conversation", "continue", "reply"]
"""conversation: the prompt is a line of one speaker, and the model says the next as another, or answers by its chat
template; continue: the model continues the text of the prompt; reply: the prompt is a line, and the model says the
next, without speakers."""
PreviewUnit = Literal["word", "token"]
"""Unit of the likeliest continuations that are shown: whole words, or the tokens that the model predicts."""
REPLY_MODE_NOTE = (
    "this model learned each line on its own, in random order, so a reply hardly depends on what you say to it"
)
"""Note about replies of a model whose training lines were shuffled, for the session and for `generate --reply`."""


@dataclass(frozen=True)
class ModelSettings:
    """Settings by which one model answers, and its roles."""

    sampler: SamplerSettings = field(default_factory=lambda: DEFAULT_SAMPLER)
    best_of: int = 0
    """Number of answers that are drawn for a turn; 0 is the number of the model, and 1 turns the choice off."""
    speaking_as: str = ""
    """Speaker of the user's lines in a conversation; empty for a stranger."""
    answering: str = ""
    """Speaker who answers; empty lets the model choose."""

    def __post_init__(self) -> None:
        check_best_of(self.best_of)
        for name, value in (("speaking_as", self.speaking_as), ("answering", self.answering)):
            if not value.isprintable() or len(value) > MAX_NAME_CHARACTERS:
                raise InvalidInputError(f"{name} {value[:MAX_NAME_CHARACTERS]!r} is not a name; leave it empty")


@dataclass(frozen=True)
class Settings:
    """Values that are kept across sessions."""

    theme: str = "shire"
    """Name of a Textual theme or of one of the app's own; only the app can check that the theme exists."""
    models: Mapping[str, ModelSettings] = field(default_factory=dict)
    """Settings of each model that the user has changed them for, by its name, the latest last."""
    pace: float = 25.0
    """Tokens per second on the screen; 0 shows tokens as fast as they are generated."""
    reply_mode: ReplyMode = "conversation"
    """Mode that the user chose last; a model that cannot be used in it is used in its own default mode."""
    system_prompt: str = ""
    """Text that tells a model with a chat template who it is; empty for the one of the template."""
    recent_models: tuple[str, ...] = ()
    """Names of the models by others that were used last, the latest first."""
    first_model: Literal["", "smollm2", "lstm"] = ""
    """Answer to the question of the first start; empty before it was asked."""
    preview_unit: PreviewUnit = "word"
    keymap: Mapping[str, str] = field(default_factory=dict)
    """Keys that replace the defaults, by binding id, in the format of `App.set_keymap`: "ctrl+l,f5"."""
    export_folder: str = ""
    """Absolute path of the folder of the last export; empty before the first one."""
    baseline_run: str = ""
    """Absolute path of the run that others are compared with; empty for none."""

    def __post_init__(self) -> None:
        if not self.theme or not self.theme.isprintable():
            raise InvalidInputError(f"theme {self.theme!r} is not a name; choose a theme from the command palette")
        check_pace(self.pace)
        for name, path in (("export_folder", self.export_folder), ("baseline_run", self.baseline_run)):
            if path and not (path.isprintable() and Path(path).is_absolute()):
                raise InvalidInputError(f"{name} {path!r} is not an absolute path; leave it empty")
        if self.reply_mode not in get_args(ReplyMode):
            raise InvalidInputError(
                f"reply_mode {self.reply_mode!r} is unknown; use {' or '.join(get_args(ReplyMode))}"
            )
        if len(self.models) > MAX_MODELS or not all(map(_is_model_name, self.models)):
            raise InvalidInputError(f"models are not the settings of up to {MAX_MODELS} models; leave the field empty")
        check_system_prompt(self.system_prompt)
        if len(self.recent_models) > MAX_RECENT_MODELS or not all(map(_is_model_name, self.recent_models)):
            raise InvalidInputError(f"recent_models are not up to {MAX_RECENT_MODELS} names; leave the list empty")
        if self.preview_unit not in get_args(PreviewUnit):
            raise InvalidInputError(
                f"preview_unit {self.preview_unit!r} is unknown; use {' or '.join(get_args(PreviewUnit))}"
            )
        for binding, keys in self.keymap.items():
            if not binding or not all(_is_key_name(key.strip()) for key in keys.split(",")):
                raise InvalidInputError(
                    f"keymap: keys {keys!r} of {binding!r} are not valid; use names like ctrl+l, separated by commas"
                )

    def to_json(self) -> str:
        """Return the content of a settings file."""
        record = asdict(replace(self, keymap=dict(self.keymap), models=dict(self.models)))
        return json.dumps({"version": VERSION, **record}, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Settings":
        """Read the content of a settings file; missing fields take their defaults.

        Raises:
            InvalidInputError: If the text is damaged, was written in another format, or holds an invalid value.
        """
        record = parse_json(text)
        if not isinstance(record, dict):
            raise InvalidInputError("expected an object with settings")
        check_version(record.pop("version", None), VERSION)
        return decode(cls, record)


def settings_file() -> Path:
    """Return the path of the settings file."""
    return app_home() / "settings.json"


class SettingsStore:
    """Current settings and the file that keeps them.

    If two sessions run, the last change of each setting wins: a session writes only the settings that it has changed,
    and of `models` only the models whose settings it has changed. `save` may run in another thread.
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
        """True if a setting was changed since the last successful `save`."""
        return bool(self._unsaved)

    def change(self, **changes: Any) -> None:
        """Change some settings of this session; `save` writes them. Models outside `models` stay as they are.

        Raises:
            InvalidInputError: If a value is out of range; nothing has changed.
        """
        models = self.current.models
        changed_models = {name: each for name, each in changes.pop("models", {}).items() if each != models.get(name)}
        changed = _changed(self.current, {**changes, "models": changed_models})
        different = {name: value for name, value in changes.items() if value != getattr(self.current, name)}
        if changed_models:
            different["models"] = {**self._unsaved.get("models", {}), **changed_models}
        self.current = changed
        self._unsaved = {**self._unsaved, **different}

    def save(self) -> str:
        """Write the changed settings. Return a line for the user, "" if there is nothing to report.

        If the file cannot be written, the first failure is reported and the changes still apply to this session.
        A write waits for the disk.
        """
        with self._save_lock:
            unsaved, current = self._unsaved, self.current
            stored, notice = self._read()  # another session may have changed the file, or written a newer format
            if notice and os.path.lexists(self.path):
                return self._failures.report(notice)  # a file that could not be set aside must not be overwritten
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                write_atomically(self.path, _changed(stored or current, unsaved).to_json().encode())
            except (OSError, RunError) as error:
                cause = error if isinstance(error, OSError) else error.__cause__
                return self._failures.report(
                    f"settings are not saved: {self.path}: {os_error_reason(cause)}; they apply until you quit"
                )
            self._unsaved = {name: value for name, value in self._unsaved.items() if unsaved.get(name) is not value}
            self._failures.reset()
            return notice

    def update(self, **changes: Any) -> str:
        """Change some settings and write the file. Return a line for the user, "" if there is nothing to report.

        Raises:
            InvalidInputError: If a value is out of range; nothing has changed.
        """
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


def default_model_settings(*, is_pretrained: bool, is_chat: bool) -> ModelSettings:
    """Return how a model answers until the user changes that.

    Args:
        is_pretrained: True if the model is by others, also with an adapter.
        is_chat: True if it answers by a chat template.
    """
    return ModelSettings(CHAT_SAMPLER if is_chat else PRETRAINED_SAMPLER if is_pretrained else DEFAULT_SAMPLER)


def _changed(settings: Settings, changes: Mapping[str, Any]) -> Settings:
    """Return settings after changes; of `models`, the changed ones become the latest."""
    changed = changes.get("models", {})
    others = [item for item in settings.models.items() if item[0] not in changed]
    models = dict([*others, *changed.items()][-MAX_MODELS:])
    return replace(settings, **{**changes, "models": models})


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


def _is_model_name(name: str) -> bool:
    return name.isprintable() and len(name) <= MAX_MODEL_NAME_CHARACTERS


def _is_key_name(name: str) -> bool:
    return name.isprintable() and " " not in name and bool(name)
