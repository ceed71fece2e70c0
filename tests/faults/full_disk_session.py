"""Files of a session on a disk that is almost full: its replies, prompts, settings and exports."""

import json
import random
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from engine.errors import LotrError
from lotr_tui.session.export import EXPORTERS, export_session
from lotr_tui.session.export_path import suggest_export_path
from lotr_tui.session.history import PromptHistory
from lotr_tui.session.saved_session import SavedSession
from lotr_tui.session.session_file import SessionWriter, load_session
from lotr_tui.session.settings import Settings, SettingsStore
from tests.faults.small_disk import SmallDisk
from tests.support.sessions import saved_reply

MAX_FREE_BYTES = 40_000


class FullDiskSession:
    """Session whose files are saved on a disk that is filled first."""

    def __init__(self, home: Path, disk: SmallDisk, seed: int = 0) -> None:
        self.disk = disk
        self.home = home
        self.rng = random.Random(seed)
        self.writer = SessionWriter("bundled", home / "sessions")
        self.history = PromptHistory(home / "history.jsonl")
        self.settings = SettingsStore(home / "settings.json")
        self.exports = home / "exports"
        self.exports.mkdir(parents=True)
        self.num_replies = 0

    def save_on_full_disk(self) -> bool:
        """Save everything on an almost full disk, then with enough space. Return True if the first attempt failed.

        Raises:
            AssertionError: If an error does not name its path, a file is damaged, or something was never written.
        """
        self.disk.fill(self.rng.randrange(MAX_FREE_BYTES))
        try:
            errors = self._save_everything()
            self._check_files(complete=False)
        finally:
            self.disk.free()
        for error in errors:
            assert str(self.home) in error, error
        errors_with_space = self._save_everything()
        assert not errors_with_space, errors_with_space
        self._check_files(complete=True)
        for file in self.exports.iterdir():
            file.unlink()
        return bool(errors)

    def _save_everything(self) -> list[str]:
        """Save a new reply, prompt and setting, export the session, and return the error messages."""
        errors = []
        reply = saved_reply(self.num_replies)
        # About 8 KB, since a file can grow by less than a page without taking up space.
        reply = replace(reply, tokens=reply.tokens * (1 + 100 // max(1, len(reply.tokens))))
        self.num_replies += 1
        actions: list[Callable[[], object]] = [
            lambda: self.writer.save(reply),
            lambda: self.history.add(f"prompt {self.num_replies} {'and so on ' * 500}"),
            self._export,
        ]
        for action in actions:
            try:
                action()
            except LotrError as error:
                errors.append(str(error))
        return [*errors, *filter(None, [self.settings.update(pace=float(self.num_replies % 100))])]

    def _export(self) -> None:
        name = f"session.{self.rng.choice(list(EXPORTERS))}"
        export_session(self._latest_replies(), suggest_export_path(self.exports, name))

    def _latest_replies(self) -> SavedSession:
        """Return the session with its latest replies only, which is quick to export."""
        session = self.writer.session
        return replace(session, replies=session.replies[-3:], current_id=None)

    def _check_files(self, *, complete: bool) -> None:
        """Check that every file is valid and, if `complete`, that everything was written.

        Raises:
            AssertionError: If a file is damaged or incomplete.
        """
        sessions = list((self.home / "sessions").glob("*"))
        assert all(path.suffix == ".jsonl" for path in sessions), sessions
        reply_counts = [len(load_session(path).replies) for path in sessions]
        assert reply_counts == [self.num_replies] if complete else len(reply_counts) <= 1, reply_counts
        prompts = PromptHistory(self.history.path).entries
        lines = self.history.path.read_bytes().splitlines() if self.history.path.exists() else []
        assert [json.loads(line) for line in lines] == prompts
        path = self.settings.path
        settings = Settings.from_json(path.read_text(encoding="utf-8")) if path.exists() else None
        if complete:
            assert prompts == self.history.entries
            assert settings == self.settings.current
        for file in self.exports.iterdir():
            text = file.read_text(encoding="utf-8")
            if file.suffix == ".json":
                json.loads(text)
            elif file.suffix == ".svg":
                ET.fromstring(text)
            else:
                assert text.startswith("# ") or file.suffix == ".txt", file  # a .txt file is a script
                assert text.endswith("\n"), file
        leftovers = [item.name for item in self.home.rglob(".*")]
        assert not leftovers, leftovers
