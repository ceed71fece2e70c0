"""Settings that a session keeps for the next one, and their file."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

from engine.errors import InvalidInputError, RunError
from engine.generation.settings import SamplerSettings
from engine.storage.files import app_home, read_limited, write_atomically
from engine.storage.schema import decode, parse_json
from lotr_tui.session.json_store import FailureReporter, check_version, os_error_reason, quarantine_file

VERSION = 2
"""Format of the settings file; format 1 had other field names."""
MAX_PACE = 1000.0
MAX_SETTINGS_BYTES = 1_000_000
"""Size limit of the settings file."""
ReplyMode = Literal["continue", "reply"]
"""continue: the model continues the text of the prompt; reply: the prompt is a line, and the model says the next."""


@dataclass(frozen=True)
class Settings:
    """Values that are kept across sessions."""

    theme: str = "shire"
    """Name of a Textual theme or of one of the app's own; only the app can check that the theme exists."""
    sampler: SamplerSettings = SamplerSettings()  # noqa: RUF009 - frozen
    pace: float = 25.0
    """Tokens per second on the screen; 0 shows tokens as fast as they are generated."""
    reply_mode: ReplyMode = "continue"
    keymap: Mapping[str, str] = field(default_factory=dict)
    """Keys that replace the defaults, by binding id, in the format of `App.set_keymap`: "ctrl+l,f5"."""

    def __post_init__(self) -> None:
        if not self.theme or not self.theme.isprintable():
            raise InvalidInputError(f"theme {self.theme!r} is not a name; choose a theme from the command palette")
        if not 0 <= self.pace <= MAX_PACE:  # NaN fails the comparison
            raise InvalidInputError(
                f"pace {self.pace} is out of range; use 0 (full speed) to {MAX_PACE:g} words per second"
            )
        if self.reply_mode not in get_args(ReplyMode):
            raise InvalidInputError(
                f"reply_mode {self.reply_mode!r} is unknown; use {' or '.join(get_args(ReplyMode))}"
            )
        for binding, keys in self.keymap.items():
            if not binding or not all(_is_key_name(key.strip()) for key in keys.split(",")):
                raise InvalidInputError(
                    f"keymap: keys {keys!r} of {binding!r} are not valid; use names like ctrl+l, separated by commas"
                )

    def to_json(self) -> str:
        """Return the content of a settings file."""
        record = asdict(replace(self, keymap=dict(self.keymap)))
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
    """Current settings and the file that keeps them. If two sessions run, the last change of any setting wins."""

    def __init__(self, path: Path | None = None) -> None:
        """Read the settings at `path`, or use the defaults; `notice` then says why, and is "" otherwise."""
        self.path = path or settings_file()
        self._failures = FailureReporter()
        stored, self.notice = self._read()
        self.current = stored or Settings()

    def update(self, **changes: Any) -> str:
        """Change some settings and write the file. Return a line for the user, "" if there is nothing to report.

        If the file cannot be written, the first failure is reported and the changes still apply to this session.
        A write waits for the disk, so do not call this method for each step of a slider.

        Raises:
            InvalidInputError: If a value is out of range; nothing has changed.
        """
        self.current = replace(self.current, **changes)
        _, notice = self._read()  # another session may have damaged the file, or written a newer format
        if notice and os.path.lexists(self.path):
            return self._failures.report(notice)  # a file that could not be set aside must not be overwritten
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self.path, self.current.to_json().encode())
        except (OSError, RunError) as error:
            cause = error if isinstance(error, OSError) else error.__cause__
            return self._failures.report(
                f"settings are not saved: {self.path}: {os_error_reason(cause)}; they apply until you quit"
            )
        self._failures.reset()
        return notice

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


def _is_key_name(name: str) -> bool:
    return name.isprintable() and " " not in name and bool(name)
