"""What a session keeps for the next one, and how a kept file is read: strictly, and set aside where damaged."""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from functools import cache
from itertools import count
from pathlib import Path
from types import UnionType
from typing import Any, Literal, TypeVar, cast, get_args, get_origin, get_type_hints

from engine.errors import LotrError, RunError, UnusableInput
from engine.files import home, write_atomically
from engine.sampling import SamplerSettings

T = TypeVar("T")

VERSION = 1
MAX_PACE = 1000.0
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
            return Settings.from_json(self.path.read_text(encoding="utf-8")), ""
        except FileNotFoundError:
            return None, ""
        except OSError as error:
            return None, f"{self.path} cannot be read: {reason(error)}; the defaults are used"
        except (ValueError, UnusableInput) as error:
            return None, f"{set_aside(self.path, error)}; the defaults are used"


def set_aside(path: Path, why: Exception) -> str:
    """Rename a damaged file to the first free `NAME.damaged-N`, so that nobody overwrites it; a line says so."""
    text = str(why) if isinstance(why, LotrError) else "it is no text"
    said = f"{path} cannot be used: {text[:200]}"
    try:
        for number in count(1):
            aside = path.with_name(f"{path.name}.damaged-{number}")
            try:
                aside.touch(exist_ok=False)  # takes the name, so that no other process does
            except FileExistsError:
                continue
            try:
                path.replace(aside)
            except OSError:
                aside.unlink()
                raise
            return f"{said}; set aside as {aside.name}"
    except OSError as error:
        return f"{said}; it cannot be set aside: {reason(error)}"
    raise AssertionError("numbers do not end")


def reason(error: BaseException | None) -> str:
    """What the system says of a failure with a file."""
    return (error.strerror if isinstance(error, OSError) else None) or "it failed"


def parse(text: str) -> Any:
    """JSON without NaN and infinity.

    Raises:
        UnusableInput: it is not JSON.
    """

    def refuse(name: str) -> None:
        raise ValueError(name)

    try:
        return json.loads(text, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise UnusableInput("it is not JSON") from error


def check_version(version: object, known: int) -> None:
    """Refuse what a newer version wrote, whose meaning is not known here.

    Raises:
        UnusableInput: the version is newer, or none.
    """
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise UnusableInput("it does not say its version")
    if version > known:
        raise UnusableInput("a newer lotr-tui wrote it")


def from_record(kind: type[T], record: object, **decoders: Callable[[Any], object]) -> T:
    """Build a dataclass from what JSON gave, each value checked against its field's type.

    Args:
        kind: the dataclass; its fields are str, int, float, Literal or one of those or None.
        record: an object with its fields; those with a default may be missing.
        decoders: for fields of other types, by name.

    Raises:
        UnusableInput: a field is missing, unknown or of another type, or the dataclass refuses a value.
    """
    if not isinstance(record, dict):
        raise UnusableInput(f"an object with the fields of {kind.__name__} is expected")
    hints, required = _fields(cast(Any, kind))
    if missing := required - record.keys():
        raise UnusableInput(f"{min(missing)} is missing")
    values = {}
    for name, value in record.items():
        if name not in hints:
            raise UnusableInput(f"unknown field {name!r}")
        if name in decoders:
            values[name] = decoders[name](value)
        elif fits(value, hints[name]):
            values[name] = value
        else:
            raise UnusableInput(f"{name} {value!r} is of the wrong type")
    return kind(**values)


def fits(value: object, hint: Any) -> bool:
    """Whether a value from JSON is of a field's type; numbers must be finite and of 64 bits."""
    if get_origin(hint) is Literal:
        return value in get_args(hint)
    if isinstance(hint, UnionType):
        return any(fits(value, part) for part in get_args(hint))
    if isinstance(value, bool) or hint not in (int, float):
        return isinstance(value, hint)
    if isinstance(value, int):
        return -(2**63) <= value < 2**63
    return hint is float and isinstance(value, float) and math.isfinite(value)


@cache
def _fields(kind: Any) -> tuple[dict[str, Any], frozenset[str]]:
    """The types of a dataclass's fields, and the names of those that have no default."""
    required = (f.name for f in fields(kind) if f.default is MISSING and f.default_factory is MISSING)
    return get_type_hints(kind), frozenset(required)


def _keymap(value: object) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(keys, str) for keys in value.values()):
        raise UnusableInput("keymap is no table of keys by binding id")
    return value


def _is_key(name: str) -> bool:
    return name.isprintable() and " " not in name and bool(name)
