"""Settings and prompts that one session keeps for the next, and what their files have in common."""

import json
import os
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from msgspec import Meta

from engine.data.speakers import MAX_NAME_CHARACTERS
from engine.errors import InvalidInputError, LotrError, RunError
from engine.generation.settings import SamplerSettings
from engine.storage import files
from lotr_tui.formatting import describe_scale

VERSION = 5  # of the settings
MAX_PACE = 1000.0
MAX_STRENGTH = 1.5  # of a change of a model, such as an adapter: 0 is the model as it came, 1 as trained
MAX_ANSWERS = 64  # drawn for a turn; the engine has the same limit, in a module that imports numpy
# With these controls, small models speak more fluently than with a temperature alone.
DEFAULT_SAMPLER = SamplerSettings(temperature=0.7, min_p=0.05, max_tokens=40)
# A large model by others, also with an adapter, ends its lines but repeats its own words.
PRETRAINED_SAMPLER = replace(DEFAULT_SAMPLER, temperature=0.6, repetition_penalty=1.1, max_tokens=100)
CHAT_SAMPLER = replace(PRETRAINED_SAMPLER, max_tokens=200)  # an answer by a chat template is seldom one line
MAX_SYSTEM_PROMPT_CHARACTERS = 2000
EXAMPLE_SYSTEM_PROMPT = "You are Gandalf, the wizard. Answer in one or two sentences."
MAX_RECENT_MODELS = 8  # by others, that are offered again
MAX_MODELS = 100  # whose settings are kept: the last ones that were changed
MAX_MODEL_NAME_CHARACTERS = 4096  # of a model by others, whose name may be a path
MAX_SETTINGS_BYTES = 1_000_000
MAX_CAUSE_LENGTH = 200  # of a cause in the message about a damaged file, which may quote the file
MAX_PROMPTS = 1000
MAX_HISTORY_BYTES = 2_000_000  # at the end of the file that are read; older prompts are dropped
# The model answers as a speaker or by its chat template, continues the text, or says the next line without names.
ReplyMode = Literal["conversation", "continue", "reply"]
Strength = Annotated[float, Meta(ge=0, le=MAX_STRENGTH)]
PreviewUnit = Literal["word", "token"]  # of the likeliest continuations that are shown
T = TypeVar("T")


@dataclass(frozen=True)
class ModelSettings:
    """Settings by which one model answers, and its roles."""

    sampler: SamplerSettings = field(default_factory=lambda: DEFAULT_SAMPLER)
    best_of: int = 0  # answers that are drawn for a turn; 0 is the number of the model, and 1 turns the choice off
    speaking_as: str = ""  # who says the user's lines in a conversation; empty for a stranger
    answering: str = ""  # who answers; empty lets the model choose
    strengths: Mapping[str, Strength] = field(default_factory=dict)  # of changes of the model, such as adapters

    def __post_init__(self) -> None:
        if not 0 <= self.best_of <= MAX_ANSWERS:
            use = f"use 1 for one answer, up to {MAX_ANSWERS}, or 0 for automatic"
            raise InvalidInputError(f"best-of {self.best_of} is out of range; {use}")
        for name, value in (("speaking_as", self.speaking_as), ("answering", self.answering)):
            if not value.isprintable() or len(value) > MAX_NAME_CHARACTERS:
                raise InvalidInputError(f"{name} {value[:MAX_NAME_CHARACTERS]!r} is not a name; leave it empty")


@dataclass(frozen=True)
class SessionSetup:
    """What a session answers with since its latest reply began, and what brings it back."""

    model: str  # as `/model` loads it
    adapters: tuple[tuple[str, Strength], ...]  # beside the model: runs as `/adapter` finds them, and strengths
    steering: str  # as `/steer` finds it; empty without one
    settings: ModelSettings
    system_prompt: str
    reply_mode: ReplyMode

    def __post_init__(self) -> None:
        check_system_prompt(self.system_prompt)


