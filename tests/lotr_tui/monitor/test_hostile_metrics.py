"""A damaged or hostile record in front of every reader: commands, the dashboard with its keys, the list of runs."""

import json
import os
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from textual.widgets import OptionList

from engine.events import Evaluated, Failed, Finished, Sampled, Started, Steered, Step, TrainingEvent, to_record
from engine.runs.store import METRICS, SAMPLES
from lotr_tui.cli import attach
from lotr_tui.cli.attach import AttachApp
from lotr_tui.monitor import followed_run
from lotr_tui.screens.runs.screen import RunsScreen
from tests.conftest import write_run
from tests.lotr_tui.screens.session.test_session_screen import until

ESCAPES = "\x1b[31mred\x1b]0;title\x07\x9b2J\u202eevil\x00"
VALUES = (None, True, "x", ESCAPES, [1], {"a": [[]]}, 5, -1, 1.5, 1e308, 2**63, "")
STARTED = Started("r", "tiny", 99, 5, 100, 10, 40, "cpu", "", 151.0, 94.0)


def step(number: int, **values: Any) -> dict[str, Any]:
    return to_record(Step(number, number / 10, 100.0, 0.01, 1.0, 1000.0, float(number), 9.0)) | values


def evaluated(number: int, **values: Any) -> dict[str, Any]:
    return to_record(Evaluated(number, number / 10, 90.0, True, float(number))) | values


