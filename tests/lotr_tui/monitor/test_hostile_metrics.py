"""Damaged and hostile metrics in every reader: commands, the dashboard with its keys, the list of runs."""

import json
from dataclasses import fields

import pytest
from textual.widgets import OptionList

from engine import events
from engine.runs.directory import METRICS_FILE
from lotr_tui.monitor import run_follower
from lotr_tui.screens.runs.screen import RunsScreen
from tests.support.app import attached
from tests.support.files import write_run
from tests.support.pilot import lines_of, until

ESCAPES = "\x1b[31mred\x1b]0;title\x07\x9b2J\u202eevil\x00"
STARTED = events.Started("r", "tiny", 99, 5, 100, 10, 40, "cpu", "", 151.0, 94.0)


def row(event, **values):
    return events.event_to_dict(event) | values


def step_row(number, **values):
    return row(events.Step(number, number / 10, 100.0, 0.01, 1.0, 1000.0, float(number), 9.0), **values)


def evaluation_row(number, **values):
    return row(events.Evaluated(number, number / 10, 90.0, True, float(number)), **values)


VALID = [row(STARTED), step_row(1), evaluation_row(1), step_row(2), evaluation_row(2)]
HUGE = dict.fromkeys(("epoch", "seconds", "train_perplexity", "valid_perplexity", "lr"), 1e308)
EVENT_TYPES = (
    events.Started, events.Step, events.Evaluated, events.Sampled, events.CommandApplied, events.Finished, events.Failed
)  # fmt: skip
OTHER_TYPES = [
    {"event": events.EVENT_NAMES[event_type]} | {item.name: value for item in fields(event_type)}
    for event_type in EVENT_TYPES
    for value in (None, True, "x", ESCAPES, [1], {"a": [[]]}, 5, -1, 1.5, 1e308, 2**63, "")
]
RECORDS = {
    "huge numbers": [*VALID, step_row(10**18, **HUGE), evaluation_row(10**18, **HUGE)],
    "beyond 64 bits": [
        *VALID, *(each(2**64 - 1) for each in (step_row, evaluation_row)), step_row(3, step=10**30),
        evaluation_row(3, step=10**400),
    ],
    "below nothing": [row(STARTED), step_row(-5, epoch=-1, seconds=-5, lr=-1), evaluation_row(-3, epoch=-2.0)],
    "other types": OTHER_TYPES,
    "backwards": [
        row(STARTED), *map(step_row, (1, 2, 3, 990, 40, 3, 2, 99, 1, 0)), *map(evaluation_row, (9, 3, 99, 1))
    ],
    "odd resumes": [*VALID, *({"event": "resume", "step": value} for value in (-9, True, 10**19, None)), step_row(4)],
    "escapes": [
        row(STARTED, device=ESCAPES, preset=ESCAPES, run=ESCAPES), evaluation_row(1),
        row(events.CommandApplied(1, 0.1, ESCAPES, ESCAPES)), row(events.Failed(ESCAPES * 500)),
    ],
}  # fmt: skip


def write_rows(run, rows):
    (run / METRICS_FILE).write_text("".join(json.dumps(each) + "\n" for each in rows))


@pytest.fixture
def run(tmp_path, monkeypatch):
    home = tmp_path / "home"
    monkeypatch.setenv("LOTR_TUI_HOME", str(home))
    monkeypatch.setattr(run_follower, "POLL_INTERVAL", 0.01)
    return write_run(home / "runs" / "r")


async def test_the_dashboard_and_the_list_show_the_valid_rows_and_no_control_characters(run):
    """Every key that moves on the curve works; all runs are marked, drawn in one chart, compared and sorted."""
    without_perplexity = [evaluation_row(3, valid_perplexity=0.0), evaluation_row(4, valid_perplexity=-1.0)]
    write_rows(run, [*RECORDS["huge numbers"], *without_perplexity, *OTHER_TYPES])
    for number, rows in enumerate(RECORDS.values()):
        write_rows(other := write_run(run.with_name(f"r{number}")), rows)
        config = json.loads((other / "config.json").read_text())
        config["data"]["corpus"] = config["preset"] = f"{ESCAPES}{number}"
        (other / "config.json").write_text(json.dumps(config))
    app = attached(run)
    async with app.run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: not app.screen.view.is_active or app.screen.view.notice)
        await pilot.press("left_square_bracket", "right_square_bracket", "right", "left", "plus", "z", "home", "end")
        await pilot.press("ctrl+o")
        await until(pilot, lambda: isinstance(app.screen, RunsScreen) and app.screen.query_one(OptionList).options)
        for _ in RECORDS:
            await pilot.press("space", "down")
        await pilot.press("c", "s", "s", "s")
        await pilot.pause()
        lines = [line for widget in app.screen.query("*") for line in lines_of(widget).split("\n")]
        assert any("]0;title" in line for line in lines)
        assert [line for line in lines if not line.isprintable()] == []