@dataclass(frozen=True)
class Settings:
    theme: str = "shire"  # only the app can check that the theme exists
    models: Mapping[str, ModelSettings] = field(default_factory=dict)  # by name, the latest change last
    pace: float = 25.0  # tokens per second on the screen; 0 shows tokens as fast as they are generated
    reply_mode: ReplyMode = "conversation"  # that the user chose last; a model that lacks it has its own default
    system_prompt: str = ""  # of a model with a chat template; empty for the one of the template
    recent_models: tuple[str, ...] = ()  # by others, the latest first
    first_model: Literal["", "smollm2", "lstm"] = ""  # answer to the question of the first start; empty before it
    preview_unit: PreviewUnit = "word"
    knows_colors: bool = False  # True once a terminal of few colours was told how it gets more
    export_folder: str = ""  # absolute path of the last export; empty before the first one

    def __post_init__(self) -> None:
        if not self.theme or not self.theme.isprintable():
            raise InvalidInputError(f"theme {self.theme!r} is not a name; choose a theme from the command palette")
        check_pace(self.pace)
        check_system_prompt(self.system_prompt)
        folder = self.export_folder
        if folder and not (folder.isprintable() and Path(folder).is_absolute()):
            raise InvalidInputError(f"export_folder {folder!r} is not an absolute path; leave it empty")
        names = [*self.models, *self.recent_models]
        is_valid = all(name.isprintable() and len(name) <= MAX_MODEL_NAME_CHARACTERS for name in names)
        if not is_valid or len(self.models) > MAX_MODELS or len(self.recent_models) > MAX_RECENT_MODELS:
            raise InvalidInputError("models and recent_models are not the names of models; leave them empty")

    def to_json(self) -> str:
        return json.dumps({"version": VERSION, **asdict(self)}, indent=2) + "\n"

    def changed(self, changes: Mapping[str, Any]) -> "Settings":
        """Return the settings after changes; of `models`, the changed ones become the latest."""
        changed = changes.get("models", {})
        others = {name: value for name, value in self.models.items() if name not in changed}
        models = dict(list({**others, **changed}.items())[-MAX_MODELS:])
        return replace(self, **{**changes, "models": models})


def check_system_prompt(text: str) -> None:
    """Raise an InvalidInputError if a system prompt is too long or not one printable line."""
    if not text.isprintable():
        raise InvalidInputError("a system prompt is one line; leave out line breaks and control characters")
    if len(text) > MAX_SYSTEM_PROMPT_CHARACTERS:
        most = f"use at most {MAX_SYSTEM_PROMPT_CHARACTERS:,}"
        raise InvalidInputError(f"the system prompt has {len(text):,} characters; {most}")


def read_strength(text: str, change: str = "") -> float:
    """Return a strength of a change that was typed, in hundredths, or raise an InvalidInputError."""
    try:
        strength = float(text)
    except ValueError:
        raise InvalidInputError(f"{text[:20]!r} is not a number; a strength is 0 to {MAX_STRENGTH}") from None
    if not 0 <= strength <= MAX_STRENGTH:  # NaN fails the comparison
        zero, one = describe_scale(change)
        use = f"use 0 ({zero}) to {MAX_STRENGTH}; 1 is {one}"
        raise InvalidInputError(f"strength {text[:20]!r} is out of range; {use}")
    return round(strength, 2)


def read_best_of(text: str) -> int:
    """Return a number of answers that was typed, 0 for `auto` and for nothing, or raise an InvalidInputError."""
    if text in ("", "auto"):
        return 0
    if not text.isdecimal():
        raise InvalidInputError(f"best-of {text[:20]!r} is no number of answers; use auto or a number from 1")
    return int(text[:9])


def check_pace(pace: float) -> None:
    """Raise an InvalidInputError if a pace, in words per second, is out of range."""
    if not 0 <= pace <= MAX_PACE:  # NaN fails the comparison
        raise InvalidInputError(f"pace {pace} is out of range; use 0 (full speed) to {MAX_PACE:g} words per second")


def settings_file() -> Path:
    return files.app_home() / "settings.json"


class SettingsStore:
    """Current settings and their file, to which a session writes only its own changes, of `models` by name."""

    def __init__(self, path: Path | None = None) -> None:
        """Read the settings at `path`, or use the defaults; `notice` then says why, and is "" otherwise."""
        self.path = path or settings_file()
        self.unsaved: dict[str, Any] = {}  # changed settings by name
        self._failures = FailureReporter()
        self._save_lock = threading.Lock()
        stored, self.notice = self._read()
        self.current = stored or Settings()

    def change(self, **changes: Any) -> None:
        """Change some settings, and only the given ones of `models`, unless a value is invalid; `save` writes them."""
        before = self.current
        models = {name: each for name, each in changes.pop("models", {}).items() if each != before.models.get(name)}
        self.current = before.changed({**changes, "models": models})
        different = {name: value for name, value in changes.items() if value != getattr(before, name)}
        if models:
            different["models"] = {**self.unsaved.get("models", {}), **models}
        self.unsaved = {**self.unsaved, **different}

    def save(self) -> str:
        """Write the changed settings. Return the first of several failures, or ""."""
        with self._save_lock:
            unsaved, current = self.unsaved, self.current
            stored, notice = self._read()  # another session may have changed the file, or written a newer format
            if notice and os.path.lexists(self.path):
                return self._failures.report(notice)  # a file that could not be set aside must not be overwritten
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                files.write_atomically(self.path, (stored or current).changed(unsaved).to_json().encode())
            except (OSError, RunError) as error:
                failure = f"settings are not saved: {self.path}: {os_error_reason(error)}; they apply until you quit"
                return self._failures.report(failure)
            self.unsaved = {name: value for name, value in self.unsaved.items() if unsaved.get(name) is not value}
            self._failures.report("")
            return notice

    def _read(self) -> tuple[Settings | None, str]:
        return read_versioned(Settings, self.path, VERSION, MAX_SETTINGS_BYTES, "the defaults are used")