def lines(*rows: dict[str, Any]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def of_any_type() -> bytes:
    kinds: tuple[type[TrainingEvent], ...] = (Started, Step, Evaluated, Sampled, Steered, Finished, Failed)
    return lines(
        *(
            {"event": kind.__name__.lower()} | {item.name: value for item in fields(kind)}
            for kind in kinds
            for value in VALUES
        )
    )


USUAL = lines(to_record(STARTED), step(1), evaluated(1), step(2), evaluated(2))
WILD = {"epoch": 1e308, "seconds": 1e308, "train_perplexity": 1e308, "valid_perplexity": 1e308, "lr": 1e308}
RECORDS = {
    "binary": bytes(range(256)) * 2000,
    "beyond floats": USUAL + b'{"event": "evaluated", "valid_perplexity": 1e400}\n{"event": "step", "lr": NaN}\n',
    "huge numbers": USUAL + lines(step(10**18, **WILD), evaluated(10**18, **WILD)),
    "a huge end": USUAL + lines(to_record(Finished("done", "r", 1e308, 1e308, 1e308, 1e308))),
    "beyond 64 bits": USUAL
    + lines(step(2**64 - 1), evaluated(2**64 - 1), step(3, step=10**30), evaluated(3, step=10**400)),
    "below nothing": lines(to_record(STARTED), step(-5, epoch=-1, seconds=-5, lr=-1), evaluated(-3, epoch=-2.0)),
    "no perplexities": USUAL + lines(step(3, train_perplexity=0.0), evaluated(3, valid_perplexity=-1.0)),
    "other types": of_any_type(),
    "backwards": lines(
        to_record(STARTED), *map(step, (1, 2, 3, 990, 40, 3, 2, 99, 1, 0)), *map(evaluated, (9, 3, 99, 1))
    ),
    "odd resumes": USUAL + lines(*({"event": "resume", "step": value} for value in (-9, True, 10**19, None)), step(4)),
    "escapes": lines(
        to_record(STARTED) | {"device": ESCAPES, "preset": ESCAPES, "run": ESCAPES},
        evaluated(1),
        to_record(Steered(1, 0.1, ESCAPES, ESCAPES)),
        to_record(Failed(ESCAPES * 500)),
    ),
    "not utf-8": USUAL
    + b'{"event": "failed", "message": "\xff\xfe"}\n\xff\n{"event": "failed", "message": "\xc2\x9b"}\n',
    "deep": USUAL + b"[" * 200_000 + b"\n" + b'{"event": "a", "x": ' + b'{"y":' * 1000 + b"1" + b"}" * 1001 + b"\n",
    "a line without end": USUAL + b'{"event": "failed", "message": "' + b"x" * 20_000_000,
    "torn": USUAL + lines(step(3))[:40],
    "holes": USUAL + b"\x00" * 50_000 + b"\n" + lines(step(3)) + b"\x00" * 4096,
}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = tmp_path / "home"
    monkeypatch.setenv("LOTR_TUI_HOME", str(home))
    for name, value in ((followed_run, "LOOK_SECONDS"), (attach, "TAKE_SECONDS"), (attach, "POLL_SECONDS")):
        monkeypatch.setattr(name, value, 0.01)
    return write_run(home / "runs" / "r")


@pytest.mark.parametrize(
    ("kind", "name"),
    [*((kind, METRICS) for kind in RECORDS), *((kind, SAMPLES) for kind in ("binary", "other types", "escapes"))],
)
def test_commands_say_what_can_be_read(command: Any, run: Path, tmp_path: Path, kind: str, name: str) -> None:
    (run / METRICS).write_bytes(USUAL)
    (run / name).write_bytes(RECORDS[kind])
    for number, arguments in enumerate(
        (
            ["status", "r"],
            ["status", "r", "--json"],
            ["runs"],
            ["runs", "show", "r"],
            ["runs", "export", "r", "--csv", "out"],
        )
    ):
        done = command(*arguments)
        assert (done.returncode, done.stderr) == (0, ""), arguments
        text = done.stdout.replace("\n", "")
        assert "\x1b" not in text
        assert number in (1, 3) or text.isprintable()
        if arguments[-1] == "--json" or "show" in arguments:
            json.loads(done.stdout, parse_constant=lambda constant: pytest.fail(f"{constant} is no JSON"))
    assert (tmp_path / "out").is_dir()


def test_tensorboard_gets_steps_that_it_can_hold(run: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from lotr_tui.monitor.export import export_tensorboard

    (run / METRICS).write_bytes(RECORDS["beyond 64 bits"])
    export_tensorboard(run, tmp_path / "logs")
    assert list((tmp_path / "logs").iterdir())


KEYS = ["y", "x", "m", "left", "comma", "plus", "left_square_bracket"]


@pytest.mark.parametrize("kind", RECORDS)
async def test_the_dashboard_shows_what_can_be_read(run: Path, kind: str) -> None:
    """Every key that looks at the curve works; nothing that is not text reaches the terminal."""
    (run / METRICS).write_bytes(RECORDS[kind])
    app = AttachApp(run)
    async with app.run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: app.training.notice.startswith(("", "nobody")) and app._told)
        await until(pilot, lambda: "reading" not in app.training.notice)
        for key in KEYS:
            await pilot.press(key)
        assert app.is_running


async def test_the_list_of_runs_shows_what_can_be_read(run: Path) -> None:
    """All of them marked and drawn over one another, their differences told, in each order."""
    for number, kind in enumerate(RECORDS):
        (write_run(run.with_name(f"r{number}")) / METRICS).write_bytes(RECORDS[kind])
    app = AttachApp(run)
    async with app.run_test(size=(120, 40)) as pilot:
        await pilot.press("ctrl+o")
        await until(pilot, lambda: isinstance(app.screen, RunsScreen) and app.screen.query_one(OptionList).options)
        for _ in RECORDS:
            await pilot.press("space", "down")
        await pilot.press("d", "s", "s", "S")
        assert app.is_running


@pytest.mark.parametrize("kind", ["folder", "pipe", "missing"])
@pytest.mark.parametrize("name", [METRICS, SAMPLES])
async def test_what_is_no_file_is_said_and_the_dashboard_stays(run: Path, kind: str, name: str) -> None:
    (run / METRICS).write_bytes(USUAL)
    (run / name).unlink(missing_ok=True)
    if kind == "folder":
        (run / name).mkdir()
    elif kind == "pipe":
        os.mkfifo(run / name)
    app = AttachApp(run)
    async with app.run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: app._told)
        await pilot.press("left", "right", "comma", "left", "home", "end")  # there are no samples
        if name == METRICS:
            await until(pilot, lambda: METRICS in app.training.notice)
        assert app.is_running
