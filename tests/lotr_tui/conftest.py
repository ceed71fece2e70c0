"""Fixtures of the app: a small model with random weights, and apps that use it."""

from contextlib import asynccontextmanager
from functools import cache, partial

import pytest
import textual._wait
import textual.screen
from textual.cache import LRUCache
from textual.css.stylesheet import Stylesheet

from engine.config import Config
from engine.events import Checkpointed, Evaluated, Started
from engine.generation.settings import SamplerSettings
from engine.runs.directory import MODEL_FILE
from engine.runs.loading import LoadedModel
from lotr_tui.app import LotrApp
from lotr_tui.session import settings
from lotr_tui.session.session_model import SessionModel
from tests.support.app import Host, make_decoder
from tests.support.commands import refusal, run_here
from tests.support.runs import append_events

# After each key a pilot waits twice until the app was idle for 20 ms, so that the next frame, at most 17 ms away, is
# painted. Shorter times speed up the tests; they wait with `until` for everything that takes longer than a frame.
# Textual has no public access to these times, nor to the parsing of styles below.
textual._wait.SLEEP_GRANULARITY = 0.01  # noqa: SLF001
textual._wait.SLEEP_IDLE = 0.0005  # noqa: SLF001
textual.screen.UPDATE_PERIOD = 0.004

parse_rules = Stylesheet._parse_rules  # noqa: SLF001


@cache
def shared_stylesheet(variables):
    stylesheet = Stylesheet(variables=dict(variables))
    stylesheet._parse_cache = LRUCache(4096)  # noqa: SLF001
    return stylesheet


def parse_rules_once(stylesheet, *arguments, **options):
    """Parse rules as `Stylesheet._parse_rules`, but only once for all apps of the tests."""
    variables = tuple(stylesheet._variables.items())  # noqa: SLF001
    return parse_rules(shared_stylesheet(variables), *arguments, **options)


# Parsing the same rules for each app took a seventh of the time of a test.
Stylesheet._parse_rules = parse_rules_once  # noqa: SLF001


@pytest.fixture(autouse=True)
def plain_sampler(monkeypatch):
    """Let sessions begin with the engine's own sampler settings, which the tests compare with."""
    monkeypatch.setattr(settings, "DEFAULT_SAMPLER", SamplerSettings())


@pytest.fixture
def decoder():
    return make_decoder()


@pytest.fixture
def loaded(decoder, tmp_path):
    started = Started("bundled", "tiny", 99, 5, 100, 10, 40, "cpu", "", 151.0, 94.1)
    append_events(tmp_path, [started, Evaluated(1, 1.0, 74.9, True, 1.0), Checkpointed(1, MODEL_FILE)])
    return LoadedModel("bundled", tmp_path, Config(), decoder)


@pytest.fixture
def make_app(loaded, tmp_path, monkeypatch):
    """Return a function that creates the app with the small model, no pace limit and an empty home directory."""
    monkeypatch.setenv("LOTR_TUI_HOME", str(tmp_path))
    defaults = {"session_model": SessionModel.from_loaded(loaded), "runs_dir": tmp_path / "runs", "pace": 0}
    return lambda app_type=LotrApp, **options: app_type(**{**defaults, **options})


@pytest.fixture
def make_host(make_app):
    """Return a function that creates a `Host` app as `make_app` creates the app."""
    return partial(make_app, Host)


def context_of(make):
    @asynccontextmanager
    async def opened(size=(160, 45), notifications=False, **options):
        app = make(**options)
        async with app.run_test(size=size, notifications=notifications) as pilot:
            yield pilot, app

    return opened


@pytest.fixture
def opened(make_app):
    """Return a context with the pilot and the app, in a terminal of `size`; `make_app` gets the other options."""
    return context_of(make_app)


@pytest.fixture
def hosted(make_host):
    """Return a context as `opened`, with a `Host` app."""
    return context_of(make_host)


@pytest.fixture
def use_job(monkeypatch):
    """Return a function that lets the app run a job instead of a training, and returns the job."""

    def use(job):
        monkeypatch.setattr("engine.training.job.prepare_job", lambda *_, **__: job)
        return job

    return use


@pytest.fixture
def lotr(home, tmp_path, monkeypatch):
    """Return a function that runs `lotr-tui` in this process, in a folder outside the checkout."""
    monkeypatch.chdir(tmp_path)
    return lambda *arguments, **options: run_here(arguments, **{"LOTR_TUI_HOME": str(home), **options})


@pytest.fixture
def refused(lotr, home):
    """Return a function that runs a command that must be refused and change no run, and returns its line on stderr."""

    def run(*arguments, **options):
        before = sorted((home / "runs").rglob("*"))
        line = refusal(lotr(*arguments, **options))
        assert len(line) < 1_000
        assert sorted((home / "runs").rglob("*")) == before
        return line

    return run