# Prompts


def history_file() -> Path:
    """Return the path of the prompts: one JSON string per line, oldest first."""
    return files.app_home() / "history.jsonl"


class PromptHistory:
    """The latest prompts, oldest first: those in the file at the start, to which all sessions append, and new ones."""

    def __init__(self, path: Path | None = None) -> None:
        """Read the prompts; an unreadable file counts as empty, and damaged lines are skipped."""
        self.path = path or history_file()
        self.entries: list[str] = []
        self._unsaved: list[str] = []
        self._failures = FailureReporter()
        try:
            with os.fdopen(files.open_regular_file(self.path), "rb") as file:
                file.seek(max(0, file.seek(0, 2) - MAX_HISTORY_BYTES))
                content = file.read()
        except OSError:
            content = b""
        self._line_end = b"" if content[-1:] in (b"", b"\n") else b"\n"  # ends a line that was cut off on a full disk
        for line in content.splitlines():
            try:
                text = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(text, str) and text.strip() and self.entries[-1:] != [text]:
                self.entries.append(text)
        del self.entries[:-MAX_PROMPTS]

    def add(self, text: str) -> str:
        """Save a prompt, unless it is blank or the latest one. Return the first of several failures, or ""."""
        if not text.strip() or self.entries[-1:] == [text]:
            return ""
        for texts in (self.entries, self._unsaved):
            texts.append(text)
            del texts[:-MAX_PROMPTS]
        problem = ""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            fd = files.open_regular_file(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)  # which follows no link
            with os.fdopen(fd, "ab") as file:
                file.write(self._line_end + b"".join(json.dumps(each).encode() + b"\n" for each in self._unsaved))
            self._unsaved, self._line_end = [], b""
        except OSError as error:
            problem, self._line_end = f"prompts are not saved: {self.path}: {os_error_reason(error)}", b"\n"
        return self._failures.report(problem)


# Files of JSON


class FailureReporter:
    """Filter that reports a repeated failure once, until the operation has succeeded again."""

    def __init__(self) -> None:
        self._has_failed = False

    def report(self, message: str) -> str:
        """Return the message of the first failure; "" for the failures that follow, and for a success without one."""
        is_repeated, self._has_failed = self._has_failed, bool(message)
        return "" if is_repeated else message


def name_for_damaged(path: Path) -> Path:
    """Return the first free `NAME.damaged-N` beside a file."""
    names = (path.with_name(f"{path.name}.damaged-{number}") for number in count(1))
    return next(name for name in names if not name.exists())


def quarantine_file(path: Path, cause: Exception) -> str:
    """Rename a damaged file to the first free `NAME.damaged-N`, and return a line that says so."""
    reason = str(cause) if isinstance(cause, LotrError) else "not a text file"
    message = f"{path} cannot be used: {reason[:MAX_CAUSE_LENGTH]}"
    try:
        quarantined = name_for_damaged(path)
        path.replace(quarantined)
    except OSError as error:
        return f"{message}; it cannot be set aside: {os_error_reason(error)}"
    return f"{message}; set aside as {quarantined.name}"


def os_error_reason(error: BaseException | None) -> str:
    """Return the operating system's description of a file error, or of the one that caused it."""
    cause = error if isinstance(error, OSError) or error is None else error.__cause__
    return (cause.strerror if isinstance(cause, OSError) else None) or "unknown error"


def read_versioned(type_: type[T], path: Path, version: int, max_bytes: int, instead: str) -> tuple[T | None, str]:
    """Read an object of JSON with a `version`, missing fields of which take their defaults; None without a file.

    The line for the user says why a file cannot be read, and what happens `instead`. A damaged one is set aside.
    """
    try:
        record = files.parse_json(files.read_limited(path, max_bytes).decode())
        if not isinstance(record, dict):
            raise InvalidInputError("expected an object of JSON")
        check_version(record.pop("version", None), version)
        return files.decode(type_, record), ""
    except FileNotFoundError:
        return None, ""
    except OSError as error:
        return None, f"{path} cannot be read: {os_error_reason(error)}; {instead}"
    except (ValueError, InvalidInputError) as error:
        return None, f"{quarantine_file(path, error)}; {instead}"


class FormatVersionError(InvalidInputError):
    """Refusal of a file that another release of lotr-tui wrote."""


def check_version(version: object, supported: int) -> None:
    """Refuse the version of a file that another release wrote, by a FormatVersionError."""
    if type(version) is not int or version < 1:
        raise InvalidInputError(f"version is missing or not a whole number; expected {supported}")
    if version > supported:
        raise FormatVersionError(f"written by a newer lotr-tui (format {version}); update lotr-tui to read it")
    if version < supported:
        raise FormatVersionError(f"written by an older lotr-tui (format {version}); use that release to read it")
