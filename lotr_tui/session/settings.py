"""The settings that a session keeps for the next one."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

from engine.errors import RunError, UnusableInput
from engine.generation.settings import SamplerSettings
from engine.storage.files import home, read_file, write_atomically
from lotr_tui.session.json_store import check_version, from_record, parse, reason, set_aside

VERSION = 1
MAX_PACE = 1000.0
MOST_BYTES = 1_000_000
"""Of the file."""
Way = Literal["continue", "reply"]
"""continue: the text goes on behind the prompt; reply: the prompt is a line, and the model says the next one."""


@dataclass(frozen=True)
class Settings:
    """What is kept across sessions."""

    theme: str = "shire"
    """A Textual theme or ours; whether it exists only the app knows."""
    sampler: SamplerSettings = SamplerSettings()  # noqa: RUF009 - frozen
    """Temperature, top-k, top-p, min-p, repetition penalty and words."""
    pace: float = 25.0
    """Words a second on the screen; 0 is as fast as they come."""
    way: Way = "continue"
    keymap: Mapping[str, str] = field(default_factory=dict)
    """Keys in place of the default ones, by binding id, as `App.set_keymap` takes them: "ctrl+l,f5"."""

    def __post_init__(self) -> None:
        if not self.theme or not self.theme.isprintable():
            raise UnusableInput(f"theme {self.theme!r} is no name; use one that the palette lists")
        if not 0 <= self.pace <= MAX_PACE:  # NaN fails the comparison
            raise UnusableInput(f"pace {self.pace} is out of range; use 0 (full speed) to {MAX_PACE:g} words a second")
        if self.way not in get_args(Way):
            raise UnusableInput(f"way of playing {self.way!r} is unknown; use {' or '.join(get_args(Way))}")
        for binding, keys in self.keymap.items():
            if not binding or not all(_is_key(key.strip()) for key in keys.split(",")):
                raise UnusableInput(f"keys {keys!r} of {binding!r} are none; use names as ctrl+l, divided by commas")

    def to_json(self) -> str:
        """As it is written; `from_json` reads it."""
        record = asdict(replace(self, keymap=dict(self.keymap)))
        return json.dumps({"version": VERSION, **record}, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Settings":
        """Read what `to_json` wrote; what is missing has its default.

        Raises:
            UnusableInput: it is damaged, was written by a newer version, or a value is out of range.
        """
        record = parse(text)
        if not isinstance(record, dict):
            raise UnusableInput("it holds no settings")
        check_version(record.pop("version", None), VERSION)
        return from_record(cls, record, sampler=lambda value: from_record(SamplerSettings, value), keymap=_keymap)


def settings_file() -> Path:
    """Where settings are kept."""
    return home() / "settings.json"


class KeptSettings:
    """The settings in force, and the file they are kept in. Of two sessions the one that changes last is kept."""

    def __init__(self, path: Path | None = None) -> None:
        """Read the settings, or take the defaults; `notice` says what went wrong, "" if nothing did."""
        self.path = path or settings_file()
        self._said = False
        found, self.notice = self._read()
        self.current = found or Settings()

    def keep(self, **changes: Any) -> str:
        """Change some settings and write them all; the line returned is to be shown, "" if there is nothing to say.

        That they cannot be written is said once; they hold for this session all the same. A write waits for
        the disk, so this is for a choice made or a pause, not for each step of a slider.

        Raises:
            UnusableInput: a value is out of range; nothing has changed.
        """
        self.current = replace(self.current, **changes)
        _, notice = self._read()  # another session may have damaged it, or be a newer version
        if self.path.exists() and notice:
            return self._once(notice)  # it could not be set aside, so it must not be overwritten
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self.path, self.current.to_json().encode())
        except (OSError, RunError) as error:
            cause = error if isinstance(error, OSError) else error.__cause__
            return self._once(f"settings are not kept: {self.path}: {reason(cause)}; they hold until you leave")
        self._said = False
        return notice

    def _once(self, line: str) -> str:
        said, self._said = self._said, True
        return "" if said else line

    def _read(self) -> tuple[Settings | None, str]:
        """The settings in the file, None where there are none; and what there is to say."""
        try:
            return Settings.from_json(read_file(self.path, MOST_BYTES).decode()), ""
        except FileNotFoundError:
            return None, ""
        except OSError as error:
            return None, f"{self.path} cannot be read: {reason(error)}; the defaults are used"
        except (ValueError, UnusableInput) as error:
            return None, f"{set_aside(self.path, error)}; the defaults are used"


def _keymap(value: object) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(keys, str) for keys in value.values()):
        raise UnusableInput("keymap is no table of keys by binding id")
    return value


def _is_key(name: str) -> bool:
    return name.isprintable() and " " not in name and bool(name)
