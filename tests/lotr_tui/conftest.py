"""Fixtures of the app: a small model with random weights, and apps that use it."""

from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
import textual._wait
import textual.screen
from textual.cache import LRUCache
from textual.css.model import RuleSet
from textual.css.stylesheet import Stylesheet

from engine.config import Config
from engine.generation.settings import SamplerSettings
from engine.models.numpy_lstm import NumpyLSTM
from engine.runs.loading import LoadedModel
from lotr_tui.app import LotrApp
from lotr_tui.session import settings
from lotr_tui.session.session_model import SessionModel
from tests.support.app import FakeJob, Host, UseJob, make_decoder

# After each key a pilot waits twice until the app was idle for 20 ms, so that the next frame, at most 17 ms away, is
# painted. Shorter times speed up the tests; they wait with `until` for everything that takes longer than a frame.
textual._wait.SLEEP_GRANULARITY = 0.01
textual._wait.SLEEP_IDLE = 0.0005
textual.screen.UPDATE_PERIOD = 0.004

parse_rules = Stylesheet._parse_rules


@cache
def shared_stylesheet(variables: tuple[tuple[str, str], ...]) -> Stylesheet:
    """Return the style sheet that parses the rules of every app with these variables."""
    stylesheet = Stylesheet(variables=dict(variables))
    stylesheet._parse_cache = LRUCache(4096)
    return stylesheet


def parse_rules_once(stylesheet: Stylesheet, *arguments: Any, **options: Any) -> list[RuleSet]:
    """Parse rules as `Stylesheet._parse_rules`, but only once for all apps of the tests."""
    return parse_rules(shared_stylesheet(tuple(stylesheet._variables.items())), *arguments, **options)


# Parsing the same rules for each app took a seventh of the time of a test.
Stylesheet._parse_rules = parse_rules_once  # type: ignore[method-assign]


@pytest.fixture(autouse=True)
def plain_sampler(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let sessions begin with the engine's own sampler settings, which the tests compare with."""
    monkeypatch.setattr(settings, "DEFAULT_SAMPLER", SamplerSettings())


@pytest.fixture
def decoder() -> NumpyLSTM:
    return make_decoder()


@pytest.fixture
def loaded(decoder: NumpyLSTM, tmp_path: Path) -> LoadedModel:
    return LoadedModel("bundled", tmp_path, Config(), decoder, 74.9, 94.1, "")


@pytest.fixture
def make_app(loaded: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., LotrApp]:
    """Return a function that creates the app with the small model, no pace limit and an empty home directory."""
    monkeypatch.setenv("LOTR_TUI_HOME", str(tmp_path))
    return partial(_make, LotrApp, loaded, tmp_path)


@pytest.fixture
def make_host(loaded: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Host]:
    """Return a function that creates a `Host` app as `make_app` creates the app."""
    monkeypatch.setenv("LOTR_TUI_HOME", str(tmp_path))
    return partial(_make, Host, loaded, tmp_path)


def _make(app_type: type[LotrApp], loaded: LoadedModel, home: Path, **options: Any) -> LotrApp:
    defaults = {"session_model": SessionModel.from_loaded(loaded), "runs_dir": home / "runs", "pace": 0}
    return app_type(**{**defaults, **options})


@pytest.fixture
def use_job(monkeypatch: pytest.MonkeyPatch) -> UseJob:
    """Return a function that lets the app run a job instead of a training, and returns the job."""

    def use(job: FakeJob) -> FakeJob:
        monkeypatch.setattr("engine.training.job.prepare_job", lambda *_, **__: job)
        return job

    return use


@pytest.fixture
def refused(command, home):
    """Return a function that runs a command that must be refused, and returns its line on stderr.

    A refused command exits with 2, prints nothing on stdout, and leaves the runs folder unchanged.
    """

    def run(*arguments, **options):
        before = sorted((home / "runs").rglob("*"))
        process = command(*arguments, **options)
        assert process.returncode == 2, process.stderr
        assert process.stdout == ""
        lines = process.stderr.splitlines()
        assert len(lines) == 1, process.stderr
        assert lines[0].startswith("lotr-tui: ")
        assert "Traceback" not in lines[0]
        assert len(lines[0]) < 1_000
        assert sorted((home / "runs").rglob("*")) == before
        return lines[0]

    return run
